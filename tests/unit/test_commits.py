"""Commits in batches: nothing that was paid for waits behind what cannot be stored."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from askq.errors import StoreError, StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import MOVES, Move, Outcome
from worker.commits import Commits


class Scripted(MemoryStore):
    """Refuses what it is told to refuse, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.refuse: dict[str, Exception] = {}
        self.asked_twice = threading.Event()
        self.on_disk: set[str] = set()

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        self.on_disk |= {move.name for move in moves} if on_disk else set()
        names = [move.name for move in moves]
        self.batches.append(names)
        if len(self.batches) == 2:
            self.asked_twice.set()
        for name in names:
            if name in self.refuse:
                raise self.refuse[name]
        return [Outcome.MOVED for _ in moves]


def move(name: str, number: int = 0) -> Move:
    return Move(job=f"b.q{number}", fence=1, name=name)


async def test_moves_made_together_go_together() -> None:
    store = Scripted()
    commits = Commits(store)
    outcomes = await asyncio.gather(*(commits.commit(move("start", number)) for number in range(700)))
    assert outcomes == [Outcome.MOVED] * 700
    assert [len(batch) for batch in store.batches] == [500, 200]


async def test_a_batch_is_repeated_until_it_is_stored() -> None:
    store = Scripted()
    store.refuse["start"] = StoreUnreachable("Redis does not answer")
    commits = Commits(store)
    waiting = asyncio.create_task(commits.commit(move("start")))
    assert await asyncio.to_thread(store.asked_twice.wait, 60)
    assert not waiting.done()
    store.refuse.clear()
    assert await asyncio.wait_for(waiting, 60) is Outcome.MOVED


async def test_a_full_store_that_refuses_intents_still_takes_the_ids_of_paid_runs() -> None:
    store = Scripted()
    store.refuse["intend"] = StoreError("Redis refused: OOM")
    commits = Commits(store)
    intents = [asyncio.create_task(commits.commit(move("intend", number))) for number in range(3)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(commits.commit(move("start")), 60) is Outcome.MOVED
    assert not any(task.done() for task in intents)
    store.refuse.clear()
    assert await asyncio.wait_for(asyncio.gather(*intents), 60) == [Outcome.MOVED] * 3


async def test_a_defect_reaches_whoever_waits_and_stops_nobody_else() -> None:
    store = Scripted()
    store.refuse["poll"] = ZeroDivisionError("oops")
    commits = Commits(store)
    with pytest.raises(ZeroDivisionError):
        await commits.commit(move("poll"))
    assert await asyncio.wait_for(commits.commit(move("start")), 60) is Outcome.MOVED


async def test_only_what_a_paid_call_is_built_on_waits_for_the_disk() -> None:
    store = Scripted()
    commits = Commits(store)
    await asyncio.gather(*(commits.commit(move(name)) for name in MOVES))
    assert store.on_disk == {"intend"}


async def test_intents_do_not_wait_for_those_before_them_to_be_on_disk() -> None:
    first_written, disk = threading.Event(), threading.Event()

    class Slow(Scripted):
        def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
            found = super().commit(moves, on_disk=on_disk)
            first_written.set()
            assert disk.wait(60)
            return found

    store = Slow()
    commits = Commits(store)
    first = asyncio.create_task(commits.commit(move("intend", 1)))
    assert await asyncio.to_thread(first_written.wait, 60)
    second = asyncio.create_task(commits.commit(move("intend", 2)))
    assert await asyncio.to_thread(store.asked_twice.wait, 60)
    assert not first.done()
    assert not second.done()
    disk.set()
    assert await asyncio.wait_for(asyncio.gather(first, second), 60) == [Outcome.MOVED] * 2
    commits.close()


async def test_a_call_that_leaves_holds_up_no_id_of_a_run_either() -> None:
    store = Scripted()
    store.refuse["send"] = StoreError("Redis refused: OOM")
    commits = Commits(store)
    sending = asyncio.create_task(commits.commit(move("send")))
    assert await asyncio.to_thread(store.asked_twice.wait, 60)
    assert await asyncio.wait_for(commits.commit(move("start", 1)), 60) is Outcome.MOVED
    assert not sending.done()
    store.refuse.clear()
    assert await asyncio.wait_for(sending, 60) is Outcome.MOVED
