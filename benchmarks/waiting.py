"""`waiting`: what runs cost that have not ended yet. Each is polled every ten seconds, as the server asks.

A Redis with its append-only file on, one worker with two pool processes, and a service that answers at next to no cost
(`benchmarks.lean_service`). The runs are created first; then, for a while in which none ends, it is measured how late
each poll is claimed, what CPU a poll takes, and what memory a waiting job takes in Redis and in the worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import Lane, State
from benchmarks import questions
from benchmarks.claims import noted
from benchmarks.meter import Meter
from tests.acceptance.stack import ROOT, Stack, running_stack
from tests.parts import eventually, free_port

_CREATED_S = 900.0


def run(*, tiny: bool, runs: int = 10_000) -> dict[str, Any]:
    """So many runs, watched for 40 seconds; fewer show on a busy machine what an idle one could do."""
    many, every_s, window_s = (50, 1.0, 3.0) if tiny else (runs, 10.0, 40.0)
    with (
        tempfile.TemporaryDirectory(prefix="askq-bench-") as name,
        running_stack(Path(name)) as stack,
        _service(every_s) as stack.base_url,
    ):
        return _measure(stack, many, every_s, window_s)


@contextmanager
def _service(every_s: float) -> Iterator[str]:
    """A service whose runs never end; its address."""
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lean_service", str(port), str(int(every_s * 1000))], cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        eventually(lambda: _answers(url), seconds=30, what="the service answers")
        yield url
    finally:
        child.kill()
        child.wait()


def _answers(url: str) -> bool:
    try:
        _counted(url)
    except OSError:
        return False
    return True


def _counted(url: str) -> dict[str, int]:
    """How many requests of each kind the service has answered."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/counted", timeout=10) as reply:
        counted: dict[str, int] = json.load(reply)
    return counted


def _measure(stack: Stack, many: int, every_s: float, window_s: float) -> dict[str, Any]:
    claims = stack.folder / "claims"
    worker = stack.worker(app="benchmarks.watched_worker", CLAIMS_FILE=str(claims))
    eventually(stack.store.nodes, seconds=60, what="the worker is ready")
    meter = Meter(stack, [worker])
    empty = meter.redis_memory()
    texts = questions.texts(many)
    batch = stack.submit(Assistant(name="plain", protocol="responses", model="gpt-test"), texts)
    began = time.monotonic()
    eventually(
        lambda: stack.status(batch).counts[State.RUNNING] == many,
        seconds=_CREATED_S,
        what="every run is created",
        every=0.25,
    )
    created_s = time.monotonic() - began
    # Each has been polled once by then, so that the first polls do not count.
    time.sleep(every_s)
    load = os.getloadavg()[0]
    before, polls, from_ = meter.read(), _polls(stack), stack.store.now()
    time.sleep(window_s)
    after, polled, until = meter.read(), _polls(stack) - polls, stack.store.now()
    resident, memory = meter.resident_mb(), meter.redis_memory() - empty
    asks = sum(_text_bytes(meter, batch, row) for row in range(20)) / 20
    meter.close()
    late = sorted(_late(claims, from_, until))
    cpu = (after.workers_s - before.workers_s) + (after.redis_s - before.redis_s)
    return {
        "runs_waiting": many,
        "polled_every_s": every_s,
        "load_before": round(load, 2),
        "created_per_s": round(many / created_s, 1),
        "window_s": round(after.at - before.at, 1),
        "polls": polled,
        "polls_wanted": round(many * (after.at - before.at) / every_s),
        "late_s": {
            "p50": _part(late, 0.5),
            "p95": _part(late, 0.95),
            "p99": _part(late, 0.99),
            "most": late[-1],
        },
        "cpu_ms_per_poll": round(1000 * cpu / polled, 3),
        "of_that_redis": round(1000 * (after.redis_s - before.redis_s) / polled, 3),
        "redis_bytes_per_waiting_job_besides_its_text": round(memory / many - asks),
        "resident_mb_of_worker_and_pool": round(resident, 1),
        "still_waiting": stack.status(batch).counts[State.RUNNING],
    }


def _polls(stack: Stack) -> int:
    return _counted(stack.base_url).get("GET /v1/responses", 0)


def _text_bytes(meter: Meter, batch: str, row: int) -> int:
    return meter.length(keys.ask(job_id(batch, f"q{row:04d}")))


def _late(file: Path, from_: float, until: float) -> list[float]:
    """Seconds each poll of the window was late."""
    return [one.late_s for one in noted(file) if one.lane is Lane.POLL and from_ <= one.at <= until]


def _part(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
