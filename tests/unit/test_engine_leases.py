"""The engine's leases: who may call, what is kept while the store is away, and what a zombie may still do."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
import time
from collections.abc import Sequence

import pytest

from askq.assistants.model import ProtocolName
from askq.errors import StoreUnreachable
from askq.ids import SHARDS
from askq.jobs import forgetting
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, Outcome, State
from askq.jobs.objects import Kind
from tests.parts import eventually
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, engines, finished, only, service, store, submit
from worker import chain
from worker.protocols.base import Ask, Found, RunState, Search, Status

__all__ = ["engines", "service", "store"]


class Deaf(MemoryStore):
    """A view of a store by a process that can neither renew nor commit in time: a zombie."""

    def __init__(self, truth: MemoryStore) -> None:
        self.__dict__ = truth.__dict__
        self.gate = threading.Event()

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("stopped")

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "start" for move in moves):
            self.gate.wait(60)
        return super().commit(moves, on_disk=on_disk)


def test_the_id_of_a_run_is_kept_when_the_store_is_away_as_the_reply_comes(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is asked of the store in between may cost it: only the commit waits for the store."""
    batch = submit(store, 1)
    engine, asked = engines(), []

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    async def away(protocol: str) -> float | None:
        asked.append(len(service.ledger))
        if len(asked) == 1:
            raise StoreUnreachable("restarting")
        return None

    service.find_started = cannot_tell  # type: ignore[method-assign]
    monkeypatch.setattr(engine._permits, "gets_per_s", away)
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert asked[0] == 1, "asked once the run was there"
    assert (job.state, job.attempts, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1, 1)


def forget_what_another_ended(store: MemoryStore, batch: str, lane: Lane) -> None:
    """Somebody takes over the only job of a batch and ends it, and the batch is forgotten."""
    (claim,) = eventually(lambda: store.claim(lane, range(SHARDS), limit=9, lease_s=9), what="the lease ends")
    cancel = Move(job=claim.id, fence=claim.fence, name="cancel", fields={"error_code": "cancelled"})
    assert store.commit([cancel]) == [Outcome.MOVED]
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 0


@pytest.mark.parametrize(
    ("lane", "made"),
    [(Lane.START, ["thread"]), (Lane.POLL, ["conversation", "response"]), (Lane.POLL, ["response"])],
    ids=["thread", "run", "run without a conversation"],
)
def test_what_a_zombie_makes_for_a_question_that_was_forgotten_is_deleted(
    store: MemoryStore, service: Service, engines: Engines, lane: Lane, made: list[str]
) -> None:
    """Given a process that was stopped in the midst of a call until its question was forgotten, when the reply comes,
    then what the call has made does not stay at the service for ever."""
    spoken: ProtocolName = "assistants" if lane is Lane.START else "responses"
    batch = submit(store, 1, assistant=dataclasses.replace(TUTOR, protocol=spoken))
    deleted: list[str] = []
    prepare = service.prepare

    async def prepare_late(ask: Ask, assistant_id: str | None) -> str:
        thread = "" if made == ["response"] else await prepare(ask, assistant_id)
        if lane is Lane.START:
            await asyncio.to_thread(forget_what_another_ended, store, batch, lane)
        return thread

    async def delete(kind: Kind, id_: str) -> bool:
        deleted.append(f"{kind}")
        return True

    service.prepare = prepare_late  # type: ignore[method-assign]
    service.delete = delete  # type: ignore[method-assign]
    if lane is Lane.POLL:
        service.after = lambda ask: forget_what_another_ended(store, batch, lane)
    zombie = Deaf(store)
    zombie.gate.set()
    drive(engines(zombie, name=spoken), lambda: sorted({*deleted}) == made and store.next_tombstone() is None)
    assert store.batch(batch) is None


class Slow(MemoryStore):
    """A view of a store that cannot renew, and whose intents take until the gate is opened."""

    def __init__(self, truth: MemoryStore) -> None:
        self.__dict__ = truth.__dict__
        self.gate, self.intending = threading.Event(), threading.Event()

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("too slow")

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "intend" for move in moves):
            self.intending.set()
            self.gate.wait(60)
        return super().commit(moves, on_disk=on_disk)


def test_a_call_is_not_made_when_its_lease_may_be_over(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given an intent that takes longer than the lease, when it is on record at last, then nothing is sent."""
    batch = submit(store, 1)
    slow = Slow(store)
    late = engines(slow)
    drive(late, slow.intending.is_set)
    eventually(lambda: (store.next_due(Lane.START) or 0.0) < 0.0, what="the lease is over", every=0.01)
    slow.gate.set()
    late.call(late.drain(5, paid_s=5))
    assert service.ledger == []
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1, 1)


def test_a_zombie_cannot_commit_and_its_run_is_not_paid_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a run created by a process that then falls asleep, when another takes over, then there is one run."""
    batch = submit(store, 1)
    deaf = Deaf(store)
    zombie = engines(deaf)
    drive(zombie, lambda: len(service.ledger) == 1)
    drive(engines(), finished(store, batch))
    before = only(store, batch)
    deaf.gate.set()
    zombie.call(zombie.drain(5, paid_s=5))
    assert only(store, batch) == before
    assert (before.state, before.runs, len(service.ledger)) == (State.COMPLETED, 1, 1)


def test_the_witness_of_a_zombie_is_believed(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given a service that cannot list runs, when the zombie leaves its run's id, then that run is adopted."""
    batch = submit(store, 1)

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    service.find_started = cannot_tell  # type: ignore[method-assign]
    deaf = Deaf(store)
    zombie = engines(deaf)
    drive(zombie, lambda: len(service.ledger) == 1)
    other = engines()
    drive(other, lambda: "may exist" in (only(store, batch).note or ""))
    deaf.gate.set()
    drive(other, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1)


def test_what_fails_to_be_stored_is_kept_until_it_is(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = submit(store, 3)
    commit = store.commit
    failures = itertools.count()

    def flaky(moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "start" for move in moves) and next(failures) < 2:
            raise StoreUnreachable("Redis at redis://x does not answer")
        return commit(moves)

    monkeypatch.setattr(store, "commit", flaky)
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 3
    assert all(job.attempts == 1 and job.state is State.COMPLETED for job in store.jobs(batch))


def test_executions_share_the_shards_and_surplus_ones_leave(store: MemoryStore, engines: Engines) -> None:
    submit(store, 1)
    shares = [chain._Share(store, Lane.POLL, name) for name in ("one", "two", "three")]
    assert shares[0]._update()
    assert len(shares[0].held) == SHARDS
    assert not shares[1]._update(), "one pool process wants one execution of each kind"
    store.discharge(Lane.POLL, "two", [])
    from worker.timer import this_node

    store.beat(this_node("w@h", 6), ttl_s=60)
    for _ in range(3):
        for share in shares:
            assert share._update()
    held = [shard for share in shares for shard in share.held]
    assert sorted(held) == list(range(SHARDS)), "every shard is served once"
    assert max(len(share.held) for share in shares) <= 6


def test_an_intent_whose_call_was_not_made_is_taken_back_at_once(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a claim that became too old while its intent was stored, then nobody looks for a run that cannot be."""
    batch = submit(store, 1)
    engine, asked = engines(), itertools.count()
    fresh = engine._leases.fresh
    # Just before the intent it is fresh, just after it is not; the second time all is well.
    monkeypatch.setattr(engine._leases, "fresh", lambda claim: next(asked) != 1 and fresh(claim))
    looked: list[str] = []
    find = service.find_started

    async def looking(ask: Ask, thread_id: str) -> Found:
        looked.append(ask.job_id)
        return await find(ask, thread_id)

    service.find_started = looking  # type: ignore[method-assign]
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs) == (State.COMPLETED, 1, 1)
    assert looked == []
    assert next(asked) >= 4


def test_the_end_of_a_process_waits_longer_for_what_is_paid_for(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given an open create and an open poll, when the process ends, then the reply to the create is waited for."""
    batch = submit(store, 1)
    engine = engines()

    async def close_the_gate() -> None:
        service.hold.clear()

    engine.call(close_the_gate())
    drive(engine, lambda: bool(service.ledger))
    assert engine.call(engine.drain(0.05, paid_s=0.1)) == 1, "not for ever"
    began = time.monotonic()
    ending = asyncio.run_coroutine_threadsafe(engine.drain(0.05, paid_s=20.0), engine.loop)
    engine.loop.call_soon_threadsafe(engine.loop.call_later, 0.4, service.hold.set)
    assert ending.result(timeout=20) == 0
    assert time.monotonic() - began < 15
    assert only(store, batch).state is State.RUNNING, "and its id is on record"


def test_a_paid_call_is_waited_for_though_an_older_one_of_the_same_job_is_over(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a create whose lease was lost and that is made once more under its key, when the reply to the first comes,
    then the end of the process still waits for the second."""

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    gates = [asyncio.Event(), asyncio.Event()]
    begun = itertools.count()
    calls: list[int] = []

    async def start(ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        calls.append(number := next(begun))
        await gates[min(number, 1)].wait()
        return Status(state=RunState.PENDING, raw="queued", run_id=f"run/{ask.job_id}")

    def away(claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("Redis at redis://x does not answer")

    service.keyed, service.find_started, service.start = True, cannot_tell, start  # type: ignore[method-assign]
    monkeypatch.setattr(store, "renew", away)
    batch = submit(store, 1)
    engine = engines()
    drive(engine, lambda: len(calls) == 2)
    engine.loop.call_soon_threadsafe(gates[0].set)
    eventually(lambda: engine.open_calls(Lane.START) == 0)
    ending = asyncio.run_coroutine_threadsafe(engine.drain(0.05, paid_s=20.0), engine.loop)
    engine.loop.call_soon_threadsafe(engine.loop.call_later, 0.3, gates[1].set)
    assert ending.result(timeout=20) == 0
    assert only(store, batch).run_id == f"run/{only(store, batch).id}", "and its id is on record"


def test_a_free_call_is_not_waited_for_longer(store: MemoryStore, service: Service, engines: Engines) -> None:
    submit(store, 1)
    gate = asyncio.Event()
    opened = threading.Event()

    async def slow(thread_id: str, run_id: str) -> Status:
        opened.set()
        await gate.wait()
        raise AssertionError("abandoned")

    service.poll = slow  # type: ignore[method-assign]
    engine = engines()
    drive(engine, opened.is_set)
    began = time.monotonic()
    assert engine.call(engine.drain(0.05, paid_s=30.0)) == 1
    assert time.monotonic() - began < 15
