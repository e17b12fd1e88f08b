"""Several workers on one list: they share the shards, do nothing twice, and stand in for each other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from askq.assistants.model import Assistant
from askq.ids import SHARDS, shard_of
from askq.jobs import keys
from askq.jobs.model import Lane, State
from benchmarks.claims import noted
from benchmarks.meter import pids_of
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import eventually

WATCHED = "benchmarks.watched_worker"
TUTOR = Assistant(name="tutor", protocol="responses", model="gpt-test", timeout_s=300)
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds pool processes through /proc"),
]


def watched(stack: Stack, name: str, **environment: str) -> tuple[Process, Path]:
    """A worker, and where it notes its claims."""
    file = stack.folder / f"{name}.claims"
    return stack.worker(name, app=WATCHED, CLAIMS_FILE=str(file), **environment), file


def questions(many: int) -> list[str]:
    return [f"What is {number} + 1?" for number in range(many)]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_the_shards_and_do_nothing_twice(tmp_path: Path, workers: int) -> None:
    script = {"default": {"answer": "Answer to: {question}", "duration": [0.5, 3.0]}}
    with running_stack(tmp_path, script=script) as stack:
        # Long leases, so that a busy machine does not make a claim run out: then it would rightly be made again.
        crew = [watched(stack, f"w{number}", ASKQ_LEASE_S="60") for number in range(workers)]
        eventually(lambda: len(stack.store.nodes()) == workers, seconds=120, what="all workers are ready")
        jobs = stack.wait(stack.submit(TUTOR, questions(400)), seconds=120)
        for _ in range(10):
            # The others were done before one that is slow to begin had begun: it takes part in the next list.
            if all(noted(file) for _, file in crew):
                break
            jobs += stack.wait(stack.submit(TUTOR, questions(100)), seconds=120)
        claims = [noted(file) for _, file in crew]
        ledger = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
    assert {job.state for job in jobs} == {State.COMPLETED}
    assert ledger == Counter(job.id for job in jobs), "one run per job"
    made = Counter(claim.job for each in claims for claim in each)
    # One claim for the conversation, one for the run, one for each poll: were one made twice, there would be more.
    assert made == {job.id: 2 + job.polls for job in jobs}
    assert {shard_of(claim.job) for each in claims for claim in each} == set(range(SHARDS))
    assert all(claims), f"every worker took part: {[len(each) for each in claims]}"


def holders(stack: Stack, lane: Lane) -> set[int]:
    """The processes that hold the shards of a lane; 0 for a shard nobody holds."""
    with stack.client() as raw:
        found = raw.mget([keys.lease(shard, lane) for shard in range(SHARDS)])
    return {0 if owner is None else int(owner.split(b"/")[1]) for owner in found}


def test_a_worker_that_comes_helps_and_one_that_goes_is_replaced(tmp_path: Path) -> None:
    """Given runs that are polled all the time, when a worker comes, it helps, and when it is killed, it is replaced."""
    script = {"default": {"duration": 3600, "poll_after_ms": 300}}
    with running_stack(tmp_path, script=script) as stack:
        first, _ = watched(stack, "first")
        batch = stack.submit(TUTOR, questions(100))
        eventually(lambda: stack.status(batch).counts[State.RUNNING] == 100, seconds=120, what="every run is created")
        second, helped = watched(stack, "second")
        eventually(lambda: {claim.lane for claim in noted(helped)}, seconds=120, what="the new worker helps")
        eventually(lambda: len(holders(stack, Lane.POLL)) >= 2, seconds=120, what="the shards are shared")
        second.kill()
        eventually(
            lambda: holders(stack, Lane.POLL) <= set(pids_of(first)),
            seconds=120,
            what="the first worker holds every shard again",
        )
        polls = {job.id: job.polls for job in stack.store.jobs(batch)}
        eventually(
            lambda: all(job.polls > polls[job.id] for job in stack.store.jobs(batch)),
            seconds=120,
            what="every run is polled again",
            every=0.5,
        )
        assert stack.status(batch).counts[State.RUNNING] == 100
