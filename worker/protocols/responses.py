"""Responses in background mode, each in a Conversation of its own (protocols B).

Responses cannot be listed. The conversation, whose id is saved before anything is paid, is the way back: when the
run completes, its answer appears among the conversation's items, even though the response's id was never seen.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import ResponseIncludable

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from askq.prices import has_known_prices, with_cost
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ambiguous,
    Ask,
    Before,
    Blocked,
    Found,
    Given,
    Gone,
    Limited,
    Listing,
    Live,
    Refused,
    RunState,
    Search,
    Status,
    ToolCall,
    ToolOutput,
    Unread,
)
from worker.protocols.citations import passages, resolved
from worker.protocols.codes import why_ended
from worker.protocols.deletion import Deletion
from worker.protocols.fields import JsonObject, a_count, a_status, a_text, an_object, joined, objects, shortened
from worker.protocols.forgiving import cancelled, reached
from worker.protocols.repeats import path_of
from worker.protocols.streams import Events, ResponseReader, Watched, resumed, watched
from worker.protocols.wire import Reply, Wire

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

_NOT_HERE = "here outputs start a response of their own"

_INCLUDE: list[ResponseIncludable] = ["code_interpreter_call.outputs", "file_search_call.results"]
_TAKE_IDS = {"vllm", "sglang"}
_WINDOW = "askq_window"
"""Metadata: the completion window that was asked for. It sets the price, and no reply repeats it."""

_CALLS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_approval_request": "arguments"}
"""Items that complete a response and wait for the client: what their arguments are called."""
_OUTPUTS = {"function_call_output", "custom_tool_call_output", "mcp_approval_response"}


class ResponsesProtocol:
    """Speaks to one account through one client."""

    name = "responses"
    lists_runs = False
    outputs_start_runs = True
    resumes = True

    def __init__(self, client: AsyncOpenAI) -> None:
        self._priced = has_known_prices(client.base_url.host)
        self._wire = Wire(client)
        self._deletion = Deletion(client, self._wire)
        self._client = client
        self._conversations = True
        self._keyed: bool | None = None
        # OpenAI chooses its ids itself, and refuses a field it does not know.
        self._chooses: bool | None = False if self._priced else None

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        return None

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        return None  # stores are ready before they are named

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        if not self._conversations:
            return ""
        body = {"metadata": ask.thread_metadata}
        try:
            reply = await self._wire.call(
                self._wire.repeats.post(
                    "new conversation",
                    path_of("conversations"),
                    self._client.conversations.with_raw_response.create,
                    body=body,
                    key=ask.thread_key,
                )
            )
        except Blocked as error:
            if error.code != "endpoint_gone":
                raise
            # Many servers speak Responses without Conversations (protocols E): then there is no way back.
            self._conversations = False
            return ""
        return str(reply.body["id"])

    async def join(self, ask: Ask, before: Before) -> str:
        """The question itself comes with the call that creates its response."""
        newest = await self._wire.call(
            self._client.conversations.items.with_raw_response.list(before.thread_id, limit=1, order="desc"),
            names=before.thread_id,
            needs_id=False,
        )
        if not isinstance(newest.body.get("data"), list):
            raise Ambiguous("unreadable", "the reply is no list")
        last = next((a_text(item.get("id")) for item in objects(newest.body["data"])), "")
        if before.answered and last == before.joined:
            # A run that began now would not remember it, and its answer might be taken for this question's.
            raise Ambiguous("not_shown", "the conversation does not show the question before this one yet")
        return last

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        body = await self._create_body(ask, thread_id)
        reply = await self._wire.call(
            self._wire.repeats.post(
                "new response",
                path_of("responses"),
                self._client.responses.with_raw_response.create,
                body=body,
                key=ask.idempotency_key,
            ),
            names=thread_id,
        )
        return self._status(reply, str(reply.body["id"]))

    async def _create_body(self, ask: Ask, thread_id: str) -> dict[str, Any]:
        body = request_body(ask, thread_id)
        try:
            if await self._takes_ids():
                body["request_id"] = chosen_id(ask)
        except Ambiguous as error:
            # Whatever came of that look, nothing that costs anything has been sent.
            raise Limited(error.code, error.message, retry_after=error.retry_after) from error
        return body

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Watched | None]:
        if ask.assistant.completion_window in ("2h", "8h"):
            # Discounted runs have no streams.
            return await self.start(ask, thread_id, assistant_id), None
        body = await self._create_body(ask, thread_id) | {"stream": True}
        opened = self._client.post(
            "/responses",
            cast_to=object,
            body=body,
            options={"headers": {"Idempotency-Key": ask.idempotency_key}},
            stream=True,
            stream_cls=Events,
        )
        live, reply = await watched(opened, ResponseReader(), names=thread_id, longest_s=self._wire.longest_s)
        status = self._status(reply, str(reply.body["id"]))
        if status.state is RunState.PENDING and not live.ended:
            live.understood = partial(self._status, run_id=status.run_id)
            return status, live
        await live.close()
        return status, None

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Watched | None:
        reader, query = ResponseReader(), {"stream": "true"}
        if isinstance(before, Watched) and before.sequence is not None and isinstance(before.reader, ResponseReader):
            # What was seen is known here: the stream goes on after it.
            reader, query["starting_after"] = before.reader, str(before.sequence)
        opened = self._client.get(
            path_of("responses", run_id),
            cast_to=object,
            options={"params": {**query, "include[]": list(_INCLUDE)}},
            stream=True,
            stream_cls=Events,
        )
        found = await resumed(opened, reader, names=run_id, longest_s=self._wire.longest_s)
        found.understood = partial(self._status, run_id=run_id)
        return found

    async def _takes_ids(self) -> bool:
        """Whether the response gets the id we choose, so that it can be looked for under it. Found out once, from the
        free list of models: vLLM and SGLang take `request_id` (protocols C.6 e), and name themselves there."""
        if self._chooses is None:
            try:
                reply = await self._wire.call(self._client.models.with_raw_response.list(), needs_id=False)
                self._chooses = any(entry.get("owned_by") in _TAKE_IDS for entry in objects(reply.body.get("data")))
            except (Gone, Refused):
                # A server without a list, or one that shows it to nobody, is none of these.
                self._chooses = False
            except Blocked as error:
                if error.code not in ("endpoint_gone", "forbidden_account"):
                    raise
                self._chooses = False
        return self._chooses

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        """The conversation holds nothing of a response before it has completed; what comes after the mark of a question
        that has joined others is its own."""
        if await self._takes_ids():
            try:
                return Found(search=Search.FOUND, run_ids=((await self.poll(thread_id, chosen_id(ask))).run_id,))
            except Gone:
                return Found(search=Search.NOT_STARTED)
        if not thread_id:
            return Found(search=Search.UNKNOWN)
        items = await self._wire.every(
            lambda query: self._client.conversations.items.with_raw_response.list(
                thread_id, include=_INCLUDE, extra_query=query
            ),
            names=thread_id,
        )
        if ask.joined is not None:
            items = _of_this(items, ask)
        if ask.outputs:
            after = _after(items, ask.outputs)
            if after is None:
                return Found(search=Search.UNKNOWN)
            items = after
        calls = _tool_calls(items)
        if calls and all(item.get("status") != "in_progress" for item in items):
            brought = read_answer(items, model=None, usage=None)
            return Found(search=Search.ASKED, tool_calls=calls, answer=brought)
        said = [item for item in items if item.get("type") == "message" and item.get("role") == "assistant"]
        if not said or said[-1].get("status") == "in_progress":
            return Found(search=Search.UNKNOWN)
        cut = said[-1].get("status") == "incomplete"
        return Found(
            search=Search.ANSWERED,
            answer=read_answer(items, model=None, usage=None),
            error_code="incomplete" if cut else None,
        )

    async def repeats_safely(self) -> bool:
        if self._keyed is None:
            self._keyed = self._conversations and await self._honours_keys()
        return self._keyed

    async def _honours_keys(self) -> bool:
        """Create the same conversation twice under one key: it is free, and a server that honours keys makes one."""
        key = uuid.uuid4().hex
        made = []
        for _ in range(2):
            reply = await self._wire.call(
                self._client.conversations.with_raw_response.create(
                    extra_body={"metadata": {"askq_probe": key}}, extra_headers={"Idempotency-Key": key}
                )
            )
            made.append(str(reply.body["id"]))
        for conversation in set(made):
            await self.delete(Kind.CONVERSATION, conversation)
        return made[0] == made[1]

    async def poll(self, thread_id: str, run_id: str) -> Status:
        reply = await self._wire.call(
            self._wire.repeats.get(
                "response",
                path_of("responses", run_id),
                lambda: self._client.responses.with_raw_response.retrieve(run_id, include=_INCLUDE),
            ),
            names=run_id,
            needs_id=False,
        )
        reply.require("status", "id")
        return self._status(reply, run_id)

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        raise NotImplementedError(_NOT_HERE)

    async def submit_tool_outputs_live(
        self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]
    ) -> tuple[Status, Live | None]:
        raise NotImplementedError(_NOT_HERE)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        status = await self.poll(thread_id, run_id)
        return status.answer or Answer(text=None)

    async def cancel(self, thread_id: str, run_id: str) -> None:
        call = self._client.responses.with_raw_response.cancel(run_id)
        await cancelled(self._wire.call(call, names=run_id, needs_body=False), run_id)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return await self._deletion.delete(kind, id_)

    async def listed(self, kind: Kind) -> list[Listing]:
        return await self._deletion.listed(kind)

    async def check(self) -> None:
        await reached(self._wire.call(self._client.models.with_raw_response.list(), needs_id=False))

    def _status(self, reply: Reply, run_id: str) -> Status:
        response = reply.body
        raw = a_status(response.get("status"))
        state = STATES.get(raw, RunState.PENDING)
        if state is RunState.PENDING:
            return Status(state=state, raw=raw, run_id=run_id, poll_after=reply.poll_after, limits=reply.limits)
        items = objects(response.get("output"))
        usage = self._usage(response)
        calls = _tool_calls(items)
        if state is RunState.DONE and calls:
            return Status(
                state=RunState.ACTION,
                raw=raw,
                run_id=run_id,
                tool_calls=calls,
                usage=usage,
                # It has ended: code that it has run, and files it has made, no later response repeats.
                answer=self._answer(response, items, usage),
                limits=reply.limits,
            )
        code, message = why_ended(
            state, an_object(response.get("error")), an_object(response.get("incomplete_details"))
        )
        return Status(
            state=state,
            raw=raw,
            run_id=run_id,
            usage=usage,
            error_code=code,
            error_message=message,
            answer=self._answer(response, items, usage),
            limits=reply.limits,
        )

    @staticmethod
    def _answer(response: JsonObject, items: Sequence[JsonObject], usage: Usage | None) -> Answer:
        answer = read_answer(items, model=a_text(response.get("model")) or None, usage=usage)
        return dataclasses.replace(answer, since=a_count(response.get("created_at")) or None)

    def _usage(self, response: JsonObject) -> Usage | None:
        used = an_object(response.get("usage"))
        if not used:
            return None
        usage = Usage(
            input_tokens=a_count(used.get("input_tokens")),
            cached_tokens=a_count(an_object(used.get("input_tokens_details")).get("cached_tokens")),
            output_tokens=a_count(used.get("output_tokens")),
            total_tokens=a_count(used.get("total_tokens")),
        )
        if not self._priced:
            return usage
        return with_cost(
            usage,
            a_text(response.get("model")) or None,
            window=a_text(an_object(response.get("metadata")).get(_WINDOW)) or None,
            tier=a_text(response.get("service_tier")) or None,
        )


def chosen_id(ask: Ask) -> str:
    """The id of the response of an intent, on servers that take ours."""
    return f"resp_{ask.idempotency_key[:32]}"


def request_body(ask: Ask, thread_id: str) -> dict[str, Any]:
    """The body that creates a background response."""
    assistant = ask.assistant
    window = assistant.completion_window
    text_format = assistant.text_format
    if text_format is not None and isinstance(text_format.get("json_schema"), Mapping):
        text_format = {"type": "json_schema", **text_format["json_schema"]}
    tools = [tool for tool in assistant.tools if _is_of_use(tool, ask)]
    body: dict[str, Any] = {
        "model": ask.model or assistant.model,
        "input": [_output(output) for output in ask.outputs] or _input(ask),
        "instructions": ask.instructions or assistant.instructions,
        "background": True,
        "store": True,
        "background_options": {"completion_window": window} if window is not None else None,
        "conversation": thread_id or None,
        "previous_response_id": None if thread_id else ask.previous,
        "metadata": ask.run_metadata | ({_WINDOW: window} if window in ("2h", "8h") else {}),
        "tools": [_tool(tool, assistant.tool_resources, ask.given) for tool in tools],
        "tool_choice": ask.tool_choice if len(tools) == len(assistant.tools) else _left_to_choose(ask, tools),
        "parallel_tool_calls": assistant.parallel_tool_calls,
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


def _input(ask: Ask) -> str | list[dict[str, Any]]:
    """The question; with its images, a message of several parts."""
    if not ask.given.images:
        return ask.text
    parts: list[dict[str, Any]] = [{"type": "input_text", "text": ask.text}]
    for image in ask.given.images:
        place = {"image_url": image.url} if image.file_id is None else {"file_id": image.file_id}
        parts.append({"type": "input_image", "detail": "auto", **place})
    return [{"type": "message", "role": "user", "content": parts}]


def _tool(tool: Mapping[str, Any], resources: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """A tool with the files and stores that Assistants would keep apart from it."""
    kind = tool.get("type")
    if kind == "code_interpreter" and not isinstance(tool.get("container"), str):
        container = dict(tool.get("container") or {"type": "auto"})
        named = container.get("file_ids") or (resources.get("code_interpreter") or {}).get("file_ids") or []
        files = _different(named, given.code, given.thread_code, given.row_code)
        return {**tool, "container": {**container, "file_ids": files} if files else container}
    if kind == "file_search":
        return {**tool, "vector_store_ids": _stores(tool, resources, given)}
    return dict(tool)


def _is_of_use(tool: Mapping[str, Any], ask: Ask) -> bool:
    """Not a file search that has nothing to search: unlike Assistants, this protocol refuses it."""
    return tool.get("type") != "file_search" or bool(_stores(tool, ask.assistant.tool_resources, ask.given))


def _left_to_choose(ask: Ask, tools: Sequence[Mapping[str, Any]]) -> str | Mapping[str, Any] | None:
    """The choice of a tool without the file search that is left out: a choice that names it would be refused."""
    choice = ask.tool_choice
    if not tools or choice is None or isinstance(choice, str):
        return choice if tools else None
    if choice["type"] != "allowed_tools":
        return None if choice["type"] == "file_search" else choice
    left = [tool for tool in choice["tools"] if tool.get("type") != "file_search"]
    return {**choice, "tools": left} if left else "none"


def _stores(tool: Mapping[str, Any], resources: Mapping[str, Any], given: Given) -> list[str]:
    named = tool.get("vector_store_ids") or (resources.get("file_search") or {}).get("vector_store_ids") or []
    return _different(named, given.stores, given.thread_stores, given.row_stores)


def _different(*ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(id_ for some in ids for id_ in some))


def _output(output: ToolOutput) -> dict[str, str]:
    return {"type": "function_call_output", "call_id": output.call_id, "output": output.output}


def _after(items: Sequence[JsonObject], outputs: Sequence[ToolOutput]) -> list[JsonObject] | None:
    """The items after these outputs; None when they are not all there yet."""
    left = {output.call_id for output in outputs}
    for at, item in enumerate(items):
        if item.get("type") in _OUTPUTS:
            left.discard(a_text(item.get("call_id")))
        if not left:
            return list(items[at + 1 :])
    return None


def _of_this(items: Sequence[JsonObject], ask: Ask) -> list[JsonObject]:
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


def _tool_calls(items: Sequence[JsonObject]) -> tuple[ToolCall, ...]:
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
    files: dict[str, Mapping[str, Any]] = {}
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


def _read_message(message: JsonObject, citations: list[Mapping[str, Any]], files: dict[str, Mapping[str, Any]]) -> str:
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


def _read_code(item: JsonObject, files: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    logs = []
    for output in objects(item.get("outputs")):
        if output.get("type") == "logs":
            logs.append(a_text(output.get("logs")))
        elif output.get("type") == "image":
            url = a_text(output.get("url"))
            files.setdefault(url, {"kind": "image", "url": url})
    call = {"input": a_text(item.get("code")), "output": shortened("\n".join(logs))}
    container = a_text(item.get("container_id"))
    return {**call, "container_id": container} if container else call
