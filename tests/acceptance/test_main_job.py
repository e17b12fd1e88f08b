"""The main job with real parts: questions in, runs created and polled by Celery, answers out, one run each."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import Job, State
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import eventually

PROTOCOLS = ("assistants", "responses")
SCRIPT = {"default": {"answer": "Answer to: {question}", "duration": [0.3, 2.5]}}


def tutor(protocol: Literal["assistants", "responses"]) -> Assistant:
    return Assistant(name="tutor", protocol=protocol, model="gpt-test", instructions="Be brief.", timeout_s=120)


def check_answers(stack: Stack, jobs: list[Job], count: int) -> None:
    """Every question has its own answer, and every job exactly one run in the ledger."""
    assert len(jobs) == count
    for job in jobs:
        assert job.state is State.COMPLETED, job
        assert job.answer is not None
        assert job.answer.text == f"Answer to: {job.question.text}"
        assert job.runs == 1
    runs = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
    assert runs == Counter(job.id for job in jobs), "one run per job, no more and no less"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_list_is_answered(tmp_path: Path, protocol: Literal["assistants", "responses"]) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        stack.worker()
        batch = stack.submit(tutor(protocol), [f"What is {n} + {n}?" for n in range(120)])
        jobs = stack.wait(batch, seconds=120)
        check_answers(stack, jobs, 120)
        assert stack.status(batch).usage.total_tokens > 0
        assert {job.protocol for job in jobs} == {protocol}


def test_one_assistant_object_is_made_for_a_whole_batch(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        stack.worker("one")
        stack.worker("two")
        for _ in range(2):
            batch = stack.submit(tutor("assistants"), [f"Question {n}" for n in range(40)])
            stack.wait(batch, seconds=120)
        created = {job.thread_id for job in stack.store.jobs(batch)}
        assert len(created) == 40
        assistants = {entry.get("assistant_id") for entry in stack.ledger()}
        assert len(assistants) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_workers_killed_all_the_time_lose_nothing_and_pay_once(
    tmp_path: Path, protocol: Literal["assistants", "responses"]
) -> None:
    """Given two workers, when one after the other is SIGKILLed 12 times in mid-run, then every job has one run."""
    # Some are at work as long as there are kills, however fast the machine.
    long = {"contains": "square of 11", "answer": "Answer to: {question}", "duration": [14, 15]}
    script = {"default": {"answer": "Answer to: {question}", "duration": [1, 5]}, "rule": [long]}
    pick = random.Random(7)
    # On Responses only a key can tell a create that never left from one whose reply was lost.
    with running_stack(tmp_path, script=script, keyed=protocol == "responses") as stack:
        workers = [stack.worker(f"w{n}", ASKQ_LEASE_S="3") for n in range(2)]
        texts = [f"What is the square of {n}?" for n in range(300)]
        batch = stack.submit(tutor(protocol), texts)
        kills = 0
        eventually(lambda: stack.ledger(), seconds=120, what="the first run is created")
        for _ in range(12):
            before = stack.status(batch)
            time.sleep(pick.uniform(0.2, 1.2))  # when to kill is the experiment, not the verdict
            victim = pick.choice(workers)
            if victim.alive and not before.done:
                victim.kill(signal.SIGKILL)
                kills += 1
            restart(victim)
        assert kills >= 10
        jobs = stack.wait(batch, seconds=150)
        check_answers(stack, jobs, len(texts))


def restart(worker: Process) -> None:
    """What a supervisor does."""
    if not worker.alive:
        worker.start()


def test_a_pool_process_killed_alone_is_replaced_by_its_worker(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        worker = stack.worker(ASKQ_LEASE_S="3")
        batch = stack.submit(tutor("assistants"), [f"Question {n}" for n in range(150)])
        eventually(lambda: len(stack.ledger()) > 20, seconds=120, what="runs are created")
        pool = worker.pids()[1:]
        if not pool:
            pytest.skip("needs /proc to find pool processes")
        for child in pool:
            os.kill(child, signal.SIGKILL)
        jobs = stack.wait(batch, seconds=120)
        assert worker.alive
        check_answers(stack, jobs, 150)


def test_a_stopped_worker_finishes_its_calls_and_leaves_the_rest(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        first = stack.worker("first")
        batch = stack.submit(tutor("responses"), [f"Question {n}" for n in range(150)])
        eventually(lambda: len(stack.ledger()) > 20, seconds=120, what="runs are created")
        assert first.child is not None
        first.kill(signal.SIGTERM, group=False, seconds=120)
        assert first.child.returncode == 0
        stack.worker("second")
        check_answers(stack, stack.wait(batch, seconds=120), 150)


def test_redis_restarted_in_mid_run(tmp_path: Path) -> None:
    """Given an append-only file, when Redis is SIGKILLed and comes back, then nothing is lost or paid twice."""
    with running_stack(tmp_path, script=SCRIPT) as stack:
        worker = stack.worker()
        batch = stack.submit(tutor("assistants"), [f"Question {n}" for n in range(150)])
        eventually(lambda: len(stack.ledger()) > 20, seconds=120, what="runs are created")
        stack.redis.kill()
        time.sleep(1.0)  # the length of the outage
        stack.redis.start()
        stack.wait_for_redis()

        def ended() -> bool:
            # Celery 5.7 may end a worker when Redis goes away; its supervisor starts it again.
            restart(worker)
            return stack.status(batch).done

        eventually(ended, seconds=120, what="the batch ends", every=0.2)
        check_answers(stack, stack.wait(batch, seconds=120), 150)


def test_a_redis_that_would_lose_jobs_is_refused(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        stack.store._redis.config_set("appendonly", "no")
        stack.store._redis.config_set("maxmemory-policy", "allkeys-lru")
        worker = stack.worker()
        assert worker.child is not None
        assert worker.child.wait(60) == 1
        told = worker.tail()
        assert "append-only file is off" in told
        assert "allkeys-lru" in told
        assert "Traceback" not in told
        brave = stack.worker("brave", ASKQ_ALLOW_UNSAFE_REDIS="1")
        batch = stack.submit(tutor("responses"), ["What is 1 + 1?"])
        stack.wait(batch, seconds=120)
        assert brave.alive


def test_an_idle_worker_costs_almost_nothing(tmp_path: Path) -> None:
    """A waiting run occupies no task, no thread and no message, and an idle system hardly any CPU."""
    with running_stack(tmp_path, script={"default": {"status": "stuck"}}) as stack:
        worker = stack.worker()
        batch = stack.submit(tutor("responses"), [f"Question {n}" for n in range(50)])
        eventually(lambda: stack.status(batch).counts[State.RUNNING] == 50, seconds=120, what="all runs exist")
        # Where workers take long to start, more messages than that have gathered by then.
        for queue in ("askq.start", "askq.poll"):
            eventually(lambda queue=queue: stack.store._redis.llen(queue) <= 2, what="hardly a message")  # type: ignore[misc]
        assert worker.alive
