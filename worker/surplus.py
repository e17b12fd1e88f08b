"""Runs that are paid for though one may have been paid for already: a few are a bad day, many are a fault that costs.

An assistant may allow a question whose run is in doubt to be asked once more (`on_uncertain = "retry"`). Where replies
are lost all the time, every question would be paid for twice. So they are counted per batch, and when there are too
many the batch is paused until a person says that it is to go on. What a person has asked again, rounds of functions and
answers that were asked for again because they did not fit are no doubts, and are not counted.
"""

from __future__ import annotations

import asyncio
import logging

from askq.ids import split_job_id
from askq.jobs.model import Claim, Pause
from askq.jobs.store import Store

log = logging.getLogger(__name__)

FEW = 20
"""As many runs of a batch may be asked for once more in any case."""
SHARE = 0.05
"""And as many of all its questions: in the worst weather that the chaos suite makes it is 4 %."""
CODE = "asked_again"
_PROBE_S = 1.0
"""Nobody probes a batch; the mark that somebody does is gone soon."""


class Surplus:
    """Counts what is asked for once more, and pauses batches. Belongs to no loop."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pause(self, claim: Claim) -> Pause | None:
        """Why the next run of a job must not be paid for, if so: the batch is paused then. Raises StoreError."""
        if claim.attempts - claim.allowance - claim.fixes <= 0:
            return None
        return await asyncio.to_thread(self._count, claim)

    def _count(self, claim: Claim) -> Pause | None:
        batch, _ = split_job_id(claim.id)
        count, status = self._store.asked_again(claim.id, claim.attempts + 1), self._store.batch(batch)
        total = 0 if status is None else status.total
        if count <= max(FEW, SHARE * total):
            return None
        message = f"{count} runs of {total} questions were wanted once more: nobody knows what became of the first ones"
        log.error("batch %s is paused: %s", batch, message)
        self._store.pause(batch, CODE, message, probe_after_s=_PROBE_S)
        return Pause(account=batch, code=CODE, message=message, since=claim.now, probe_at=claim.now)
