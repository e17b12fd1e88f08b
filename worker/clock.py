"""Notices when the clock of Redis is set back: by itself, everything due would then wait for that long.

Each worker compares it with its own monotonic clock, which nobody sets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from askq.jobs.store import Store

log = logging.getLogger(__name__)

NOTICED_S = 2.0
"""Smaller steps are corrected by waiting."""


class ClockWatch:
    """Watches the clock of each shard: the servers of a cluster have one each, and a replica that takes over has its
    own. `monotonic` is this machine's; tests pass their own."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._known: tuple[Sequence[float], float] | None = None
        """What the clocks differed by, and how far that may be wrong."""

    def look(self) -> float:
        """Compare the clocks, and move the schedule if need be; how many seconds one was set back, the most of all."""
        before = self._monotonic()
        told = [clock - before for clock in self._store.clocks()]
        # The reading is from some moment during the call: a slow reply must not look like a clock that went back.
        took = self._monotonic() - before
        known, self._known = self._known, (told, took)
        if known is None:
            return 0.0
        steps: dict[float, list[int]] = {}
        for shard, (was, now) in enumerate(zip(known[0], told, strict=True)):
            if was - now >= NOTICED_S + took + known[1]:
                # Shards of one server have read the same clock.
                steps.setdefault(round(was - now, 1), []).append(shard)
        for back, shards in steps.items():
            if self._store.set_back(back, shards):
                log.warning("a clock of Redis was set back by %.1f s: the schedule follows it", back)
        return max(steps, default=0.0)
