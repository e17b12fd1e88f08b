"""The engine when a person cancels: at every moment of a run, once, and nothing that was paid for is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from askq.assistants.model import Assistant
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Outcome, State
from tests.unit.engine_stage import Engines, Service, drive, engines, finished, only, service, store, submit
from worker.protocols.base import Ambiguous, Ask, RunState, Status, Unread

__all__ = ["engines", "service", "store"]


class Cancelling(Service):
    """A service that can cancel, and whose runs go on until they are told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.completes = False
        """Whether a run completes although it was to be cancelled."""

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        return None

    async def poll(self, thread_id: str, run_id: str) -> Status:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        if run_id in self.cancelled:
            state = RunState.DONE if self.completes else RunState.CANCELLED
            return Status(state=state, raw=state.value, run_id=run_id)
        return Status(state=RunState.PENDING, raw="in_progress", run_id=run_id, poll_after=0.05)


@pytest.fixture
def cancelling(store: MemoryStore) -> Iterator[tuple[Cancelling, Engines]]:
    service = Cancelling()
    made = Engines(store, service)
    yield service, made
    made.close()


def test_a_running_job_is_cancelled_at_the_service_once(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 3)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([job.id for job in store.jobs(batch)])
    drive(engine, finished(store, batch))
    assert {(job.state, job.error_code) for job in store.jobs(batch)} == {(State.CANCELLED, "cancelled")}
    assert sorted(service.cancelled) == sorted(f"run/{job.id}" for job in store.jobs(batch))


def test_a_run_that_completes_although_it_was_cancelled_is_kept_and_counted(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    service.completes = True
    batch = submit(store, 2)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([job.id for job in store.jobs(batch)])
    drive(engine, finished(store, batch))
    for job in store.jobs(batch):
        assert (job.state, job.runs) == (State.COMPLETED, 1)
        assert job.answer is not None
        assert job.note == "the run completed although it was to be cancelled"
    assert len(service.ledger) == 2


def test_an_answer_is_not_kept_by_a_server_that_fails_to_cancel_what_has_ended(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.running.backoff", lambda errors, jitter: 0.02)
    service, engines = cancelling
    service.completes = True
    asked: Counter[str] = Counter()

    async def fails(thread_id: str, run_id: str) -> None:
        asked[run_id] += 1
        if asked[run_id] == 3:
            service.cancelled.append(run_id)  # by now the run has completed
        raise Ambiguous("http_500", "oops")

    service.cancel = fails  # type: ignore[method-assign]
    batch = submit(store, 1)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([only(store, batch).id])
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.runs, job.answer is not None) == (State.COMPLETED, 1, True)
    assert asked.total() == 3, "while the run is at work, it is told again"


def test_a_job_cancelled_while_its_create_is_open_is_cancelled_when_its_run_is_known(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 1)
    engine = engines()

    async def hold(*, held: bool) -> None:
        if held:
            service.hold.clear()
        else:
            service.hold.set()

    engine.call(hold(held=True))
    drive(engine, lambda: bool(service.ledger))
    assert only(store, batch).state is State.STARTING
    assert store.cancel([only(store, batch).id]) == [Outcome.MOVED]
    engine.call(hold(held=False))
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs) == (State.CANCELLED, "cancelled", 1)
    assert service.cancelled == [f"run/{job.id}"]


def test_a_cancelled_create_whose_reply_was_lost_is_found_first(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    """Given a lost reply and a person who cancels, then the run that may be billed is found and told to end."""
    service, engines = cancelling
    batch = submit(store, 1)

    def lose(ask: Ask) -> None:
        store.cancel([ask.job_id])
        raise Ambiguous("timeout", "no reply")

    service.after = lose
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs) == (State.CANCELLED, "cancelled", 1)
    assert service.cancelled == [f"run/{job.id}"]
    assert len(service.ledger) == 1


def test_a_cancelled_create_that_never_arrived_is_taken_back_and_not_made(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.searching.SETTLE_S", 0.1)
    service, engines = cancelling
    batch = submit(store, 1)

    def lose(ask: Ask) -> None:
        store.cancel([ask.job_id])
        raise Ambiguous("no_reply", "reset")

    service.before = lose
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs, job.attempts) == (State.CANCELLED, "cancelled", 0, 0)
    assert service.ledger == []


def test_a_job_cancelled_between_its_preparation_and_its_create_costs_nothing(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 1)
    prepare = service.prepare

    async def cancelled_meanwhile(ask: Ask, assistant_id: str | None) -> str:
        made = await prepare(ask, assistant_id)
        assert store.cancel([ask.job_id]) == [Outcome.MOVED]
        return made

    service.prepare = cancelled_meanwhile  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert (only(store, batch).state, service.ledger) == (State.CANCELLED, [])


def test_a_job_cancelled_while_its_answer_is_fetched_keeps_it(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 1)
    answer = service.answer

    async def cancelled_meanwhile(thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        store.cancel([run_id.removeprefix("run/")])
        return await answer(thread_id, run_id, assistant)

    service.answer = cancelled_meanwhile  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert only(store, batch).state is State.COMPLETED
    assert service.cancelled == []
