"""Whether an account may be called, and how many calls may be open: shared reasons, local restraint.

A pause (rejected key, exhausted quota, vanished endpoint) is kept in the store and holds for every worker; one call
in a while probes it. Being limited is answered here by waiting as the service asked and opening fewer calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time

from askq.jobs.store import Store
from worker.protocols.base import Blocked
from worker.schedule import PROBE_S

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


def alias(base_url: str | None, api_key: str) -> str:
    """A name for an account that reveals nothing of its key."""
    return hashlib.sha256(f"{base_url or ''}|{api_key}".encode()).hexdigest()[:10]


class Account:
    """One account of one process. Belongs to one event loop."""

    def __init__(self, store: Store, name: str, *, in_flight: int) -> None:
        self.name = name
        self._store = store
        self._most = float(in_flight)
        self._window = float(in_flight)
        self._hold_until = 0.0
        self._looked_at = -_LOOK_EVERY_S
        self._paused = False

    async def room(self, open_calls: int) -> int:
        """How many new runs may be asked for now."""
        now = time.monotonic()
        if now < self._hold_until:
            return 0
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            pauses = await asyncio.to_thread(self._store.pauses)
            self._paused = any(pause.account == self.name for pause in pauses)
        if self._paused:
            granted = open_calls == 0 and await asyncio.to_thread(self._store.probe, self.name, again_after_s=PROBE_S)
            return 1 if granted else 0
        return max(0, int(self._window) - open_calls)

    def limited(self, wait_s: float) -> None:
        """The service said "not now": open fewer calls, and none before `wait_s` seconds have passed."""
        now = time.monotonic()
        if now >= self._hold_until:
            # Refusals that arrive together are one message, not many.
            self._window = max(1.0, self._window * 0.7)
        self._hold_until = max(self._hold_until, now + wait_s)

    async def worked(self) -> None:
        """A run was created."""
        self._window = min(self._most, self._window + 1 / max(1.0, self._window))
        await self.answered()

    async def answered(self) -> None:
        """A call was answered: an account that does that is not to be paused."""
        if self._paused:
            self._paused = False
            await asyncio.to_thread(self._store.resume, self.name)
            log.warning("account %s works again", self.name)

    async def blocked(self, error: Blocked) -> None:
        """Nothing on this account can work: pause it for everybody."""
        self._paused = True
        self._looked_at = time.monotonic()
        log.error("account %s is paused: %s", self.name, error)
        await asyncio.to_thread(self._store.pause, self.name, error.code, error.message, probe_after_s=PROBE_S)
