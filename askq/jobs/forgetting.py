"""Forgetting a batch or a job, step by step: whoever goes on with it goes on where another was killed.

Nothing is erased while a worker may still write to it: what has not ended is cancelled first. What was made at the
service is buried in the same step that erases the record which knew it; workers delete it (worker.cleaner).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from askq.failpoints import hit
from askq.ids import split_job_id
from askq.jobs.model import Outcome
from askq.jobs.store import Store

_PAGE = 500


def begin(store: Store, what: str) -> None:
    """Note that a batch or job is to be forgotten: from then on it will be, whoever dies."""
    hit("forget.begin.before")
    store.begin_forgetting(what)
    hit("forget.begin.after")


def advance(store: Store, what: str, *, most: int | None = None) -> int:
    """Erase what has ended, and cancel what has not; how many have not. When there are none, the rest is erased.

    `most` bounds how many jobs are looked at, for those who have other duties. Raises StoreError.
    """
    waiting = looked = 0
    for page in _pages(store, what):
        hit("forget.jobs.before")
        outcomes = store.forget(page, what)
        hit("forget.jobs.after")
        pending = [job for job, outcome in zip(page, outcomes, strict=True) if outcome is Outcome.NOT_YOURS]
        if pending:
            store.cancel(pending)
            # Those that were in nobody's hands have ended with that.
            again = store.forget(pending, what)
            waiting += sum(outcome is Outcome.NOT_YOURS for outcome in again)
        looked += len(page)
        if most is not None and looked >= most:
            return max(1, waiting)
    if waiting == 0:
        hit("forget.erase.before")
        store.erase(what)
        hit("forget.erase.after")
    return waiting


def go_on(store: Store, *, most: int) -> None:
    """A piece of everything that is being forgotten: what a worker does for those who have gone. Raises StoreError."""
    for what in store.forgetting():
        advance(store, what, most=most)


def _pages(store: Store, what: str) -> Iterator[list[str]]:
    batch, row = split_job_id(what)
    # All of them first: rows that vanish while the list is read would hide others.
    ids = iter([what] if row else list(store.job_ids(batch)))
    while page := list(islice(ids, _PAGE)):
        yield page
