"""Both protocols through one life cycle, against the local API over real sockets: the engine must not notice which.

Where they differ, the difference is named: a run of the Assistants protocol can always be found again, one of
Responses only by its answer, once that has appeared in the conversation.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.ends import ENDS
from askq.jobs.model import Answer
from askq.jobs.objects import Kind
from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import Server, running
from tests.parts import Clock
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import (
    Ambiguous,
    Ask,
    Blocked,
    Busy,
    Found,
    Gone,
    Limited,
    Protocol,
    Refused,
    RunState,
    Search,
    Status,
)
from worker.protocols.client import open_client
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.responses_bodies import chosen_id

SECONDS = 10.0
"""Duration of every scripted run; the clock is the test's."""

ADAPTERS: Mapping[str, type[AssistantsProtocol | ResponsesProtocol]] = {
    "assistants": AssistantsProtocol,
    "responses": ResponsesProtocol,
}


@pytest.fixture(params=ADAPTERS)
def name(request: pytest.FixtureRequest) -> str:
    """The protocol a test is run with."""
    return str(request.param)


class Stage:
    """A server, one adapter, and a question on its way."""

    def __init__(self, server: Server, protocol: Protocol, clock: Clock) -> None:
        self.server = server
        self.protocol = protocol
        self.clock = clock
        self.asked = ask()
        self.remote: str | None = None
        self.thread = ""

    async def prepare(self, asked: Ask | None = None) -> None:
        """Everything before the paid call."""
        self.asked = asked or self.asked
        self.remote = await self.protocol.ensure_assistant(self.asked.assistant)
        self.thread = await self.protocol.prepare(self.asked, self.remote)

    async def start(self, asked: Ask | None = None) -> Status:
        """Prepare, if that is still to be done, and pay."""
        if not self.thread:
            await self.prepare(asked)
        return await self.protocol.start(asked or self.asked, self.thread, self.remote)

    async def ended(self, asked: Ask | None = None) -> Status:
        """The status of a run whose time is over."""
        run = await self.start(asked)
        self.clock.now += SECONDS
        return await self.protocol.poll(self.thread, run.run_id)

    async def answer(self, status: Status) -> Answer:
        """The answer, wherever it comes from: the engine asks only when the status did not carry it."""
        return status.answer or await self.protocol.answer(self.thread, status.run_id, self.asked.assistant)

    async def find(self) -> Found:
        """Look for the run as if the reply to its create had been lost."""
        return await self.protocol.find_started(self.asked, self.thread)

    async def paid(self) -> list[str]:
        """Every run there ever was, by its job."""
        return [entry.metadata.get("askq_job", "?") for entry in await self.server.api.storage.ledger(0, 1000)]

    def goes_wrong(self, kind: str, **rule: Any) -> None:
        """Let the next create of a run go wrong."""
        self.server.api.faults.add({"method": "POST", "path": "/(runs|responses)$", "times": 1, "kind": kind, **rule})


def assistant(**fields: Any) -> Assistant:
    return Assistant(**{"name": "tutor", "protocol": "assistants", "model": "gpt-test", **fields})


def ask(**fields: Any) -> Ask:
    return Ask(**{"job_id": "b_1.r1", "text": "Why?", "assistant": assistant(), **fields})


def client_of(base_url: str, *, key: str = "any-key", timeout_s: float = 10.0) -> AsyncOpenAI:
    return open_client(
        api_key=key, base_url=base_url, organization=None, project=None, timeout_s=timeout_s, in_flight=10
    )


@contextlib.asynccontextmanager
async def stage(name: str, *, timeout_s: float = 10.0, path: str = "", **given: Any) -> AsyncIterator[Stage]:
    """A server whose runs are as prescribed by `given`, or as `Options` say where those know the word."""
    clock = Clock()
    options = {word: given.pop(word) for word in list(given) if word in Options.__dataclass_fields__}
    script = parse_script({"default": {"duration": SECONDS, **given}})
    async with (
        running(Options(engine="script", clock=clock, **options), script=script) as server,
        client_of(server.base_url + path, timeout_s=timeout_s) as client,
    ):
        yield Stage(server, ADAPTERS[name](client), clock)


# From the question to the answer


async def test_a_question_is_prepared_started_polled_answered_and_cleaned_up(name: str) -> None:
    async with stage(name, poll_after_ms=[300, 700]) as it:
        await it.protocol.check()
        await it.prepare()
        assert it.thread.startswith("thread_" if name == "assistants" else "conv_")
        assert (it.remote is not None) == (name == "assistants")
        assert await it.paid() == [], "preparing is free"

        run = await it.start()
        assert (run.state, run.raw, run.answer) == (RunState.PENDING, "queued", None)
        assert run.run_id.startswith("run_" if name == "assistants" else "resp_")

        first = await it.protocol.poll(it.thread, run.run_id)
        assert (first.state, first.poll_after) == (RunState.PENDING, 0.3)
        it.clock.now += SECONDS / 2
        second = await it.protocol.poll(it.thread, run.run_id)
        assert (second.state, second.raw, second.poll_after) == (RunState.PENDING, "in_progress", 0.7)
        it.clock.now += SECONDS / 2
        done = await it.protocol.poll(it.thread, run.run_id)
        assert (done.state, done.raw, done.error_code) == (RunState.DONE, "completed", None)
        assert done.run_id == run.run_id
        assert done.usage is not None
        assert done.usage.total_tokens > 0
        assert done.usage.cost_usd is None, "nobody knows what this server charges"

        answer = await it.answer(done)
        assert (answer.text, answer.model, answer.usage) == ("Answer to: Why?", "gpt-test", done.usage)
        assert await it.protocol.answer(it.thread, run.run_id, it.asked.assistant) == answer

        made = [(Kind.THREAD, it.thread)]
        if name == "responses":
            made = [(Kind.RESPONSE, run.run_id), (Kind.CONVERSATION, it.thread)]
        assert [await it.protocol.delete(*each) for each in made] == [True] * len(made)
        assert [await it.protocol.delete(*each) for each in made] == [False] * len(made), "gone is gone"
        with pytest.raises(Gone):
            await it.protocol.poll(it.thread, run.run_id)
        counts = it.server.api.store.counts()
        assert {kind: count for kind, count in counts.items() if count and kind != "assistant"} == {}
        assert await it.paid() == ["?"], "that it was paid for stays, whose it was does not"


async def test_every_field_of_an_assistant_is_accepted(name: str) -> None:
    async with (
        stage(name) as it,
        client_of(it.server.base_url) as client,
    ):
        file_id = (await client.files.create(file=("a.csv", b"a,b"), purpose="assistants")).id
        store_id = (await client.vector_stores.create(name="Rules")).id
        full = assistant(
            description="Teaches.",
            instructions="Be kind.",
            temperature=0.0,
            top_p=0.5,
            tools=({"type": "code_interpreter"}, {"type": "file_search", "vector_store_ids": [store_id]}),
            tool_resources={"code_interpreter": {"file_ids": [file_id]}},
            reasoning_effort="low",
            text_format={
                "type": "json_schema",
                "name": "answer",
                "schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
                "strict": True,
            },
            max_output_tokens=1000,
            max_prompt_tokens=2000,
            truncation="auto",
            service_tier="flex",
            completion_window="8h",
            metadata={f"key {number}": "value" for number in range(12)},
        )
        asked = ask(assistant=full, model="gpt-other", instructions="Briefly.", metadata=dict(full.metadata))
        status = await it.ended(asked)
        assert status.state is RunState.DONE
        assert (await it.answer(status)).model == "gpt-other"


async def test_several_messages_code_and_sources_become_one_answer(name: str) -> None:
    marked = {
        "type": "file_citation",
        "text": "【4:0†rules.pdf】",
        "start_index": 7,
        "end_index": 22,
        "file_citation": {"file_id": "file-1"},
    }
    flat = {"type": "file_citation", "file_id": "file-1", "filename": "rules.pdf", "index": 6}
    async with stage(
        name,
        answer=["Let me see.", "x = 1. 【4:0†rules.pdf】" if name == "assistants" else "x = 1."],
        annotations=[marked if name == "assistants" else flat],
        code=[{"input": "print(1)", "logs": "1\n"}],
    ) as it:
        status = await it.ended(ask(assistant=assistant(tools=({"type": "code_interpreter"},))))
        answer = await it.answer(status)
        assert answer.text == "Let me see.\n\nx = 1."
        assert [(call["input"], call["output"]) for call in answer.code] == [("print(1)", "1\n")]
        assert [(source["type"], source["file_id"]) for source in answer.citations] == [("file_citation", "file-1")]


async def test_a_service_that_answers_at_once_is_not_polled() -> None:
    async with stage("responses", immediate=True) as it:
        status = await it.start()
        assert status.state is RunState.DONE
        assert status.answer is not None
        assert status.answer.text == "Answer to: Why?"


# Every other end


@pytest.mark.parametrize(
    ("prescribed", "state", "code", "partial"),
    [
        ({"status": "failed"}, RunState.FAILED, "server_error", None),
        (
            {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
            RunState.FAILED,
            "rate_limit_exceeded",
            None,
        ),
        (
            {"status": "incomplete", "reason": "max_output_tokens", "partial": "x ="},
            RunState.INCOMPLETE,
            "max_output_tokens",
            "x =",
        ),
        ({"status": "cancelled"}, RunState.CANCELLED, "cancelled_remotely", None),
    ],
)
async def test_a_run_ends_otherwise(
    name: str, prescribed: dict[str, Any], state: RunState, code: str, partial: str | None
) -> None:
    async with stage(name, **prescribed) as it:
        status = await it.ended()
        assert (status.state, status.error_code) == (state, code)
        assert code in ENDS
        if state is RunState.INCOMPLETE:
            assert (await it.answer(status)).text == partial


async def test_a_run_expires_where_the_protocol_knows_it(name: str) -> None:
    async with stage(name, status="expired") as it:
        status = await it.ended()
        expected = (RunState.EXPIRED, "run_expired") if name == "assistants" else (RunState.FAILED, "server_error")
        assert (status.state, status.error_code) == expected


async def test_a_run_may_ask_for_functions(name: str) -> None:
    calls = [[{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": None}]]
    async with stage(name, status="requires_action", calls=calls) as it:
        status = await it.ended()
        assert status.state is RunState.ACTION
        assert [call.name for call in status.tool_calls] == ["add", "now"]
        assert all(call.call_id for call in status.tool_calls)


async def test_statuses_nobody_has_heard_of_are_pending(name: str) -> None:
    async with stage(name, statuses=["hibernating", "cancelling"], advance="poll") as it:
        run = await it.start()
        seen = [await it.protocol.poll(it.thread, run.run_id) for _ in range(4)]
        assert [status.state for status in seen[:2]] == [RunState.PENDING] * 2
        assert {status.raw for status in seen[:2]} <= {"hibernating", "cancelling"}
        assert seen[-1].state is RunState.DONE


async def test_a_run_is_cancelled_and_cancelling_again_is_no_error(name: str) -> None:
    async with stage(name, status="stuck") as it:
        run = await it.start()
        await it.protocol.cancel(it.thread, run.run_id)
        it.clock.now += SECONDS
        status = await it.protocol.poll(it.thread, run.run_id)
        assert (status.state, status.error_code) == (RunState.CANCELLED, "cancelled_remotely")
        await it.protocol.cancel(it.thread, run.run_id)
        await it.protocol.cancel(it.thread, "run_unknown" if name == "assistants" else "resp_unknown")


# When the thread is occupied, or gone


async def test_a_thread_takes_one_run_at_a_time(name: str) -> None:
    async with stage(name) as it:
        run = await it.start()
        with pytest.raises(Busy) as raised:
            await it.start()
        assert raised.value.run_id == (run.run_id if name == "assistants" else None)
        assert await it.paid() == ["b_1.r1"]


async def test_what_is_gone_is_told_as_gone(name: str) -> None:
    async with stage(name) as it:
        await it.prepare()
        await it.protocol.delete(Kind.THREAD if name == "assistants" else Kind.CONVERSATION, it.thread)
        with pytest.raises(Gone):
            await it.start()
        with pytest.raises(Gone):
            await it.protocol.poll(it.thread, "run_unknown" if name == "assistants" else "resp_unknown")
        with pytest.raises(Gone):
            await it.find()
        assert await it.paid() == []


# When the reply to the paid call is lost


LOST: list[tuple[str, dict[str, Any]]] = [
    ("status_after", {"status": 500}),
    ("status_after", {"status": 503, "code": "server_is_overloaded"}),
    ("status_after", {"status": 409}),
    ("drop_after", {}),
    ("truncated_json", {}),
    ("cut_body", {}),
    ("html_200", {"perform": True}),
    ("timeout", {"perform": True}),
    ("patch", {"remove": ["id"]}),
]


@pytest.mark.parametrize(("kind", "rule"), LOST, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_run_whose_reply_was_lost_is_found_exactly_once(name: str, kind: str, rule: dict[str, Any]) -> None:
    async with stage(name, timeout_s=0.5 if kind == "timeout" else 10.0) as it:
        await it.prepare()
        it.goes_wrong(kind, **rule)
        with pytest.raises(Ambiguous):
            await it.start()
        assert await it.paid() == ["b_1.r1"], "it was paid for, and nothing was repeated"

        found = await it.find()
        if name == "assistants":
            assert (found.search, len(found.run_ids)) == (Search.FOUND, 1)
            with pytest.raises(Busy) as raised:
                await it.start()
            assert (raised.value.run_id,) == found.run_ids, "its own lock says the same"
        else:
            assert found == Found(search=Search.UNKNOWN)

        it.clock.now += SECONDS
        found = await it.find()
        if name == "assistants":
            status = await it.protocol.poll(it.thread, found.run_ids[0])
            assert (await it.answer(status)).text == "Answer to: Why?"
        else:
            assert found.search is Search.ANSWERED
            assert found.answer is not None
            assert (found.answer.text, found.error_code) == ("Answer to: Why?", None)
        assert await it.paid() == ["b_1.r1"]


@pytest.mark.parametrize("kind", ["drop", "html_200", "timeout", "status"])
async def test_a_request_that_never_arrived_left_no_run(name: str, kind: str) -> None:
    async with stage(name, timeout_s=0.5 if kind == "timeout" else 10.0) as it:
        await it.prepare()
        it.goes_wrong(kind)
        with pytest.raises(Ambiguous):
            await it.start()
        assert await it.paid() == []
        expected = Search.NOT_STARTED if it.protocol.lists_runs else Search.UNKNOWN
        assert (await it.find()).search is expected


async def test_a_run_is_found_in_a_long_list() -> None:
    async with stage("assistants", duration=0) as it:
        for number in range(105):
            asked = ask(attempt=number + 1)
            await it.start(asked)
            it.clock.now += 1
        found = await it.protocol.find_started(ask(attempt=103), it.thread)
        assert found.search is Search.FOUND
        status = await it.protocol.poll(it.thread, found.run_ids[0])
        assert (len(found.run_ids), status.state) == (1, RunState.DONE)
        assert (await it.protocol.find_started(ask(attempt=106), it.thread)).search is Search.NOT_STARTED


async def test_where_the_key_is_honoured_a_repeated_create_is_the_same_run(name: str) -> None:
    async with stage(name, idempotency=True) as it:
        await it.prepare()
        it.goes_wrong("drop_after")
        with pytest.raises(Ambiguous):
            await it.start()
        again = await it.start()
        assert (await it.start()).run_id == again.run_id
        assert await it.paid() == ["b_1.r1"]


@pytest.mark.parametrize("honoured", [True, False])
async def test_a_probe_tells_whether_keys_are_honoured_and_leaves_nothing(honoured: bool) -> None:  # noqa: FBT001
    async with stage("responses", idempotency=honoured) as it:
        assert await it.protocol.repeats_safely() is honoured
        assert await it.protocol.repeats_safely() is honoured
        assert await it.paid() == []
    async with stage("assistants", idempotency=honoured) as it:
        assert not await it.protocol.repeats_safely(), "there the thread's runs are listed"


@pytest.mark.parametrize(("kind", "rule"), LOST, ids=lambda value: value if isinstance(value, str) else "")
async def test_where_ids_are_taken_a_lost_create_is_found_under_its_own(kind: str, rule: dict[str, Any]) -> None:
    async with stage("responses", timeout_s=0.5 if kind == "timeout" else 10.0, client_ids=True) as it:
        await it.prepare()
        it.goes_wrong(kind, **rule)
        with pytest.raises(Ambiguous):
            await it.start()
        assert await it.paid() == ["b_1.r1"]
        assert await it.find() == Found(search=Search.FOUND, run_ids=(chosen_id(it.asked),)), "while it is at work"
        it.clock.now += SECONDS
        found = await it.find()
        status = await it.protocol.poll(it.thread, found.run_ids[0])
        assert (await it.answer(status)).text == "Answer to: Why?"
        assert await it.paid() == ["b_1.r1"]


@pytest.mark.parametrize("kind", ["drop", "html_200", "timeout", "status"])
async def test_where_ids_are_taken_a_create_that_never_arrived_is_known_not_to_have(kind: str) -> None:
    async with stage("responses", timeout_s=0.5 if kind == "timeout" else 10.0, client_ids=True) as it:
        await it.prepare()
        it.goes_wrong(kind)
        with pytest.raises(Ambiguous):
            await it.start()
        assert await it.find() == Found(search=Search.NOT_STARTED)
        assert await it.paid() == []
        assert (await it.start()).run_id == chosen_id(it.asked), "and may be made after all"
        assert await it.paid() == ["b_1.r1"]


# When nothing was sent, or nothing can work


async def test_where_nobody_listens_nothing_was_paid(name: str) -> None:
    async with running(Options(engine="script")) as server:
        url = server.base_url
    async with client_of(url) as client:
        with pytest.raises(Limited) as raised:
            await ADAPTERS[name](client).start(ask(), "thread_1", "asst_1")
    assert raised.value.code == "unreachable"


async def test_a_rejected_key_blocks(name: str) -> None:
    wrong = "the-key-of-somebody-else"
    async with (
        running(Options(engine="script", key="the-right-key")) as server,
        client_of(server.base_url, key=wrong) as client,
    ):
        protocol = ADAPTERS[name](client)
        for call in (protocol.check(), protocol.prepare(ask(), None), protocol.start(ask(), "thread_1", "asst_1")):
            with pytest.raises(Blocked) as raised:
                await call
            assert raised.value.code == "rejected_key"
            assert wrong not in str(raised.value)


async def test_a_wrong_base_url_blocks(name: str) -> None:
    async with stage(name, path="/nowhere") as it:
        if name == "assistants":
            with pytest.raises(Blocked) as raised:
                await it.prepare()
        else:
            await it.prepare()
            assert it.thread == "", "a server without conversations may still have responses"
            with pytest.raises(Blocked) as raised:
                await it.start()
        assert raised.value.code == "endpoint_gone"


async def test_refusals_leave_no_run(name: str) -> None:
    async with stage(name, models=("gpt-test",)) as it:
        await it.prepare()
        with pytest.raises(Refused) as raised:
            await it.start(ask(model="gpt-unknown"))
        assert raised.value.code == "model_not_found"
        it.goes_wrong("status", status=400, code="context_length_exceeded")
        with pytest.raises(Refused) as raised:
            await it.start()
        assert raised.value.code == "context_length_exceeded"
        it.goes_wrong("status", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "1500"})
        with pytest.raises(Limited) as limited:
            await it.start()
        assert limited.value.retry_after == 1.5
        it.goes_wrong("status", status=429, code="insufficient_quota", type="insufficient_quota")
        with pytest.raises(Blocked) as blocked:
            await it.start()
        assert blocked.value.code == "quota_exhausted"
        assert await it.paid() == []
        assert (await it.start()).state is RunState.PENDING, "and the thread is still good"


async def test_an_assistant_that_was_deleted_is_told_as_such() -> None:
    async with stage("assistants") as it:
        await it.prepare()
        with pytest.raises(Refused) as raised:
            await it.protocol.start(it.asked, it.thread, "asst_deleted")
        assert raised.value.code == "assistant_not_found"
        assert await it.paid() == []
