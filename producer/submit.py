"""Putting a list into the store: all of it or, after a crash, what is missing of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.errors import InputError, Problem, StoreError
from askq.jobs.model import NewBatch, NewJob, Question
from askq.jobs.store import Store
from producer.kept_table import keep
from producer.questions import QuestionList, Summary

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What came of it."""

    batch: str
    created: bool
    """False when the batch was there under its idempotency key."""
    added: int
    already: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked list and who is to answer it."""

    questions: QuestionList
    summary: Summary
    assistant: Assistant
    others: Mapping[str, Assistant]
    """Assistants that rows name themselves."""
    name: str | None = None
    metadata: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    limit: int | None = None
    max_cost_usd: float | None = None

    @property
    def rows(self) -> int:
        """How many questions will be asked."""
        return self.summary.rows if self.limit is None else min(self.limit, self.summary.rows)

    def rows_asked(self) -> Iterator[Question]:
        """The questions that will be asked; the list is read anew."""
        return itertools.islice(iter(self.questions), self.limit)

    def jobs(self) -> Iterator[list[NewJob]]:
        """The rows as new jobs, in chunks; the list is read anew."""
        rows = self.rows_asked()
        while chunk := [self._job(question) for question in itertools.islice(rows, _CHUNK)]:
            yield chunk

    def _job(self, question: Question) -> NewJob:
        assistant = self.assistant if question.assistant is None else self.others[question.assistant]
        return NewJob(
            question=question,
            assistant=assistant.name,
            assistant_digest=assistant.digest,
            protocol=assistant.protocol,
        )


def submit(store: Store, submission: Submission, *, progress: Callable[[int], None] | None = None) -> Submitted:
    """Store every row that is not there yet.

    Raises InputError, and adds nothing, when the batch of this idempotency key has other questions under the same
    ids. Raises StoreError; the rows stored until then stay, and the same call adds the rest.
    """
    for assistant in {assistant.digest: assistant for assistant in _all(submission)}.values():
        store.save_assistant(assistant.digest, assistant.to_json())
    batch, created = store.open_batch(
        NewBatch(
            name=submission.name,
            assistant=submission.assistant.name,
            protocol=submission.assistant.protocol,
            idempotency_key=submission.idempotency_key,
            metadata=submission.metadata or {},
            table=keep(submission.summary),
            max_cost_usd=submission.max_cost_usd,
        )
    )
    if not created:
        _renew_budget(store, batch, submission)
        conflicts = [row for chunk in submission.jobs() for row in store.compare(batch, chunk).conflicts]
        if conflicts:
            raise _conflict(batch, submission, conflicts)
    added = already = 0
    for chunk in submission.jobs():
        found = store.add(batch, chunk)
        added += found.added
        already += found.already
        if progress is not None:
            progress(added + already)
    store.seal(batch, added + already)
    _require_all(store, batch)
    return Submitted(batch=batch, created=created, added=added, already=already)


def _require_all(store: Store, batch: str) -> None:
    """What `seal` has put on disk may lack rows: of a server that was cut off meanwhile, and came back without them."""
    status = store.batch(batch)
    missing = 0 if status is None else status.total - sum(status.counts.values())
    if status is None or missing:
        raise StoreError(
            f"Redis has lost {missing or 'all'} of the rows of batch {batch} while it was submitted",
            remedy="It was restarted without its last moves. The same command again adds what is missing.",
        )


def _renew_budget(store: Store, batch: str, submission: Submission) -> None:
    if submission.max_cost_usd is None:
        return
    status = store.batch(batch)
    if status is None or status.budget is None:
        raise InputError(
            f"batch {batch} was submitted without a budget",
            remedy="A bound must be there from the first question on: leave out --max-cost, or ask anew with --new.",
        )
    store.set_budget(batch, submission.max_cost_usd)


def _all(submission: Submission) -> Iterator[Assistant]:
    yield submission.assistant
    yield from submission.others.values()


def _conflict(batch: str, submission: Submission, rows: Sequence[str]) -> InputError:
    return InputError(
        [
            Problem(
                file=submission.questions.name,
                message=f"row {row} is in batch {batch} already, with another question, model or assistant",
            )
            for row in rows
        ],
        remedy="Nothing was added. Use another idempotency key for a changed list.",
    )
