"""Responses in background mode, each in a Conversation of its own (protocols B).

Responses cannot be listed. The conversation, whose id is saved before anything is paid, is the way back: when the
run completes, its answer appears among the conversation's items, even though the response's id was never seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import ResponseIncludable

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from worker.protocols.base import Ask, Blocked, Found, Gone, RunState, Search, Status, ToolCall
from worker.protocols.codes import code_of_failure, code_of_incomplete
from worker.protocols.prices import has_known_prices, with_cost
from worker.protocols.wire import JsonObject, Reply, call

_STATES: Mapping[str, RunState] = {
    "completed": RunState.DONE,
    "incomplete": RunState.INCOMPLETE,
    "failed": RunState.FAILED,
    "cancelled": RunState.CANCELLED,
}
_INCLUDE: list[ResponseIncludable] = ["code_interpreter_call.outputs", "file_search_call.results"]


class ResponsesProtocol:
    """Speaks to one account through one client."""

    name = "responses"
    lists_runs = False

    def __init__(self, client: AsyncOpenAI) -> None:
        self._priced = has_known_prices(client.base_url.host)
        self._client = client
        self._conversations = True

    async def ensure_assistant(self, assistant: Assistant) -> str | None:
        return None

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        if not self._conversations:
            return ""
        body = {"metadata": {**ask.metadata, "askq_job": ask.job_id}}
        try:
            reply = await call(self._client.conversations.with_raw_response.create(extra_body=body))
        except Blocked as error:
            if error.code != "endpoint_gone":
                raise
            # Many servers speak Responses without Conversations (protocols E): then there is no way back.
            self._conversations = False
            return ""
        return str(reply.body["id"])

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        reply = await call(
            self._client.responses.with_raw_response.create(
                extra_body=request_body(ask, thread_id), extra_headers={"Idempotency-Key": _key(ask)}
            ),
            names=thread_id,
        )
        return _status(reply, priced=self._priced)

    async def find_started(self, job_id: str, attempt: int, thread_id: str) -> Found:
        if not thread_id:
            return Found(search=Search.UNKNOWN)
        reply = await call(
            self._client.conversations.items.with_raw_response.list(
                thread_id, extra_query={"order": "asc", "limit": 100}
            ),
            names=thread_id,
            needs_id=False,
        )
        items = [item for item in reply.body.get("data") or [] if isinstance(item, dict)]
        if any(item.get("type") == "message" and item.get("role") == "assistant" for item in items):
            return Found(search=Search.ANSWERED, answer=read_answer(items, model=None, usage=None))
        return Found(search=Search.UNKNOWN)

    async def poll(self, thread_id: str, run_id: str) -> Status:
        reply = await call(
            self._client.responses.with_raw_response.retrieve(run_id, include=_INCLUDE),
            names=run_id,
        )
        return _status(reply, priced=self._priced)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        status = await self.poll(thread_id, run_id)
        return status.answer or Answer(text=None)

    async def cancel(self, thread_id: str, run_id: str) -> None:
        await call(self._client.responses.with_raw_response.cancel(run_id), names=run_id)

    async def cleanup(self, thread_id: str, run_ids: tuple[str, ...]) -> None:
        for run_id in run_ids:
            await _delete(self._client.responses.with_raw_response.delete(run_id), run_id)
        if not thread_id:
            return
        # Deleting a conversation leaves its items: they are the user's texts, so they go first.
        try:
            reply = await call(
                self._client.conversations.items.with_raw_response.list(thread_id, extra_query={"limit": 100}),
                names=thread_id,
                needs_id=False,
            )
        except Gone:
            return
        for item in reply.body.get("data") or []:
            await _delete(
                self._client.conversations.items.with_raw_response.delete(item["id"], conversation_id=thread_id),
                item["id"],
            )
        await _delete(self._client.conversations.with_raw_response.delete(thread_id), thread_id)

    async def check(self) -> None:
        await call(self._client.models.with_raw_response.list(), needs_id=False, names="models")


async def _delete(response: Any, names: str) -> None:
    try:
        await call(response, names=names, needs_id=False)
    except Gone:
        return


def _key(ask: Ask) -> str:
    """Some servers honour an idempotency key; OpenAI does not say so, and nothing here relies on it."""
    return hashlib.sha256(f"{ask.job_id}|run|{ask.attempt}".encode()).hexdigest()


def request_body(ask: Ask, thread_id: str) -> dict[str, Any]:
    """The body that creates a background response."""
    assistant = ask.assistant
    window = assistant.completion_window
    text_format = assistant.text_format
    if text_format is not None and isinstance(text_format.get("json_schema"), Mapping):
        text_format = {"type": "json_schema", **text_format["json_schema"]}
    body: dict[str, Any] = {
        "model": ask.model or assistant.model,
        "input": ask.text,
        "instructions": ask.instructions or assistant.instructions,
        "background": True,
        "store": True,
        "background_options": {"completion_window": window} if window is not None else None,
        "conversation": thread_id or None,
        "metadata": {**ask.metadata, "askq_job": ask.job_id, "askq_attempt": str(ask.attempt)},
        "tools": [_tool(tool, assistant.tool_resources) for tool in assistant.tools],
        "include": _INCLUDE if assistant.tools else None,
        "temperature": assistant.temperature,
        "top_p": assistant.top_p,
        "reasoning": {"effort": assistant.reasoning_effort} if assistant.reasoning_effort else None,
        "text": {"format": text_format} if text_format is not None else None,
        "max_output_tokens": assistant.max_output_tokens,
        "truncation": assistant.truncation,
        "service_tier": assistant.service_tier,
    }
    return {name: value for name, value in body.items() if value not in (None, [])}


def _tool(tool: Mapping[str, Any], resources: Mapping[str, Any]) -> dict[str, Any]:
    """A tool with the files and stores that Assistants would keep apart from it."""
    kind = tool.get("type")
    if kind == "code_interpreter" and "container" not in tool:
        files = (resources.get("code_interpreter") or {}).get("file_ids") or []
        return {"type": kind, "container": {"type": "auto"} | ({"file_ids": list(files)} if files else {})}
    if kind == "file_search" and not tool.get("vector_store_ids"):
        stores = (resources.get("file_search") or {}).get("vector_store_ids") or []
        return {**tool, "vector_store_ids": list(stores)}
    return dict(tool)


def _status(reply: Reply, *, priced: bool) -> Status:
    response = reply.body
    raw = str(response.get("status"))
    state = _STATES.get(raw, RunState.PENDING)
    run_id = str(response["id"])
    if state is RunState.PENDING:
        return Status(state=state, raw=raw, run_id=run_id, poll_after=reply.poll_after)
    items = [item for item in response.get("output") or [] if isinstance(item, dict)]
    usage = _usage(response, priced=priced)
    calls = _tool_calls(items)
    if state is RunState.DONE and calls:
        return Status(state=RunState.ACTION, raw=raw, run_id=run_id, tool_calls=calls, usage=usage)
    answer = read_answer(items, model=response.get("model"), usage=usage)
    code, message = None, None
    if state is RunState.FAILED:
        error = response.get("error") or {}
        code, message = code_of_failure(error.get("code")), error.get("message") or error.get("code")
    elif state is RunState.INCOMPLETE:
        reason = (response.get("incomplete_details") or {}).get("reason")
        code, message = code_of_incomplete(reason), f"the run stopped early: {reason or 'no reason given'}"
    return Status(
        state=state,
        raw=raw,
        run_id=run_id,
        usage=usage,
        error_code=code,
        error_message=message,
        answer=answer,
    )


def _tool_calls(items: Sequence[JsonObject]) -> tuple[ToolCall, ...]:
    answered = {item.get("call_id") for item in items if item.get("type") == "function_call_output"}
    return tuple(
        ToolCall(call_id=str(item.get("call_id")), name=str(item.get("name")), arguments=str(item.get("arguments")))
        for item in items
        if item.get("type") == "function_call" and item.get("call_id") not in answered
    )


def read_answer(items: Sequence[JsonObject], *, model: str | None, usage: Usage | None) -> Answer:
    """Text, citations and code of output items; commentary is left out where final answers are marked."""
    messages = [item for item in items if item.get("type") == "message" and item.get("role") == "assistant"]
    final = [item for item in messages if item.get("phase") == "final_answer"]
    texts: list[str] = []
    citations: list[Mapping[str, Any]] = []
    for message in final or messages:
        for part in message.get("content") or []:
            if part.get("type") == "output_text":
                texts.append(str(part.get("text") or ""))
                citations += part.get("annotations") or []
            elif part.get("type") == "refusal":
                texts.append(str(part.get("refusal") or ""))
    code = []
    for item in items:
        if item.get("type") == "code_interpreter_call":
            logs = [str(out.get("logs")) for out in item.get("outputs") or [] if out.get("type") == "logs"]
            code.append({"input": item.get("code") or "", "output": "\n".join(logs)})
    return Answer(
        text="\n\n".join(texts) if texts else None,
        citations=tuple(citations),
        code=tuple(code),
        model=model,
        usage=usage,
    )


def _usage(response: JsonObject, *, priced: bool) -> Usage | None:
    used = response.get("usage")
    if not used:
        return None
    cached = (used.get("input_tokens_details") or {}).get("cached_tokens") or 0
    usage = Usage(
        input_tokens=int(used.get("input_tokens") or 0),
        cached_tokens=int(cached),
        output_tokens=int(used.get("output_tokens") or 0),
        total_tokens=int(used.get("total_tokens") or 0),
    )
    if not priced:
        return usage
    window = (response.get("background_options") or {}).get("completion_window")
    return with_cost(usage, response.get("model"), window=window, tier=response.get("service_tier"))
