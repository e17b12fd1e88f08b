"""Cancel, retry, budgets and pauses with real parts: commands, workers, Redis and the local API's ledger."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import Job, State
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually

PROTOCOLS = ("assistants", "responses")
Protocol = Literal["assistants", "responses"]
CREATES = "/(runs|responses)$"
ANSWER = "Answer to: {question}"
SOON = {"ASKQ_PROBE_S": "1"}


def assistant(protocol: Protocol, **fields: Any) -> Assistant:
    return Assistant(name="t", protocol=protocol, model="gpt-test", timeout_s=600, **fields)


def counted(stack: Stack, jobs: list[Job]) -> None:
    """What askq counts is what the ledger holds."""
    ledger = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
    assert {job.id: job.runs for job in jobs if job.runs} == dict(ledger)


def pause_codes(stack: Stack, batch: str) -> list[str]:
    return [pause.code for pause in stack.status(batch).paused]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_is_cancelled_half_way(tmp_path: Path, protocol: Protocol) -> None:
    """Given runs that ended, runs at work and questions without one, when cancelled, then nothing is left running."""
    script = {"default": {"answer": ANSWER, "duration": 0.2}, "rule": [{"contains": "slow", "duration": 900}]}
    with running_stack(tmp_path, script=script) as stack:
        later = {"kind": "status", "method": "POST", "path": CREATES, "status": 429, "headers": {"Retry-After": "1"}}
        stack.admin("faults", later | {"skip": 30})
        stack.worker()
        texts = [f"A {'slow' if number % 2 else 'quick'} question {number}" for number in range(60)]
        batch = stack.submit(assistant(protocol), texts)

        def half_way() -> bool:
            counts = stack.status(batch).counts
            quick = sum("quick" in entry["question"] for entry in stack.ledger())
            return counts[State.COMPLETED] + counts[State.RUNNING] == 30 and counts[State.COMPLETED] == quick > 0

        eventually(half_way, seconds=120, what="30 runs were made, and the quick ones are answered")
        done = stack.status(batch).counts[State.COMPLETED]
        told = stack.askq("cancel", batch, "--yes", "--json")
        assert (told.returncode, told.stderr) == (0, "")
        assert json.loads(told.stdout) == {"cancelled": 60 - done, "already": 0}
        jobs = stack.wait(batch, seconds=120)
        assert Counter(job.state for job in jobs) == {State.COMPLETED: done, State.CANCELLED: 60 - done}
        assert {job.error_code for job in jobs if job.state is State.CANCELLED} == {"cancelled"}
        for job in jobs:
            if job.state is State.COMPLETED:
                assert job.answer is not None
                assert job.answer.text == f"Answer to: {job.question.text}"
        eventually(lambda: stack.admin("stats")["in_flight"] == 0, what="no run is left at the service")
        assert len(stack.ledger()) == 30
        counted(stack, jobs)


def test_what_nobody_has_taken_up_is_cancelled_without_a_worker(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        batch = stack.submit(assistant("responses"), [f"Question {number}" for number in range(20)])
        assert stack.askq("cancel", batch, "--yes").returncode == 0
        status = stack.status(batch)
        assert (status.done, status.counts[State.CANCELLED]) == (True, 20)
        stack.worker()
        again = stack.submit(assistant("responses"), ["Another"])
        stack.wait(again, seconds=120)
        assert len(stack.ledger()) == 1, "and no worker takes it up later"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_failed_is_asked_again_and_answered(tmp_path: Path, protocol: Protocol) -> None:
    rules = [{"contains": "hard", "times_each": 1, "status": "failed", "duration": 0.2}]
    with running_stack(tmp_path, script={"default": {"answer": ANSWER, "duration": 0.2}, "rule": rules}) as stack:
        stack.worker()
        texts = [f"A {'hard' if number % 3 == 0 else 'light'} question {number}" for number in range(30)]
        batch = stack.submit(assistant(protocol), texts)
        first = stack.wait(batch, seconds=120)
        assert Counter(job.state for job in first) == {State.COMPLETED: 20, State.FAILED: 10}
        told = stack.askq("retry", batch, "--json")
        assert (told.returncode, json.loads(told.stdout)) == (0, {"retried": 10, "expired": 0})
        jobs = stack.wait(batch, seconds=120)
        for job in jobs:
            asked = 2 if "hard" in job.question.text else 1
            assert (job.state, job.runs, job.attempts, job.retries) == (State.COMPLETED, asked, asked, asked - 1)
            assert job.answer is not None
            assert job.answer.text == f"Answer to: {job.question.text}"
        assert len(stack.ledger()) == 40
        counted(stack, jobs)


def test_a_budget_is_never_exceeded_and_more_of_it_lets_the_batch_go_on(tmp_path: Path) -> None:
    """Given a budget for some of the questions, then no more are asked than it covers at worst, until it is raised."""
    usage = {"input_tokens": 100, "output_tokens": 50}
    cost, limit = 0.0006, 0.006
    priced = assistant("responses", max_output_tokens=100, price={"input": 1.0, "output": 10.0})
    with running_stack(tmp_path, script={"default": {"answer": ANSWER, "duration": 0.2, "usage": usage}}) as stack:
        stack.worker()
        batch = stack.submit(priced, [f"Question {number:02d}" for number in range(20)], max_cost_usd=limit)

        def used_up() -> bool:
            status = stack.status(batch)
            assert status.budget is not None
            assert status.budget.spent_usd + status.budget.reserved_usd <= limit + 1e-9, "never, not for a moment"
            assert not status.done
            return status.at_its_budget

        eventually(used_up, seconds=120, what="the budget is used up")
        before = stack.status(batch)
        answered = before.counts[State.COMPLETED]
        assert before.budget is not None
        assert before.budget.spent_usd == pytest.approx(answered * cost)
        assert before.budget.spent_usd > limit - 0.0016, "what is left does not cover another one at worst"
        assert answered == len(stack.ledger())
        assert pause_codes(stack, batch) == ["budget_exceeded"]
        waited = stack.askq("watch", batch)
        assert waited.returncode == 8
        assert f"askq resume {batch} --max-cost USD" in waited.stderr
        assert stack.askq("resume", batch, "--max-cost", "1").returncode == 0
        jobs = stack.wait(batch, seconds=120)
        assert {(job.state, job.attempts) for job in jobs} == {(State.COMPLETED, 1)}
        counted(stack, jobs)

        def settled() -> bool:
            budget = stack.status(batch).budget
            return budget is not None and budget.reserved_usd == 0

        eventually(settled, what="nothing is put aside any more")
        after = stack.status(batch).budget
        assert after is not None
        assert after.spent_usd == pytest.approx(20 * cost)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_rejected_key_pauses_at_once_and_the_pause_ends_by_itself(tmp_path: Path, protocol: Protocol) -> None:
    # Some take long: there are calls to be rejected, even if the test is held up.
    long = {"contains": "Question 11", "answer": ANSWER, "duration": [6, 7]}
    script = {"default": {"answer": ANSWER, "duration": [0.2, 1.5]}, "rule": [long]}
    with running_stack(tmp_path, script=script) as stack:
        stack.worker(**SOON)
        batch = stack.submit(assistant(protocol), [f"Question {number}" for number in range(120)])
        eventually(lambda: len(stack.ledger()) > 10, seconds=120, what="runs are created")
        began = time.monotonic()
        stack.admin("faults", {"kind": "status", "path": ".", "status": 401, "message": "Incorrect API key provided"})
        eventually(lambda: pause_codes(stack, batch) == ["rejected_key"], what="a pause", every=0.02)
        print(f"paused {time.monotonic() - began:.2f} s after the key was rejected")  # noqa: T201  a measurement
        told = stack.askq("status", batch)
        assert "PAUSED:    rejected_key" in told.stdout
        assert "Set a valid OPENAI_API_KEY" in told.stdout
        stack.heal()
        jobs = stack.wait(batch, seconds=120)
        assert stack.store.pauses() == []
        for job in jobs:
            assert (job.state, job.runs, job.attempts) == (State.COMPLETED, 1, 1), "no attempt was used up"
        counted(stack, jobs)


def test_exhausted_credit_stops_creates_and_no_polls(tmp_path: Path) -> None:
    """Given no credit after some runs, then those are answered meanwhile; given credit, all others by themselves."""
    no_credit = {"kind": "status", "status": 429, "code": "insufficient_quota", "type": "insufficient_quota"}
    with running_stack(tmp_path, script={"default": {"answer": ANSWER, "duration": [1, 3]}}) as stack:
        stack.admin("faults", no_credit | {"method": "POST", "path": CREATES, "skip": 12})
        stack.worker(**SOON)
        batch = stack.submit(assistant("responses"), [f"Question {number}" for number in range(60)])
        eventually(lambda: len(stack.ledger()) == 12, seconds=120, what="twelve runs were made")
        eventually(lambda: pause_codes(stack, batch) == ["quota_exhausted"], what="a pause")
        answered = lambda: stack.status(batch).counts[State.COMPLETED] == 12  # noqa: E731
        eventually(answered, seconds=120, what="the runs there are get answered")
        assert pause_codes(stack, batch) == ["quota_exhausted"], "polls that are answered are no credit"
        assert len(stack.ledger()) == 12
        stack.heal()
        jobs = stack.wait(batch, seconds=120)
        assert {(job.state, job.runs, job.attempts) for job in jobs} == {(State.COMPLETED, 1, 1)}
        assert stack.store.pauses() == []
        counted(stack, jobs)
