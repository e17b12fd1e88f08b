"""Notices when the clock of Redis is set back: by itself, everything due would then wait for that long.

Each worker compares it with its own monotonic clock, which nobody sets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from askq.jobs.store import Store

log = logging.getLogger(__name__)

NOTICED_S = 2.0
"""Smaller steps are corrected by waiting."""


class ClockWatch:
    """`monotonic` is this machine's; tests pass their own."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._known: tuple[float, float] | None = None
        """What the clocks differed by, and how far that may be wrong."""

    def look(self) -> float:
        """Compare the clocks, and move the schedule if need be; how many seconds the clock was set back."""
        before = self._monotonic()
        told = self._store.now()
        # The reading is from some moment during the call: a slow reply must not look like a clock that went back.
        took = self._monotonic() - before
        known, self._known = self._known, (told - before, took)
        if known is None:
            return 0.0
        back = known[0] - (told - before)
        if back < NOTICED_S + took + known[1]:
            return 0.0
        if self._store.set_back(back):
            log.warning("the clock of Redis was set back by %.1f s: the schedule follows it", back)
        return back
