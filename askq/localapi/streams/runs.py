"""The events of one leg of a run: from its creation, or from the tool outputs, to its end or to the next calls."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from askq.localapi.engines.base import Outcome
from askq.localapi.files.products import Products
from askq.localapi.scribes.assistants import AssistantsScribe, run_wire
from askq.localapi.scribes.made import step_wire
from askq.localapi.store import Store
from askq.localapi.streams.parts import DraftProducts, DraftStore, Event, Part, pieces
from askq.localapi.wire import JsonObject
from askq.localapi.work import Work

_STEP_NOTHING = dict.fromkeys(("completed_at", "cancelled_at", "expired_at", "failed_at", "last_error", "usage"))
_MESSAGE_NOTHING = dict.fromkeys(("completed_at", "incomplete_at", "incomplete_details"))


class RunTeller:
    """Words the events of a leg. `first`: what is told before everything else; `before`: how many steps
    there were before the leg."""

    def __init__(
        self, work: Work, store: Store, products: Products, first: list[Event], *, before: int, include: frozenset[str]
    ) -> None:
        self._work = work
        self._store = store
        self._products = products
        self._include = include
        self._first = first
        self._before = copy.deepcopy(work.made[:before])

    def opening(self) -> list[Event]:
        """Before it is in progress."""
        return self._first

    def in_progress(self) -> list[Event]:
        """When it has left the queue."""
        return [("thread.run.in_progress", self._run("in_progress"))]

    def cancelling(self) -> list[Event]:
        """When a cancel was asked for."""
        return [("thread.run.cancelling", self._run("cancelling"))]

    def _run(self, status: str) -> JsonObject:
        run = run_wire(self._work, self._work.started)
        if run["started_at"] is None and status == "in_progress" and self._work.begun_at is not None:
            run["started_at"] = int(self._work.begun_at)
        nothing = dict.fromkeys(("completed_at", "cancelled_at", "failed_at", "required_action", "last_error", "usage"))
        return {**run, **nothing, "incomplete_details": None, "status": status}

    def parts(self, outcome: Outcome, at: float) -> list[Part]:
        """The steps of an outcome, or of as much of it as there is; each function call is a part."""
        messages = DraftStore(self._store)
        steps = self._work.made[len(self._before) :]
        if not steps:
            draft = dataclasses.replace(self._work, made=copy.deepcopy(self._before))
            AssistantsScribe(messages, DraftProducts(self._products)).write(draft, outcome, at)
            steps = draft.made[len(self._before) :]
        parts: list[Part] = []
        for made in steps:
            step = step_wire(made, self._include)
            details = step["step_details"]
            if details["type"] == "message_creation":
                message_id = details["message_creation"]["message_id"]
                message = messages.drafted.get(message_id) or self._store.get("message", message_id)
                if message is not None:  # it may have been deleted since
                    parts.append(_message_part(step, message))
            else:
                parts.extend(_call_parts(step, details["tool_calls"]))
        return parts

    def ending(self, now: float) -> list[Event]:
        """When the leg is over."""
        run = run_wire(self._work, now)
        if run["status"] in ("queued", "in_progress"):
            return []  # the outputs were given before the calls had been told
        return [(f"thread.run.{run['status']}", run)]

    def trouble(self, code: str, message: str) -> list[Event]:
        """When it cannot be told any further."""
        return [("error", {"error": {"message": message, "type": "server_error", "param": None, "code": code}})]


def _opened_step(step: JsonObject, details: JsonObject) -> list[Event]:
    shell = {**step, **_STEP_NOTHING, "status": "in_progress", "step_details": details}
    return [("thread.run.step.created", shell), ("thread.run.step.in_progress", shell)]


def _closed_step(step: JsonObject) -> list[Event]:
    """None for a step that waits for outputs."""
    return [] if step["status"] == "in_progress" else [(f"thread.run.step.{step['status']}", step)]


def _message_part(step: JsonObject, message: JsonObject) -> Part:
    shell = {**message, **_MESSAGE_NOTHING, "status": "in_progress", "content": []}

    def delta(index: int, kind: str, body: JsonObject) -> Event:
        content = [{"index": index, "type": kind, kind: body}]
        return "thread.message.delta", {
            "id": message["id"],
            "object": "thread.message.delta",
            "delta": {"content": content},
        }

    said: list[Event] = []
    for index, part in enumerate(message["content"]):
        if part["type"] != "text":
            said.append(delta(index, part["type"], part[part["type"]]))
            continue
        for number, piece in enumerate(pieces(part["text"]["value"])):
            said.append(delta(index, "text", {"value": piece} if number else {"value": piece, "annotations": []}))
        said.extend(
            delta(index, "text", {"annotations": [{"index": number, **annotation}]})
            for number, annotation in enumerate(part["text"]["annotations"])
        )
    end = "incomplete" if message["status"] == "incomplete" else "completed"
    return Part(
        opened=[
            *_opened_step(step, step["step_details"]),
            ("thread.message.created", shell),
            ("thread.message.in_progress", shell),
        ],
        said=said,
        closed=[(f"thread.message.{end}", message), *_closed_step(step)],
        say=lambda piece: delta(0, "text", {"value": piece}),
    )


def _call_parts(step: JsonObject, calls: list[JsonObject]) -> list[Part]:
    return [
        _call_part(step, call, index, first=index == 0, last=index == len(calls) - 1)
        for index, call in enumerate(calls)
    ]


def _call_part(step: JsonObject, call: JsonObject, index: int, *, first: bool, last: bool) -> Part:
    kind = call["type"]
    body: JsonObject = call[kind]

    def delta(changed: JsonObject, **more: Any) -> Event:
        calls = [{"index": index, **more, "type": kind, kind: changed}]
        return "thread.run.step.delta", {
            "id": step["id"],
            "object": "thread.run.step.delta",
            "delta": {"step_details": {"type": "tool_calls", "tool_calls": calls}},
        }

    text = {"code_interpreter": "input", "function": "arguments"}.get(kind)
    if text is None:
        opening, said = delta(body, id=call["id"]), []
    else:
        empty: JsonObject = {**body, text: ""}
        if kind == "code_interpreter":
            empty["outputs"] = []
        opening = delta(empty, id=call["id"])
        said = [delta({text: piece}) for piece in pieces(body[text])]
    if kind == "code_interpreter":
        said += [delta({"outputs": [{"index": number, **output}]}) for number, output in enumerate(body["outputs"])]
    return Part(
        opened=[*(_opened_step(step, {"type": "tool_calls", "tool_calls": []}) if first else []), opening],
        said=said,
        closed=_closed_step(step) if last else [],
        say=lambda piece: delta({text or "text": piece}),
    )
