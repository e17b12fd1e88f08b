"""Whether an account may be called, and how many calls may be open: shared reasons, local restraint.

A pause (rejected key, exhausted quota, vanished endpoint) is kept in the store and holds for every worker; one call
in a while probes it. Being limited is answered here by waiting as the service asked and opening fewer calls.
"""

from __future__ import annotations

import asyncio
import logging
import time

from askq.jobs.model import Lane, Pause
from askq.jobs.objects import is_batch
from askq.jobs.store import Store
from askq.pauses import PAUSES
from worker.protocols.base import Blocked

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5


class Account:
    """One account of one process. Belongs to one event loop."""

    def __init__(self, store: Store, name: str, *, in_flight: int, probe_s: float) -> None:
        self.name = name
        self.probe_s = probe_s
        """How often a paused account is tried with one call, in seconds."""
        self._store = store
        self._most = float(in_flight)
        self._window = float(in_flight)
        self._hold_until = 0.0
        self._looked_at = -_LOOK_EVERY_S
        self._pauses: dict[str | None, Pause] = {}
        """By the protocol concerned; None = all."""
        self._batches: dict[str, Pause] = {}
        """Those of single batches."""
        self._heard_at: dict[str | None, float] = {}
        """When this process heard of each of them."""
        self._probing: Lane | None = None
        """The lane in which the one call that may probe the account is ours to make, until it is made."""

    async def room(self, lane: Lane, open_calls: int) -> int:
        """How many jobs of a lane may be taken up now."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            found = await asyncio.to_thread(self._store.pauses)
            self._batches = {pause.account: pause for pause in found if is_batch(pause.account)}
            self._pauses = {pause.protocol: pause for pause in found if pause.account == self.name}
            self._heard_at = {concerned: self._heard_at.get(concerned, now) for concerned in self._pauses}
        pause = self._pauses.get(None)
        if pause is not None and (lane is Lane.START or PAUSES[pause.code].stops_polls):
            if open_calls > 0 or not await self._probe(None):
                return 0
            self._probing = lane
            return 1
        if lane is Lane.POLL:
            return int(self._most) - open_calls
        if now < self._hold_until:
            return 0
        return max(0, int(self._window) - open_calls)

    async def stopped(self, protocol: str) -> Pause | None:
        """Why this protocol must not be spoken now; None when it may, if only to probe."""
        pause = self._pauses.get(protocol)
        return None if pause is None or await self._probe(protocol) else pause

    async def stopped_creating(self) -> Pause | None:
        """Why a job of the poll lane must not create a run now; None when it may, if only to probe. Polls go on while
        an account is out of credit, but outputs of functions may need a run of their own."""
        pause = self._pauses.get(None)
        return None if pause is None or await self._probe(None) else pause

    def stopped_batch(self, batch: str) -> Pause | None:
        """Why no run of this batch must be created now; None when it may."""
        return self._batches.get(batch)

    async def _probe(self, protocol: str | None) -> bool:
        return await asyncio.to_thread(self._store.probe, self.name, again_after_s=self.probe_s, protocol=protocol)

    def tried(self, lane: Lane) -> None:
        """A call was made and failed: if it was the probe, the next one waits."""
        if self._probing is lane:
            self._probing = None

    async def unused(self, lane: Lane) -> None:
        """A step of a lane is over. If it was to probe and made no call that can tell, the next step may try at once.

        There may be nothing to claim, or a job that has to be prepared first, which is free, and free calls say
        nothing of credit. To wait for every one of these would take hours.
        """
        if self._probing is lane:
            self._probing = None
            await asyncio.to_thread(self._store.return_probe, self.name)

    def limited(self, wait_s: float) -> None:
        """The service said "not now": open fewer calls, and none before `wait_s` seconds have passed."""
        now = time.monotonic()
        if now >= self._hold_until:
            # Refusals that arrive together are one message, not many.
            self._window = max(1.0, self._window * 0.7)
        self._hold_until = max(self._hold_until, now + wait_s)

    async def worked(self, protocol: str, *, begun: float) -> None:
        """A run was created by a call begun at this monotonic time: nothing can be wrong with this account."""
        self._window = min(self._most, self._window + 1 / max(1.0, self._window))
        self._probing = None
        await self._resume(protocol, begun, created=True)

    async def answered(self, protocol: str, *, begun: float) -> None:
        """A free call was answered: key and endpoint are right. Of the account's credit it says nothing."""
        await self._resume(protocol, begun, created=False)

    async def _resume(self, protocol: str, begun: float, *, created: bool) -> None:
        for concerned in (None, protocol):
            pause = self._pauses.get(concerned)
            # Replies to calls that were open already when the account was paused prove nothing of what came since.
            if pause is None or begun < self._heard_at[concerned]:
                continue
            if created or PAUSES[pause.code].stops_polls:
                del self._pauses[concerned], self._heard_at[concerned]
                await asyncio.to_thread(self._store.resume, self.name, protocol=concerned)
                log.warning("account %s works again", self.name)

    async def blocked(self, error: Blocked, protocol: str) -> None:
        """Nothing on this account can work, or nothing of this protocol: pause it for everybody."""
        concerned = protocol if error.code == "endpoint_gone" else None
        log.error("account %s is paused: %s", self.name, error)
        await asyncio.to_thread(
            self._store.pause,
            self.name,
            error.code,
            error.message,
            probe_after_s=self.probe_s,
            protocol=concerned,
        )
        self._looked_at = -_LOOK_EVERY_S
