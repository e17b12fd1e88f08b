"""One audit of the job store, in small steps: all of it now, or a little at a time.

First the server, its locks and the schedule, then every batch; at the end it is judged whether what is late is stuck.
Each step is a round trip or a few, and blocks Redis for a few milliseconds at most.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from askq.errors import NotFound
from askq.ids import SHARDS
from askq.jobs.audit import LATE_S, UNDELETED_S, Fact, Report, late, starting_too_long
from askq.jobs.books import Recount
from askq.jobs.model import BatchStatus, Lane
from askq.jobs.objects import is_batch
from askq.jobs.store import Store

_SMALL = 100 * SHARDS
"""Rows of a batch that is read in one step, all its shards together."""
_TRIES = 5
"""How often a shard of many rows is read because its counters changed meanwhile: there is another round later for an
audit in the background."""
_LOOKS = 10
"""How often it is looked whether the start lane moves before it is said that it does not."""
_LOOK_EVERY_S = 0.3
_TIMEOUT_S = 3600.0
"""What is taken for the timeout of an assistant whose definition is gone."""


_LANES = [(shard, lane) for lane in Lane for shard in range(SHARDS)]


@dataclass(slots=True)
class _Place:
    """How far an audit has come."""

    lanes: int = 0
    """Lanes of shards that are done."""
    moving: bool = False
    """Whether somebody works on the start lane."""
    late: list[Fact] = field(default_factory=list)
    """Jobs of the start lane that are late, until it is known whether it moves."""
    after: str = ""
    """The last batch that is done."""
    shards: int = 0
    """Shards of the next one that are done, and what they told."""
    rows: int = 0
    settled: bool = True

    def end_batch(self, batch: str) -> None:
        self.after, self.shards, self.rows, self.settled = batch, 0, 0, True


class Auditor:
    """One audit.

    `batch`: of this batch alone. `closed`: also of batches that have ended and were in order when they were last
    audited. `allow_unsafe`: a Redis that would lose jobs is meant to be one. `place`: go on where another auditor
    stopped (see the method of that name).
    """

    def __init__(
        self,
        store: Store,
        *,
        by: str,
        repair: bool = True,
        batch: str | None = None,
        closed: bool = False,
        allow_unsafe: bool = False,
        place: str | None = None,
    ) -> None:
        self._store = store
        self._books = store.books()
        self._batch = batch
        self._closed = closed
        self._allow_unsafe = allow_unsafe
        self._at = _Place()
        self._exist: dict[str, bool] = {}
        self._timeouts: dict[str, float] = {}
        if place is None:
            self._report = Report(by=by, started_at=self._store.now(), repairs=repair)
        else:
            kept: dict[str, Any] = json.loads(place)
            self._report = Report.from_json(kept.pop("report"))
            self._report.by = by
            self._at = _Place(**kept | {"late": [Fact(**fact) for fact in kept["late"]]})
        self._tries = 1
        self._steps = self._walk()

    def run(self) -> Report:
        """All of it now. Raises NotFound when it is about a batch that is not there."""
        self._tries = _TRIES
        for wait_s in self._steps:
            time.sleep(wait_s)
        return self._report

    def advance(self, seconds: float) -> Report | None:
        """Go on for about so long; the report when it is finished. A step that has begun is ended."""
        until = time.monotonic() + seconds
        for wait_s in self._steps:
            if wait_s or time.monotonic() >= until:
                return None
        return self._report

    def place(self) -> str:
        """How far it has come, for whoever goes on with it."""
        return json.dumps(dataclasses.asdict(self._at) | {"report": self._report.to_json()})

    def _walk(self) -> Iterator[float]:
        """The steps. Each yields how long the next would rather wait."""
        if self._batch is not None:
            if self._store.batch(self._batch) is None:
                raise NotFound(f"there is no batch {self._batch}", remedy="`askq list` shows the batches there are.")
            yield from self._check_schedule()
            yield from self._check_batch(self._batch)
        else:
            if self._at.lanes == 0:
                self._check_server()
                yield 0.0
            yield from self._check_schedule()
            # Jobs may be due of batches that are on no list.
            unlisted = {found.batch for found in self._report.findings if found.code == "batch_lost" and found.batch}
            for batch in sorted({*self._books.batches(closed=self._closed), *unlisted}):
                if batch > self._at.after:
                    yield from self._check_batch(batch)
        yield from self._judge_late()
        self._report.finished_at = self._store.now()

    # -- the server and the schedule ---------------------------------------------------------------------

    def _check_server(self) -> None:
        danger = self._store.health().danger
        if danger is not None and not self._allow_unsafe:
            self._report.add([Fact(code="unsafe_server", detail=danger)])
        if evicted := self._books.evicted():
            self._report.add([Fact(code="evicted", count=evicted)])
        self._report.add(self._books.locks(repair=self._report.repairs))
        due = self._store.next_tombstone()
        if due is not None and -due > UNDELETED_S and not self._is_paused():
            self._report.add([Fact(code="undeleted", seconds=-due)])

    def _is_paused(self) -> bool:
        """Whether all work may stand still. A batch alone may be paused for weeks, and holds nobody else up."""
        return any(not is_batch(pause.account) for pause in self._store.pauses())

    def _check_schedule(self) -> Iterator[float]:
        for shard, lane in _LANES[self._at.lanes :]:
            page: str | None = "0"
            while page is not None:
                found = self._books.schedule(shard, lane, page, repair=self._report.repairs, batch=self._batch)
                self._report.add(found.facts)
                self._at.moving |= lane is Lane.START and found.ahead > 0
                self._check_existence(found.batches)
                page = found.next
                if page is None:
                    self._at.lanes += 1
                    if lane is Lane.START and self._batch is None:
                        self._report.add(self._books.dead_letters(shard, repair=self._report.repairs))
                yield 0.0

    def _check_existence(self, batches: Collection[str]) -> None:
        unknown = [batch for batch in batches if batch not in self._exist]
        if unknown:
            there = self._books.exist(unknown)
            self._exist |= {batch: batch in there for batch in unknown}
            lost = [batch for batch in unknown if batch not in there and not self._report.about(batch)]
            self._report.add(Fact(code="batch_lost", batch=batch) for batch in lost)

    # -- batches -----------------------------------------------------------------------------------------

    def _check_batch(self, batch: str) -> Iterator[float]:
        before = self._store.batch(batch)
        step = SHARDS if before is not None and before.total <= _SMALL else 1
        for shard in range(self._at.shards, SHARDS, step):
            shards = range(shard, min(shard + step, SHARDS))
            for found in self._books.recount(batch, shards, repair=self._report.repairs, tries=self._tries):
                if found is None:
                    yield 0.0
                else:
                    self._take(batch, found)
            self._at.shards = shards.stop
            if shards.stop < SHARDS:
                yield 0.0
        if before is not None and self._at.settled:
            self._check_total(before, self._at.rows)
            self._check_budget(before)
            if before.done and not self._report.about(batch):
                self._books.close_batch(batch)
        self._report.batches += 1
        self._report.rows += self._at.rows
        self._at.end_batch(batch)
        yield 0.0

    def _take(self, batch: str, found: Recount) -> None:
        self._at.rows += found.rows
        self._at.settled &= found.settled
        self._report.unsettled += not found.settled
        self._report.add(found.facts)
        self._at.late += found.late_start
        # A paused account holds its jobs up on purpose: `askq status` says why.
        if found.late and not (self._is_paused() or self._store.waits()):
            self._report.add(late(found.late, workers=len(self._store.nodes())))
        for job in found.starting:
            timeout_s = self._timeout_s(job.assistant_digest)
            self._report.add(starting_too_long(job, timeout_s, batch))

    def _timeout_s(self, digest: str) -> float:
        if digest not in self._timeouts:
            definition = self._store.assistant(digest)
            # Read as plain JSON: a definition that another version wrote may hold fields this one does not know.
            known = {} if definition is None else json.loads(definition)
            self._timeouts[digest] = float(known.get("timeout_s", _TIMEOUT_S))
        return self._timeouts[digest]

    def _check_total(self, before: BatchStatus, rows: int) -> None:
        """Whether a sealed batch has all its rows. `before` was read before the rows, which only become more."""
        # Counters that were wrong may have made the total too great.
        miscounted = any(found.code == "miscounted" for found in self._report.about(before.id))
        if not before.sealed or before.total <= rows or miscounted:
            return
        # A batch whose time is up loses its keys one after the other.
        if not self._books.leaving(before.id):
            self._report.add([Fact(code="rows_lost", batch=before.id, count=before.total - rows)])

    def _check_budget(self, before: BatchStatus) -> None:
        """Whether something is put aside for jobs that have ended long since: whoever was to settle it has died."""
        budget, ended = before.budget, before.finished_at
        if budget is None or budget.reserved_usd <= 0 or not before.done or ended is None:
            return
        if self._store.now() - ended > LATE_S:
            self._report.add([Fact(code="reserved_left", batch=before.id, detail=f"${budget.reserved_usd:.4f}")])
            if self._report.repairs:
                self._store.reconcile_budget(before.id)

    # -- what is late ------------------------------------------------------------------------------------

    def _judge_late(self) -> Iterator[float]:
        """A job of the start lane may wait for its turn as long as others get theirs."""
        if not self._at.late:
            return
        workers = len(self._store.nodes())
        for _ in range(_LOOKS if workers else 0):
            # A limit that is waited for holds everybody up, and nothing is wrong.
            if self._at.moving or self._is_paused() or self._store.waits():
                return
            yield _LOOK_EVERY_S
            self._at.moving = self._books.ahead(Lane.START) > 0
        if not self._at.moving:
            self._report.add(late(self._at.late, workers=workers))
