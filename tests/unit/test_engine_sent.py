"""Where runs can neither be listed nor asked for again: what is known of a call whose process fell asleep."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from askq.ids import SHARDS
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, Outcome, State
from tests.unit.engine_stage import Engines, Service, drive, engines, finished, only, store, submit
from worker import steps
from worker.protocols.base import Ask, Found, Search

__all__ = ["engines", "store"]


class Forgetful(Service):
    """Nothing can be found out about its runs."""

    lists_runs = False

    def __init__(self) -> None:
        super().__init__()
        self.asked_for: list[str] = []

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        self.asked_for.append(ask.job_id)
        return Found(search=Search.UNKNOWN)


class Asleep(MemoryStore):
    """A view of a store that falls asleep when a call is to leave: before that is on record, or after."""

    def __init__(self, truth: MemoryStore, *, before: bool) -> None:
        self.__dict__ = truth.__dict__
        self.before, self.sending, self.gate = before, threading.Event(), threading.Event()

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        return [job for job, _ in claims]

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        sends = any(move.name == "send" for move in moves)
        found = [] if sends and self.before else super().commit(moves, on_disk=on_disk)
        if sends:
            self.sending.set()
            assert self.gate.wait(20)
        return found or super().commit(moves, on_disk=on_disk)


@pytest.fixture
def service() -> Forgetful:
    return Forgetful()


def test_every_call_is_on_record_before_it_leaves(store: MemoryStore, service: Forgetful, engines: Engines) -> None:
    seen: list[bool] = []
    batch = submit(store, 20)
    service.before = lambda ask: seen.append("unsent" in store._records[ask.job_id].fields)
    drive(engines(), finished(store, batch))
    assert seen == [False] * 20
    assert all(job.state is State.COMPLETED and job.attempts == 1 for job in store.jobs(batch))


def test_a_call_that_is_not_on_record_was_not_made_and_is_made_by_the_next(
    store: MemoryStore, service: Forgetful, engines: Engines
) -> None:
    batch = submit(store, 1)
    asleep = Asleep(store, before=True)
    first = engines(asleep)
    drive(first, asleep.sending.is_set)
    drive(engines(), finished(store, batch))
    asleep.gate.set()
    first.call(first.drain(5, paid_s=5))
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1, 1)
    assert service.asked_for == [], "there was nothing to look for"


def test_a_call_that_is_on_record_is_looked_for_and_not_made_again(
    store: MemoryStore, service: Forgetful, engines: Engines
) -> None:
    batch = submit(store, 1)
    asleep = Asleep(store, before=False)
    first = engines(asleep)
    drive(first, asleep.sending.is_set)
    other = engines()
    drive(other, lambda: "may exist" in (only(store, batch).note or ""))
    assert service.ledger == []
    assert service.asked_for
    asleep.gate.set()
    first.call(first.drain(5, paid_s=5))
    assert service.ledger == [], "whoever wakes up after its lease sends nothing either"


def test_a_question_whose_creates_have_failed_too_often_ends_before_another_intent(
    store: MemoryStore, service: Forgetful, engines: Engines
) -> None:
    batch = submit(store, 1)
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=60)
    failed = {"voids": steps.MOST_VOIDS, "thread": "t"}
    store.commit([Move(job=claim.id, fence=claim.fence, name="prepare", fields=failed)])
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.attempts) == (State.FAILED, "upstream", 0)
    assert service.ledger == []
