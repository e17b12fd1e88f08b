"""Assistants v2: assistant, thread, message, run. For servers that still speak it (protocols A).

The message travels in the call that creates the thread: one free, atomic call to prepare a question. The run's
metadata names the job, and a thread's runs can be listed, so a run whose reply was lost is always found again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from askq.prices import has_known_prices, with_cost
from worker.protocols.base import Ask, Found, Made, RunState, Search, Status, ToolCall
from worker.protocols.codes import why_ended
from worker.protocols.deletion import DIGEST, HOME, Deletion
from worker.protocols.fields import JsonObject, a_count, a_status, a_text, an_object, joined, objects
from worker.protocols.forgiving import cancelled, reached
from worker.protocols.repeats import path_of
from worker.protocols.wire import Reply, Wire

# Every call announces the sunset at run time; askq serves what is left of this protocol on purpose.
warnings.filterwarnings(
    "ignore", message=r"(deprecated|The Assistants API is deprecated).*", category=DeprecationWarning
)

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
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the last poll of a run said beside its status."""

    model: str | None
    usage: Usage | None


class AssistantsProtocol:
    """Speaks to one account through one client."""

    name = "assistants"
    lists_runs = True

    def __init__(self, client: AsyncOpenAI, *, home: str | None = None) -> None:
        """`home` marks what is made as this askq's (`Store.home`)."""
        self._priced = has_known_prices(client.base_url.host)
        self._wire = Wire(client)
        self._deletion = Deletion(client, self._wire)
        self._home = home
        self._beta = client.beta
        self._client = client
        self._ended: dict[str, _Ended] = {}

    async def ensure_assistant(self, assistant: Assistant) -> str | None:
        if assistant.assistant_id is not None:
            return assistant.assistant_id
        body = assistant_body(assistant, home=self._home)
        reply = await self._wire.call(
            self._beta.assistants.with_raw_response.create(model=assistant.model, extra_body=body)
        )
        return str(reply.body["id"])

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": ask.text}],
            "metadata": ask.thread_metadata,
        }
        reply = await self._wire.call(
            self._wire.repeats.post(
                "new thread",
                path_of("threads"),
                lambda: self._beta.threads.with_raw_response.create(
                    extra_body=body, extra_headers={"Idempotency-Key": ask.thread_key}
                ),
                body=body,
                key=ask.thread_key,
            )
        )
        return str(reply.body["id"])

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        body = {"assistant_id": assistant_id or "", **run_body(ask)}
        reply = await self._wire.call(
            self._wire.repeats.post(
                "new run",
                path_of("threads", thread_id, "runs"),
                lambda: self._beta.threads.runs.with_raw_response.create(
                    thread_id,
                    assistant_id=assistant_id or "",
                    extra_body=body,
                    extra_headers={"Idempotency-Key": ask.idempotency_key},
                ),
                body=body,
                key=ask.idempotency_key,
            ),
            names=thread_id,
        )
        return self._status(reply, str(reply.body["id"]))

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        """The thread is this job's own, so a run that names no job (a server that drops metadata) is taken for ours.
        So is one of an earlier attempt that is still at work: to pay for another beside it would be the mistake."""
        runs = await self._wire.every(
            lambda query: self._beta.threads.runs.with_raw_response.list(thread_id, extra_query=query),
            names=thread_id,
        )
        ids = tuple(str(run["id"]) for run in runs if a_text(run.get("id")) and _is_ours(run, ask))
        return Found(search=Search.FOUND, run_ids=ids) if ids else Found(search=Search.NOT_STARTED)

    async def repeats_safely(self) -> bool:
        return False  # and no need to know: runs can be listed

    async def poll(self, thread_id: str, run_id: str) -> Status:
        return self._status(await self._run(thread_id, run_id), run_id)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        messages = await self._wire.every(
            lambda query: self._messages(thread_id, {**query, "run_id": run_id}),
            names=run_id,
        )
        steps: list[JsonObject] = []
        if assistant.uses("code_interpreter"):
            steps = await self._wire.every(
                lambda query: self._beta.threads.runs.steps.with_raw_response.list(
                    run_id, thread_id=thread_id, extra_query=query
                ),
                names=run_id,
            )
        # The poll that saw the end is usually this process's own.
        ended = self._ended.pop(run_id, None) or self._read_end((await self._run(thread_id, run_id)).body)
        # A server may not know the filter `run_id`: the question is no part of the answer.
        ours = [m for m in messages if m.get("role") == "assistant" and m.get("run_id") in (None, run_id)]
        return read_answer(ours, steps, model=ended.model, usage=ended.usage)

    async def cancel(self, thread_id: str, run_id: str) -> None:
        call = self._beta.threads.runs.with_raw_response.cancel(run_id, thread_id=thread_id)
        await cancelled(self._wire.call(call, names=run_id, needs_body=False), run_id)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return await self._deletion.delete(kind, id_)

    async def made(self, kind: Kind) -> list[Made]:
        return await self._deletion.made(kind)

    async def check(self) -> None:
        await reached(self._wire.call(self._client.models.with_raw_response.list(), needs_id=False))

    async def _run(self, thread_id: str, run_id: str) -> Reply:
        """GET the run. It needs no id of its own to be understood, but something must show that it is one."""
        call = self._wire.repeats.get(
            "run",
            path_of("threads", thread_id, "runs", run_id),
            lambda: self._beta.threads.runs.with_raw_response.retrieve(run_id, thread_id=thread_id),
        )
        reply = await self._wire.call(call, names=run_id, needs_id=False)
        reply.require("status", "id")
        return reply

    def _messages(self, thread_id: str, query: dict[str, Any]) -> Awaitable[Any]:
        return self._wire.repeats.get(
            "messages",
            path_of("threads", thread_id, "messages"),
            lambda: self._beta.threads.messages.with_raw_response.list(thread_id, extra_query=query),
            query=query,
        )

    def _status(self, reply: Reply, run_id: str) -> Status:
        run = reply.body
        raw = a_status(run.get("status"))
        state = STATES.get(raw, RunState.PENDING)
        if state is RunState.PENDING:
            return Status(state=state, raw=raw, run_id=run_id, poll_after=reply.poll_after, limits=reply.limits)
        ended = self._read_end(run)
        if state in (RunState.DONE, RunState.INCOMPLETE):
            while len(self._ended) >= _REMEMBERED:
                del self._ended[next(iter(self._ended))]
            self._ended[run_id] = ended
        code, message = why_ended(state, an_object(run.get("last_error")), an_object(run.get("incomplete_details")))
        return Status(
            state=state,
            raw=raw,
            run_id=run_id,
            tool_calls=_tool_calls(run) if state is RunState.ACTION else (),
            usage=ended.usage,
            error_code=code,
            error_message=message,
            limits=reply.limits,
        )

    def _read_end(self, run: JsonObject) -> _Ended:
        model = a_text(run.get("model")) or None
        used = an_object(run.get("usage"))
        if not used:
            return _Ended(model, None)
        usage = Usage(
            input_tokens=a_count(used.get("prompt_tokens")),
            cached_tokens=a_count(an_object(used.get("prompt_tokens_details")).get("cached_tokens")),
            output_tokens=a_count(used.get("completion_tokens")),
            total_tokens=a_count(used.get("total_tokens")),
        )
        return _Ended(model, with_cost(usage, model) if self._priced else usage)


def assistant_body(assistant: Assistant, *, home: str | None = None) -> dict[str, Any]:
    """The body that creates the remote assistant object."""
    marks = {DIGEST: assistant.digest} | ({HOME: home} if home else {})
    body: dict[str, Any] = {
        "name": assistant.name,
        "description": assistant.description,
        "instructions": assistant.instructions,
        "tools": [_tool(tool) for tool in assistant.tools],
        "tool_resources": _resources(assistant),
        "temperature": assistant.temperature,
        "top_p": assistant.top_p,
        "response_format": _response_format(assistant),
        "reasoning_effort": assistant.reasoning_effort,
        "metadata": {**assistant.metadata, **marks},
    }
    return {name: value for name, value in body.items() if value not in (None, [], {})}


def run_body(ask: Ask) -> dict[str, Any]:
    """The body that creates a run, without its assistant: what the assistant object cannot hold, and the row's own
    wishes. Service tiers and completion windows are unknown to this protocol."""
    assistant = ask.assistant
    body: dict[str, Any] = {
        "metadata": ask.run_metadata,
        "model": ask.model,
        "instructions": ask.instructions,
        "max_completion_tokens": assistant.max_output_tokens,
        "max_prompt_tokens": assistant.max_prompt_tokens,
        "truncation_strategy": {"type": "auto"} if assistant.truncation == "auto" else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the nested shape of Assistants; profiles keep the flat one of Responses."""
    kind = str(tool["type"])
    rest = {name: value for name, value in tool.items() if name not in ("type", "container", "vector_store_ids")}
    return {"type": kind, kind: rest} if rest and kind in ("file_search", "function") else {"type": kind}


def _resources(assistant: Assistant) -> dict[str, Any]:
    resources = {name: dict(value) for name, value in assistant.tool_resources.items()}
    for tool in assistant.tools:
        if tool.get("vector_store_ids"):
            resources.setdefault("file_search", {"vector_store_ids": list(tool["vector_store_ids"])})
        container = tool.get("container")
        if isinstance(container, Mapping) and container.get("file_ids"):
            resources.setdefault("code_interpreter", {"file_ids": list(container["file_ids"])})
    return resources


def _response_format(assistant: Assistant) -> Mapping[str, Any] | None:
    wanted = assistant.text_format
    if wanted is None or wanted.get("type") != "json_schema" or "json_schema" in wanted:
        return wanted
    return {"type": "json_schema", "json_schema": {name: part for name, part in wanted.items() if name != "type"}}


def _is_ours(run: JsonObject, ask: Ask) -> bool:
    metadata = an_object(run.get("metadata"))
    if metadata.get("askq_job", ask.job_id) != ask.job_id:
        return False
    at_work = STATES.get(a_status(run.get("status")), RunState.PENDING) in (RunState.PENDING, RunState.ACTION)
    return at_work or metadata.get("askq_attempt", str(ask.attempt)) == str(ask.attempt)


def _tool_calls(run: JsonObject) -> tuple[ToolCall, ...]:
    outputs = an_object(an_object(run.get("required_action")).get("submit_tool_outputs"))
    calls = [(entry, an_object(entry.get("function"))) for entry in objects(outputs.get("tool_calls"))]
    return tuple(
        ToolCall(
            call_id=a_text(entry.get("id")),
            name=a_text(function.get("name")),
            arguments=a_text(function.get("arguments")),
        )
        for entry, function in calls
    )


def read_answer(
    messages: Sequence[JsonObject], steps: Sequence[JsonObject], *, model: str | None, usage: Usage | None
) -> Answer:
    """Text, citations and files of a run's messages (oldest first), and the code of its steps."""
    texts: list[str] = []
    citations: list[Mapping[str, Any]] = []
    files: dict[str, Mapping[str, Any]] = {}
    for message in messages:
        for part in objects(message.get("content")):
            match part.get("type"):
                case "text":
                    texts.append(_read_text(an_object(part.get("text")), citations, files))
                case "refusal":
                    texts.append(a_text(part.get("refusal")))
                case "image_file":
                    file_id = a_text(an_object(part.get("image_file")).get("file_id"))
                    files.setdefault(file_id, {"kind": "image", "file_id": file_id})
        for attached in objects(message.get("attachments")):
            file_id = a_text(attached.get("file_id"))
            files.setdefault(file_id, {"kind": "file", "file_id": file_id})
    code = []
    for step in steps:
        for call in objects(an_object(step.get("step_details")).get("tool_calls")):
            if call.get("type") == "code_interpreter":
                code.append(_read_code(an_object(call.get("code_interpreter")), files))
    files.pop("", None)
    return Answer(
        text=joined(texts),
        citations=tuple(citations),
        code=tuple(code),
        files=tuple(files.values()),
        model=model,
        usage=usage,
    )


def _read_text(text: JsonObject, citations: list[Mapping[str, Any]], files: dict[str, Mapping[str, Any]]) -> str:
    """The text without its marks; what they stand for goes into `citations` (in the flat shape of Responses) and
    `files`. Links to files (`sandbox:/…`) stay: they are words of a sentence."""
    value = a_text(text.get("value"))
    for note in objects(text.get("annotations")):
        kind, mark = a_text(note.get("type")), a_text(note.get("text"))
        source = an_object(note.get(kind))
        if kind == "file_path":
            file_id, name = a_text(source.get("file_id")), mark.rpartition("/")[2]
            files.setdefault(file_id, {"kind": "file", "file_id": file_id, "name": name})
            continue
        citations.append({"type": kind, **source})
        if _ANY_MARKER.fullmatch(mark):
            value = value.replace(f" {mark}", "").replace(mark, "")
    return _MARKER.sub("", value)


def _read_code(call: JsonObject, files: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    logs = []
    for output in objects(call.get("outputs")):
        if output.get("type") == "logs":
            logs.append(a_text(output.get("logs")))
        elif output.get("type") == "image":
            file_id = a_text(an_object(output.get("image")).get("file_id"))
            files.setdefault(file_id, {"kind": "image", "file_id": file_id})
    return {"input": a_text(call.get("input")), "output": "\n".join(logs)}
