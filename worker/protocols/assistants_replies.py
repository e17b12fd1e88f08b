"""Reading the replies of Assistants v2: runs, messages and steps (protocols A)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from askq.jobs.model import Answer, Usage
from worker.protocols.base import Ask, RunState, ToolCall
from worker.protocols.citations import found_by, resolved
from worker.protocols.fields import JsonObject, a_count, a_status, a_text, an_object, joined, objects
from worker.protocols.replies import Files, read_outputs

STATES: Mapping[str, RunState] = {
    "queued": RunState.PENDING,
    "in_progress": RunState.PENDING,
    "cancelling": RunState.PENDING,
    "requires_action": RunState.ACTION,
    "completed": RunState.DONE,
    "incomplete": RunState.INCOMPLETE,
    "failed": RunState.FAILED,
    "cancelled": RunState.CANCELLED,
    "expired": RunState.EXPIRED,
}
"""A test says that every status the SDK knows is here; one that it does not know is pending."""

_MARKER = re.compile(r"[ \u00a0]?【\d+(?::\d+)?†[^】]*】")
"""Where a source is cited. The service leaves it to the client to take the mark out of the text."""
_ANY_MARKER = re.compile(r"【[^】]*】")


def asks(message: JsonObject, ask: Ask) -> bool:
    """Whether a message is this question."""
    metadata = an_object(message.get("metadata"))
    if message.get("role") != "user" or metadata.get("askq_job", ask.job_id) != ask.job_id:
        return False
    if "askq_job" in metadata:
        return True
    # A server that drops metadata.
    texts = [a_text(an_object(part.get("text")).get("value")) for part in objects(message.get("content"))]
    return "\n".join(texts) == ask.text


def is_ours(run: JsonObject, ask: Ask, *, may_be_nameless: bool) -> bool:
    """Whether a run was made for this question, and by this attempt if it has ended."""
    metadata = an_object(run.get("metadata"))
    if metadata.get("askq_job", ask.job_id if may_be_nameless else None) != ask.job_id:
        return False
    at_work = STATES.get(a_status(run.get("status")), RunState.PENDING) in (RunState.PENDING, RunState.ACTION)
    return at_work or metadata.get("askq_attempt", str(ask.attempt)) == str(ask.attempt)


def read_tool_calls(run: JsonObject) -> tuple[ToolCall, ...]:
    """The functions a run asks for."""
    outputs = an_object(an_object(run.get("required_action")).get("submit_tool_outputs"))
    calls = [(entry, an_object(entry.get("function"))) for entry in objects(outputs.get("tool_calls"))]
    return tuple(
        ToolCall(
            call_id=a_text(entry.get("id")),
            name=a_text(function.get("name")),
            arguments=a_text(function.get("arguments")),
            kind=a_text(entry.get("type")) or "function",
        )
        for entry, function in calls
    )


def read_answer(
    messages: Sequence[JsonObject], steps: Sequence[JsonObject], *, model: str | None, usage: Usage | None
) -> Answer:
    """Text, citations and files of a run's messages (oldest first), and the code and the searches of its steps."""
    refused = False
    texts: list[str] = []
    citations: list[Mapping[str, Any]] = []
    files: Files = {}
    for message in messages:
        for part in objects(message.get("content")):
            match part.get("type"):
                case "text":
                    before = len(joined([*texts, "."]) or ".") - 1
                    value, cited = _read_text(an_object(part.get("text")), files)
                    texts.append(value)
                    citations += (_placed(note, before) for note in cited)
                case "refusal":
                    refused = True
                    texts.append(a_text(part.get("refusal")))
                case "image_file":
                    file_id = a_text(an_object(part.get("image_file")).get("file_id"))
                    files.setdefault(file_id, {"kind": "image", "file_id": file_id})
        for attached in objects(message.get("attachments")):
            file_id = a_text(attached.get("file_id"))
            files.setdefault(file_id, {"kind": "file", "file_id": file_id})
    code, found = [], []
    for step in steps:
        for call in objects(an_object(step.get("step_details")).get("tool_calls")):
            if call.get("type") == "code_interpreter":
                code.append(_read_code(an_object(call.get("code_interpreter")), files))
            elif call.get("type") == "file_search":
                found += found_by(call)
    files.pop("", None)
    text = joined(texts)
    return Answer(
        text=text,
        citations=resolved(citations, text or "", found),
        code=tuple(code),
        files=tuple(files.values()),
        model=model,
        refused=refused,
        usage=usage,
    )


def _placed(citation: Mapping[str, Any], before: int) -> Mapping[str, Any]:
    """A citation of a file with its place in the whole answer. Others need none: they are in the text."""
    index = citation["index"] + before
    more = {name: value for name, value in citation.items() if name != "index"}
    return {**more, "index": index} if citation["type"] == "file_citation" else more


def _read_text(text: JsonObject, files: Files) -> tuple[str, list[dict[str, Any]]]:
    """The text without its marks, and what they stand for (in the flat shape of Responses, with the place in the text);
    files that the run has made go to `files`. Links to files (`sandbox:/…`) stay: they are words of a sentence."""
    value = a_text(text.get("value"))
    placed: list[tuple[int, dict[str, Any]]] = []
    cuts: list[tuple[int, int]] = []
    at = 0
    notes = enumerate(objects(text.get("annotations")))
    for number, note in sorted(notes, key=lambda pair: a_count(pair[1].get("start_index"))):
        kind, mark = a_text(note.get("type")), a_text(note.get("text"))
        source = an_object(note.get(kind))
        if kind == "file_path":
            file_id, name = a_text(source.get("file_id")), mark.rpartition("/")[2]
            files.setdefault(file_id, {"kind": "file", "file_id": file_id, "name": name})
            continue
        if (place := value.find(mark, at) if mark else -1) < 0:
            place = value.find(mark) if mark else -1
        if place >= 0:
            at = place + len(mark)
            if _ANY_MARKER.fullmatch(mark):
                cuts.append((place - (value[place - 1 : place] == " "), at))
        else:
            place = min(a_count(note.get("start_index")), len(value))
        placed.append((number, {"type": kind, **source, "index": place}))
    citations = [citation for _, citation in sorted(placed, key=lambda pair: pair[0])]
    # Marks that no annotation speaks of go, too.
    cuts += [
        mark.span() for mark in _MARKER.finditer(value) if not any(start <= mark.end() - 1 < end for start, end in cuts)
    ]
    for start, end in sorted(cuts, reverse=True):
        value = value[:start] + value[end:]
        for citation in citations:
            if citation["index"] > start:
                citation["index"] = max(start, citation["index"] - (end - start))
    return value, citations


def _read_code(call: JsonObject, files: Files) -> Mapping[str, Any]:
    return {"input": a_text(call.get("input")), "output": read_outputs(call.get("outputs"), files)}
