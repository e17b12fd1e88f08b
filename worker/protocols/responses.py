"""Responses in background mode, each in a Conversation of its own (protocols B).

Responses cannot be listed. The conversation, whose id is saved before anything is paid, is the way back: when the
run completes, its answer appears among the conversation's items, even though the response's id was never seen.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from askq.prices import with_cost
from worker.protocols.adapter import Adapter
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
    Live,
    Refused,
    RunState,
    Search,
    Status,
    ToolOutput,
    Unread,
)
from worker.protocols.codes import why_ended
from worker.protocols.fields import JsonObject, a_count, a_text, an_object, objects
from worker.protocols.forgiving import cancelled
from worker.protocols.repeats import path_of
from worker.protocols.replies import read_usage
from worker.protocols.responses_bodies import DISCOUNTED, INCLUDE, WINDOW, chosen_id, request_body
from worker.protocols.responses_replies import STATES, after_outputs, of_question, read_answer, read_tool_calls
from worker.protocols.streams import Events, ResponseReader, Watched, resumed
from worker.protocols.wire import Reply

_NOT_HERE = "here outputs start a response of their own"

_TAKE_IDS = {"vllm", "sglang"}
"""Owners of models, as servers name them that take the id of a response."""


class ResponsesProtocol(Adapter):
    """Speaks to one account through one client."""

    name = "responses"
    lists_runs = False
    outputs_start_runs = True
    resumes = True
    _states = STATES

    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
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
        try:
            reply = await self._create(
                "new conversation",
                path_of("conversations"),
                self._client.conversations.with_raw_response.create,
                body={"metadata": ask.thread_metadata},
                key=ask.thread_key,
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
        newest = await self._wire.newest(
            self._client.conversations.items.with_raw_response.list(before.thread_id, limit=1, order="desc"),
            names=before.thread_id,
        )
        last = a_text(newest.get("id"))
        if before.answered and last == before.joined:
            # A run that began now would not remember it, and its answer might be taken for this question's.
            raise Ambiguous("not_shown", "the conversation does not show the question before this one yet")
        return last

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        reply = await self._create(
            "new response",
            path_of("responses"),
            self._client.responses.with_raw_response.create,
            body=await self._create_body(ask, thread_id),
            key=ask.idempotency_key,
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
        if ask.assistant.completion_window in DISCOUNTED:
            return await self.start(ask, thread_id, assistant_id), None
        status, live = await self._post_watched(
            path_of("responses"),
            await self._create_body(ask, thread_id),
            ResponseReader(),
            names=thread_id,
            headers={"Idempotency-Key": ask.idempotency_key},
        )
        return status, self._whole(live, status.run_id)

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Watched | None:
        reader, query = ResponseReader(), {"stream": "true"}
        if isinstance(before, Watched) and before.sequence is not None and isinstance(before.reader, ResponseReader):
            # What was seen is known here: the stream goes on after it.
            reader, query["starting_after"] = before.reader, str(before.sequence)
        opened = self._client.get(
            path_of("responses", run_id),
            cast_to=object,
            options={"params": {**query, "include[]": list(INCLUDE)}},
            stream=True,
            stream_cls=Events,
        )
        return self._whole(await resumed(opened, reader, names=run_id, longest_s=self._wire.longest_s), run_id)

    def _whole(self, live: Watched | None, run_id: str) -> Watched | None:
        """The stream, whose last event carries the response as a poll would show it."""
        if live is not None:
            live.understood = partial(self._status, run_id=run_id)
        return live

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
                thread_id, include=INCLUDE, extra_query=query
            ),
            names=thread_id,
        )
        if ask.joined is not None:
            items = of_question(items, ask)
        if ask.outputs:
            after = after_outputs(items, ask.outputs)
            if after is None:
                return Found(search=Search.UNKNOWN)
            items = after
        calls = read_tool_calls(items)
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
        reply = await self._read_run(
            "response",
            path_of("responses", run_id),
            lambda: self._client.responses.with_raw_response.retrieve(run_id, include=INCLUDE),
            run_id=run_id,
        )
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

    def _stopped(self, reply: Reply, run_id: str, *, state: RunState, raw: str) -> Status:
        response = reply.body
        items = objects(response.get("output"))
        usage = self._usage(response)
        calls = read_tool_calls(items) if state is RunState.DONE else ()
        if calls:
            state = RunState.ACTION
        code, message = why_ended(
            state, an_object(response.get("error")), an_object(response.get("incomplete_details"))
        )
        return Status(
            state=state,
            raw=raw,
            run_id=run_id,
            tool_calls=calls,
            usage=usage,
            error_code=code,
            error_message=message,
            # With calls, too: the response has ended, and no later one repeats code it has run or files it has made.
            answer=self._answer(response, items, usage),
            limits=reply.limits,
        )

    @staticmethod
    def _answer(response: JsonObject, items: Sequence[JsonObject], usage: Usage | None) -> Answer:
        answer = read_answer(items, model=a_text(response.get("model")) or None, usage=usage)
        return dataclasses.replace(answer, since=a_count(response.get("created_at")) or None)

    def _usage(self, response: JsonObject) -> Usage | None:
        usage = read_usage(response.get("usage"), read="input", written="output")
        if usage is None or not self._priced:
            return usage
        return with_cost(
            usage,
            a_text(response.get("model")) or None,
            window=a_text(an_object(response.get("metadata")).get(WINDOW)) or None,
            tier=a_text(response.get("service_tier")) or None,
        )
