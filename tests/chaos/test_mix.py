"""Everything goes wrong at once, for half a minute: workers killed and stopped, Redis killed, the API misbehaving.

The verdict reads the local API's ledger and the store, never a log. A failure is repeated with its seed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreError
from askq.jobs.model import State
from tests.acceptance.stack import Process, Stack, running_stack

SEED = int(os.environ.get("CHAOS_SEED", "11"))
JOBS = 200
TROUBLE_S = 30.0
CREATES = "/(runs|responses)$"

FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "method": "POST", "path": CREATES, "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "status", "method": "POST", "path": "/(runs|responses|threads|conversations)$", "status": 500},
    {"kind": "status_after", "method": "POST", "path": CREATES, "status": 500},
    {"kind": "drop_after", "method": "POST", "path": CREATES},
    {"kind": "drop", "method": "POST", "path": CREATES},
    {"kind": "truncated_json", "method": "POST", "path": CREATES},
    {"kind": "html_200", "method": "POST", "path": CREATES},
    {"kind": "timeout", "method": "POST", "path": CREATES, "perform": True, "seconds": 60},
    {"kind": "status", "method": "GET", "path": ".", "status": 503},
    {"kind": "status", "method": "GET", "path": ".", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "drop", "method": "GET", "path": "."},
    {"kind": "truncated_json", "method": "GET", "path": "."},
    {"kind": "html_200", "method": "GET", "path": "."},
    {"kind": "cut_body", "method": "GET", "path": "."},
]


def trouble(stack: Stack, workers: list[Process], pick: random.Random) -> Counter[str]:
    """Half a minute of it; what was done, by kind. A supervisor's part is played here."""
    done: Counter[str] = Counter()
    until = time.monotonic() + TROUBLE_S
    while time.monotonic() < until:
        time.sleep(pick.uniform(0.2, 1.2))  # when it strikes is the experiment, not the verdict
        what, victim = pick.random(), pick.choice(workers)
        if what < 0.35 and victim.alive:
            victim.kill(signal.SIGKILL)
            done["kill"] += 1
        elif what < 0.45 and victim.alive and victim.child is not None:
            # Longer than a lease: it wakes up as a zombie.
            os.killpg(victim.child.pid, signal.SIGSTOP)
            time.sleep(4.0)
            os.killpg(victim.child.pid, signal.SIGCONT)
            done["stop"] += 1
        elif what < 0.55:
            stack.redis.kill()
            time.sleep(pick.uniform(0.1, 1.0))
            stack.redis.start()
            stack.wait_for_redis()
            done["redis"] += 1
        revive(workers)
    return done


def revive(workers: list[Process]) -> None:
    for worker in workers:
        if not worker.alive:
            worker.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("protocol", "keyed"),
    [("assistants", False), ("responses", False), ("responses", True)],
    ids=["assistants", "responses", "responses-with-keys"],
)
def test_nothing_is_lost_and_nothing_is_paid_twice(
    tmp_path: Path,
    protocol: Literal["assistants", "responses"],
    keyed: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    print(f"CHAOS_SEED={SEED}")  # noqa: T201  shown when it fails
    pick = random.Random(SEED)
    script = {"default": {"answer": "Answer to: {question}", "duration": [1, 6]}}
    with running_stack(tmp_path, script=script, keyed=keyed) as stack:
        chance = {"probability": 0.04}
        stack.admin("faults", {"faults": [fault | chance | {"seed": SEED + n} for n, fault in enumerate(FAULTS)]})
        settings = {"ASKQ_LEASE_S": "3", "ASKQ_CALL_TIMEOUT_S": "4"}
        workers = [stack.worker(f"w{n}", **settings) for n in range(2)]
        assistant = Assistant(name="t", protocol=protocol, model="gpt-test", timeout_s=45)
        batch = stack.submit(assistant, [f"What is {n} squared?" for n in range(JOBS)])
        done = trouble(stack, workers, pick)
        until = time.monotonic() + 120
        while not ended(stack, batch):
            assert time.monotonic() < until, f"stuck: {stack.status(batch).counts}"
            revive(workers)
            time.sleep(0.2)

        jobs = list(stack.store.jobs(batch))
        ledger = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
        assert done["kill"] >= 3, "without kills this test says nothing"
        assert sum(stack.admin("stats")["faults"].values()) >= 50
        assert len(jobs) == JOBS
        assert set(ledger.values()) == {1}, "paid twice"
        for job in jobs:
            assert job.runs == ledger[job.id], "what askq counts is what the ledger holds"
            if job.state is State.COMPLETED:
                assert job.answer is not None
                assert job.answer.text == f"Answer to: {job.question.text}"
            else:
                # Without keys nothing tells a create that failed from one whose reply was lost: never paid again.
                assert (protocol, keyed) == ("responses", False), job
                assert (job.state, ledger[job.id]) == (State.UNCERTAIN, 0), job


def ended(stack: Stack, batch: str) -> bool:
    try:
        return stack.status(batch).done
    except StoreError:
        return False
