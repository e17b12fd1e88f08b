"""A submitted list, as Python sees it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from askq.errors import BudgetUsedUp, InputError, NotFound, WaitTimeout
from askq.files.folder import Folder
from askq.ids import job_id, split_job_id
from askq.jobs import forgetting
from askq.jobs.model import PENDING, BatchStatus, Job, Outcome, State, Usage
from askq.jobs.objects import Receipt
from askq.jobs.store import Store
from producer.outage import Outage

log = logging.getLogger(__name__)

_POLL_S = 0.5
_PAGE = 500
ASKED_AGAIN_USUALLY = frozenset({State.FAILED, State.EXPIRED})
"""What is asked again by itself. An uncertain job may have been paid for, so a person must say that one, too."""


def require_budget(status: BatchStatus) -> None:
    """Raise BudgetUsedUp for a batch that waits for a person to raise its budget."""
    if status.at_its_budget and status.budget is not None:
        raise BudgetUsedUp(
            f"the budget of batch {status.id} is used up: ${status.budget.spent_usd:.4f} of "
            f"${status.budget.limit_usd:.2f} spent, {status.pending} of {status.total} questions not asked",
            remedy=f"`askq resume {status.id} --max-cost USD` lets it go on; "
            f"`askq results {status.id} --partial` has the answers so far.",
        )


def require_time(
    status: BatchStatus,
    until: float | None,
    *,
    timeout: float | None,
    remedy: str = "It goes on by itself as long as a worker runs.",
) -> None:
    """Raise WaitTimeout when `until`, by the monotonic clock, is over: `timeout` seconds were to be waited."""
    if until is not None and time.monotonic() >= until:
        raise WaitTimeout(
            f"batch {status.id} is not finished after {timeout:g} s: {status.pending} of {status.total} pending",
            remedy=remedy,
        )


def cancel(store: Store, jobs: Sequence[str]) -> Counter[Outcome]:
    """Cancel jobs, page by page; how many met with which outcome."""
    outcomes = _in_pages(store.cancel, jobs)
    for batch in {split_job_id(job)[0] for job in jobs}:
        # Nobody else looks at jobs that have ended here and had something put aside.
        store.reconcile_budget(batch)
    return outcomes


def retry(store: Store, jobs: Sequence[str], ends: Collection[State]) -> Counter[Outcome]:
    """Ask jobs again, page by page; how many met with which outcome. Raises InputError for what is being forgotten."""
    going = {split_job_id(job)[0] for job in jobs} & set(store.forgetting())
    if going:
        raise InputError(f"batch {min(going)} is being forgotten", remedy="Nothing of it can be asked again.")
    return _in_pages(lambda page: store.retry(page, ends), jobs)


def _in_pages(action: Callable[[Sequence[str]], list[Outcome]], jobs: Sequence[str]) -> Counter[Outcome]:
    outcomes: Counter[Outcome] = Counter()
    for start in range(0, len(jobs), _PAGE):
        outcomes.update(action(jobs[start : start + _PAGE]))
    return outcomes


class Batch:
    """One batch, found by its id from any process at any time.

    Iterating gives the jobs in the order of the list; `batch["q0007"]` gives one.
    """

    def __init__(self, store: Store, id: str) -> None:  # noqa: A002  what everybody calls it
        self._store = store
        self.id = id
        self._status = self.refresh()

    def refresh(self) -> BatchStatus:
        """Read the counters anew. Raises NotFound when the batch is gone."""
        status = self._store.batch(self.id)
        if status is None:
            raise NotFound(f"there is no batch {self.id}", remedy="`askq list` shows the batches there are.")
        self._status = status
        return status

    @property
    def status(self) -> BatchStatus:
        """The counters as last read."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether every job had ended when last read."""
        return self._status.done

    @property
    def counts(self) -> Mapping[State, int]:
        """Jobs by state, as last read."""
        return self._status.counts

    @property
    def usage(self) -> Usage:
        """Tokens and cost so far, as last read."""
        return self._status.usage

    def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[BatchStatus], None] | None = None
    ) -> BatchStatus:
        """Wait until every job has ended, also through a restart of Redis.

        Raises WaitTimeout after `timeout` seconds, and the batch goes on; BudgetUsedUp when it cannot go on by itself;
        StoreUnreachable when Redis stays away for minutes.
        """
        until = None if timeout is None else time.monotonic() + timeout
        outage = Outage(log.warning)
        while True:
            status = outage.through(self.refresh) or self._status
            if on_progress is not None:
                on_progress(status)
            if status.done:
                return status
            require_budget(status)
            require_time(status, until, timeout=timeout)
            time.sleep(_POLL_S)

    def results(self, states: Collection[State] | None = None) -> Iterator[Job]:
        """The jobs in the order of the list, finished or not; those in `states` only, where given."""
        return self._store.jobs(self.id, states=states)

    def cancel(self) -> int:
        """Cancel every job that has not ended, at the service, too; how many.

        Queued ones end at once, the others as soon as a worker has told the service. Answers that are there stay, and a
        run that completes all the same is kept and counted.
        """
        jobs = [job.id for job in self._store.jobs(self.id, states=PENDING)]
        return cancel(self._store, jobs)[Outcome.MOVED]

    def retry(self, ends: Collection[State] = ASKED_AGAIN_USUALLY) -> int:
        """Ask again, in this batch, the jobs that ended in one of these ways; how many.

        Complete answers are never asked again. What the earlier runs have cost stays counted. With `State.UNCERTAIN`
        among the ends a question may be paid for twice.
        """
        jobs = [job.id for job in self._store.jobs(self.id, states=ends)]
        return retry(self._store, jobs, ends)[Outcome.MOVED]

    def forget(self, timeout: float | None = None, *, folder: Folder | None = None) -> Receipt:
        """Erase the whole batch, here and at the service; what was done. There is no way back.

        A worker has to run: it deletes what was made at the service, and cancels what has not ended. `folder` is the
        folder of files, where this process has it. What the service refuses is tried again by the workers, so a receipt
        may say that something is left; WaitTimeout is raised when that takes longer than `timeout` seconds. Files in a
        folder that no worker has any more are waited for, too: `askq forget` names it.
        """
        until = None if timeout is None else time.monotonic() + timeout
        forgetting.begin(self._store, self.id)
        while True:
            if self.id in self._store.forgetting():
                forgetting.advance(self._store, self.id, folder)
            receipt = self._store.receipt(self.id)
            if receipt is not None and receipt.done:
                self._store.compact()
                return receipt
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(
                    f"batch {self.id} is not forgotten after {timeout:g} s",
                    remedy=f"Workers go on with it by themselves; `askq forget {self.id}` says what it waits for.",
                )
            time.sleep(_POLL_S)

    def __iter__(self) -> Iterator[Job]:
        return self.results()

    def __len__(self) -> int:
        return self._status.total

    def __getitem__(self, row_id: str) -> Job:
        job = self._store.job(job_id(self.id, row_id))
        if job is None:
            raise KeyError(row_id)
        return job

    def save(self, path: str | Path, *, format: str | None = None) -> int:  # noqa: A002
        """Write the results to a file, whole or not at all; how many. Raises InputError, OutputError."""
        from producer.answers.writer import writer_for
        from producer.kept_table import kept

        return writer_for(path, format=format, **kept(self._status.table)).write(self.results())

    def __repr__(self) -> str:
        return f"<Batch {self.id}: {self._status.total - self._status.pending} of {self._status.total} done>"
