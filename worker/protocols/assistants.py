"""Assistants v2: assistant, thread, message, run. For servers that still speak it (protocols A).

The message travels in the call that creates the thread: one free, atomic call to prepare a question. The run's
metadata names the job, and a thread's runs can be listed, so a run whose reply was lost is always found again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.prices import with_cost
from worker.protocols.adapter import Adapter
from worker.protocols.assistants_bodies import assistant_body, message_body, outputs_body, run_body, thread_resources
from worker.protocols.assistants_replies import STATES, asks, is_ours, read_answer, read_tool_calls
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ask,
    Before,
    Found,
    Given,
    Live,
    RunState,
    Search,
    Status,
    ToolOutput,
    Unread,
)
from worker.protocols.codes import why_ended
from worker.protocols.fields import JsonObject, a_text, an_object
from worker.protocols.filing import Filing
from worker.protocols.forgiving import cancelled
from worker.protocols.repeats import path_of
from worker.protocols.replies import read_usage
from worker.protocols.streams import ThreadReader, Watched
from worker.protocols.wire import Reply

# Every call announces the sunset at run time; askq serves what is left of this protocol on purpose.
warnings.filterwarnings(
    "ignore", message=r"(deprecated|The Assistants API is deprecated).*", category=DeprecationWarning
)

_BETA = {"OpenAI-Beta": "assistants=v2"}
"""What the SDK adds to its own calls of this protocol."""
_REMEMBERED = 10_000
_PASSAGES: Literal["step_details.tool_calls[*].file_search.results[*].content"] = (
    "step_details.tool_calls[*].file_search.results[*].content"
)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the last poll of a run said beside its status."""

    model: str | None
    usage: Usage | None


class AssistantsProtocol(Adapter):
    """Speaks to one account through one client."""

    name = "assistants"
    lists_runs = True
    outputs_start_runs = False
    resumes = False
    _states = STATES

    def __init__(self, client: AsyncOpenAI, *, home: str | None = None) -> None:
        """`home` marks what is made as this askq's (`Store.home`)."""
        super().__init__(client)
        self._home = home
        self._beta = client.beta
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
        reply = await self._create(
            "new thread",
            path_of("threads"),
            self._beta.threads.with_raw_response.create,
            body=body,
            key=ask.thread_key,
        )
        return str(reply.body["id"])

    async def join(self, ask: Ask, before: Before) -> str:
        newest = await self._wire.newest(
            self._beta.threads.messages.with_raw_response.list(before.thread_id, limit=1, order="desc"),
            names=before.thread_id,
        )
        if not asks(newest, ask):
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
        reply = await self._create(
            "new run",
            path_of("threads", thread_id, "runs"),
            partial(self._beta.threads.runs.with_raw_response.create, thread_id, assistant_id=assistant_id or ""),
            body=body,
            key=ask.idempotency_key,
            names=thread_id,
        )
        return self._status(reply, str(reply.body["id"]))

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Watched | None]:
        return await self._post_watched(
            path_of("threads", thread_id, "runs"),
            {**run_body(ask), "assistant_id": assistant_id or ""},
            ThreadReader(),
            names=thread_id,
            headers={**_BETA, "Idempotency-Key": ask.idempotency_key},
        )

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
            if id_ and is_ours(run, ask, may_be_nameless=at >= first)
        )
        return Found(search=Search.FOUND, run_ids=ids) if ids else Found(search=Search.NOT_STARTED)

    async def repeats_safely(self) -> bool:
        return False  # and no need to know: runs can be listed

    async def poll(self, thread_id: str, run_id: str) -> Status:
        return self._status(await self._run(thread_id, run_id), run_id)

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        call = self._beta.threads.runs.with_raw_response.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=[], extra_body=outputs_body(outputs)
        )
        reply = await self._wire.call(call, names=run_id)
        return self._status(reply, run_id)

    async def submit_tool_outputs_live(
        self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]
    ) -> tuple[Status, Watched | None]:
        return await self._post_watched(
            path_of("threads", thread_id, "runs", run_id, "submit_tool_outputs"),
            outputs_body(outputs),
            ThreadReader(),
            names=run_id,
            headers=_BETA,
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

    async def _run(self, thread_id: str, run_id: str) -> Reply:
        return await self._read_run(
            "run",
            path_of("threads", thread_id, "runs", run_id),
            lambda: self._beta.threads.runs.with_raw_response.retrieve(run_id, thread_id=thread_id),
            run_id=run_id,
        )

    def _messages(self, thread_id: str, query: dict[str, Any]) -> Awaitable[Any]:
        return self._wire.repeats.get(
            "messages",
            path_of("threads", thread_id, "messages"),
            lambda: self._beta.threads.messages.with_raw_response.list(thread_id, extra_query=query),
            query=query,
        )

    def _stopped(self, reply: Reply, run_id: str, *, state: RunState, raw: str) -> Status:
        run = reply.body
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
            tool_calls=read_tool_calls(run) if state is RunState.ACTION else (),
            usage=ended.usage,
            error_code=code,
            error_message=message,
            limits=reply.limits,
        )

    def _read_end(self, run: JsonObject) -> _Ended:
        model = a_text(run.get("model")) or None
        usage = read_usage(run.get("usage"), read="prompt", written="completion")
        return _Ended(model, with_cost(usage, model) if usage is not None and self._priced else usage)
