"""What is asked once more though it may have been paid for: too much of it pauses its batch, and nothing else does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from askq.ids import SHARDS
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Claim, Lane, State
from askq.pauses import concerning
from tests.unit import test_engine
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, finished, submit
from worker import surplus
from worker.protocols.base import Ambiguous, Ask, Found, Search
from worker.surplus import Surplus

DOUBTFUL = dataclasses.replace(TUTOR, name="doubtful", on_uncertain="retry", timeout_s=0.01)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def engines(store: MemoryStore, service: Service) -> Iterator[Engines]:
    made = test_engine.Engines(store, service)
    yield made
    made.close()


def test_replies_that_are_always_lost_pause_the_batch_and_no_other(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a service that loses every reply and lists no runs, then two of eight questions may be asked once more, and
    a person has to say that it goes on; meanwhile another list is answered."""
    monkeypatch.setattr("worker.account._LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(surplus, "FEW", 2)
    monkeypatch.setattr(surplus, "SHARE", 0.0)
    batch = submit(store, 8, assistant=DOUBTFUL)

    def lose(ask: Ask) -> None:
        if ask.assistant.name == "doubtful":
            raise Ambiguous("timeout", "no reply")

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    service.after = lose
    service.find_started = cannot_tell  # type: ignore[method-assign]
    engine = engines()
    drive(engine, lambda: bool(store.pauses()))
    status = store.batch(batch)
    assert status is not None
    (pause,) = status.paused
    assert (pause.account, pause.code) == (batch, "asked_again")
    assert "of 8 questions were wanted once more" in pause.message
    other = submit(store, 3)
    drive(engine, finished(store, other))
    assert concerning(status, store.pauses())
    answered = store.batch(other)
    assert answered is not None
    assert answered.paused == (), "another list is not concerned"
    doubtful = [job for job, _ in service.ledger if job.startswith(batch)]
    # Who was counted, and then held up for longer than its lease, finds the batch paused.
    assert len(doubtful) <= 10, "eight, and two of them once more"
    waiting = [job for job in store.jobs(batch) if not job.state.terminal]
    assert len(waiting) >= 6, "the rest is as it was"
    # A person looks, and lets it go on.
    monkeypatch.setattr(surplus, "FEW", 100)
    assert store.resume(batch)
    assert store.pauses() == []
    drive(engine, finished(store, batch))
    assert {job.state for job in store.jobs(batch)} == {State.UNCERTAIN}
    doubtful = [job for job, _ in service.ledger if job.startswith(batch)]
    assert len(doubtful) == 16, "each twice, as the assistant allows"


def test_nothing_is_prepared_for_a_batch_that_is_paused(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.account._LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("worker.steps.decision.PAUSED_S", 0.05)
    batch, other = submit(store, 5), submit(store, 3)
    store.pause(batch, "asked_again", "why", probe_after_s=1.0)
    engine = engines()
    drive(engine, finished(store, other))
    assert service.threads == 3
    assert {(job.state, job.attempts, job.thread_id) for job in store.jobs(batch)} == {(State.QUEUED, 0, None)}
    assert store.resume(batch)
    drive(engine, finished(store, batch))
    assert {job.state for job in store.jobs(batch)} == {State.COMPLETED}


def claimed(store: MemoryStore) -> Claim:
    submit(store, 1)
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=60)
    return claim


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({}, 0),
        ({"attempts": 1}, 1),
        ({"attempts": 1, "fixes": 1}, 0),
        ({"attempts": 2, "fixes": 1}, 1),
        ({"attempts": 1, "allowance": 1, "rounds": 1}, 0),
        ({"attempts": 3, "allowance": 3}, 0),
        ({"attempts": 4, "allowance": 3}, 1),
    ],
)
async def test_only_doubts_are_counted(store: MemoryStore, told: dict[str, int], counts: int) -> None:
    """Not the first attempt, nor one that mends an answer, carries outputs of functions, or was a person's wish."""
    claim = dataclasses.replace(claimed(store), **told)  # type: ignore[arg-type]
    assert await Surplus(store).pause(claim) is None
    assert len(store._again.get(claim.id.partition(".")[0], ())) == counts
    assert await Surplus(store).pause(claim) is None
    assert len(store._again.get(claim.id.partition(".")[0], ())) == counts, "the same attempt counts once"


async def test_a_long_list_may_have_more_of_them(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surplus, "FEW", 2)
    batch = submit(store, 100)
    claims = store.claim(Lane.START, range(SHARDS), limit=10, lease_s=60)
    verdicts = [await Surplus(store).pause(dataclasses.replace(claim, attempts=1)) for claim in claims[:6]]
    assert [verdict is None for verdict in verdicts] == [True, True, True, True, True, False]
    assert [pause.account for pause in store.pauses()] == [batch]
