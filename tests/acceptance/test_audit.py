"""The background audit with real workers: what is broken heals by itself, and what is in order is left alone."""

from __future__ import annotations

from pathlib import Path

from askq.assistants.model import Assistant
from askq.ids import shard_of
from askq.jobs import keys
from askq.jobs.audit import LastAudit
from askq.jobs.model import Job, Lane, State
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually

TUTOR = Assistant(name="tutor", protocol="responses", model="gpt-test", instructions="Be brief.", timeout_s=120)
SCRIPT = {"default": {"answer": "Answer to: {question}", "duration": [0.3, 1.5]}}


def last(stack: Stack) -> LastAudit | None:
    return LastAudit.read(stack.store.books().last())


def test_a_broken_schedule_heals_by_itself(tmp_path: Path) -> None:
    """Given jobs that are due nowhere and counters that are wrong, when workers audit, then every answer comes."""
    with running_stack(tmp_path, script=SCRIPT) as stack:
        batch = stack.submit(TUTOR, [f"Question {n}" for n in range(60)])
        raw = stack.store._redis
        jobs = [job.id for job in stack.store.jobs(batch)]
        for job in jobs[::3]:
            raw.zrem(keys.due(shard_of(job), Lane.START), job)
        raw.hincrby(keys.count(shard_of(jobs[0]), batch), "queued", 5)
        raw.set(keys.lease(shard_of(jobs[1]), Lane.START), "an execution that is gone")
        for name in ("one", "two"):
            stack.worker(name, app="tests.acceptance.brisk")
        done = stack.wait(batch, seconds=120)
        assert {job.state for job in done} == {State.COMPLETED}
        assert all(job.runs == job.attempts == 1 for job in done)
        assert sum(stack.status(batch).counts.values()) == 60
        assert len(stack.ledger()) == 60

        def in_order() -> bool:
            # The one that healed it is some audits ago by now.
            found = last(stack)
            return found is not None and not found.repaired and not found.remaining

        eventually(in_order, what="an audit finds everything in order")


def test_a_job_lost_in_mid_run_is_found_again(tmp_path: Path) -> None:
    """Given a run that is polled, when its job disappears from the schedule, then an audit puts it back."""
    with running_stack(tmp_path, script={"default": {"answer": "ok", "duration": [4, 5]}}) as stack:
        stack.worker(app="tests.acceptance.brisk")
        batch = stack.submit(TUTOR, [f"Question {n}" for n in range(4)])

        def running() -> list[Job]:
            return list(stack.store.jobs(batch, states=[State.RUNNING]))

        for job in eventually(running, what="runs exist"):
            stack.store._redis.zrem(keys.due(shard_of(job.id), Lane.POLL), job.id)
        assert {job.state for job in stack.wait(batch, seconds=120)} == {State.COMPLETED}


def test_audits_disturb_no_batch_and_find_nothing(tmp_path: Path) -> None:
    """Given a list that two workers answer, when they audit every second, then there is nothing to be found."""
    with running_stack(tmp_path, script=SCRIPT) as stack:
        for name in ("one", "two"):
            stack.worker(name, app="tests.acceptance.brisk")
        batch = stack.submit(TUTOR, [f"Question {n}" for n in range(200)])
        seen: dict[float, LastAudit] = {}

        def ended() -> bool:
            found = last(stack)
            if found is not None:
                seen[found.finished_at] = found
            return stack.status(batch).done and len(seen) >= 3

        eventually(ended, seconds=120, what="the batch ends, audited several times")
        assert [(found.repaired, found.remaining, found.noted) for found in seen.values()] == [({}, {}, {})] * len(seen)
