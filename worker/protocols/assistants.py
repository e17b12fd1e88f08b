"""Assistants v2: assistant, thread, message, run. For servers that still speak it (protocols A).

The message travels in the call that creates the thread: one free, atomic call to prepare a question. The run's
metadata names the job, and a thread's runs can be listed, so a run whose reply was lost is always found again.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from askq.prices import has_known_prices, with_cost
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ambiguous,
    Ask,
    Before,
    Found,
    Given,
    Listing,
    Live,
    RunState,
    Search,
    Status,
    ToolCall,
    ToolOutput,
    Unread,
)
from worker.protocols.citations import found_by, resolved
from worker.protocols.codes import why_ended
from worker.protocols.deletion import DIGEST, HOME, Deletion
from worker.protocols.fields import JsonObject, a_count, a_status, a_text, an_object, joined, objects, shortened
from worker.protocols.filing import Filing
from worker.protocols.forgiving import cancelled, reached
from worker.protocols.repeats import path_of
from worker.protocols.streams import Events, ThreadReader, Watched, watched
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
_PASSAGES: Literal["step_details.tool_calls[*].file_search.results[*].content"] = (
    "step_details.tool_calls[*].file_search.results[*].content"
)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the last poll of a run said beside its status."""

    model: str | None
    usage: Usage | None


class AssistantsProtocol:
    """Speaks to one account through one client."""

    name = "assistants"
    lists_runs = True
    outputs_start_runs = False
    resumes = False

    def __init__(self, client: AsyncOpenAI, *, home: str | None = None) -> None:
        """`home` marks what is made as this askq's (`Store.home`)."""
        self._priced = has_known_prices(client.base_url.host)
        self._wire = Wire(client)
        self._deletion = Deletion(client, self._wire)
        self._home = home
        self._beta = client.beta
        self._client = client
        self._filing = Filing(client)
        self._ended: dict[str, _Ended] = {}

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        if assistant.assistant_id is not None:
            return assistant.assistant_id
        body = assistant_body(assistant, given, home=self._home)
        reply = await self._wire.call(
            self._beta.assistants.with_raw_response.create(model=assistant.model, extra_body=body)
        )
        return str(reply.body["id"])

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        body: dict[str, Any] = {"messages": [message_body(ask)], "metadata": ask.thread_metadata}
        if resources := thread_resources(ask.given):
            body["tool_resources"] = resources
        reply = await self._wire.call(
            self._wire.repeats.post(
                "new thread",
                path_of("threads"),
                self._beta.threads.with_raw_response.create,
                body=body,
                key=ask.thread_key,
            )
        )
        return str(reply.body["id"])

    async def join(self, ask: Ask, before: Before) -> str:
        newest = await self._wire.call(
            self._beta.threads.messages.with_raw_response.list(before.thread_id, limit=1, order="desc"),
            names=before.thread_id,
            needs_id=False,
        )
        if not isinstance(newest.body.get("data"), list):
            raise Ambiguous("unreadable", "the reply is no list")
        if not any(_asks(message, ask) for message in objects(newest.body["data"])[:1]):
            await self._wire.call(
                self._beta.threads.messages.with_raw_response.create(
                    before.thread_id,
                    role="user",
                    content=ask.text,
                    metadata=ask.thread_metadata,
                    extra_body=message_body(ask),
                    extra_headers={"Idempotency-Key": ask.thread_key},
                ),
                names=before.thread_id,
            )
        return before.run_id

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        """A message's files for file search go into a store of the thread, which the service makes."""
        if not ask.given.row_search and not ask.given.thread_store_files:
            return None
        thread = await self._wire.call(
            self._beta.threads.with_raw_response.retrieve(thread_id), names=thread_id, needs_id=False
        )
        resources = an_object(an_object(thread.body.get("tool_resources")).get("file_search"))
        stores = resources.get("vector_store_ids")
        ids = [id_ for id_ in stores if isinstance(id_, str)] if isinstance(stores, list) else []
        return await self._filing.unread(ids)

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        body = {"assistant_id": assistant_id or "", **run_body(ask)}
        reply = await self._wire.call(
            self._wire.repeats.post(
                "new run",
                path_of("threads", thread_id, "runs"),
                partial(self._beta.threads.runs.with_raw_response.create, thread_id, assistant_id=assistant_id or ""),
                body=body,
                key=ask.idempotency_key,
            ),
            names=thread_id,
        )
        return self._status(reply, str(reply.body["id"]))

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Watched | None]:
        return await self._watched(
            path_of("threads", thread_id, "runs"),
            {**run_body(ask), "assistant_id": assistant_id or ""},
            names=thread_id,
            key=ask.idempotency_key,
        )

    async def _watched(
        self, path: str, body: JsonObject, *, names: str, key: str | None = None
    ) -> tuple[Status, Watched | None]:
        headers = {"OpenAI-Beta": "assistants=v2"} | ({} if key is None else {"Idempotency-Key": key})
        opened = self._client.post(
            path,
            cast_to=object,
            body={**body, "stream": True},
            options={"headers": headers},
            stream=True,
            stream_cls=Events,
        )
        live, reply = await watched(opened, ThreadReader(), names=names, longest_s=self._wire.longest_s)
        status = self._status(reply, str(reply.body["id"]))
        if status.state is RunState.PENDING and not live.ended:
            return status, live
        await live.close()
        return status, None

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Live | None:
        return None  # a run's stream comes with its create, once

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        """In a thread of its own a run that names no job (a server that drops metadata) is taken for the job's; in a
        conversation, one that was made after the run of the question before. So is one of an earlier attempt that is
        still at work: to pay for another beside it would be the mistake."""
        runs = await self._wire.every(
            lambda query: self._beta.threads.runs.with_raw_response.list(thread_id, extra_query=query),
            names=thread_id,
        )
        known = [a_text(run.get("id")) for run in runs]
        # Without its mark nobody can tell which of the runs that name no job come after it.
        first = known.index(ask.joined) + 1 if ask.joined in known else 0 if ask.joined is None else len(runs)
        ids = tuple(
            id_
            for at, (id_, run) in enumerate(zip(known, runs, strict=True))
            if id_ and _is_ours(run, ask, may_be_nameless=at >= first)
        )
        return Found(search=Search.FOUND, run_ids=ids) if ids else Found(search=Search.NOT_STARTED)

    async def repeats_safely(self) -> bool:
        return False  # and no need to know: runs can be listed

    async def poll(self, thread_id: str, run_id: str) -> Status:
        return self._status(await self._run(thread_id, run_id), run_id)

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        call = self._beta.threads.runs.with_raw_response.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=[], extra_body={"tool_outputs": _given(outputs)}
        )
        reply = await self._wire.call(call, names=run_id)
        return self._status(reply, run_id)

    async def submit_tool_outputs_live(
        self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]
    ) -> tuple[Status, Watched | None]:
        return await self._watched(
            path_of("threads", thread_id, "runs", run_id, "submit_tool_outputs"),
            {"tool_outputs": _given(outputs)},
            names=run_id,
        )

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        messages = await self._wire.every(
            lambda query: self._messages(thread_id, {**query, "run_id": run_id}),
            names=run_id,
        )
        steps: list[JsonObject] = []
        if assistant.uses("code_interpreter") or assistant.uses("file_search"):
            include = [_PASSAGES] if assistant.uses("file_search") else []
            steps = await self._wire.every(
                lambda query: self._beta.threads.runs.steps.with_raw_response.list(
                    run_id, thread_id=thread_id, include=include, extra_query=query
                ),
                names=run_id,
            )
        # The poll that saw the end is usually this process's own.
        ended = self._ended.pop(run_id, None) or self._read_end((await self._run(thread_id, run_id)).body)
        # A server may neither know the filter `run_id` nor say whose a message is: then it is what follows the last
        # question, because no other is asked before this one has ended.
        asked = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=-1)
        ours = [
            message
            for at, message in enumerate(messages)
            if message.get("role") == "assistant"
            and (message.get("run_id") == run_id or (at > asked and message.get("run_id") is None))
        ]
        return await self._with_names(read_answer(ours, steps, model=ended.model, usage=ended.usage))

    async def _with_names(self, answer: Answer) -> Answer:
        """The answer with the names of cited files that no search has told."""
        citations = []
        for citation in answer.citations:
            file_id = a_text(citation.get("file_id"))
            if file_id and not citation.get("filename"):
                name = await self._filing.name_of(file_id)
                citation = citation if name is None else {**citation, "filename": name}
            citations.append(citation)
        return dataclasses.replace(answer, citations=tuple(citations))

    async def cancel(self, thread_id: str, run_id: str) -> None:
        call = self._beta.threads.runs.with_raw_response.cancel(run_id, thread_id=thread_id)
        await cancelled(self._wire.call(call, names=run_id, needs_body=False), run_id)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return await self._deletion.delete(kind, id_)

    async def listed(self, kind: Kind) -> list[Listing]:
        return await self._deletion.listed(kind)

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


def message_body(ask: Ask) -> dict[str, Any]:
    """The message that asks, with its images and files."""
    given = ask.given
    content: str | list[dict[str, Any]] = ask.text
    if given.images:
        content = [{"type": "text", "text": ask.text}]
        for image in given.images:
            if image.file_id is not None:
                content.append({"type": "image_file", "image_file": {"file_id": image.file_id}})
            else:
                content.append({"type": "image_url", "image_url": {"url": image.url}})
    body: dict[str, Any] = {"role": "user", "content": content}
    attached: dict[str, list[str]] = {}
    for tool, ids in (("code_interpreter", given.row_code), ("file_search", given.row_search)):
        for file_id in ids:
            attached.setdefault(file_id, []).append(tool)
    if attached:
        body["attachments"] = [
            {"file_id": file_id, "tools": [{"type": tool} for tool in tools]} for file_id, tools in attached.items()
        ]
    return body


def thread_resources(given: Given) -> dict[str, Any]:
    """What a thread may read besides its assistant's."""
    resources: dict[str, Any] = {}
    if given.thread_code:
        resources["code_interpreter"] = {"file_ids": list(given.thread_code)}
    if given.thread_store_files:
        resources["file_search"] = {"vector_stores": [{"file_ids": list(given.thread_store_files)}]}
    elif given.thread_stores:
        resources["file_search"] = {"vector_store_ids": list(given.thread_stores)}
    return resources


def assistant_body(assistant: Assistant, given: Given = NOTHING_GIVEN, *, home: str | None = None) -> dict[str, Any]:
    """The body that creates the remote assistant object."""
    marks = {DIGEST: assistant.digest} | ({HOME: home} if home else {})
    body: dict[str, Any] = {
        "name": assistant.name,
        "description": assistant.description,
        "instructions": assistant.instructions,
        "tools": [_tool(tool) for tool in assistant.tools],
        "tool_resources": _resources(assistant, given),
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
        "tool_choice": _choice(ask.tool_choice),
        "parallel_tool_calls": assistant.parallel_tool_calls,
    }
    return {name: value for name, value in body.items() if value is not None}


def _choice(choice: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A choice in the nested shape of Assistants; None for one that only Responses has."""
    if not isinstance(choice, Mapping):
        return choice
    kind = choice["type"]
    if kind == "function":
        return {"type": kind, kind: {"name": choice["name"]}}
    return {"type": kind} if kind in ("code_interpreter", "file_search") else None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the nested shape of Assistants; profiles keep the flat one of Responses."""
    kind = str(tool["type"])
    rest = {name: value for name, value in tool.items() if name not in ("type", "container", "vector_store_ids")}
    return {"type": kind, kind: rest} if rest and kind in ("file_search", "function") else {"type": kind}


def _resources(assistant: Assistant, given: Given) -> dict[str, Any]:
    resources: dict[str, dict[str, Any]] = {name: dict(value) for name, value in assistant.tool_resources.items()}
    for tool in assistant.tools:
        if tool.get("vector_store_ids"):
            resources.setdefault("file_search", {"vector_store_ids": list(tool["vector_store_ids"])})
        container = tool.get("container")
        if isinstance(container, Mapping) and container.get("file_ids"):
            resources.setdefault("code_interpreter", {"file_ids": list(container["file_ids"])})
    for kind, key, ids in (
        ("code_interpreter", "file_ids", given.code),
        ("file_search", "vector_store_ids", given.stores),
    ):
        if ids:
            known = resources.setdefault(kind, {}).get(key, [])
            resources[kind] = {**resources[kind], key: list(dict.fromkeys([*known, *ids]))}
    return resources


def _response_format(assistant: Assistant) -> Mapping[str, Any] | None:
    wanted = assistant.text_format
    if wanted is None or wanted.get("type") != "json_schema" or "json_schema" in wanted:
        return wanted
    return {"type": "json_schema", "json_schema": {name: part for name, part in wanted.items() if name != "type"}}


def _asks(message: JsonObject, ask: Ask) -> bool:
    """Whether a message is this question."""
    metadata = an_object(message.get("metadata"))
    if message.get("role") != "user" or metadata.get("askq_job", ask.job_id) != ask.job_id:
        return False
    if "askq_job" in metadata:
        return True
    # A server that drops metadata.
    texts = [a_text(an_object(part.get("text")).get("value")) for part in objects(message.get("content"))]
    return "\n".join(texts) == ask.text


def _is_ours(run: JsonObject, ask: Ask, *, may_be_nameless: bool) -> bool:
    metadata = an_object(run.get("metadata"))
    if metadata.get("askq_job", ask.job_id if may_be_nameless else None) != ask.job_id:
        return False
    at_work = STATES.get(a_status(run.get("status")), RunState.PENDING) in (RunState.PENDING, RunState.ACTION)
    return at_work or metadata.get("askq_attempt", str(ask.attempt)) == str(ask.attempt)


def _given(outputs: tuple[ToolOutput, ...]) -> list[JsonObject]:
    return [{"tool_call_id": output.call_id, "output": output.output} for output in outputs]


def _tool_calls(run: JsonObject) -> tuple[ToolCall, ...]:
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
    files: dict[str, Mapping[str, Any]] = {}
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


def _read_text(text: JsonObject, files: dict[str, Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
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


def _read_code(call: JsonObject, files: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    logs = []
    for output in objects(call.get("outputs")):
        if output.get("type") == "logs":
            logs.append(a_text(output.get("logs")))
        elif output.get("type") == "image":
            file_id = a_text(an_object(output.get("image")).get("file_id"))
            files.setdefault(file_id, {"kind": "image", "file_id": file_id})
    return {"input": a_text(call.get("input")), "output": shortened("\n".join(logs))}
