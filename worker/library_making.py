"""Making what is in the library: files are uploaded, stores are made and filled, and what leaves it is deleted.

Whoever worked on an item before may have died anywhere: each step first looks for what it has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from askq.errors import StoreError
from askq.files.folder import Folder
from askq.jobs.library import FILE, STORE, Change, Item, ItemState
from askq.jobs.model import Outcome
from askq.jobs.objects import RemoteObject
from askq.jobs.store import Store
from worker.library_steps import MOST_TRIES, Next, Sees, file_wishes, made_of, thing
from worker.protocols.base import Gone
from worker.protocols.filing import MOST_PER_BATCH, Filing

log = logging.getLogger(__name__)


class Making:
    """The steps of one account's items, each under this process's lease."""

    def __init__(
        self, store: Store, account: str, folder: Folder, filing: Callable[[], Filing], *, lease_s: float
    ) -> None:
        self._store = store
        self._account = account
        self._folder = folder
        self._filing = filing
        self._lease_s = lease_s

    async def step(self, item: Item) -> Next | None:
        """What becomes of an item; None when it is another's by now. Raises CallError, OSError and StoreError."""
        if item.state is ItemState.LEAVING:
            return await self._leave(item)
        if item.tries > MOST_TRIES:
            # Each was a failed call, or a process that died on it.
            return Next.failed(f"{item.tries} attempts came to nothing")
        return await (self._file(item) if item.kind == FILE else self._store_step(item))

    # -- files -----------------------------------------------------------------------------------------

    async def _file(self, item: Item) -> Next | None:
        filing = self._filing()
        if item.state is ItemState.READY:
            return Next.ready(item) if await filing.has_file(item.remote or "") else Next.anew()
        for known in await self._on_record(item):
            # Somebody uploaded it, put it on record and died.
            if await filing.has_file(known.id):
                return Next.ready(item, remote=known.id)
            await self._gone(item, known)
        ref = item.file
        if not self._folder.has(ref.sha256):
            return Next.not_here(item, self._folder.root)
        if not await self._begun(item):
            return None
        self._folder.used(ref.sha256)
        made = await filing.upload(self._folder.path(ref.sha256), name=ref.name, size=ref.size, purpose=item.purpose)
        await self._remember(item, made.id)
        expiry = {} if made.expires_at is None else {"expires_at": made.expires_at}
        return Next.ready(item, remote=made.id, data=expiry)

    # -- stores ----------------------------------------------------------------------------------------

    async def _store_step(self, item: Item) -> Next | None:
        match item.state:
            case ItemState.WANTED | ItemState.MAKING:
                return await self._make_store(item)
            case ItemState.FILLING:
                return await self._fill(item)
        try:
            seen = await self._filing().look(item.remote or "")
        except Gone:
            seen = None
        if seen is None or seen.status == "expired":
            if item.remote is not None:
                await self._gone(item, made_of(self._account, item, item.remote))
            return Next.anew()
        if item.state is ItemState.READY:
            return Next.ready(item)
        if seen.waiting or seen.done + seen.failed < len(item.files):
            return Next.indexing(item, seen)
        failures = await self._failures(item) if seen.failed else []
        return Next.ready(item, data={"done": seen.done, "total": len(item.files), "failures": failures})

    async def _failures(self, item: Item) -> list[tuple[str, str]]:
        names = {file.remote: file.title for file in await self._files(item)}
        files = await self._filing().files_of(item.remote or "")
        return [
            (names.get(id_, id_), reason)
            for id_, (status, reason) in files.items()
            if status in ("failed", "cancelled")
        ]

    async def _file_ids(self, item: Item) -> dict[str, str] | Next:
        """The ids of a store's files, by item; or what to do while they are not all uploaded."""
        wishes = file_wishes(item)
        ids: dict[str, str] = {}
        for start in range(0, len(wishes), MOST_PER_BATCH):
            page = wishes[start : start + MOST_PER_BATCH]
            for found in await asyncio.to_thread(self._store.want, self._account, page):
                if found is None:
                    continue
                if found.state is ItemState.FAILED:
                    return Next.failed(f"{found.title} cannot be uploaded: {found.error}")
                if found.state is ItemState.READY and found.remote is not None:
                    ids[found.name] = found.remote
        if len(ids) < len(wishes):
            data = {**item.data, "uploaded": len(ids), "total": len(wishes)}
            return Next({"data": data}, due_s=0.1 + len(wishes) / 1000)
        return ids

    async def _make_store(self, item: Item) -> Next | None:
        ids = await self._file_ids(item)
        if isinstance(ids, Next):
            return ids
        filing = self._filing()
        for known in await self._on_record(item):
            with contextlib.suppress(Gone):
                if (await filing.look(known.id)).status != "expired":
                    return Next.filling(item, known.id)
            await self._gone(item, known)
        # A call may have been sent whose reply nobody has seen.
        if item.state is ItemState.MAKING and (found := await filing.find_stores(thing(self._account, item))):
            await self._remember(item, found[0])
            return Next.filling(item, found[0])
        if not await self._begun(item):
            return None
        made = await filing.create_store(name=item.title, item=thing(self._account, item))
        await self._remember(item, made)
        return Next.filling(item, made)

    async def _fill(self, item: Item) -> Next | None:
        ids = await self._file_ids(item)
        if isinstance(ids, Next):
            return ids
        filing, store_id = self._filing(), item.remote or ""
        try:
            present = await filing.files_of(store_id)
        except Gone:
            return Next.anew()
        missing = {name: id_ for name, id_ in ids.items() if id_ not in present}
        if missing:
            some = dict(list(missing.items())[:MOST_PER_BATCH])

            def note() -> None:
                # The store uses them: they stay as long as it does.
                for name in some:
                    self._store.share(f"{self._account}/{name}", thing(self._account, item))

            await asyncio.to_thread(note)
            if not await self._is_mine(item):
                # As with jobs: either whoever lets the store go finds this use, or it is ended here.
                known = await asyncio.to_thread(self._store.items, self._account, [item.name])
                if not known or known[0].state is ItemState.LEAVING:
                    for name in some:
                        await let_go(self._store, self._account, name, thing(self._account, item))
                return None
            await filing.fill_store(store_id, list(some.values()))
            return Next.filling(item, store_id, due_s=0.1)
        return Next.indexing(item, Sees(waiting=len(ids), done=0, failed=0))

    async def lost_a_file(self, item: Item, message: str) -> bool:
        """Whether a store could not be filled because a file is gone from the service: it is uploaded anew then."""
        if item.kind != STORE:
            return False
        lost = False
        for file in await self._files(item):
            if file.remote and file.remote in message and not await self._filing().has_file(file.remote):
                await make_anew(self._store, self._account, file)
                lost = True
        return lost

    # -- the end ---------------------------------------------------------------------------------------

    async def _leave(self, item: Item) -> Next:
        """Delete what the service has of an item, and with a store the files that nothing else uses."""
        filing, mine = self._filing(), thing(self._account, item)
        entries = await asyncio.to_thread(self._store.objects, mine)
        ids = {entry.object.id for entry in entries} | ({item.remote} if item.remote else set())
        for id_ in ids:
            gone = await (filing.delete_file(id_) if item.kind == FILE else filing.delete_store(id_))
            await self._gone(item, made_of(self._account, item, id_), deleted=gone)
        for used in await asyncio.to_thread(self._store.uses, mine):
            await let_go(self._store, self._account, used.partition("/")[2], mine)
        return Next.gone()

    # -- in the store ----------------------------------------------------------------------------------

    async def _is_mine(self, item: Item) -> bool:
        """Whether this process holds the item still; its lease begins anew then."""
        outcome = await asyncio.to_thread(self._store.move_item, self._account, item, {}, due_s=self._lease_s)
        return outcome is Outcome.MOVED

    async def _begun(self, item: Item) -> bool:
        """Put down that something will be made now; False where the item is another's."""
        change: Change = {"state": ItemState.MAKING, "tries": item.tries + 1}
        outcome = await asyncio.to_thread(self._store.move_item, self._account, item, change, due_s=self._lease_s)
        return outcome is Outcome.MOVED

    async def _on_record(self, item: Item) -> list[RemoteObject]:
        entries = await asyncio.to_thread(self._store.objects, thing(self._account, item))
        return [entry.object for entry in entries if entry.due is None]

    async def _gone(self, item: Item, made: RemoteObject, *, deleted: bool = True) -> None:
        await asyncio.to_thread(self._store.gone, thing(self._account, item), [made], deleted=deleted)

    async def _remember(self, item: Item, remote: str) -> None:
        made = made_of(self._account, item, remote)
        # The reply must not be lost for a store that is away for a moment: nobody else knows this id.
        while True:
            try:
                await asyncio.to_thread(self._store.remember, thing(self._account, item), [made])
                return
            except StoreError as error:
                log.warning("the id of %s waits for the store: %s", item.title, error.message)
                await asyncio.sleep(1.0)

    async def _files(self, item: Item) -> list[Item]:
        return await asyncio.to_thread(self._store.items, self._account, [wish.name for wish in file_wishes(item)])


async def let_go(store: Store, account: str, name: str, user: str) -> None:
    """End the use of an item, and have it deleted if nothing else uses it. Raises StoreError."""
    used = f"{account}/{name}"
    if await asyncio.to_thread(store.users, used) == [user]:
        # Before it is let go of: whoever goes on with this would not find it any more.
        for item in await asyncio.to_thread(store.items, account, [name]):
            change: Change = {"state": ItemState.LEAVING}
            await asyncio.to_thread(store.move_item, account, item, change, due_s=0.0, take_over=True)
    await asyncio.to_thread(store.unshare, used, user)


async def make_anew(store: Store, account: str, item: Item) -> None:
    """Have an item made anew, whoever works on it: what it was made into is gone. Raises StoreError."""
    following = Next.anew()
    outcome = await asyncio.to_thread(
        store.move_item, account, item, following.change, due_s=following.due_s, take_over=True
    )
    if outcome is Outcome.MOVED and item.remote is not None:
        await asyncio.to_thread(store.gone, thing(account, item), [made_of(account, item, item.remote)])
