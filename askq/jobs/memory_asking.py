"""Asking, in the store in memory: the twin of redis_asking.py and its scripts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from askq.errors import StoreError
from askq.ids import job_id, new_batch_id, split_job_id
from askq.jobs import codec
from askq.jobs.memory_records import Batch, Purse, Record, usage_of
from askq.jobs.memory_working import MemoryWorking
from askq.jobs.model import (
    ASKED_AGAIN,
    CANCELLED_IN_TIME,
    TERMINAL,
    WAIT_FOR_TURN_S,
    Added,
    NewBatch,
    NewJob,
    Outcome,
    State,
)


class MemoryAsking(MemoryWorking):
    """What `MemoryStore` does for who asks."""

    def save_assistant(self, digest: str, definition: str) -> None:
        self._assistants[digest] = definition

    def assistant(self, digest: str) -> str | None:
        return self._assistants.get(digest)

    def open_batch(self, new: NewBatch) -> tuple[str, bool]:
        with self._lock:
            if new.idempotency_key is not None and new.idempotency_key in self._idempotency:
                known = self._idempotency[new.idempotency_key]
                self._batches[known].until = None
                return known, False
            batch = new_batch_id()
            self._batches[batch] = Batch(new=new, created=self._clock())
            if new.max_cost_usd is not None:
                self._purses[batch] = Purse(codec.limit_in_millionths(new.max_cost_usd))
            if new.idempotency_key is not None:
                self._idempotency[new.idempotency_key] = batch
            return batch, True

    def batch_under(self, idempotency_key: str) -> str | None:
        return self._idempotency.get(idempotency_key)

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        with self._lock:
            found = self.compare(batch, jobs)
            now = self._clock()
            for new in jobs:
                self._records.setdefault(
                    job_id(batch, new.question.row_id),
                    Record(
                        question=new.question,
                        digest=codec.digest(new),
                        assistant=new.assistant,
                        assistant_digest=new.assistant_digest,
                        protocol=new.protocol,
                        created=now,
                        due=now if new.after is None else now + WAIT_FOR_TURN_S,
                        after=new.after,
                    ),
                )
            for new in jobs:
                if new.after is not None:
                    (ahead,) = self.follow([(job_id(batch, new.after), new.question.row_id)])
                    if ahead is None or ahead.state in TERMINAL:
                        self.wake([job_id(batch, new.question.row_id)])
            return found

    def compare(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        with self._lock:
            known = {id_: record.digest for id_, record in self._members(batch)}
            added, conflicts = 0, []
            for new in jobs:
                mine, id_ = codec.digest(new), job_id(batch, new.question.row_id)
                added += id_ not in known
                if known.setdefault(id_, mine) != mine:
                    conflicts.append(new.question.row_id)
            return Added(added=added, already=len(jobs) - added - len(conflicts), conflicts=tuple(conflicts))

    def seal(self, batch: str, total: int) -> None:
        with self._lock:
            if batch not in self._batches:
                raise StoreError(
                    f"batch {batch} could not be sealed: its record is gone", remedy="Submit the list again."
                )
            self._batches[batch].total = total
            self._batches[batch].until = None

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        with self._lock:
            return [self._retry(job, set(ends) & ASKED_AGAIN) for job in jobs]

    def _retry(self, job: str, ends: Collection[State]) -> Outcome:
        record = self._records.get(job)
        if record is None:
            return Outcome.MISSING
        if record.state not in ends:
            return Outcome.NOT_YOURS if record.state in TERMINAL else Outcome.ALREADY
        self._batches[split_job_id(job)[0]].earlier.append(usage_of(record))
        record.fields["base"] = record.count("attempts")
        record.fields["retries"] = record.count("retries") + 1
        for name in codec.OF_A_RUN:
            record.fields.pop(name, None)
        record.state, record.due, record.fence = State.QUEUED, self._clock(), self._fence(record)
        record.claims, record.done, record.completed, record.answer = None, "", None, None
        self._batches[split_job_id(job)[0]].until = None
        self._dead.pop(job, None)
        self._registry.expire.pop(job, None)
        return Outcome.MOVED

    def cancel(self, jobs: Sequence[str]) -> list[Outcome]:
        with self._lock:
            for job in jobs:
                record = self._records.get(job)
                if record is not None and (row := record.text("next")) is not None:
                    self.wake([job_id(split_job_id(job)[0], row)])
            return [self._cancel(job) for job in jobs]

    def _cancel(self, job: str) -> Outcome:
        record = self._records.get(job)
        if record is None:
            return Outcome.MISSING
        no_run = record.state is State.QUEUED and record.claims is None and "spent" not in record.fields
        if record.state in TERMINAL or (record.text("cancel") == "asked" and not no_run):
            return Outcome.ALREADY
        record.fields["cancel"] = "asked"
        if record.claims is None:
            record.due = self._clock()
            if no_run:
                record.state, record.completed = State.CANCELLED, record.due
                record.fields |= {"error_code": "cancelled", "error_message": CANCELLED_IN_TIME}
                record.fields.pop("note", None)
                self._leave(job, record, [])
        return Outcome.MOVED

    def dead_letters(self) -> dict[str, float]:
        return dict(self._dead)
