"""Waiting through a Redis that is away for a while: a restart, a failover, a network that blinks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from askq.errors import StoreUnreachable

T = TypeVar("T")

PATIENCE_S = 300.0
"""Long enough for a restart with much data and for most maintenance; whoever waits longer has lost nothing."""


class Outage:
    """Reads again and again, and rides out the times when nothing can be read."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began: float | None = None

    def through(self, read: Callable[[], T]) -> T | None:
        """What `read` gives, or None while Redis does not answer. Raises StoreUnreachable when it stays away."""
        try:
            found = read()
        except StoreUnreachable as error:
            if self._began is None:
                self._began = self._clock()
                self._say(f"{error.message}; waiting for it")
            elif self._clock() - self._began > PATIENCE_S:
                raise
            return None
        if self._began is not None:
            self._say(f"Redis answers again after {self._clock() - self._began:.0f} s")
            self._began = None
        return found
