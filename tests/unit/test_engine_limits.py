"""The engine and the limits of an account: who is limited waits unharmed, and what runs take is learned."""

from __future__ import annotations

import dataclasses
import itertools
import time

from askq.jobs.limits import Scope
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, State, Usage
from askq.jobs.took import ended
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, engines, finished, service, store, submit
from worker import chain
from worker.protocols.base import Ask, Limited, RunState, Status
from worker.protocols.hints import NO_LIMITS

__all__ = ["engines", "service", "store"]


def test_being_limited_costs_no_attempt(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 3)
    refusals = itertools.count()

    def limit(ask: Ask) -> None:
        if next(refusals) < 4:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.05)

    service.before = limit
    drive(engines(), finished(store, batch))
    assert all(job.attempts == 1 for job in store.jobs(batch))
    assert len(service.ledger) == 3


def test_one_refusal_holds_for_every_worker(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given two workers, when one is told to wait, then neither calls before that time is over."""
    batch = submit(store, 12)
    refused_at: list[float] = []
    called_at: list[float] = []

    def limit(ask: Ask) -> None:
        called_at.append(time.monotonic())
        if len(called_at) == 3:
            refused_at.append(time.monotonic())
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.5, limits=NO_LIMITS)

    service.before = limit
    first, second = engines(), engines()

    def done() -> bool:
        second.call(chain.work(second, Lane.START, slice_s=0.05))
        return finished(store, batch)()

    drive(first, done)
    assert all(job.attempts == 1 for job in store.jobs(batch))
    # Calls that had their permit before the refusal was known are no disobedience.
    early = [at for at in called_at[3:] if at < refused_at[0] + 0.45]
    assert len(early) <= 4
    assert len(service.ledger) == 12


def test_questions_wait_unharmed_for_as_long_as_the_service_asks(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 5)
    calls = itertools.count()

    def limit(ask: Ask) -> None:
        next(calls)
        raise Limited("rate_limit_exceeded", "slow down", retry_after=600.0, limits=NO_LIMITS)

    service.before = limit
    engine = engines()
    drive(engine, lambda: bool(store.waits()) and next(calls) > 0)
    drive(engine, lambda: all(job.state is State.QUEUED for job in store.jobs(batch)))
    assert all(job.attempts == 0 for job in store.jobs(batch)), "no attempt is consumed"
    assert next(calls) <= 8
    status = store.batch(batch)
    assert status is not None
    assert status.waits[0].seconds > 500
    # A person, or a new day, ends it: the record is gone and nothing remembers the wait but the jobs' own times.
    assert service.ledger == []


def test_a_bound_of_the_assistants_file_is_kept(store: MemoryStore, service: Service, engines: Engines) -> None:
    bounded = dataclasses.replace(TUTOR, limits={"requests_per_minute": 600})
    batch = submit(store, 20, assistant=bounded)
    began = time.monotonic()
    drive(engines(), finished(store, batch))
    assert time.monotonic() - began >= 0.9 * (20 - 10) / 10
    assert len(service.ledger) == 20


def test_refused_polls_are_made_more_rarely(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 6)
    poll = service.poll
    refusals = itertools.count()

    async def refuse_at_first(thread_id: str, run_id: str) -> Status:
        if next(refusals) < 2:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.1, limits=NO_LIMITS)
        return await poll(thread_id, run_id)

    service.poll = refuse_at_first  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert all(job.state is State.COMPLETED for job in store.jobs(batch))


def test_how_long_runs_take_is_learned(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 8)
    engine = engines()
    drive(engine, finished(store, batch))
    drive(engine, lambda: ended(store.took(TUTOR.digest)) == 8)


def test_what_a_row_used_is_learned_of_its_own_model(store: MemoryStore, service: Service, engines: Engines) -> None:
    poll = service.poll

    async def talkative(thread_id: str, run_id: str) -> Status:
        status = await poll(thread_id, run_id)
        ended = status.state is not RunState.PENDING
        return dataclasses.replace(status, usage=Usage(total_tokens=100_000)) if ended else status

    def ratio(model: str) -> float:
        return store.look_limits(Scope(account="acc", protocol="assistants", model=model)).ratio

    service.poll = talkative  # type: ignore[method-assign]
    batch = submit(store, 4, model="large")
    drive(engines(), lambda: finished(store, batch)() and ratio("large") > 1)
    assert ratio("m") == 1.0
