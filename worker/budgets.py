"""What batches may cost: put aside before the intent, settled after the end.

Batches without a budget, nearly all, cost one look each.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from enum import StrEnum
from functools import partial

from askq.errors import StoreError
from askq.ids import split_job_id
from askq.jobs.codec import load_usage
from askq.jobs.model import MOVES, TERMINAL, Claim, Move
from askq.jobs.store import Store
from askq.prices import at_worst
from worker.protocols.base import Ask
from worker.shared import Shared

log = logging.getLogger(__name__)

_RECONCILE_EVERY_S = 5.0
_REMEMBERED = 10_000


class Verdict(StrEnum):
    """What a budget says of an attempt."""

    GRANTED = "granted"
    REFUSED = "refused"
    """Not now: what is left would not cover it at worst."""
    UNBOUNDED = "unbounded"
    """Never: nothing bounds what it may cost."""


class Budgets:
    """The budgets of the batches one process works on. `host` is the service's, for its prices."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host
        self._bounded: dict[str, bool] = {}
        self._looks: Shared[bool] = Shared()
        self._reconciled: dict[str, float] = {}

    async def reserve(self, claim: Claim, ask: Ask) -> Verdict:
        """Whether the next attempt of a job may be paid for."""
        batch, _ = split_job_id(claim.id)
        if not await self._is_bounded(batch):
            return Verdict.GRANTED
        # An attempt of this round that is in doubt is covered by nothing: what was put aside for it is spent.
        covers = claim.open_rounds > 0 and claim.attempts == claim.allowance
        worst, attempt = self.at_worst(ask), claim.attempts + 1
        if claim.joined is not None and claim.history is None:
            # Its run reads what was said before, and nobody knows how much that is.
            worst = None
        cost = self._with_earlier(claim, worst) if covers else worst
        if cost is None:
            # The producer refuses such a batch; a definition that changed since must not break its bound.
            return Verdict.UNBOUNDED
        reserve = partial(self._store.reserve, claim.id, attempt, cost, covers_earlier=covers)
        if await asyncio.to_thread(reserve):
            return Verdict.GRANTED
        now = time.monotonic()
        if now - self._reconciled.get(batch, -math.inf) < _RECONCILE_EVERY_S:
            return Verdict.REFUSED
        # Whoever died between an end and its settling has left something put aside for nobody.
        self._reconciled[batch] = now
        freed = await asyncio.to_thread(self._store.reconcile_budget, batch)
        granted = freed > 0 and await asyncio.to_thread(reserve)
        return Verdict.GRANTED if granted else Verdict.REFUSED

    def _with_earlier(self, claim: Claim, worst: float | None) -> float | None:
        """What a job may cost at worst with the runs it has had: outputs of functions go into a run of their own."""
        if worst is None or not claim.open_rounds:
            return worst
        known = None if claim.earlier is None else claim.earlier.cost_usd
        return worst + (known if known is not None else worst * claim.open_rounds)

    async def ended(self, claim: Claim, move: Move) -> None:
        """A move was made: settle what was put aside if it ended the job."""
        batch, _ = split_job_id(claim.id)
        if move.name != "correct" and MOVES[move.name].target not in TERMINAL:
            return
        try:
            if await self._is_bounded(batch):
                if move.name == "correct" or claim.spent is not None:
                    # The record tells what all attempts have cost together.
                    await asyncio.to_thread(self._store.settle, claim.id, claim.attempts, _of_attempt(claim, move))
                await asyncio.to_thread(self._store.reconcile_budget, batch, only=claim.id)
        except StoreError as error:
            log.warning("%s: its cost is settled later: %s", claim.id, error.message)

    async def _is_bounded(self, batch: str) -> bool:
        if batch not in self._bounded:
            return await self._looks.get(batch, partial(self._look, batch))
        return self._bounded[batch]

    async def _look(self, batch: str) -> bool:
        while len(self._bounded) >= _REMEMBERED:
            del self._bounded[next(iter(self._bounded))]
        status = await asyncio.to_thread(self._store.batch, batch)
        self._bounded[batch] = status is not None and status.budget is not None
        return self._bounded[batch]

    def at_worst(self, ask: Ask) -> float | None:
        """What one run may cost at most, in US dollars; None where nothing bounds it."""
        texts = (ask.text, ask.instructions or ask.assistant.instructions or "")
        model, images = ask.model or ask.assistant.model, bool(ask.given.images)
        return at_worst(ask.assistant, model, self._host, texts, history=ask.history, images=images)


def _of_attempt(claim: Claim, move: Move) -> float | None:
    """What the last attempt has cost, in US dollars; None where nobody knows."""
    spent = move.fields.get("spent")
    usage = load_usage(spent) if isinstance(spent, str) else None if move.answer is None else move.answer.usage
    if usage is None or usage.cost_usd is None:
        return None
    before = 0.0 if claim.spent is None else claim.spent.cost_usd or 0.0
    return max(0.0, usage.cost_usd - before)
