"""Servers that keep no responses: the end of a run is said by its stream and nowhere else, and that is enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreError
from askq.ids import SHARDS
from askq.jobs import live
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Claim, Lane, Move, Outcome, State, Usage
from tests.parts import eventually
from tests.unit.engine_stage import Engines, drive, finished, only
from tests.unit.test_live import Script, Watchable, told, watch, words
from worker import chain, final, steps
from worker.engine import Engine
from worker.protocols.base import (
    Ambiguous,
    Ask,
    Blocked,
    CallError,
    Found,
    Gone,
    Live,
    RunState,
    Search,
    Status,
    ToolCall,
)

USED = Usage(input_tokens=7, cached_tokens=1, output_tokens=3, total_tokens=10)
CODE = {"input": "print(4)", "output": "4\n"}


def ended(run: str, state: RunState = RunState.DONE, **about: object) -> Status:
    answer = Answer(text="Because.", model="m-1", usage=USED, code=(CODE,), since=5)
    status = Status(state=state, raw="completed", run_id=run, usage=USED, answer=answer)
    return replace(status, **about)  # type: ignore[arg-type]


class LastWord(Script):
    """A stream whose last event says how the run has ended."""

    brings_end = True
    run = ""

    @property
    def final(self) -> Status | None:  # type: ignore[override]
        return ended(self.run) if self.ended else None


class Forgetful(Watchable):
    """Streams its runs, and shows them to nobody."""

    lists_runs = False

    def __init__(self) -> None:
        super().__init__()
        self.error: CallError = Gone("not_found", "there is no response like that")

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Live | None]:
        status = await self.start(ask, thread_id, assistant_id)
        stream = LastWord(self, self.scripts.pop(0))
        stream.run = status.run_id
        self.opened.append(stream)
        return status, stream

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Live | None:
        raise self.error

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        raise self.error

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    async def poll(self, thread_id: str, run_id: str) -> Status:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        raise self.error


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def service() -> Forgetful:
    return Forgetful()


@pytest.fixture
def engines(store: MemoryStore, service: Forgetful) -> Iterator[Engines]:
    made = Engines(store, service)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls that find nothing come quickly."""
    monkeypatch.setattr("worker.steps.running.STREAMED_S", 0.02)
    monkeypatch.setattr("worker.steps.running.backoff", lambda errors, jitter: 0.02)


def kept(store: MemoryStore, job: str) -> object:
    return store._records[job].fields.get("final")


def is_whole(store: MemoryStore, batch: str) -> None:
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs) == (State.COMPLETED, 1, 1)
    assert job.answer is not None
    assert (job.answer.text, job.answer.model, job.answer.usage) == ("Because.", "m-1", USED)
    assert job.answer.code == (CODE,)
    status = store.batch(batch)
    assert status is not None
    assert status.usage == USED, "counted once"
    assert kept(store, job.id) is None, "what was kept is not kept twice"


@pytest.mark.parametrize(
    "error",
    [
        Gone("not_found", "no such response"),
        Blocked("endpoint_gone", "method not allowed"),
        Ambiguous("http_404", "404 page not found"),
    ],
    ids=["404", "405", "a page"],
)
def test_an_answer_that_nobody_is_shown_again_ends_with_its_stream(
    store: MemoryStore, service: Forgetful, engines: Engines, error: CallError
) -> None:
    """Given a server that keeps nothing, when a stream takes longer than any number of polls, then its end is kept."""
    service.error = error
    service.scripts = [["Be", None, "cause."]]
    batch, engine, other = watch(store), engines(), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    for polling in (engine, other):
        polls = sum(service.polls.values())
        drive(polling, lambda before=polls: sum(service.polls.values()) > before + 2 * steps.MOST_GONE)  # type: ignore[misc]
    assert only(store, batch).state is State.RUNNING
    assert store.pauses() == []
    engine.loop.call_soon_threadsafe(service.go_on.set)
    drive(other, finished(store, batch))
    is_whole(store, batch)
    assert words(told(store, batch)) == "Because."
    assert len(service.ledger) == 1


def test_what_a_process_has_heard_to_the_end_outlives_it(
    store: MemoryStore, service: Forgetful, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that is killed after the last event, when another polls the run, then it has the answer."""
    service.scripts = [["Because."]]
    batch, engine = watch(store), engines()
    job = f"{batch}.q1"
    heard = store.hurry

    def then_dies(*about: object, **more: object) -> Outcome:
        heard(*about, **more)  # type: ignore[arg-type]
        raise AssertionError("the process was killed here")

    monkeypatch.setattr(store, "hurry", then_dies)
    # The process that makes the run does nothing else: it polls none.
    until = time.monotonic() + 20
    while kept(store, job) is None:
        assert time.monotonic() < until, "the end of the run goes on record"
        engine.call(chain.work(engine, Lane.START, slice_s=0.1))
    assert only(store, batch).state is State.RUNNING
    engine.close()
    engines._made.remove(engine)
    monkeypatch.setattr(store, "hurry", heard)
    drive(engines(), finished(store, batch))
    is_whole(store, batch)
    assert len(service.ledger) == 1


def test_a_process_that_dies_before_the_last_event_leaves_a_run_that_nobody_knows(
    store: MemoryStore, service: Forgetful, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TELLS_S", 0.3)
    service.scripts = [["Be", None]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    engine.close()
    engines._made.remove(engine)
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.attempts) == (State.FAILED, "run_vanished", 1)
    assert len(service.ledger) == 1, "nothing is paid for again unasked"


def test_a_store_that_is_away_costs_what_could_have_been_seen_and_not_the_end(
    store: MemoryStore, service: Forgetful, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Redis that is gone while a run is streamed, when it is back, then the end is there."""
    monkeypatch.setattr("worker.live._STORE_AGAIN_S", 0.02)
    service.scripts = [["Be", None, "cause."]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    refused: list[str] = []

    def away(name: str) -> Callable[..., Outcome]:
        def call(*_: object, **__: object) -> Outcome:
            refused.append(name)
            raise StoreError("Redis is away")

        return call

    with monkeypatch.context() as outage:
        for name in ("tell", "hurry"):
            outage.setattr(store, name, away(name))
        engine.loop.call_soon_threadsafe(service.go_on.set)
        eventually(lambda: refused.count("hurry") >= 2, what="the end is kept in hand")
        assert only(store, batch).state is State.RUNNING
    drive(engine, finished(store, batch))
    is_whole(store, batch)


def test_a_store_that_has_forgotten_the_run_is_told_of_it(
    store: MemoryStore, service: Forgetful, engines: Engines
) -> None:
    """Given a Redis that came back without its last second, when the stream ends, then the run is adopted."""
    service.scripts = [["Be", None, "cause."]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    record = store._records[f"{batch}.q1"]
    with store._lock:
        record.state = State.STARTING
        for name in ("run", "runs", "started", "deadline"):
            record.fields.pop(name, None)
        record.done = None
    engine.loop.call_soon_threadsafe(service.go_on.set)
    drive(engine, finished(store, batch))
    is_whole(store, batch)


def test_files_of_a_run_that_is_not_shown_are_fetched_as_ever(
    store: MemoryStore, service: Forgetful, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Answer(text="Because.", model="m-1", usage=USED, code=(CODE,), files=({"kind": "file", "file_id": "f"},))
    monkeypatch.setattr(LastWord, "final", property(lambda stream: ended(stream.run, answer=made)))

    async def fetched(_: object, claim: Claim, answer: Answer) -> Answer:
        assert (claim.state, answer.files) == (State.COLLECTING, made.files)
        return answer

    monkeypatch.setattr(Engine, "_with_files", fetched)
    service.scripts = [["Because."]]
    batch = watch(store)
    drive(engines(), finished(store, batch))
    is_whole(store, batch)


def test_a_run_that_is_not_shown_is_cancelled_by_hanging_up(
    store: MemoryStore, service: Forgetful, engines: Engines
) -> None:
    service.scripts = [["Be", None]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    assert store.cancel([f"{batch}.q1"]) == [Outcome.MOVED]
    drive(engine, finished(store, batch))
    assert (only(store, batch).state, only(store, batch).error_code) == (State.CANCELLED, "cancelled")
    assert service.cancelled
    eventually(lambda: service.opened[0].closed, what="the stream is hung up")


def test_a_worker_that_is_to_end_hears_such_a_stream_out(
    store: MemoryStore, service: Forgetful, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.live._MOST_HURRIES", 2)
    service.scripts = [["Be", None, "cause."]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    draining = asyncio.run_coroutine_threadsafe(engine.drain(0.01, paid_s=60), engine.loop)
    engine.loop.call_soon_threadsafe(service.go_on.set)
    draining.result(60)
    assert kept(store, f"{batch}.q1") is not None
    drive(engines(), finished(store, batch))
    is_whole(store, batch)


# -- what is kept --------------------------------------------------------------------------------------------


def claimed(text: str | None, run: str = "r1") -> Claim:
    store = MemoryStore()
    job = f"{watch(store)}.q1"
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=60)
    for name, fields in (("intend", {"live": 1}), ("start", {"run": run})):
        move = Move(job=job, fence=claim.fence, name=name, fields=fields)  # type: ignore[arg-type]
        assert store.commit([move]) == [Outcome.MOVED]
    (claim,) = store.claim(Lane.POLL, range(SHARDS), limit=1, lease_s=60)
    return replace(claim, final=text)


@pytest.mark.parametrize("words", ["Because.", "안녕 \ud800" * 2000], ids=["short", "long"])
def test_what_was_said_comes_back_as_it_was(words: str) -> None:
    call = ToolCall(call_id="c1", name="light", arguments='{"on": true}')
    answer = Answer(text=words, files=({"file_id": "f"},), citations=({"index": 3},), usage=USED)
    said = ended("r1", RunState.ACTION, tool_calls=(call,), answer=answer, error_code="x", error_message="y")
    assert final.final_of(claimed(final.dump(said))) == said
    bare = Status(state=RunState.FAILED, raw="failed", run_id="r1", error_code="run_failed")
    assert final.final_of(claimed(final.dump(bare))) == bare


def test_what_was_said_of_another_run_or_cannot_be_read_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert final.final_of(claimed(final.dump(ended("r0")))) is None
    for text in (None, "", "{}", "garbage", '{"state": "done"}', "[]"):
        assert final.final_of(claimed(text)) is None
    monkeypatch.setattr(final, "MOST_CHARACTERS", 10)
    assert final.dump(ended("r1")) == ""
