"""Deleting at the service what is no longer kept there, beside the work that matters more.

Each object that is due stays on record until the service has said that it is gone. Two who delete the same object, or a
process that is killed between a deletion and its record, do no harm: the second is told 404.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence

from askq.errors import StoreError
from askq.ids import split_job_id
from askq.jobs.objects import LISTED, TALK, Kind, RemoteObject, Tombstone
from askq.jobs.store import Store
from worker.protocols.base import Blocked, CallError, Limited, Protocol

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_OWNERS = 32
"""Whose objects are taken at a time."""
_LEASE_S = 15.0
"""After so long somebody else tries: whoever has taken them may be gone, and if not, no harm is done."""
_AT_ONCE = 4
"""Deletions under way: they share the account's limits with what is paid for."""
_AGAIN_S = (2.0, 30.0, 300.0, 3600.0, 6 * 3600.0, 86_400.0)
"""How long after each failure a deletion is tried again; the last holds for all that follow. The first is short:
whoever waits for `askq forget` should not be told that something is left because a server stumbled once."""
_GIVE_UP_AFTER = len(_AGAIN_S) + 1
_ORDER = {kind: at for at, kind in enumerate((Kind.RESPONSE, Kind.CONVERSATION, Kind.THREAD, Kind.VECTOR_STORE))}
"""What is in use by another object of its owner goes after that."""


class Cleaner:
    """One per process. `protocol` gives one to delete with. Belongs to one event loop."""

    def __init__(self, store: Store, account: str, protocol: Callable[[], Protocol]) -> None:
        self._store = store
        self._account = account
        self._protocol = protocol
        self._next = 0.0
        self._hold_until = 0.0
        self._work: asyncio.Task[None] | None = None
        self._inventory: asyncio.Task[None] | None = None
        self._few = asyncio.Semaphore(_AT_ONCE)

    async def look(self) -> None:
        """See whether anything is due, once a second, and begin with it. Raises StoreError."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_EVERY_S
        token = await asyncio.to_thread(self._store.take_inventory)
        if token is not None:
            self._inventory = asyncio.create_task(self._take_inventory(token))
        if now < self._hold_until or (self._work is not None and not self._work.done()):
            return
        due = await asyncio.to_thread(self._store.next_tombstone)
        if due is not None and due <= 0:
            self._work = asyncio.create_task(self._clean())

    async def _clean(self) -> None:
        try:
            while stones := await asyncio.to_thread(self._store.tombstones, limit=_OWNERS, lease_s=_LEASE_S):
                owners: dict[str, list[Tombstone]] = {}
                for stone in stones:
                    owners.setdefault(stone.owner, []).append(stone)
                await asyncio.gather(*(self._of_one(owner, each) for owner, each in owners.items()))
                if time.monotonic() < self._hold_until:
                    # The service has asked to wait; what was taken comes back when its lease ends.
                    return
        except StoreError as error:
            log.warning("deleting waits for the store: %s", error.message)
        except Exception:  # the outermost frame of a background task: it must be heard of, and the next look goes on
            log.exception("a defect in deleting")

    async def _take_inventory(self, token: str) -> None:
        """Tell whoever asked what of askq's there is at the service, as far as that can be listed."""
        made: list[dict[str, object]] = []
        unlisted: dict[str, str] = {}
        for kind in LISTED:
            try:
                made += [dataclasses.asdict(each) for each in await self._protocol().listed(kind)]
            except CallError as error:
                unlisted[kind] = str(error)
        told = {"account": self._account, "made": made, "unlisted": unlisted}
        try:
            await asyncio.to_thread(self._store.give_inventory, token, json.dumps(told))
        except StoreError as error:
            log.warning("an inventory could not be given: %s", error.message)

    async def _of_one(self, owner: str, stones: Sequence[Tombstone]) -> None:
        gone: list[RemoteObject] = []
        for stone in sorted(stones, key=lambda stone: _ORDER.get(stone.object.kind, len(_ORDER))):
            async with self._few:
                if await self._is_gone(stone):
                    gone.append(stone.object)
        if gone:
            await asyncio.to_thread(self._store.gone, owner, gone)

    async def _is_gone(self, stone: Tombstone) -> bool:
        """Delete one object; whether the service says that it is not there any more."""
        made = stone.object
        if await asyncio.to_thread(self._goes_on, stone):
            await self._not_gone(stone, "its conversation goes on", None)
            return False
        if made.kind is Kind.ASSISTANT:
            # Nobody may begin to use it now; who does so all the same has it made anew.
            digest = stone.owner.partition(":")[2]
            await asyncio.to_thread(self._store.drop_remote_assistant, made.account or self._account, digest, made.id)
        try:
            deleted = await self._protocol().delete(made.kind, made.id)
        except CallError as error:
            return await self._refused(stone, error)
        if not deleted and made.account not in (None, self._account):
            # This account does not have it. That the one which had it has none any more nobody here can say.
            await self._not_gone(stone, f"it was made on another account ({made.account})", None)
            return False
        return True

    def _goes_on(self, stone: Tombstone) -> bool:
        """Whether others may still speak in the conversation that a job has ended in."""
        if stone.entry.receipt is not None or stone.object.kind not in TALK:
            return False
        job = self._store.job(stone.owner)
        if job is None or job.question.thread is None:
            return False
        status = self._store.batch(split_job_id(stone.owner)[0])
        return status is not None and not status.done

    async def _refused(self, stone: Tombstone, error: CallError) -> bool:
        if isinstance(error, Blocked) and error.code == "endpoint_gone" and stone.entry.tries >= _GIVE_UP_AFTER:
            # For days it has said that it cannot delete such things. They would pile up here for ever.
            log.warning("%s %s stays at the service, which cannot delete it", stone.object.kind, stone.object.id)
            await asyncio.to_thread(self._store.gone, stone.owner, [stone.object], deleted=False)
            return False
        await self._not_gone(stone, str(error), error)
        return False

    async def _not_gone(self, stone: Tombstone, why: str, error: CallError | None) -> None:
        again_s = _AGAIN_S[min(stone.entry.tries, len(_AGAIN_S) - 1)]
        if isinstance(error, Limited):
            again_s = max(1.0, error.retry_after or 0.0)
            self._hold_until = max(self._hold_until, time.monotonic() + again_s)
        elif isinstance(error, Blocked) and error.code != "endpoint_gone":
            # The account's fault, which a person will mend: then all of it should go on soon.
            again_s = 60.0
            self._hold_until = max(self._hold_until, time.monotonic() + 10.0)
        log.info("%s %s was not deleted: %s", stone.object.kind, stone.object.id, why)
        await asyncio.to_thread(self._store.not_gone, stone.owner, stone.object, why, again_s=again_s)
