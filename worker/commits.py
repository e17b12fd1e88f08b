"""Commits in batches: moves of many jobs go to the store together, and are kept until they got there.

An id of a paid run that is lost between the reply and the store is a run paid for twice. So a batch that fails is
repeated until it succeeds; repeating is safe, because a move made before answers "already".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from askq.errors import StoreError
from askq.jobs.model import MOVES, Move, Outcome
from askq.jobs.store import Store

log = logging.getLogger(__name__)

_LARGEST = 500
_GATHER_S = 0.005
"""How long the first move of a batch waits for company: far below a network round trip to the service."""


class Commits:
    """Belongs to one event loop; `commit` may be awaited by any number of tasks.

    Two lines: a full Redis refuses intents and takes everything else, an intent waits until it is on disk, and one
    that has to wait must not hold up the id of a run that is paid for.
    """

    def __init__(self, store: Store) -> None:
        self._intents = _Line(store, on_disk=True)
        self._others = _Line(store, on_disk=False)

    async def commit(self, move: Move) -> Outcome:
        """Make one transition; returns when the store has answered, however long that takes."""
        return await (self._intents if MOVES[move.name].keeps_claim else self._others).commit(move)


class _Line:
    """Moves that wait for each other."""

    def __init__(self, store: Store, *, on_disk: bool) -> None:
        self._store = store
        self._on_disk = on_disk
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
            await asyncio.sleep(_GATHER_S)
            batch, self._waiting = self._waiting[:_LARGEST], self._waiting[_LARGEST:]
            try:
                outcomes = await self._until_stored([move for move, _ in batch])
            except Exception as error:  # a defect: whoever waits must hear of it, and the next batch must go on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    async def _until_stored(self, moves: Sequence[Move]) -> list[Outcome]:
        wait = 0.1
        while True:
            try:
                return await asyncio.to_thread(self._store.commit, moves, on_disk=self._on_disk)
            except StoreError as error:
                log.warning("%d transitions wait for the store: %s", len(moves), error.message)
                await asyncio.sleep(wait)
                wait = min(2 * wait, 2.0)
