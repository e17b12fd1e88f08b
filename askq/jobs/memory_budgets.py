"""Budgets in the store in memory: the twin of redis_budgets.py and its scripts."""

from __future__ import annotations

from askq.ids import split_job_id
from askq.jobs import codec
from askq.jobs.memory_records import Purse
from askq.jobs.memory_state import MemoryState
from askq.jobs.model import TERMINAL


class MemoryBudgets(MemoryState):
    """What `MemoryStore` knows of budgets."""

    def set_budget(self, batch: str, limit_usd: float) -> None:
        with self._lock:
            purse = self._purses.setdefault(batch, Purse(0))
            purse.limit, purse.refused_at = codec.limit_in_millionths(limit_usd), None

    def reserve(self, job: str, attempt: int, cost_usd: float, *, covers_earlier: bool = False) -> bool:
        with self._lock:
            purse = self._purses.get(split_job_id(job)[0])
            if purse is None or purse.aside.get(job, (0, 0))[0] == attempt:
                return True
            amount = codec.cost_in_millionths(cost_usd)
            covered = purse.aside.get(job, (0, 0))[1] if covers_earlier else 0
            if not covers_earlier:
                purse.spent += purse.aside.pop(job, (0, 0))[1]
            if purse.spent + purse.reserved - covered + amount > purse.limit:
                purse.refused_at = purse.refused_at or float(int(self._clock()))
                return False
            purse.aside[job] = (attempt, amount)
            purse.refused_at = None
            return True

    def asked_again(self, job: str, attempt: int) -> int:
        with self._lock:
            noted = self._again.setdefault(split_job_id(job)[0], set())
            noted.add((job, attempt))
            return len(noted)

    def settle(self, job: str, attempt: int, cost_usd: float | None) -> None:
        with self._lock:
            purse = self._purses.get(split_job_id(job)[0])
            if purse is not None and purse.aside.get(job, (0, 0))[0] == attempt:
                amount = purse.aside.pop(job)[1]
                purse.spent += amount if cost_usd is None else codec.cost_in_millionths(cost_usd)
                purse.refused_at = None

    def reconcile_budget(self, batch: str, *, only: str | None = None) -> int:
        with self._lock:
            purse = self._purses.get(batch)
            aside = {} if purse is None else {j: a for j, (a, _) in purse.aside.items() if only in (None, j)}
            settled = 0
            for job, attempt in aside.items():
                record = self._records.get(job)
                if record is None or record.state in TERMINAL:
                    made = record is None or record.count("attempts") >= attempt
                    cost = None if record is None else record.number("cost")
                    self.settle(job, attempt, 0.0 if cost is None and not made else cost)
                    settled += 1
            return settled
