"""Forgetting in the store in memory: the twin of redis_forgetting.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from askq.ids import split_job_id
from askq.jobs.memory_reading import MemoryReading
from askq.jobs.memory_records import usage_of
from askq.jobs.model import TERMINAL, Outcome
from askq.jobs.objects import Receipt, receipt_name, receipt_of


class MemoryForgetting(MemoryReading):
    """What `MemoryStore` knows of forgetting, when it is told to and when the time has come."""

    def begin_forgetting(self, what: str) -> None:
        with self._lock:
            self._forgetting.add(what)

    def forgetting(self) -> list[str]:
        return sorted(self._forgetting)

    def job_ids(self, batch: str) -> Iterator[str]:
        return iter([job.id for job in self.jobs(batch)])

    def forget(self, jobs: Sequence[str], what: str) -> list[Outcome]:
        with self._lock:
            return [self._forget(job, what) for job in jobs]

    def _forget(self, job: str, what: str) -> Outcome:
        record = self._records.get(job)
        if record is not None and record.state not in TERMINAL:
            return Outcome.NOT_YOURS
        joined = record is not None and record.after is not None and "joined" in record.fields and what != job
        thread = record.text("thread") if record is not None and joined else None
        found = self._registry.bury(job, (), self._clock(), receipt_name(what), joined=thread)
        if record is not None:
            del self._records[job]
            self._dead.pop(job, None)
            if (kept := self._batches.get(split_job_id(job)[0])) is not None:
                kept.earlier.append(usage_of(record))
                kept.forgotten += 1
            self._registry.count(receipt_name(what), "records")
        return Outcome.MOVED if record is not None or found else Outcome.MISSING

    def erase(self, what: str) -> None:
        with self._lock:
            self._leave_things(what, what)
            self._registry.bury(what, (), self._clock(), receipt_name(what))
            kept = self._batches.pop(what, None)
            self._purses.pop(what, None)
            self._again.pop(what, None)
            self._pauses.pop((what, None), None)
            self._stale.pop(what, None)
            if kept is not None and kept.new.idempotency_key is not None:
                self._idempotency.pop(kept.new.idempotency_key, None)
            self._forgetting.discard(what)

    def _leave_things(self, user: str, what: str) -> None:
        for thing in self._registry.uses(user):
            if self._registry.unshare(thing, user, receipt_name(what)):
                self._leave_things(thing, what)
                self._assistants.pop(thing.removeprefix("assistant:"), None)

    def receipt(self, what: str) -> Receipt | None:
        with self._lock:
            counts = self._registry.receipts.get(receipt_name(what), {})
            return receipt_of(what, [counts], pending=what in self._forgetting)

    def ask_inventory(self) -> str:
        self._inventory = ("asked", {})
        return "asked"

    def take_inventory(self) -> str | None:
        with self._lock:
            token, answers = self._inventory
            self._inventory = (None, answers)
            return token

    def give_inventory(self, token: str, found: str) -> None:
        self._inventory[1][token] = found

    def inventory(self, token: str) -> str | None:
        return self._inventory[1].get(token)

    def compact(self) -> str | None:
        return None

    def tidy(self, *, keep_s: float) -> int:
        with self._lock:
            now = self._clock()
            for batch in [id_ for id_, kept in self._batches.items() if kept.until is not None and kept.until <= now]:
                for id_, _ in self._members(batch):
                    del self._records[id_]
                    self._dead.pop(id_, None)
                self._purses.pop(batch, None)
                self._pauses.pop((batch, None), None)
                key = self._batches.pop(batch).new.idempotency_key
                if key is not None:
                    del self._idempotency[key]
            marked = 0
            for batch, kept in self._batches.items():
                status = self.batch(batch)
                if kept.until is None and status is not None and status.done:
                    kept.until = now + keep_s
                    marked += 1
            return marked
