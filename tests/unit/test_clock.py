"""A clock that is set back is noticed, and the schedule follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from askq.ids import SHARDS
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, NewBatch, NewJob, Question
from worker.clock import ClockWatch

HOUR = 3600.0


class Clocks:
    """The store's clock, which somebody sets, and this machine's, which nobody does."""

    def __init__(self) -> None:
        self.store_s = 1_800_000_000.0
        self.monotonic_s = 50.0
        self.reply_s = 0.0

    def pass_time(self, seconds: float) -> None:
        self.store_s += seconds
        self.monotonic_s += seconds

    def read_store(self) -> float:
        self.pass_time(self.reply_s)
        return self.store_s


def waiting(clocks: Clocks) -> MemoryStore:
    """A store with one job that is due in a minute."""
    store = MemoryStore(clock=clocks.read_store)
    batch, _ = store.open_batch(NewBatch(name=None, assistant="t", protocol="assistants"))
    question = Question(row_id="q", index=0, text="?")
    store.add(batch, [NewJob(question=question, assistant="t", assistant_digest="d", protocol="assistants")])
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=5)
    store.commit([Move(job=claim.id, fence=claim.fence, name="defer", delay=60)])
    return store


def test_a_clock_that_runs_is_left_alone() -> None:
    clocks = Clocks()
    store = waiting(clocks)
    watch = ClockWatch(store, lambda: clocks.monotonic_s)
    for _ in range(50):
        clocks.pass_time(1.0)
        clocks.store_s -= 0.01
        assert watch.look() == 0.0
    due = store.next_due(Lane.START)
    assert due is not None
    assert 10 < due < 11, "as before, by the store's own clock"


def test_the_schedule_follows_a_clock_that_was_set_back() -> None:
    """Given a job due in a minute, when the clock goes back an hour, then it is still due in a minute."""
    clocks = Clocks()
    store = waiting(clocks)
    watches = [ClockWatch(store, lambda: clocks.monotonic_s) for _ in range(2)]
    for watch in watches:
        watch.look()
    clocks.pass_time(1.0)
    clocks.store_s -= HOUR
    assert [round(watch.look()) for watch in watches] == [HOUR, HOUR]
    assert store.next_due(Lane.START) == 59.0, "moved once, however many noticed"
    assert watches[0].look() == 0.0


def test_only_the_shards_of_the_clock_that_went_back_follow_it() -> None:
    """Given servers whose clocks differ, when one goes back, then the schedule of its shards follows it alone."""
    clocks = Clocks()

    class Servers(MemoryStore):
        """Even shards are on a server whose clock is three seconds behind, at first."""

        behind_s = 3.0
        told: ClassVar[list[tuple[float, list[int]]]] = []

        def clocks(self) -> Sequence[float]:
            return [clocks.store_s - (0 if shard % 2 else self.behind_s) for shard in range(SHARDS)]

        def set_back(self, seconds: float, shards: Sequence[int]) -> bool:
            self.told.append((seconds, list(shards)))
            return True

    store = Servers(clock=clocks.read_store)
    watch = ClockWatch(store, lambda: clocks.monotonic_s)
    for _ in range(3):
        clocks.pass_time(1.0)
        assert watch.look() == 0.0, "that they differ is nothing"
    # A replica takes over, whose clock is five seconds behind the other's.
    store.behind_s = 8.0
    assert watch.look() == pytest.approx(5.0)
    assert store.told == [(pytest.approx(5.0), list(range(0, SHARDS, 2)))]
    assert watch.look() == 0.0


def test_a_slow_reply_is_no_clock_that_went_back() -> None:
    clocks = Clocks()
    watch = ClockWatch(waiting(clocks), lambda: clocks.monotonic_s)
    clocks.reply_s = 3.0
    watch.look()
    clocks.reply_s = 0.0
    assert watch.look() == 0.0


def test_a_clock_that_was_set_forward_makes_things_due() -> None:
    clocks = Clocks()
    store = waiting(clocks)
    watch = ClockWatch(store, lambda: clocks.monotonic_s)
    watch.look()
    clocks.store_s += HOUR
    assert watch.look() == 0.0
    due = store.next_due(Lane.START)
    assert due is not None
    assert due < 0
