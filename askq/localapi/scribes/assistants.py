"""Runs of the Assistants protocol: request, messages and steps, wire form."""

from __future__ import annotations

import dataclasses
from typing import Literal

from askq.localapi.engines.base import Call, Code, Outcome, Request, Search, Text, Turn
from askq.localapi.files.products import Products
from askq.localapi.scribes.given import Belongings
from askq.localapi.scribes.made import Made, code_call, search_call
from askq.localapi.scribes.tools import tool_options
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject, derived_id
from askq.localapi.work import Work

_MESSAGE_REASONS = {
    "failed": "run_failed",
    "cancelled": "run_cancelled",
    "expired": "run_expired",
    "incomplete": "max_tokens",
}
_STEP_STATUSES = {"failed": "failed", "cancelled": "cancelled", "expired": "expired"}
_RUN_REASONS = {"max_output_tokens": "max_completion_tokens"}
"""Reasons in the words of Responses, and what a run calls them."""


class AssistantsScribe:
    """Writes for runs."""

    def __init__(self, store: Store, products: Products, belongings: Belongings | None = None) -> None:
        self._store = store
        self._belongings = belongings
        self._products = products

    def request(self, work: Work) -> Request:
        """The thread's messages, then what this run has said and called, and the outputs it was given."""
        body = work.body
        messages = self._store.below("message", work.scope)
        turns = [_turn(message) for message in messages if message["run_id"] != work.id]
        own = {message["id"]: message for message in messages if message["run_id"] == work.id}
        for step in work.made:
            message = own.get(step["step_details"].get("message_creation", {}).get("message_id"))
            if message is not None:
                turns.append(_turn(message))
            calls = [call for call in step["step_details"].get("tool_calls", []) if call["type"] == "function"]
            turns.extend(_call_turn(call) for call in calls)
            turns.extend(
                Turn(role="output", text=call["function"]["output"], call_id=call["id"])
                for call in calls
                if call["function"]["output"] is not None
            )
        options = {
            "temperature": body["temperature"],
            "top_p": body["top_p"],
            "max_output_tokens": body["max_completion_tokens"],
            "reasoning_effort": body["reasoning_effort"],
            "format": _format(body["response_format"]),
            **tool_options(body, called=any(turn.role == "output" for turn in turns)),
        }
        return Request(
            work_id=work.id,
            protocol="assistants",
            model=body["model"],
            instructions=body["instructions"],
            turns=tuple(turns),
            tools=tuple(body["tools"]),
            options={name: value for name, value in options.items() if value is not None},
            metadata=body["metadata"],
            number=work.number,
            **({} if self._belongings is None else self._belongings.of_run(work, messages)),
        )

    def write(self, work: Work, outcome: Outcome, at: float) -> bool:
        """Add a step for each output and a message for each text; False when the client's tools are asked for."""
        for step in work.made:
            if step["status"] == "in_progress":
                _end_step(step, outcome, at)
        asks = outcome.status == "completed" and bool(outcome.calls)
        made = Made(**work.unshown)
        for output in outcome.outputs:
            number = len(work.made)
            match output:
                case Text():
                    message = self._message(work, output, outcome, number, at, made)
                    made = made.later()
                    details: JsonObject = {
                        "type": "message_creation",
                        "message_creation": {"message_id": message["id"]},
                    }
                case Code():
                    call = code_call(self._products, work.id, number, output, made)
                    details = {"type": "tool_calls", "tool_calls": [call]}
                case Search():
                    details = {"type": "tool_calls", "tool_calls": [search_call(work.id, number, output)]}
                case Call():
                    continue
            step = _new_step(work, details, number, at)
            step["status"], step["completed_at"] = "completed", int(at)
            work.made.append(step)
        if outcome.calls:
            details = {"type": "tool_calls", "tool_calls": [_function_call(call) for call in outcome.calls]}
            step = _new_step(work, details, len(work.made), at)
            if not asks:
                _end_step(step, outcome, at)
            work.made.append(step)
        work.unshown = dataclasses.asdict(made) if asks else {}
        if not asks and work.made:
            work.made[-1]["usage"] = _usage(work)
        return not asks

    def _message(self, work: Work, output: Text, outcome: Outcome, number: int, at: float, made: Made) -> JsonObject:
        complete = outcome.status == "completed"
        reason = _MESSAGE_REASONS.get(outcome.status)
        if outcome.status == "incomplete" and outcome.reason == "content_filter":
            reason = "content_filter"
        message: JsonObject = {
            "id": derived_id("msg", work.id, number),
            "object": "thread.message",
            "created_at": int(at),
            "thread_id": work.scope,
            "role": "assistant",
            "content": made.content(output),
            "assistant_id": work.body["assistant_id"],
            "run_id": work.id,
            "attachments": made.attachments(),
            "metadata": {},
            "status": "completed" if complete else "incomplete",
            "completed_at": int(at) if complete else None,
            "incomplete_at": None if complete else int(at),
            "incomplete_details": None if complete else {"reason": reason},
        }
        self._store.add("message", message, parent=work.scope)
        return message


def message_text(message: JsonObject) -> str:
    """The text of a stored message; pictures have none."""
    return "\n".join(part["text"]["value"] for part in message["content"] if part["type"] == "text")


def _turn(message: JsonObject) -> Turn:
    role: Literal["assistant", "user"] = "assistant" if message["role"] == "assistant" else "user"
    return Turn(role=role, text=message_text(message), images=_images(message))


def _images(message: JsonObject) -> tuple[JsonObject, ...]:
    """The pictures that the user put into a message."""
    if message["role"] != "user":
        return ()
    return tuple(part[part["type"]] for part in message["content"] if part["type"] in ("image_url", "image_file"))


def pending_calls(work: Work) -> list[JsonObject]:
    """The calls a run in `requires_action` waits for, as they stand in its last step."""
    calls: list[JsonObject] = work.made[-1]["step_details"]["tool_calls"]
    return calls


def run_wire(work: Work, now: float) -> JsonObject:
    """The run object."""
    outcome, ended = work.outcome, work.ended
    status = work.status(now)
    begun = work.begun_at

    def ended_as(end: str) -> int | None:
        return int(ended) if ended is not None and status == end else None

    required_action = None
    if status == "requires_action":
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["function"]["name"], "arguments": call["function"]["arguments"]},
            }
            for call in pending_calls(work)
        ]
        required_action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
    last_error = incomplete = None
    if outcome is not None and status == "failed":
        last_error = {"code": outcome.error_code, "message": outcome.error_message}
    if outcome is not None and status == "incomplete":
        incomplete = {"reason": _RUN_REASONS.get(outcome.reason, outcome.reason)}
    return {
        "id": work.id,
        "object": "thread.run",
        "created_at": int(work.created),
        "thread_id": work.scope,
        "status": status,
        "started_at": int(begun) if begun is not None and begun <= now else None,
        "expires_at": int(work.deadline) if work.deadline is not None and ended is None else None,
        "completed_at": ended_as("completed"),
        "cancelled_at": ended_as("cancelled"),
        "failed_at": ended_as("failed"),
        "required_action": required_action,
        "last_error": last_error,
        "incomplete_details": incomplete,
        "usage": None if ended is None else _usage(work),
        **work.body,
    }


def _usage(work: Work) -> JsonObject:
    return {
        "prompt_tokens": work.spent.input_tokens,
        "completion_tokens": work.spent.output_tokens,
        "total_tokens": work.spent.input_tokens + work.spent.output_tokens,
    }


def _new_step(work: Work, details: JsonObject, number: int, at: float) -> JsonObject:
    return {
        "id": derived_id("step", work.id, number),
        "object": "thread.run.step",
        "created_at": int(at),
        "run_id": work.id,
        "assistant_id": work.body["assistant_id"],
        "thread_id": work.scope,
        "type": details["type"],
        "status": "in_progress",
        "cancelled_at": None,
        "completed_at": None,
        "expired_at": None,
        "failed_at": None,
        "last_error": None,
        "step_details": details,
        "metadata": {},
        "usage": None,
    }


def _end_step(step: JsonObject, outcome: Outcome, at: float) -> None:
    status = _STEP_STATUSES.get(outcome.status, "completed")
    step["status"] = status
    step[f"{status}_at"] = int(at)
    if status == "failed":
        step["last_error"] = {"code": outcome.error_code, "message": outcome.error_message}


def _function_call(call: Call) -> JsonObject:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments, "output": None},
    }


def _call_turn(call: JsonObject) -> Turn:
    function = call["function"]
    return Turn(role="call", text=function["arguments"], call_id=call["id"], name=function["name"])


def _format(response_format: object) -> JsonObject | None:
    if not isinstance(response_format, dict) or response_format.get("type") in (None, "text"):
        return None
    if response_format["type"] == "json_schema":
        return {"type": "json_schema", **(response_format.get("json_schema") or {})}
    return response_format
