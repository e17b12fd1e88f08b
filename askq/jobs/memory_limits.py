"""Limits in the store in memory: `limit_rule` by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from askq.jobs.limit_rule import LimitRecord
from askq.jobs.limits import FORGOTTEN_S, Bound, Heard, Permit, Scope, Wait
from askq.jobs.memory_state import MemoryState
from askq.jobs.took import NO_RUNS, Counts, counted


class MemoryLimits(MemoryState):
    """What `MemoryStore` knows of limits."""

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        with self._lock:
            found = self._limits.setdefault(scope, LimitRecord()).take(self._clock(), asks, bound=bound, window=window)
            if asks and found.wait_s:
                self._waits[scope] = found.now + found.wait_s
            elif asks:
                self._waits.pop(scope, None)
            return found

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        with self._lock:
            return self._limits.setdefault(scope, LimitRecord()).learn(self._clock(), heard)

    def look_limits(self, scope: Scope) -> Permit:
        with self._lock:
            return dataclasses.replace(self._limits.get(scope, LimitRecord())).look(self._clock())

    def waits(self) -> list[Wait]:
        with self._lock:
            since = self._clock() - FORGOTTEN_S
            return [
                Wait.of(scope, until, self.look_limits(scope)) for scope, until in self._waits.items() if until >= since
            ]

    def took(self, digest: str, more: Counts = NO_RUNS) -> Counts:
        with self._lock:
            self._took[digest] = counted(self._took.get(digest, {}), more)
            return dict(self._took[digest])
