"""Reading batches and jobs in the store in memory: the twin of redis_reading.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from askq.jobs.memory_accounts import MemoryAccounts
from askq.jobs.memory_limits import MemoryLimits
from askq.jobs.memory_records import job_of, usage_of
from askq.jobs.model import TERMINAL, BatchStatus, Job, State, Usage
from askq.pauses import concerning, waits_for


class MemoryReading(MemoryAccounts, MemoryLimits):
    """What `MemoryStore` tells of batches and jobs."""

    def batch(self, batch: str) -> BatchStatus | None:
        with self._lock:
            kept = self._batches.get(batch)
            if kept is None:
                return None
            members = self._members(batch)
            counts = {state: sum(record.state is state for _, record in members) for state in State}
            used = [usage_of(record) for _, record in members if record.state in TERMINAL] + kept.earlier
            costs = [usage.cost_usd for usage in used if usage.cost_usd is not None]
            status = BatchStatus(
                id=batch,
                name=kept.new.name,
                assistant=kept.new.assistant,
                protocol=kept.new.protocol,
                idempotency_key=kept.new.idempotency_key,
                metadata=kept.new.metadata,
                table=kept.new.table,
                created_at=kept.created,
                sealed=kept.total is not None,
                total=max(len(members), (kept.total or 0) - kept.forgotten),
                counts=counts,
                usage=Usage(
                    input_tokens=sum(usage.input_tokens for usage in used),
                    cached_tokens=sum(usage.cached_tokens for usage in used),
                    output_tokens=sum(usage.output_tokens for usage in used),
                    total_tokens=sum(usage.total_tokens for usage in used),
                    cost_usd=sum(costs) if costs else None,
                ),
                finished_at=max((r.completed for _, r in members if r.completed is not None), default=None),
                budget=self._purses[batch].shown(self._clock()) if batch in self._purses else None,
                stale=self._stale.get(batch, 0),
                forgetting=batch in self._forgetting,
            )
            if status.done:
                return status
            return dataclasses.replace(
                status,
                finished_at=None,
                paused=concerning(status, self.pauses()),
                waits=waits_for(status, self.waits()),
            )

    def batches(self, *, limit: int = 20) -> list[BatchStatus]:
        with self._lock:
            return [status for id_ in self._newest()[: max(0, limit)] if (status := self.batch(id_)) is not None]

    def find_batches(self, prefix: str) -> list[str]:
        with self._lock:
            return [id_ for id_ in self._newest() if id_.startswith(prefix)][:10]

    def _newest(self) -> list[str]:
        return sorted(self._batches, key=lambda id_: (self._batches[id_].created, id_), reverse=True)

    def job(self, job: str) -> Job | None:
        record = self._records.get(job)
        return None if record is None else job_of(job, record)

    def jobs(self, batch: str, *, states: Collection[State] | None = None) -> Iterator[Job]:
        with self._lock:
            members = sorted(self._members(batch), key=lambda member: (member[1].question.index, member[0]))
        for id_, record in members:
            if states is None or record.state in states:
                yield job_of(id_, record)
