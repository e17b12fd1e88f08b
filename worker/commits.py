"""Commits in batches: moves of many jobs go to the store together, and are kept until they got there.

An id of a paid run that is lost between the reply and the store is a run paid for twice. So a batch that fails is
repeated until it succeeds; repeating is safe, because a move made before answers "already".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from askq.errors import StoreError
from askq.jobs.model import MOVES, Move, Outcome
from askq.jobs.store import Store

log = logging.getLogger(__name__)

_LARGEST = 500
_GATHER_S = 0.015
"""How long the first move of a batch waits for company: below a network round trip to the service."""
_GATHER_BEFORE_CALLS_S = 0.005
"""The same where a paid call waits for it."""
_GATHER_FOR_DISK_S = 0.1
"""The same while others wait for the disk: it is written once a second, as a rule."""
_MOST_FOR_DISK = 12
"""Batches that wait for the disk at once, each with a thread and a connection."""


class Commits:
    """Belongs to one event loop; `commit` may be awaited by any number of tasks.

    Three lines: a full Redis refuses what goes on to a paid call and takes everything else, an intent waits until it is
    on disk, and one that has to wait must not hold up the id of a run that is paid for.
    """

    def __init__(self, store: Store) -> None:
        self._intents = _DiskLine(store)
        self._sends = _Line(store, gather_s=_GATHER_BEFORE_CALLS_S)
        self._others = _Line(store, gather_s=_GATHER_S)

    async def commit(self, move: Move) -> Outcome:
        """Make one transition; returns when the store has answered, however long that takes."""
        if not MOVES[move.name].keeps_claim:
            return await self._others.commit(move)
        return await (self._intents if move.name == "intend" else self._sends).commit(move)

    def close(self) -> None:
        """Let threads that wait for nothing end."""
        self._intents.close()


class _Line:
    """Moves that wait for each other."""

    def __init__(self, store: Store, *, gather_s: float) -> None:
        self._store = store
        self._gather_s = gather_s
        self._waiting: list[tuple[Move, asyncio.Future[Outcome]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def commit(self, move: Move) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((move, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._gather_s)
            await self._settle(self._next())

    def _next(self) -> list[tuple[Move, asyncio.Future[Outcome]]]:
        batch, self._waiting = self._waiting[:_LARGEST], self._waiting[_LARGEST:]
        return batch

    async def _settle(self, batch: Sequence[tuple[Move, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._until_stored([move for move, _ in batch])
        except Exception as error:  # a defect: whoever waits must hear of it, and the next batch must go on
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _until_stored(self, moves: Sequence[Move]) -> list[Outcome]:
        wait = 0.1
        while True:
            try:
                return await self._store_them(moves)
            except StoreError as error:
                log.warning("%d transitions wait for the store: %s", len(moves), error.message)
                await asyncio.sleep(wait)
                wait = min(2 * wait, 2.0)

    async def _store_them(self, moves: Sequence[Move]) -> list[Outcome]:
        return await asyncio.to_thread(self._store.commit, moves)


class _DiskLine(_Line):
    """The same for moves that have to be on disk. A batch does not wait for the one before it: the disk is written once
    a second, and what is written to the store just before is on it as soon as what came a second earlier."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, gather_s=_GATHER_BEFORE_CALLS_S)
        self._under_way: set[asyncio.Task[None]] = set()
        # Threads of their own: those of the loop are few, and everything else would wait for the disk with them.
        self._threads = ThreadPoolExecutor(_MOST_FOR_DISK, thread_name_prefix="askq-disk")

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_FOR_DISK_S if self._under_way else self._gather_s)
            if len(self._under_way) >= _MOST_FOR_DISK:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._settle(self._next()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _store_them(self, moves: Sequence[Move]) -> list[Outcome]:
        work = partial(self._store.commit, moves, on_disk=True)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
