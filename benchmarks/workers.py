"""`workers`: how soon a worker that comes to a running list helps, and how soon one that is killed is replaced.

Runs that never end are polled again and again, as the server asks. A second worker is started; when the shards are
shared it is SIGKILLed. Every claim is noted with its process and its time by Redis.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from askq.ids import SHARDS, shard_of
from askq.jobs import keys
from askq.jobs.model import Lane, State
from benchmarks import questions
from benchmarks.claims import noted
from benchmarks.meter import pids_of
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import eventually

_BOOT_S = 90.0
_SOON_S = 60.0


def run(*, tiny: bool) -> dict[str, Any]:
    """Runs polled every 0.3 seconds; leases last as long as they do by default."""
    many = 64 if tiny else 320
    script = {"default": {"duration": 3600, "poll_after_ms": 300}}
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name, running_stack(Path(name), script=script) as stack:
        found: dict[str, Any] = {"runs": many, "load_before": round(os.getloadavg()[0], 2)}
        first, claims = _worker(stack, "first")
        plain = Assistant(name="plain", protocol="responses", model="gpt-test", timeout_s=3600)
        batch = stack.submit(plain, questions.texts(many))
        eventually(lambda: stack.status(batch).counts[State.RUNNING] == many, seconds=_BOOT_S, what="runs are created")

        second, helped = _worker(stack, "second")
        ready_at = eventually(lambda: _ready(stack, 2), seconds=_BOOT_S, what="the second worker is ready", every=0.02)
        eventually(lambda: noted(helped), seconds=_SOON_S, what="it helps", every=0.02)
        found["a_worker_helps_after_it_is_ready_s"] = round(noted(helped)[0].at - ready_at, 2)
        eventually(
            lambda: len(_held(stack, pids_of(second))) >= SHARDS // 2 - 1, seconds=_SOON_S, what="shards are shared"
        )

        lost = _held(stack, pids_of(second))
        killed_at = stack.store.now()
        second.kill()
        eventually(lambda: len(_held(stack, pids_of(first))) == SHARDS, seconds=_SOON_S, what="it is replaced")
        again = eventually(lambda: _first_claims(claims, lost, killed_at), seconds=_SOON_S, what="its runs are polled")
        waits = sorted(at - killed_at for at in again.values())
        found["shards_it_held"] = len(lost)
        found["its_runs_are_claimed_again_s"] = {"first": round(waits[0], 2), "last": round(waits[-1], 2)}
        return found


def _worker(stack: Stack, name: str) -> tuple[Process, Path]:
    file = stack.folder / f"{name}.claims"
    return stack.worker(name, app="benchmarks.watched_worker", CLAIMS_FILE=str(file)), file


def _ready(stack: Stack, many: int) -> float | None:
    return stack.store.now() if len(stack.store.nodes()) == many else None


def _held(stack: Stack, pids: list[int]) -> set[int]:
    """The shards whose polls these processes hold."""
    with stack.client() as raw:
        owners = raw.mget([keys.lease(shard, Lane.POLL) for shard in range(SHARDS)])
    return {shard for shard, owner in enumerate(owners) if owner is not None and int(owner.split(b"/")[1]) in pids}


def _first_claims(file: Path, shards: set[int], after: float) -> dict[int, float] | None:
    """When each of these shards was first served again; None while one was not."""
    found: dict[int, float] = {}
    for claim in noted(file):
        if claim.lane is Lane.POLL and claim.at > after:
            found.setdefault(shard_of(claim.job), claim.at)
    return {shard: found[shard] for shard in shards} if shards <= set(found) else None
