"""`cost` and `sustained`: what a question costs in CPU, commands and polls, and how many are answered in a second.

A Redis with its append-only file on, the local API with the `script` engine over HTTP, one worker with two pool
processes. CPU is that of the program that submits, of the worker with its pool and of Redis, from the moment the worker
is ready; the local API stands for the service and is not counted.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from askq.jobs.model import Job, State
from benchmarks import questions
from benchmarks.meter import Meter, run
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually

_PROTOCOLS = ("assistants", "responses")
_DEADLINE_S = 900.0


def run_cost(*, tiny: bool) -> dict[str, Any]:
    """2,000 questions whose runs take 2 to 20 seconds."""
    many, run_seconds = (20, (0.2, 1.0)) if tiny else (2000, (2.0, 20.0))
    return {protocol: measure(protocol, many, run_seconds) for protocol in _PROTOCOLS}


def run_sustained(*, tiny: bool) -> dict[str, Any]:
    """4,000 questions whose runs take 0.2 seconds: nothing but the programs themselves bounds the rate."""
    many = 40 if tiny else 4000
    return {protocol: measure(protocol, many, (0.2, 0.2)) for protocol in _PROTOCOLS}


def measure(protocol: str, many: int, run_seconds: tuple[float, float]) -> dict[str, Any]:
    """Answer so many questions and tell what that took."""
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        folder = Path(name)
        with running_stack(folder, script=questions.script(run_seconds)) as stack:
            return _measure(stack, protocol, many, run_seconds)


def _measure(stack: Stack, protocol: str, many: int, run_seconds: tuple[float, float]) -> dict[str, Any]:
    listed = stack.folder / "questions.csv"
    texts = questions.texts(many)
    questions.write_list(listed, texts)
    worker = stack.worker()
    eventually(stack.store.nodes, seconds=60, what="the worker is ready")
    meter = Meter(stack, [worker])
    load = os.getloadavg()[0]
    before = meter.read()
    argv = [sys.executable, "-m", "producer.cli", "submit", str(listed), "--assistant", "plain", "--protocol", protocol]
    submitted = run(argv, stack.environment(), out=stack.folder / "batch")
    batch = submitted.stdout
    eventually(lambda: stack.status(batch).done, seconds=_DEADLINE_S, what="every question is answered", every=0.25)
    after = meter.read()
    meter.close()
    jobs = list(stack.store.jobs(batch))
    return {
        "command": f"askq submit questions.csv --protocol {protocol}",
        "questions": many,
        "run_seconds": list(run_seconds),
        "load_before": round(load, 2),
        "answered": sum(job.state is State.COMPLETED for job in jobs),
        "wrong_answers": sum(_wrong(job) for job in jobs),
        "ledger_runs": len(stack.ledger()),
        "wall_s": round(after.at - before.at, 2),
        "questions_per_s": round(many / (_finished(jobs) - min(job.created_at for job in jobs)), 1),
        "polls_per_question": round(sum(job.polls for job in jobs) / many, 2),
        **after.since(before, questions=many, client_s=submitted.cpu_s),
    }


def _wrong(job: Job) -> bool:
    return job.answer is None or job.answer.text != questions.right_answer(job.question.text)


def _finished(jobs: list[Job]) -> float:
    return max(job.completed_at or time.time() for job in jobs)
