"""Reading the replies of Responses: the items of a response or of a conversation (protocols B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from askq.jobs.model import Answer, Usage
from worker.protocols.base import Ask, RunState, ToolCall, ToolOutput
from worker.protocols.citations import passages, resolved
from worker.protocols.fields import JsonObject, a_text, joined, objects
from worker.protocols.replies import Files, read_outputs

STATES: Mapping[str, RunState] = {
    "queued": RunState.PENDING,
    "in_progress": RunState.PENDING,
    "completed": RunState.DONE,
    "incomplete": RunState.INCOMPLETE,
    "failed": RunState.FAILED,
    "cancelled": RunState.CANCELLED,
    # Not OpenAI's, but what could it mean else.
    "expired": RunState.EXPIRED,
}
"""A test says that every status the SDK knows is here; one that it does not know is pending."""

_CALLS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_approval_request": "arguments"}
"""Items that complete a response and wait for the client: what their arguments are called."""
_OUTPUTS = {"function_call_output", "custom_tool_call_output", "mcp_approval_response"}


def after_outputs(items: Sequence[JsonObject], outputs: Sequence[ToolOutput]) -> list[JsonObject] | None:
    """The items after these outputs; None when they are not all there yet."""
    left = {output.call_id for output in outputs}
    for at, item in enumerate(items):
        if item.get("type") in _OUTPUTS:
            left.discard(a_text(item.get("call_id")))
        if not left:
            return list(items[at + 1 :])
    return None


def of_question(items: Sequence[JsonObject], ask: Ask) -> list[JsonObject]:
    """The items that came of a question in a conversation of several: its message and what follows it."""
    ids = [a_text(item.get("id")) for item in items]
    # A mark that was deleted says nothing; then the text alone must do.
    first = ids.index(ask.joined) + 1 if ask.joined in ids else 0
    asked = [at for at in range(first, len(items)) if items[at].get("role") == "user" and _said(items[at]) == ask.text]
    return list(items[asked[-1] :]) if asked else []


def _said(message: JsonObject) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(a_text(part.get("text")) for part in objects(content))


def read_tool_calls(items: Sequence[JsonObject]) -> tuple[ToolCall, ...]:
    """Calls without an output among the items."""
    answered = {
        item.get("approval_request_id") or item.get("call_id") for item in items if item.get("type") in _OUTPUTS
    }
    calls = []
    for item in items:
        kind = item.get("type")
        call_id = item.get("id") if kind == "mcp_approval_request" else item.get("call_id")
        if kind in _CALLS and call_id not in answered:
            calls.append(
                ToolCall(
                    call_id=a_text(call_id),
                    name=a_text(item.get("name")),
                    arguments=a_text(item.get(_CALLS[kind])),
                    kind="function" if kind == "function_call" else kind,
                )
            )
    return tuple(calls)


def read_answer(items: Sequence[JsonObject], *, model: str | None, usage: Usage | None) -> Answer:
    """Text, citations, code and files of output items; commentary is left out where final answers are marked."""
    messages = [item for item in items if item.get("type") == "message" and item.get("role") == "assistant"]
    final = [item for item in messages if item.get("phase") == "final_answer"]
    citations: list[Mapping[str, Any]] = []
    files: Files = {}
    text = joined([_read_message(message, citations, files) for message in final or messages])
    found = [
        passage for item in items if item.get("type") == "file_search_call" for passage in passages(item.get("results"))
    ]
    code = [_read_code(item, files) for item in items if item.get("type") == "code_interpreter_call"]
    files.pop("", None)
    return Answer(
        text=text,
        citations=resolved(citations, text or "", found),
        code=tuple(code),
        files=tuple(files.values()),
        model=model,
        refused=any(_refuses(message) for message in final or messages),
        usage=usage,
    )


def _refuses(message: JsonObject) -> bool:
    return any(part.get("type") == "refusal" for part in objects(message.get("content")))


def _read_message(message: JsonObject, citations: list[Mapping[str, Any]], files: Files) -> str:
    """One message's text: its parts are pieces of one text. A refusal is an answer too."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    text = ""
    for part in objects(content):
        text += a_text(part.get("text")) if part.get("type") == "output_text" else a_text(part.get("refusal"))
        for note in objects(part.get("annotations")):
            citations.append(note)
            if note.get("type") in ("container_file_citation", "file_path"):
                file_id = a_text(note.get("file_id"))
                files.setdefault(file_id, _file(note))
    return text


def _file(note: JsonObject) -> Mapping[str, Any]:
    described = {"kind": "file", "file_id": note.get("file_id"), "name": note.get("filename")}
    described["container_id"] = note.get("container_id")
    return {name: value for name, value in described.items() if value is not None}


def _read_code(item: JsonObject, files: Files) -> Mapping[str, Any]:
    call = {"input": a_text(item.get("code")), "output": read_outputs(item.get("outputs"), files)}
    container = a_text(item.get("container_id"))
    return {**call, "container_id": container} if container else call
