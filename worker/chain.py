"""One time slice of a chain: claim due jobs of the shards this execution serves, and hand them to the engine.

Shards are shared among the executions of a kind that are alive, by leases that last a few seconds: when a worker
comes or goes, the others notice within one. The leases only keep executions out of each other's way; what keeps a
job safe is its own fence.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from dataclasses import dataclass

from askq.failpoints import hit
from askq.ids import SHARDS
from askq.jobs.model import Lane
from askq.jobs.store import Store
from worker.engine import Engine

_SHARE_EVERY_S = 1.0
_TTL_S = 4.0
_NAP_S = 0.05
"""How long to wait for more to come due; also the lateness a poll may have. A claim asks every shard, whatever it
finds: for one or two jobs at a time that would cost more than their polls."""
_WORTH_WAITING_S = 1.0
"""A chain whose next job is due later than this gives its pool process back; a timer revives it."""
_MOST_PER_CLAIM = 100


@dataclass(slots=True)
class Slice:
    """What one execution did."""

    claimed: int = 0
    again: bool = False
    """Whether there is more to do right away: the chain re-schedules itself."""


async def work(engine: Engine, lane: Lane, *, slice_s: float) -> Slice:
    """Serve a share of a lane's shards until the slice is over or nothing is due soon."""
    execution = f"{os.uname().nodename}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    share = _Share(engine.store, lane, execution)
    report = Slice()
    until = time.monotonic() + slice_s
    hit("chain.begin")
    engine.library.kick()
    await engine.clean()
    try:
        while await share.update():
            if lane is Lane.POLL:
                await engine.clean()
            claimed, room = await _claim(engine, lane, share)
            report.claimed += claimed
            if time.monotonic() >= until:
                break
            if claimed == 0:
                due = await asyncio.to_thread(engine.store.next_due, lane)
                if due is None or due > min(_WORTH_WAITING_S, until - time.monotonic()):
                    break
                # What is due may wait for a permit: then there is nothing to look for before there is one.
                await asyncio.sleep(max(_NAP_S, due, min(engine.idle_s(lane) - _NAP_S, _WORTH_WAITING_S)))
            else:
                # Let the calls just opened be sent before more are claimed. The room is shared among the shards, which
                # are never equally full: half of it means that there may be more.
                await asyncio.sleep(0.005 if 2 * claimed >= room else _NAP_S)
        report.again = share.wanted and await _due_soon(engine.store, lane)
    finally:
        hit("chain.end")
        await asyncio.to_thread(engine.store.discharge, lane, execution, share.held)
    return report


async def _claim(engine: Engine, lane: Lane, share: _Share) -> tuple[int, int]:
    """Take up what is due, as far as there is room; how many jobs, and for how many there was room."""
    shards = share.held
    room = min(await engine.room(lane, executions=share.alive), _MOST_PER_CLAIM)
    if room <= 0 or not shards:
        return 0, 0
    asked_at = time.monotonic()
    # Every shard gets its turn to be first, so that none starves when there is less room than shards.
    random.shuffle(shards)
    claims = await asyncio.to_thread(engine.store.claim, lane, shards, limit=room, lease_s=engine.lease_s)
    if not claims:
        await engine.nothing_to_take(lane)
    for claim in claims:
        engine.take(lane, claim, asked_at=asked_at)
    return len(claims), room


async def _due_soon(store: Store, lane: Lane) -> bool:
    due = await asyncio.to_thread(store.next_due, lane)
    return due is not None and due <= _WORTH_WAITING_S


def wanted_executions(store: Store) -> int:
    """How many executions of each kind should be alive: half of all pool processes, since there are two kinds."""
    return max(1, sum(max(1, node.processes // 2) for node in store.nodes() if node.processes))


class _Share:
    """The shards one execution serves."""

    def __init__(self, store: Store, lane: Lane, execution: str) -> None:
        self.held: list[int] = []
        self.wanted = True
        self.alive = 1
        """Executions that share the lane."""
        self._store = store
        self._lane = lane
        self._execution = execution
        self._next = 0.0

    async def update(self) -> bool:
        """Renew, take and give back shards once a second; False when this execution is one too many."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SHARE_EVERY_S
            self.wanted = await asyncio.to_thread(self._update)
        return self.wanted

    def _update(self) -> bool:
        alive = self.alive = self._store.enlist(self._lane, self._execution, ttl_s=_TTL_S)
        if not self.held and alive > wanted_executions(self._store):
            return False
        fair = -(-SHARDS // alive)
        keep, surplus = self.held[:fair], self.held[fair:]
        if surplus:
            self._store.release(self._lane, self._execution, surplus)
        rest = [shard for shard in range(SHARDS) if shard not in keep and shard not in surplus]
        random.shuffle(rest)
        held = self._store.hold(self._lane, self._execution, keep, ttl_s=_TTL_S)
        for shard in rest:
            if len(held) >= fair:
                break
            held += self._store.hold(self._lane, self._execution, [shard], ttl_s=_TTL_S)
        self.held = held
        return True
