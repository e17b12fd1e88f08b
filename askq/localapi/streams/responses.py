"""The events of a response."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from askq.localapi.engines.base import Outcome
from askq.localapi.files.products import Products
from askq.localapi.scribes.responses import ResponsesScribe, item_wire, response_wire
from askq.localapi.store import Store
from askq.localapi.streams.parts import DraftProducts, DraftStore, Event, Part, pieces
from askq.localapi.wire import JsonObject
from askq.localapi.work import Work
from askq.localapi.works import Works

_ENDS = ("completed", "incomplete", "failed")
"""There is no event for a cancelled response: its stream just ends."""


class ResponseTeller:
    """Words the events of one response."""

    def __init__(self, work: Work, store: Store, works: Works, products: Products, include: Collection[str]) -> None:
        self._work = work
        self._store = store
        self._products = products
        self._works = works
        self._include = include

    def opening(self) -> list[Event]:
        """Before it is in progress."""
        if not self._work.body["background"]:
            return [self._early("response.created", "in_progress")]
        return [self._early("response.created", "queued"), self._early("response.queued", "queued")]

    def in_progress(self) -> list[Event]:
        """When it has left the queue."""
        return [self._early("response.in_progress", "in_progress")]

    def _early(self, name: str, status: str) -> Event:
        response = response_wire(self._work, self._work.created, self._include)
        nothing: JsonObject = {
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }
        return name, {"response": {**response, **nothing, "status": status}}

    def cancelling(self) -> list[Event]:
        """Responses have no such status."""
        return []

    def parts(self, outcome: Outcome, at: float) -> list[Part]:
        """The items of an outcome, or of as much of it as there is."""
        made = self._work.made
        if not made:
            draft = dataclasses.replace(self._work, made=[])
            ResponsesScribe(DraftStore(self._store), self._works, DraftProducts(self._products)).write(
                draft, outcome, at
            )
            made = draft.made
        return [_part(item_wire(item, self._include), index) for index, item in enumerate(made)]

    def ending(self, now: float) -> list[Event]:
        """When it is over."""
        response = response_wire(self._work, now, self._include)
        return [(f"response.{response['status']}", {"response": response})] if response["status"] in _ENDS else []

    def trouble(self, code: str, message: str) -> list[Event]:
        """When it cannot be told any further."""
        return [("error", {"code": code, "message": message, "param": None})]


def _part(item: JsonObject, index: int) -> Part:
    where = {"output_index": index, "item_id": item["id"]}
    shell = {**item, "status": "in_progress"}
    done: Event = ("response.output_item.done", {"output_index": index, "item": item})

    def opened(**changes: Any) -> Event:
        return "response.output_item.added", {"output_index": index, "item": {**shell, **changes}}

    def delta(name: str) -> Any:
        return lambda piece: (f"response.{name}.delta", {**where, "delta": piece})

    match item["type"]:
        case "message":
            contents = [_content(part, where, number) for number, part in enumerate(item["content"])]
            if not contents:
                return Part(opened=[opened()], said=[], closed=[done], say=delta("output_text"))
            first, rest = contents[0], [event for content in contents[1:] for event in content.events]
            return Part(
                opened=[opened(content=[]), *first.opened],
                said=first.said,
                closed=[*first.closed, *rest, done],
                say=first.say,
            )
        case "function_call":
            say = delta("function_call_arguments")
            end: Event = ("response.function_call_arguments.done", {**where, "arguments": item["arguments"]})
            return Part(
                opened=[opened(arguments="")],
                said=[say(piece) for piece in pieces(item["arguments"])],
                closed=[end, done],
                say=say,
            )
        case "code_interpreter_call":
            say = delta("code_interpreter_call_code")
            return Part(
                opened=[opened(code="", outputs=None), ("response.code_interpreter_call.in_progress", dict(where))],
                said=[say(piece) for piece in pieces(item["code"] or "")],
                closed=[
                    ("response.code_interpreter_call_code.done", {**where, "code": item["code"] or ""}),
                    ("response.code_interpreter_call.interpreting", dict(where)),
                    ("response.code_interpreter_call.completed", dict(where)),
                    done,
                ],
                say=say,
            )
        case "file_search_call":
            stages = ("in_progress", "searching", "completed")
            events: list[Event] = [(f"response.file_search_call.{stage}", dict(where)) for stage in stages]
            return Part(opened=[opened(results=None)], said=events, closed=[done], say=delta("output_text"))
        case _:
            return Part(opened=[opened()], said=[], closed=[done], say=delta("output_text"))


def _content(part: JsonObject, where: JsonObject, index: int) -> Part:
    """A part of a message's content; `closed` has its annotations too."""
    where = {**where, "content_index": index}
    if part["type"] == "refusal":
        return Part(
            opened=[("response.content_part.added", {**where, "part": {**part, "refusal": ""}})],
            said=[("response.refusal.delta", {**where, "delta": piece}) for piece in pieces(part["refusal"])],
            closed=[
                ("response.refusal.done", {**where, "refusal": part["refusal"]}),
                ("response.content_part.done", {**where, "part": part}),
            ],
            say=lambda piece: ("response.refusal.delta", {**where, "delta": piece}),
        )

    def say(piece: str) -> Event:
        return "response.output_text.delta", {**where, "delta": piece, "logprobs": []}

    annotated: list[Event] = [
        ("response.output_text.annotation.added", {**where, "annotation_index": number, "annotation": annotation})
        for number, annotation in enumerate(part["annotations"])
    ]
    return Part(
        opened=[("response.content_part.added", {**where, "part": {**part, "text": "", "annotations": []}})],
        said=[say(piece) for piece in pieces(part["text"])],
        closed=[
            *annotated,
            ("response.output_text.done", {**where, "text": part["text"], "logprobs": []}),
            ("response.content_part.done", {**where, "part": part}),
        ],
        say=say,
    )
