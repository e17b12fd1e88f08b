"""Watched runs, from the engine's side: what is told of them, and what a broken stream costs (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from askq.errors import StoreError
from askq.ids import SHARDS
from askq.jobs import live
from askq.jobs.live import Kind, Piece
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, NewBatch, NewJob, Outcome, Question, State
from askq.jobs.store import Store
from tests.parts import eventually
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, engines, finished, only, store
from worker.live import Desk
from worker.protocols.base import Ambiguous, Ask, Broken, CallError, Gone, Live, RunState, Status

__all__ = ["engines", "store"]

Word = str | Exception | None


class Script:
    """A stream that says words, and breaks at an exception; None waits for the test."""

    brings_end = False
    final: Status | None = None

    def __init__(self, service: Watchable, words: Sequence[Word], at: int = 0) -> None:
        self.ended = False
        self.closed = False
        self.at = at
        self._service = service
        self._words = words

    async def pieces(self) -> AsyncIterator[Piece]:
        for word in self._words:
            if word is None:
                await self._service.go_on.wait()
            elif isinstance(word, Exception):
                raise word
            else:
                yield Piece(kind=Kind.TEXT, key="m", at=self.at, text=word)
                self.at += len(word)
        self.ended = True
        self._service.over = True

    async def close(self) -> None:
        self.closed = True


class Watchable(Service):
    """A service with streams. Its runs end when a stream has said all, or `over` is set."""

    resumes = True

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[Sequence[Word]] = []
        self.opened: list[Script] = []
        self.go_on = asyncio.Event()
        self.over = False
        self.refusal: CallError | None = None

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Live | None]:
        status = await self.start(ask, thread_id, assistant_id)
        return status, self._open(0)

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Live | None:
        if self.refusal is not None:
            raise self.refusal
        if not self.resumes or not self.scripts:
            return None
        return self._open(before.at if isinstance(before, Script) else 0)

    def _open(self, at: int) -> Script:
        self.opened.append(Script(self, self.scripts.pop(0), at))
        return self.opened[-1]

    async def poll(self, thread_id: str, run_id: str) -> Status:
        state, raw = (RunState.DONE, "completed") if self.over else (RunState.PENDING, "in_progress")
        # Far off, unless a stream hurries it on.
        return Status(state=state, raw=raw, run_id=run_id, poll_after=None if self.over else 0.3)


@pytest.fixture
def service() -> Watchable:
    return Watchable()


def watch(store: Store) -> str:
    store.save_assistant(TUTOR.digest, TUTOR.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol="assistants"))
    question = Question(row_id="q1", index=0, text="Why?", stream=True)
    new = NewJob(question=question, assistant="tutor", assistant_digest=TUTOR.digest, protocol="assistants")
    store.add(batch, [new])
    store.seal(batch, 1)
    return batch


def told(store: Store, batch: str) -> list[Piece]:
    return [piece for entry in store.listen(f"{batch}.q1", None, wait_s=0.01) for piece in entry.pieces]


def words(pieces: Sequence[Piece]) -> str:
    shown = ""
    for piece in pieces:
        if piece.kind is Kind.TEXT:
            assert piece.at <= len(shown), "nothing is missing"
            shown += piece.text[len(shown) - piece.at :]
    return shown


def kinds(pieces: Sequence[Piece]) -> set[Kind]:
    return {piece.kind for piece in pieces}


def test_a_watched_question_is_told_live_and_answered_as_soon_as_its_stream_ends(
    store: MemoryStore, service: Watchable, engines: Engines
) -> None:
    service.scripts = [["Be", "cause", None, "."]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Because")
    job = only(store, batch)
    assert (job.state, job.run_id) == (State.RUNNING, f"run/{job.id}"), "its id is on record while it is told"
    engine.loop.call_soon_threadsafe(service.go_on.set)
    drive(engine, finished(store, batch))
    assert words(told(store, batch)) == "Because."
    assert told(store, batch)[-1].kind is Kind.END
    assert (only(store, batch).state, service.ledger) == (State.COMPLETED, [(job.id, 1)])
    assert service.opened[0].closed


def test_a_question_nobody_watches_is_not_streamed(store: MemoryStore, service: Watchable, engines: Engines) -> None:
    batch = watch(store)
    (job,) = store.jobs(batch)
    store._records[job.id].question = Question(row_id="q1", index=0, text="Why?")
    service.over = True
    drive(engines(), finished(store, batch))
    assert (service.opened, told(store, batch)) == ([], [])


@pytest.mark.parametrize("error", [Broken("cut"), ValueError("a defect")])
def test_a_stream_that_breaks_costs_nothing_where_it_cannot_be_resumed(
    store: MemoryStore, service: Watchable, engines: Engines, error: Exception
) -> None:
    service.resumes = False
    service.scripts = [["Be", error]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: service.opened and service.opened[0].closed)
    assert only(store, batch).state is State.RUNNING
    service.over = True
    drive(engine, finished(store, batch))
    assert words(told(store, batch)) == "Be"
    assert only(store, batch).state is State.COMPLETED
    assert len(service.ledger) == 1


def test_a_stream_that_breaks_is_resumed_where_it_can_be(
    store: MemoryStore, service: Watchable, engines: Engines
) -> None:
    service.scripts = [["Be", Broken("cut")], [Broken("again")], ["cause"]]
    batch = watch(store)
    drive(engines(), finished(store, batch))
    pieces = told(store, batch)
    assert words(pieces) == "Because"
    assert Kind.CUT in kinds(pieces)
    assert len(service.ledger) == 1


def test_a_stream_that_breaks_for_ever_is_left_to_the_polls(
    store: MemoryStore, service: Watchable, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.live._RESUME_AFTER_S", 0.0)
    service.scripts = [["Be", Broken("cut")], *([[Broken("cut")]] * 50)]
    batch, engine = watch(store), engines()
    drive(engine, lambda: len(service.opened) >= 5)
    polls = store.job(f"{batch}.q1")
    assert polls is not None
    drive(engine, lambda: only(store, batch).polls >= polls.polls + 2)
    assert len(service.opened) == 5
    service.over = True
    drive(engine, finished(store, batch))


def test_a_stream_that_cannot_be_opened_again_costs_nothing(
    store: MemoryStore, service: Watchable, engines: Engines
) -> None:
    service.scripts = [[Broken("cut")]]
    service.refusal = Gone("not_found", "no stream")
    batch, engine = watch(store), engines()
    drive(engine, lambda: only(store, batch).polls >= 2)
    service.over = True
    drive(engine, finished(store, batch))
    assert only(store, batch).state is State.COMPLETED


def test_a_stalled_stream_is_given_up(
    store: MemoryStore, service: Watchable, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.live.STALL_S", 0.2)
    service.scripts = [["Be", None], ["cause"]]
    batch = watch(store)
    drive(engines(), finished(store, batch))
    assert words(told(store, batch)) == "Because"


def test_when_the_process_is_gone_another_goes_on_from_the_beginning(
    store: MemoryStore, service: Watchable, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TELLS_S", 0.3)
    service.scripts = [["Be", None]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    engine.close()
    engines._made.remove(engine)
    service.go_on = asyncio.Event()
    service.scripts = [["Be", "cause"]]
    drive(engines(), finished(store, batch))
    assert words(told(store, batch)) == "Because", "what is told twice says where it belongs"
    assert len(service.ledger) == 1


def test_two_processes_do_not_tell_the_same_run(store: MemoryStore, service: Watchable, engines: Engines) -> None:
    service.scripts = [["Be", None], ["never"]]
    batch, engine, other = watch(store), engines(), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    polls = only(store, batch).polls
    drive(other, lambda: only(store, batch).polls >= polls + 2)
    assert len(service.opened) == 1
    service.over = True
    drive(other, finished(store, batch))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  it is what other threads do
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_the_stream_of_a_call_just_made_relieves_whoever_reads_an_older_one(
    store: MemoryStore, service: Watchable, where: str
) -> None:
    job, run = f"{watch(store)}.q1", "run/q1"
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=60)
    for name, fields in (("intend", {"live": 1}), ("start", {"run": run})):
        store.commit([Move(job=job, fence=claim.fence, name=name, delay=60, fields=fields)])
    old, new = Script(service, ["Be", None]), Script(service, ["Because"])

    async def resume(before: Live | None) -> Live | None:
        return old if before is None else None

    desk, batch = Desk(store), job.partition(".")[0]
    desk.begin(job, run, resume, attempt=1)
    await until(lambda: words(told(store, batch)) == "Be")
    (desk if where == "here" else Desk(store)).take(job, run, new, resume, attempt=1)
    await until(lambda: old.closed and new.closed)
    assert words(told(store, batch)) == "Because"


def test_a_run_whose_create_was_lost_is_adopted_and_told(
    store: MemoryStore, service: Watchable, engines: Engines
) -> None:
    def lose(ask: Ask) -> None:
        raise Ambiguous("timeout", "no reply")

    service.after = lose
    service.scripts = [["Because"]]
    batch = watch(store)
    drive(engines(), finished(store, batch))
    assert words(told(store, batch)) == "Because"
    assert len(service.ledger) == 1


def test_a_cancelled_question_is_cancelled_while_it_is_told(
    store: MemoryStore, service: Watchable, engines: Engines
) -> None:
    service.scripts = [["Be", None], ["never"]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: words(told(store, batch)) == "Be")
    assert store.cancel([f"{batch}.q1"]) == [Outcome.MOVED]
    drive(engine, lambda: bool(service.cancelled))
    service.over = True
    drive(engine, finished(store, batch))
    eventually(lambda: service.opened[0].closed, what="nobody reads on when the job has ended")
    assert len(service.opened) == 1


def test_a_store_that_takes_no_log_costs_the_log_alone(
    store: MemoryStore, service: Watchable, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Outcome:
        raise StoreError("Redis is full")

    monkeypatch.setattr(store, "tell", full)
    service.scripts = [["Because"], *([["never"]] * 9)]
    batch, engine = watch(store), engines()
    drive(engine, lambda: service.opened and service.opened[0].closed)
    service.over = True
    drive(engine, finished(store, batch))
    assert only(store, batch).state is State.COMPLETED


def test_more_than_a_log_may_hold_is_not_told(
    store: MemoryStore, service: Watchable, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_BYTES", 10)
    service.scripts = [["12345", None, "6789012345", None, "never"]]
    batch, engine = watch(store), engines()
    drive(engine, lambda: bool(told(store, batch)))
    engine.loop.call_soon_threadsafe(service.go_on.set)
    drive(engine, finished(store, batch))
    pieces = told(store, batch)
    assert Kind.CUT in kinds(pieces)
    assert words(pieces) == "12345"
    assert pieces[-1].kind is Kind.END


def test_a_deaf_reader_loses_nothing() -> None:
    pieces = [Piece(kind=Kind.TEXT, key="m", at=at, text="a") for at in range(5)]
    pieces.insert(3, Piece(kind=Kind.STATUS, text="in_progress"))
    assert [(piece.kind, piece.at, piece.text) for piece in live.joined(pieces)] == [
        (Kind.TEXT, 0, "aaa"),
        (Kind.STATUS, 0, "in_progress"),
        (Kind.TEXT, 3, "aa"),
    ]
    long = [Piece(kind=Kind.TEXT, key="m", at=at, text="a" * 10_000) for at in (0, 10_000)]
    assert live.joined(long) == long
    assert live.load(live.dump(long)) == tuple(long)
    assert live.load(b'[["nobody knows","",0,"",""]]') == ()
