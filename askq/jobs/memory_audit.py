"""The books of the store in memory: one collection holds records, schedule and counters, so few things can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from askq.ids import shard_of
from askq.jobs.audit import AHEAD_S, LATE_S, Fact, Starting
from askq.jobs.books import Recount, SchedulePage
from askq.jobs.model import DEAD_LETTER, LANE_OF, Job, Lane, State

if TYPE_CHECKING:
    from askq.jobs.memory_store import MemoryStore


@dataclass(slots=True)
class Kept:
    """What audits leave behind."""

    closed: dict[str, float] = field(default_factory=dict)
    """Batch → the end it was marked with when it was found in order."""
    turn: tuple[str, float] = ("", 0.0)
    place: str | None = None
    last: str | None = None


class MemoryBooks:
    """`Books` over a `MemoryStore`.

    `marked` tells when each batch is to be forgotten, `intended` when the present intent of a job was written.
    """

    def __init__(
        self,
        store: MemoryStore,
        kept: Kept,
        *,
        clock: Callable[[], float],
        marked: Callable[[], Mapping[str, float | None]],
        intended: Callable[[str], float | None],
    ) -> None:
        self._store = store
        self._kept = kept
        self._now = clock
        self._marked = marked
        self._intended = intended

    def batches(self, *, closed: bool) -> list[str]:
        marked = self._marked()
        return sorted(id_ for id_, until in marked.items() if closed or until is None or not self._is_closed(id_))

    def _is_closed(self, batch: str) -> bool:
        return self._kept.closed.get(batch) == self._marked()[batch]

    def exist(self, batches: Collection[str]) -> set[str]:
        return set(batches) & self._marked().keys()

    def leaving(self, batch: str) -> bool:
        return self._marked().get(batch, 0.0) is not None

    def schedule(self, shard: int, lane: Lane, at: str, *, repair: bool, batch: str | None = None) -> SchedulePage:
        due = [job for job in self._due(lane) if shard_of(job.id) == shard]
        return SchedulePage(
            next=None, ahead=self._ahead(due), batches={job.id.partition(".")[0] for job in due}, facts=()
        )

    def dead_letters(self, shard: int, *, repair: bool) -> list[Fact]:
        return []

    def ahead(self, lane: Lane) -> int:
        return self._ahead(self._due(lane))

    def _due(self, lane: Lane) -> list[Job]:
        jobs = (job for batch in self._marked() for job in self._store.jobs(batch))
        return [job for job in jobs if LANE_OF.get(job.state) is lane]

    def _ahead(self, jobs: Sequence[Job]) -> int:
        return sum(job.due_at is not None and job.due_at > self._now() and job.after is None for job in jobs)

    def recount(self, batch: str, shards: Sequence[int], *, repair: bool, tries: int = 1) -> Iterator[Recount | None]:
        jobs = list(self._store.jobs(batch))
        for shard in shards:
            yield self._check([job for job in jobs if shard_of(job.id) == shard], batch)

    def _check(self, jobs: Sequence[Job], batch: str) -> Recount:
        facts: list[Fact] = []
        late: dict[Lane, list[Fact]] = {lane: [] for lane in Lane}
        starting = []
        now = self._now()

        def tell(code: str, job: Job) -> None:
            facts.append(Fact(code=code, batch=batch, job=job.id))

        for job in jobs:
            if job.runs > job.attempts:
                tell("paid_twice" if job.attempts else "run_without_intent", job)
            lane = LANE_OF.get(job.state)
            if lane is None or job.due_at is None:
                if job.attempts > job.runs:
                    tell("unseen_run", job)
                if job.error_code == DEAD_LETTER:
                    tell("poison", job)
                continue
            if job.due_at < now - LATE_S:
                late[lane].append(Fact(code="late", batch=batch, job=job.id, seconds=now - job.due_at))
            elif job.due_at > now + AHEAD_S:
                facts.append(Fact(code="far_ahead", batch=batch, job=job.id, seconds=job.due_at - now))
            intended = self._intended(job.id)
            if job.state is State.STARTING and intended is not None and intended < now - LATE_S:
                starting.append(Starting(job.id, now - intended, job.assistant_digest))
        return Recount(
            rows=len(jobs),
            settled=True,
            facts=facts,
            late=late[Lane.POLL],
            late_start=late[Lane.START],
            starting=starting,
        )

    def locks(self, *, repair: bool) -> list[Fact]:
        return []

    def evicted(self) -> int:
        return 0

    def close_batch(self, batch: str) -> bool:
        until = self._marked().get(batch)
        if until is None:
            return False
        self._kept.closed[batch] = until
        return True

    def take_turn(self, by: str, *, ttl_s: float) -> bool:
        owner, until = self._kept.turn
        if owner not in (by, "") and until > self._now():
            return False
        self._kept.turn = (by, self._now() + ttl_s)
        return True

    def keep_place(self, place: str | None) -> None:
        self._kept.place = place

    def place(self) -> str | None:
        return self._kept.place

    def save_last(self, audit: str) -> None:
        self._kept.last = audit

    def last(self) -> str | None:
        return self._kept.last
