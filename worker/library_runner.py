"""The library in the background: every process that runs a chain works on the items that are due, beside its jobs.

It takes a few at a time, each under a lease: an upload of minutes holds up no poll, and when its process dies, another
begins it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from askq.errors import StoreError
from askq.jobs.library import Change, Item, ItemState
from askq.jobs.model import Outcome
from askq.jobs.store import Store
from worker.library_making import Making
from worker.library_steps import Next, after_error, thing
from worker.protocols.base import CallError, Gone, Refused

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Items one process works on at a time."""
_NAP_S = 0.25
_PATIENCE_S = 5.0
"""How long the background goes on looking when nothing is due."""


class Runner:
    """Belongs to one event loop."""

    def __init__(self, store: Store, account: str, making: Making, *, lease_s: float) -> None:
        self._store = store
        self._account = account
        self._making = making
        self._lease_s = lease_s
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._held = 0

    def kick(self) -> None:
        """See to it that this process works on what is due."""
        self._bell.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Begin nothing meanwhile: a job that may kill this process is in hand, and neither may be taken for the
        other. What is under way gets a moment to end."""
        self._held += 1
        try:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=_PATIENCE_S)
            yield
        finally:
            self._held -= 1

    def stop(self) -> set[asyncio.Task[None]]:
        """Begin nothing more; what is under way."""
        if self._task is not None:
            self._task.cancel()
        return set(self._tasks)

    async def _run(self) -> None:
        idle_since = time.monotonic()
        while self._tasks or time.monotonic() - idle_since < _PATIENCE_S:
            try:
                room = 0 if self._held else _AT_ONCE - len(self._tasks)
                items = await asyncio.to_thread(
                    self._store.claim_items, self._account, limit=room, lease_s=self._lease_s
                )
            except StoreError as error:
                log.warning("the library waits for the store: %s", error.message)
                await asyncio.sleep(2.0)
                continue
            for item in items:
                task = asyncio.create_task(self._work(item))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if items or self._tasks:
                idle_since = time.monotonic()
            nap_s = 0.02 if items else _NAP_S if self._tasks else 2 * _NAP_S
            self._bell.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), nap_s)

    async def _work(self, item: Item) -> None:
        renewer = asyncio.create_task(self._renew(item, asyncio.current_task()))
        try:
            try:
                following = await self._making.step(item)
            except CallError as error:
                following = after_error(item, error)
                if isinstance(error, (Refused, Gone)) and await self._making.lost_a_file(item, error.message):
                    following = Next({"tries": item.tries + 1}, due_s=1.0)
            except OSError as error:
                following = Next.failed(f"it cannot be read in the folder of files: {error.strerror or error}")
            if following is not None:
                await self._commit(item, following)
        except StoreError as error:
            log.warning("%s: left until its lease ends: %s", item.title, error.message)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s: a defect", item.title)
            with contextlib.suppress(StoreError):
                await self._commit(item, Next.failed(f"a defect in askq: {type(error).__name__}: {error}"))
        finally:
            renewer.cancel()

    async def _renew(self, item: Item, worker: asyncio.Task[Any] | None) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            try:
                outcome = await self._moved(item, {}, due_s=self._lease_s)
            except StoreError:
                continue
            if outcome is not Outcome.MOVED and worker is not None:
                worker.cancel()
                return

    async def _moved(self, item: Item, change: Change, *, due_s: float | None) -> Outcome:
        return await asyncio.to_thread(self._store.move_item, self._account, item, change, due_s=due_s)

    async def _commit(self, item: Item, following: Next) -> None:
        if following.drop:
            await asyncio.to_thread(self._store.drop_item, self._account, item)
            await self._bury_strays(item)
            return
        change = following.change
        if change.get("state") == ItemState.FAILED:
            change = {**change, "data": {**item.data, "failed_at": round(item.now, 3)}}
            log.warning("%s: %s", item.title, change["error"])
        if await self._moved(item, change, due_s=following.due_s) is not Outcome.MOVED:
            await self._bury_strays(item)

    async def _bury_strays(self, item: Item) -> None:
        """Have what was made for an item deleted that nobody knows any more: its maker was not done when it left."""
        known = await asyncio.to_thread(self._store.items, self._account, [item.name])
        mine = thing(self._account, item)
        if not known and not await asyncio.to_thread(self._store.users, mine):
            await asyncio.to_thread(self._store.bury, mine)
