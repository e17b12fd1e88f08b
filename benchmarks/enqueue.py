"""`enqueue`: how long a list takes to be stored, in what memory, and how soon the first run is created.

A Redis with its append-only file on. Three times `askq submit` on a CSV file: into an empty Redis; into one to which a
producer that was SIGKILLed half-way has given a part of the same list under the same key; and while a worker runs, once
with a Redis that writes to its disk each second, and once with one that does at once, as the embedded one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from askq.jobs.model import BatchStatus
from benchmarks import questions
from benchmarks.meter import Ended, Meter
from benchmarks.meter import run as run_command
from tests.acceptance.stack import ROOT, Stack, running_stack
from tests.parts import eventually

_BOOT_S = 60.0
_DEADLINE_S = 600.0
_TIMES = 5


def run(*, tiny: bool) -> dict[str, Any]:
    """100,000 rows."""
    rows = 3000 if tiny else 100_000
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        folder = Path(name)
        listed = folder / "questions.csv"
        questions.write_list(listed, questions.texts(rows))
        found: dict[str, Any] = {"rows": rows, "load_before": round(os.getloadavg()[0], 2)}
        (folder / "quiet").mkdir()
        with running_stack(folder / "quiet") as stack:
            found["alone"] = _alone(stack, listed)
            found["after_a_killed_producer"] = _again(stack, listed, rows)
        found["while_a_worker_runs"] = {
            fsync: [_fresh(folder / f"{fsync}-{number}", listed, fsync) for number in range(1 if tiny else _TIMES)]
            for fsync in ("everysec", "always")
        }
        return found


def _fresh(folder: Path, listed: Path, fsync: str) -> dict[str, Any]:
    folder.mkdir()
    with running_stack(folder, fsync=fsync) as stack:
        return _beside_a_worker(stack, listed)


def _submit(stack: Stack, listed: Path, key: str) -> Ended:
    return run_command(_argv(listed, key), stack.environment(), out=stack.folder / "batch")


def _argv(listed: Path, key: str) -> list[str]:
    argv = [sys.executable, "-m", "producer.cli", "submit", str(listed), "--assistant", "plain"]
    return [*argv, "--idempotency-key", key]


def _alone(stack: Stack, listed: Path) -> dict[str, Any]:
    meter = Meter(stack, [])
    before = meter.read()
    ended = _submit(stack, listed, "alone")
    after = meter.read()
    meter.close()
    status = stack.status(ended.stdout)
    return {
        "stored": status.total,
        "seconds": round(ended.wall_s, 2),
        "client_cpu_s": round(ended.cpu_s, 2),
        "redis_cpu_s": round(after.redis_s - before.redis_s, 2),
        "client_peak_mb": round(ended.peak_mb),
    }


def _again(stack: Stack, listed: Path, rows: int) -> dict[str, Any]:
    child = subprocess.Popen(
        _argv(listed, "killed"), env=stack.environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        half = eventually(lambda: _stored(stack, "killed", rows // 2), seconds=_DEADLINE_S, what="half is stored")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    known = sum(stack.status(half.id).counts.values())
    ended = _submit(stack, listed, "killed")
    status = stack.status(ended.stdout)
    return {
        "stored_before_the_kill": known,
        "same_batch": ended.stdout == half.id,
        "added": sum(status.counts.values()) - known,
        "stored": status.total,
        "seconds": round(ended.wall_s, 2),
    }


def _stored(stack: Stack, key: str, least: int) -> BatchStatus | None:
    batch = stack.store.batch_under(key)
    status = None if batch is None else stack.store.batch(batch)
    return status if status is not None and sum(status.counts.values()) >= least else None


def _beside_a_worker(stack: Stack, listed: Path) -> dict[str, Any]:
    worker = stack.worker()
    eventually(stack.store.nodes, seconds=_BOOT_S, what="the worker is ready")
    child = subprocess.Popen(
        _argv(listed, "beside"), env=stack.environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        first = eventually(
            lambda: stack.admin("ledger?limit=1")["data"], seconds=_BOOT_S, what="a run is created", every=0.01
        )[0]
        created = time.time()
    finally:
        child.kill()
        child.wait()
        worker.kill()
    job = stack.store.job(first["metadata"]["askq_job"])
    assert job is not None, "the ledger names a job"
    batch = stack.store.batch_under("beside")
    assert batch is not None, "the list was begun"
    return {
        "first_run_after_its_row_s": round(created - job.created_at, 2),
        "first_run_after_the_batch_s": round(created - stack.status(batch).created_at, 2),
    }
