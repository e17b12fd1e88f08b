"""The audit in the background: every minute, by one worker of all, in small pieces between its other duties."""

from __future__ import annotations

import logging
import time

from askq.errors import StoreError
from askq.jobs.audit import LastAudit, Report
from askq.jobs.auditor import Auditor
from askq.jobs.store import Store

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""Between the end of one audit and the beginning of the next: I5 calls a job stuck after a minute."""
_PIECE_S = 0.02
"""How long a worker's main process is kept from anything else at a time, and as long as one step more."""
_SHARE = 0.05
"""Of one worker's time. A long audit takes longer rather than more."""


class BackgroundAudit:
    """One per worker; `by` is the worker's name. Whoever has the turn audits, and goes on where another stopped."""

    def __init__(self, store: Store, by: str, *, every_s: float = EVERY_S, allow_unsafe: bool = False) -> None:
        self._store = store
        self._books = store.books()
        self._by = by
        self._every_s = every_s
        self._allow_unsafe = allow_unsafe
        self._auditor: Auditor | None = None
        self._next = time.monotonic()

    def tick(self) -> None:
        """Do a piece, if it is time for one. Raises StoreError; the next tick then goes on from what is kept."""
        if time.monotonic() < self._next:
            return
        if self._auditor is None:
            self._auditor = self._begin()
        if self._auditor is None:
            return
        began = time.monotonic()
        try:
            report = self._auditor.advance(_PIECE_S)
        except StoreError:
            # What a step has found and not yet kept, it finds again.
            self._auditor = None
            raise
        rest_s = (time.monotonic() - began) / _SHARE
        self._next = time.monotonic() + rest_s
        if not self._books.take_turn(self._by, ttl_s=self._every_s + rest_s):
            log.info("the audit is another worker's now")
            self._auditor = None
        elif report is None:
            self._books.keep_place(self._auditor.place())
        else:
            self._end(report)

    def _begin(self) -> Auditor | None:
        self._next = time.monotonic() + min(self._every_s / 4, 5.0)
        last = LastAudit.read(self._books.last())
        if last is not None and 0 <= (since := self._store.now() - last.finished_at) < self._every_s:
            self._next = time.monotonic() + self._every_s - since
            return None
        if not self._books.take_turn(self._by, ttl_s=self._every_s):
            return None
        place = self._books.place()
        try:
            return self._auditor_from(place)
        except (ValueError, TypeError, KeyError):
            log.info("the place an audit stopped at was written by another version: beginning anew")
            return self._auditor_from(None)

    def _auditor_from(self, place: str | None) -> Auditor:
        return Auditor(self._store, by=self._by, place=place, allow_unsafe=self._allow_unsafe)

    def _end(self, report: Report) -> None:
        self._auditor = None
        self._next = time.monotonic() + self._every_s
        self._books.save_last(LastAudit.of(report).to_json())
        self._books.keep_place(None)
        for found in report.findings:
            if found.repaired or found.attention:
                done = "repaired" if found.repaired else "`askq sweep` tells more"
                about = found.batch or found.detail
                log.warning("audit: %s × %d (%s): %s %s", found.code, found.count, about, found.kind.means, done)
