"""The leases of the jobs in hand: renewed together while their calls are open, and known to be fresh or not."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from askq.errors import StoreError
from askq.jobs.model import Claim
from askq.jobs.store import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    fence: int
    fresh_until: float
    """By this process's monotonic clock, which a stopped process does not outwit: it runs on meanwhile."""


class Leases:
    """Belongs to one event loop. Renews as long as anything is held, and costs nothing when nothing is."""

    def __init__(self, store: Store, *, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._held: dict[str, _Held] = {}
        self._renewer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def take(self, claim: Claim, *, asked_at: float) -> None:
        """Note a claim that was asked for at this monotonic time: the lease runs from then at the latest."""
        self._held[claim.id] = _Held(claim.fence, asked_at + self._lease_s)
        if self._renewer is None or self._renewer.done():
            self._renewer = asyncio.create_task(self._renew())

    def drop(self, claim: Claim) -> None:
        """Forget a claim: its last move is committed, or it is somebody else's."""
        held = self._held.get(claim.id)
        if held is not None and held.fence == claim.fence:
            del self._held[claim.id]

    def fresh(self, claim: Claim) -> bool:
        """Whether a third of the lease is left: asked just before a paid call.

        A process that was stopped, or could not renew, must not send what another may be sending.
        """
        held = self._held.get(claim.id)
        return (
            held is not None and held.fence == claim.fence and time.monotonic() < held.fresh_until - self._lease_s / 3
        )

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self._lease_s / 4)
            pairs = [(job, held.fence) for job, held in self._held.items()]
            if not pairs:
                return
            asked_at = time.monotonic()
            try:
                lost = set(await asyncio.to_thread(self._store.renew, pairs, lease_s=self._lease_s))
            except StoreError as error:
                log.warning("%d leases could not be renewed: %s", len(pairs), error.message)
                continue
            for job, fence in pairs:
                held = self._held.get(job)
                if held is None or held.fence != fence:
                    continue
                if job in lost:
                    del self._held[job]
                else:
                    held.fresh_until = asked_at + self._lease_s
