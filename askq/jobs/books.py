"""What an audit needs of a job store: its books, read page by page, each page put right in the step that reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from askq.jobs.audit import Fact, Starting
from askq.jobs.model import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePage:
    """Some members of one lane of one shard."""

    next: str | None
    """Where to go on; None after the last page."""
    ahead: int
    """Members that are due in the future: somebody holds them, or has given them back until then. Without those that
    wait for their turn in a conversation."""
    batches: Collection[str]
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """What the rows of one batch in one shard told."""

    rows: int
    settled: bool
    """False when the counters changed all the time, so that they could not be judged."""
    facts: Sequence[Fact]
    late: Sequence[Fact]
    """Jobs of the poll lane that are late, added up."""
    late_start: Sequence[Fact]
    """Jobs of the start lane that are late, added up: they may only wait for their turn."""
    starting: Sequence[Starting]


class Books(Protocol):
    """The auditor's side of a store. With `repair` a page is put right in the same atomic step that reads it."""

    def batches(self, *, closed: bool) -> list[str]:
        """All batches in the order of their ids; without those that are `closed`, unless asked for."""

    def exist(self, batches: Collection[str]) -> set[str]:
        """Which of these batches have a record."""

    def leaving(self, batch: str) -> bool:
        """Whether a batch is set to expire, or has."""

    def schedule(self, shard: int, lane: Lane, at: str, *, repair: bool, batch: str | None = None) -> SchedulePage:
        """One page of a lane, from where the one before ended ("0" = the first); jobs of one batch alone, if told."""

    def dead_letters(self, shard: int, *, repair: bool) -> list[Fact]:
        """Members of the set of dead letters that are none; those whose records have expired go without a word."""

    def ahead(self, lane: Lane) -> int:
        """How many jobs of a lane are due in the future, as `SchedulePage.ahead` counts; of many, not all."""

    def recount(self, batch: str, shards: Sequence[int], *, repair: bool, tries: int = 1) -> Iterator[Recount | None]:
        """Check the rows of a batch in these shards, and its counters in each against the recount.

        One for each shard; None after every page of a shard that has many, so that the caller may do other things. If
        the counters change while such a shard is read, it is read up to `tries` times.
        """

    def locks(self, *, repair: bool) -> list[Fact]:
        """Leases, hints and entries of registers that will not end by themselves."""

    def evicted(self) -> int:
        """Keys the server has thrown away for want of memory."""

    def close_batch(self, batch: str) -> bool:
        """Note that an ended batch is in order; False when it may still go on."""

    def take_turn(self, by: str, *, ttl_s: float) -> bool:
        """Take, or keep, the turn to audit in the background; False when it is another's."""

    def keep_place(self, place: str | None) -> None:
        """Keep how far a background audit has come, for whoever goes on with it; None = it is finished."""

    def place(self) -> str | None:
        """What `keep_place` kept."""

    def save_last(self, audit: str) -> None:
        """Keep the outcome of the last background audit."""

    def last(self) -> str | None:
        """What `save_last` kept."""
