"""Assistants v2: assistant, thread, message, run. For servers that still speak it (protocols A).

The message travels in the call that creates the thread: one free, atomic call to prepare a question. The run's
metadata names the job, and a thread's runs can be listed, so a run whose reply was lost is always found again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from worker.protocols.base import Ask, Found, Gone, RunState, Search, Status, ToolCall
from worker.protocols.codes import code_of_failure, code_of_incomplete
from worker.protocols.prices import has_known_prices, with_cost
from worker.protocols.wire import JsonObject, Reply, call

# Every call announces the sunset at run time; askq serves what is left of this protocol on purpose.
warnings.filterwarnings(
    "ignore", message=r"(deprecated|The Assistants API is deprecated).*", category=DeprecationWarning
)

_STATES: Mapping[str, RunState] = {
    "requires_action": RunState.ACTION,
    "completed": RunState.DONE,
    "incomplete": RunState.INCOMPLETE,
    "failed": RunState.FAILED,
    "cancelled": RunState.CANCELLED,
    "expired": RunState.EXPIRED,
}
_MARKER = re.compile(r"【[^】]*】")
_PAGE = 100


class AssistantsProtocol:
    """Speaks to one account through one client."""

    name = "assistants"
    lists_runs = True

    def __init__(self, client: AsyncOpenAI) -> None:
        self._priced = has_known_prices(client.base_url.host)
        self._beta = client.beta
        self._client = client

    async def ensure_assistant(self, assistant: Assistant) -> str | None:
        if assistant.assistant_id is not None:
            return assistant.assistant_id
        body = assistant_body(assistant)
        reply = await call(self._beta.assistants.with_raw_response.create(model=assistant.model, extra_body=body))
        return str(reply.body["id"])

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": ask.text}],
            "metadata": {**ask.metadata, "askq_job": ask.job_id},
        }
        reply = await call(self._beta.threads.with_raw_response.create(extra_body=body))
        return str(reply.body["id"])

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        body: dict[str, Any] = {
            "metadata": {**ask.metadata, "askq_job": ask.job_id, "askq_attempt": str(ask.attempt)},
            **run_body(ask),
        }
        reply = await call(
            self._beta.threads.runs.with_raw_response.create(
                thread_id, assistant_id=assistant_id or "", extra_body=body
            ),
            names=thread_id,
        )
        return _status(reply, priced=self._priced)

    async def find_started(self, job_id: str, attempt: int, thread_id: str) -> Found:
        ids, after = [], None
        while True:
            query: dict[str, Any] = {"limit": _PAGE, "order": "asc"} | ({"after": after} if after else {})
            reply = await call(
                self._beta.threads.runs.with_raw_response.list(thread_id, extra_query=query),
                names=thread_id,
                needs_id=False,
            )
            runs = _entries(reply)
            ids += [str(run["id"]) for run in runs if (run.get("metadata") or {}).get("askq_job") == job_id]
            if not reply.body.get("has_more") or not runs:
                break
            after = runs[-1].get("id")
        return Found(search=Search.FOUND, run_ids=tuple(ids)) if ids else Found(search=Search.NOT_STARTED)

    async def poll(self, thread_id: str, run_id: str) -> Status:
        reply = await call(
            self._beta.threads.runs.with_raw_response.retrieve(run_id, thread_id=thread_id), names=run_id
        )
        return _status(reply, priced=self._priced)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        messages = [
            message for message in await self._all(thread_id, run_id, "messages") if message.get("role") == "assistant"
        ]
        parts, citations, files = _read_messages(messages)
        code: tuple[Mapping[str, Any], ...] = ()
        if assistant.uses("code_interpreter"):
            code = _read_code(await self._all(thread_id, run_id, "steps"))
        return Answer(
            text="\n\n".join(parts) if messages else None,
            citations=tuple(citations),
            code=code,
            files=tuple(files),
            model=assistant.model,
        )

    async def _all(self, thread_id: str, run_id: str, what: str) -> list[JsonObject]:
        """Every message or step of a run, oldest first."""
        found: list[JsonObject] = []
        after: str | None = None
        while True:
            query: dict[str, Any] = {"limit": _PAGE, "order": "asc"} | ({"after": after} if after else {})
            listing: Awaitable[Any]
            if what == "messages":
                listing = self._beta.threads.messages.with_raw_response.list(
                    thread_id, extra_query=query | {"run_id": run_id}
                )
            else:
                listing = self._beta.threads.runs.steps.with_raw_response.list(
                    run_id, thread_id=thread_id, extra_query=query
                )
            reply = await call(listing, names=run_id, needs_id=False)
            entries = _entries(reply)
            found += entries
            if not reply.body.get("has_more") or not entries:
                return found
            after = str(entries[-1].get("id"))

    async def cancel(self, thread_id: str, run_id: str) -> None:
        await call(self._beta.threads.runs.with_raw_response.cancel(run_id, thread_id=thread_id), names=run_id)

    async def cleanup(self, thread_id: str, run_ids: tuple[str, ...]) -> None:
        try:
            await call(self._beta.threads.with_raw_response.delete(thread_id), names=thread_id)
        except Gone:
            return

    async def check(self) -> None:
        await call(self._client.models.with_raw_response.list(), needs_id=False, names="models")


def assistant_body(assistant: Assistant) -> dict[str, Any]:
    """The body that creates the remote assistant object."""
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
        "metadata": {**assistant.metadata, "askq_digest": assistant.digest},
    }
    return {name: value for name, value in body.items() if value not in (None, [], {})}


def run_body(ask: Ask) -> dict[str, Any]:
    """The part of a run's body that the assistant object does not hold."""
    assistant = ask.assistant
    body: dict[str, Any] = {
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


def _status(reply: Reply, *, priced: bool) -> Status:
    run = reply.body
    raw = str(run.get("status"))
    state = _STATES.get(raw, RunState.PENDING)
    code, message = None, None
    if state is RunState.FAILED:
        error = run.get("last_error") or {}
        code, message = code_of_failure(error.get("code")), error.get("message") or error.get("code")
    elif state is RunState.INCOMPLETE:
        reason = (run.get("incomplete_details") or {}).get("reason")
        code, message = code_of_incomplete(reason), f"the run stopped early: {reason or 'no reason given'}"
    return Status(
        state=state,
        raw=raw,
        run_id=str(run["id"]),
        poll_after=reply.poll_after,
        tool_calls=_tool_calls(run) if state is RunState.ACTION else (),
        usage=_usage(run, priced=priced),
        error_code=code,
        error_message=message,
    )


def _tool_calls(run: JsonObject) -> tuple[ToolCall, ...]:
    asked = ((run.get("required_action") or {}).get("submit_tool_outputs") or {}).get("tool_calls") or []
    return tuple(
        ToolCall(
            call_id=str(entry.get("id")),
            name=str((entry.get("function") or {}).get("name")),
            arguments=str((entry.get("function") or {}).get("arguments")),
        )
        for entry in asked
    )


def _usage(run: JsonObject, *, priced: bool) -> Usage | None:
    used = run.get("usage")
    if not used:
        return None
    details = used.get("prompt_tokens_details") or {}
    usage = Usage(
        input_tokens=int(used.get("prompt_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
        output_tokens=int(used.get("completion_tokens") or 0),
        total_tokens=int(used.get("total_tokens") or 0),
    )
    return with_cost(usage, run.get("model")) if priced else usage


def _entries(reply: Reply) -> list[JsonObject]:
    return [entry for entry in reply.body.get("data") or [] if isinstance(entry, dict)]


def _read_messages(
    messages: Sequence[JsonObject],
) -> tuple[list[str], list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    parts: list[str] = []
    citations: list[Mapping[str, Any]] = []
    files: list[Mapping[str, Any]] = []
    for message in messages:
        for part in message.get("content") or []:
            kind = part.get("type")
            if kind == "text":
                text = part.get("text") or {}
                value = str(text.get("value") or "")
                for note in text.get("annotations") or []:
                    citations.append({name: value_ for name, value_ in note.items() if name != "text"})
                    if note.get("type") == "file_citation":
                        value = value.replace(str(note.get("text") or ""), "")
                parts.append(_MARKER.sub("", value) if citations else value)
            elif kind == "refusal":
                parts.append(str(part.get("refusal") or ""))
            elif kind == "image_file":
                files.append({"file_id": (part.get("image_file") or {}).get("file_id"), "kind": "image"})
    return parts, citations, files


def _read_code(steps: Sequence[JsonObject]) -> tuple[Mapping[str, Any], ...]:
    calls = []
    for step in steps:
        for entry in (step.get("step_details") or {}).get("tool_calls") or []:
            if entry.get("type") == "code_interpreter":
                run = entry.get("code_interpreter") or {}
                logs = [str(out.get("logs")) for out in run.get("outputs") or [] if out.get("type") == "logs"]
                calls.append({"input": run.get("input") or "", "output": "\n".join(logs)})
    return tuple(calls)
