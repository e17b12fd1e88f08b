"""The engine and its chains: each question is answered by one run, whatever becomes of calls and replies."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from askq.ids import SHARDS
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, State
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, engines, finished, only, service, store, submit
from worker import steps
from worker.protocols.base import Ambiguous, Ask, CallError, Found, Gone, Refused, Search, Status

__all__ = ["engines", "service", "store"]


def test_every_question_gets_its_own_answer_from_one_run(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 40)
    drive(engines(), finished(store, batch))
    for job in store.jobs(batch):
        assert job.state is State.COMPLETED
        assert job.answer is not None
        assert job.answer.text == f"answer to {job.id}"
        assert (job.attempts, job.runs) == (1, 1)
    assert sorted(job for job, _ in service.ledger) == sorted(job.id for job in store.jobs(batch))
    assert service.assistants == 1, "the remote assistant is made once"


def test_a_lost_reply_is_answered_by_looking_not_by_asking_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 5)

    def lose(ask: Ask) -> None:
        raise Ambiguous("timeout", "no reply")

    service.after = lose
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 5
    assert all(job.state is State.COMPLETED and job.runs == 1 for job in store.jobs(batch))


def test_a_refused_question_fails_alone(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 4)

    def refuse(ask: Ask) -> None:
        if ask.text == "question 2":
            raise Refused("context_length_exceeded", "too long")

    service.before = refuse
    drive(engines(), finished(store, batch))
    states = {job.question.row_id: job.state for job in store.jobs(batch)}
    assert states == {"q0": "completed", "q1": "completed", "q2": "failed", "q3": "completed"}
    assert len(service.ledger) == 3


def test_a_question_on_which_workers_died_is_in_hand_alone(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a job that was claimed again and again, when it is worked on, then no other could die with it."""
    batch = submit(store, 12)
    suspect = f"{batch}.q5"
    in_hand: set[str] = set()
    together: list[set[str]] = []
    prepare = service.prepare

    async def look(ask: Ask, assistant_id: str | None) -> str:
        in_hand.add(ask.job_id)
        if suspect in in_hand:
            together.append(set(in_hand))
        # So long that whoever is not kept waiting comes in between.
        await asyncio.sleep(0.05)
        in_hand.remove(ask.job_id)
        return await prepare(ask, assistant_id)

    others = [job.id for job in store.jobs(batch) if job.id != suspect]
    for _ in range(steps.SUSPECT_CLAIMS):
        held = [(claim.id, claim.fence) for claim in store.claim(Lane.START, range(SHARDS), limit=99, lease_s=0)]
        store.give_back([pair for pair in held if pair[0] in others], delay_s=0)
    service.prepare = look  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert together == [{suspect}], "itself, and nothing else"
    job = store.job(suspect)
    assert job is not None
    assert job.state is State.COMPLETED
    assert len(service.ledger) == 12


def test_where_keys_are_honoured_a_lost_reply_is_asked_for_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a service that cannot list runs but honours keys, when replies are lost, then nobody waits in doubt."""
    batch = submit(store, 4)
    service.keyed = True
    lost = itertools.count()

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    def lose(ask: Ask) -> None:
        if next(lost) < 5:
            raise Ambiguous("timeout", "no reply")

    service.find_started = cannot_tell  # type: ignore[method-assign]
    service.after = lose
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 4
    assert all(job.state is State.COMPLETED and (job.attempts, job.runs) == (1, 1) for job in store.jobs(batch))


def test_a_run_that_vanishes_fails_after_several_looks(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.running.backoff", lambda errors, jitter: 0.02)
    batch = submit(store, 1)
    looks = 0

    async def gone(thread_id: str, run_id: str) -> Status:
        nonlocal looks
        looks += 1
        raise Gone("gone", f"No run found with id {run_id}")

    service.poll = gone  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert only(store, batch).error_code == "run_vanished"
    assert looks == 5


def test_a_defect_becomes_a_recorded_end(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 2)

    async def broken(thread_id: str, run_id: str) -> Status:
        raise ZeroDivisionError("oops")

    service.poll = broken  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert {job.error_code for job in store.jobs(batch)} == {"internal"}


def test_a_defect_after_the_paid_call_does_not_lose_its_run(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a reply nobody was prepared for, when the job is claimed again, then its run is found and adopted."""
    batch = submit(store, 2)
    failures = itertools.count()

    def break_down(ask: Ask) -> None:
        if next(failures) < 2:
            raise ZeroDivisionError("oops")

    service.after = break_down
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 2
    assert all(job.state is State.COMPLETED and job.runs == 1 for job in store.jobs(batch))


def test_a_job_whose_assistant_is_gone_says_so(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 1)
    store._assistants.clear()
    drive(engines(), finished(store, batch))
    assert only(store, batch).error_code == "assistant_missing"


def test_an_assistant_deleted_at_the_service_is_made_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    store.save_remote_assistant("acc", TUTOR.digest, "asst_old")
    batch = submit(store, 2)
    start = service.start

    async def picky(ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        if assistant_id == "asst_old":
            raise Refused("assistant_not_found", "No assistant found with id 'asst_old'")
        return await start(ask, thread_id, assistant_id)

    service.start = picky  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert store.remote_assistant("acc", TUTOR.digest) == "asst_1"
    assert all(job.state is State.COMPLETED and job.attempts == 1 for job in store.jobs(batch))


def test_call_errors_of_the_protocols_say_what_happened() -> None:
    error = CallError("timeout", "no reply within 30 s", retry_after=2.0, run_id="run_1")
    assert str(error) == "timeout: no reply within 30 s"
    assert (error.code, error.retry_after, error.run_id) == ("timeout", 2.0, "run_1")
