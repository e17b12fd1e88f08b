"""The library at work: uploads files, makes stores and waits for their index, beside the jobs that need them.

A job never waits in a worker for a file: it asks whether what it needs is ready, and is put off with a note. What it
needs is put down in the store, where items are due like jobs. Every process that runs a chain works on them in the
background, a few at a time, each under a lease: an upload of minutes holds up no poll, and when its process dies,
another begins it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from askq.errors import StoreError
from askq.files.folder import Folder
from askq.jobs.library import FILE, STORE, Change, Item, ItemState, Wish, file_item
from askq.jobs.model import Outcome
from askq.jobs.objects import Kind, RemoteObject
from askq.jobs.store import Store
from worker.library_steps import (
    MOST_TRIES,
    Next,
    Sees,
    after_error,
    checked_late,
    expires_soon,
    failed_long_ago,
    thing,
)
from worker.needs import Needs
from worker.protocols.base import CallError, Given, Gone, Refused
from worker.protocols.filing import MOST_PER_BATCH, Filing

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Items one process works on at a time."""
_NAP_S = 0.25
_PATIENCE_S = 5.0
"""How long the background goes on looking when nothing is due."""
_TRUSTED_S = 60.0
"""How long this process takes an item for ready without asking the store."""
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReady:
    """Something is still to be uploaded, or to be read by the service."""

    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Something cannot be made ready: the job ends."""

    code: str
    """A key of `askq.ends.ENDS`."""
    message: str


@dataclass(frozen=True, slots=True)
class _Ready:
    remote: str
    until: float
    failures: tuple[tuple[str, str], ...]
    files: tuple[Wish, ...] = ()


class Library:
    """The items of one account, as one process uses and makes them. Belongs to one event loop."""

    def __init__(
        self, store: Store, account: str, folder: Folder, filing: Callable[[], Filing], *, lease_s: float = 5.0
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        self._account = account
        self._folder = folder
        self._filing = filing
        self._ready: dict[tuple[str, str], _Ready] = {}
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._held = 0

    # -- for jobs --------------------------------------------------------------------------------------

    async def give(self, needs: Needs, *, user: str, go_on: bool) -> Given | NotReady | Unavailable:
        """The ids of what a job needs, if all of it is ready. `user` is the job's batch: what it uses is noted.
        `go_on`: files that could not be indexed are done without. Raises StoreError."""
        wishes = needs.wishes()
        if needs.own_store and needs.thread_store is not None:
            # The thread's own store is made of the same files; the shared one only says which.
            wishes = [wish for wish in wishes if wish.name != needs.thread_store.name]
            files = await self._files_of(needs.thread_store, user)
            if not isinstance(files, tuple):
                return files
            wishes += files
        else:
            files = ()
        missing = [wish for wish in wishes if not self._knows(wish.name, user)]
        if missing and (found := await self._ask(missing, user)) is not None:
            return found
        ready = {wish.name: self._ready[wish.name, user] for wish in wishes}
        if not go_on:
            for wish in wishes:
                if failures := ready[wish.name].failures:
                    return Unavailable(code="index_failed", message=_failed_files(wish.title, failures))
        ids = {name: one.remote for name, one in ready.items()}
        return needs.given(ids, tuple(ids[wish.name] for wish in files))

    async def _files_of(self, wish: Wish, user: str) -> tuple[Wish, ...] | NotReady | Unavailable:
        """The files of which a thread gets a store of its own."""
        if "files" in wish.about:
            return tuple(file_item(ref, "assistants") for ref in wish.files)
        if not self._knows(wish.name, user) and (found := await self._ask([wish], user)) is not None:
            return found
        return self._ready[wish.name, user].files

    def _knows(self, name: str, user: str) -> bool:
        known = self._ready.get((name, user))
        return known is not None and time.monotonic() < known.until

    async def _ask(self, wishes: Sequence[Wish], user: str) -> NotReady | Unavailable | None:
        """Read how far items are, and put down those that nobody wanted before; None when all are ready."""
        named = [wish for wish in wishes if wish.kind == STORE and "files" not in wish.about]
        rest = [wish for wish in wishes if wish not in named]
        found: list[tuple[Wish, Item | None]] = []
        for some, known in ((rest, False), (named, True)):
            if some:
                items = await asyncio.to_thread(self._store.want, self._account, some, only_known=known)
                found += zip(some, items, strict=True)
        waiting: list[Item] = []
        for wish, item in found:
            if item is None or (item.state is ItemState.LEAVING and wish in named):
                return Unavailable(
                    code="store_missing", message=f"there is no store {wish.title}: `askq stores create` makes one"
                )
            usable = await asyncio.to_thread(self._store.share, thing(self._account, item), user)
            if item.state is ItemState.FAILED and failed_long_ago(item):
                # Somebody asks again, and what was wrong may be mended.
                await asyncio.to_thread(self._store.want, self._account, [wish], again=True)
                waiting.append(item)
                continue
            if item.state is ItemState.FAILED:
                return Unavailable(code="file_unavailable", message=f"{item.title}: {item.error or 'it failed'}")
            if item.state is not ItemState.READY or await self._is_stale(item, usable):
                waiting.append(item)
            else:
                self._note(item, user)
        if not waiting:
            return None
        self.kick()
        first = waiting[0]
        what = f"waits for the index of {first.title}" if first.kind == STORE else f"waits for the file {first.title}"
        more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
        return NotReady(note=f"{what}: {first.progress()}{more}")

    async def _is_stale(self, item: Item, usable: Sequence[RemoteObject]) -> bool:
        """Whether an item that was ready must be looked after: then it is due."""
        if item.remote not in {made.id for made in usable} or expires_soon(item):
            # It was deleted meanwhile, or is about to go.
            await self._again(item)
            return True
        if checked_late(item):
            await asyncio.to_thread(self._store.move_item, self._account, item, {}, due_s=0.0)
            return True
        return False

    def _note(self, item: Item, user: str) -> None:
        while len(self._ready) >= _REMEMBERED:
            del self._ready[next(iter(self._ready))]
        until = time.monotonic() + _TRUSTED_S
        files = tuple(file_item(ref, "assistants") for ref in item.files)
        self._ready[item.name, user] = _Ready(item.remote or "", until, tuple(item.failures), files)

    async def missing(self, ids: Sequence[str]) -> bool:
        """Whether the service knows any of these no more (it named them in a refusal): those are made anew."""
        gone = False
        filing = self._filing()
        for id_ in ids:
            try:
                if id_.startswith("vs_"):
                    there = (await filing.look(id_)).status != "expired"
                else:
                    there = await filing.has_file(id_)
            except Gone:
                there = False
            if there:
                continue
            gone = True
            for key in [key for key, one in self._ready.items() if one.remote == id_]:
                del self._ready[key]
                for item in await asyncio.to_thread(self._store.items, self._account, [key[0]]):
                    if item.remote == id_:
                        await self._again(item)
        return gone

    async def _again(self, item: Item) -> None:
        """An item has to be made anew."""
        gone = RemoteObject(kind=_KINDS[item.kind], id=item.remote or "", account=self._account)
        change: Change = {"state": ItemState.WANTED, "remote": None, "data": None, "tries": None}
        outcome = await asyncio.to_thread(self._store.move_item, self._account, item, change, due_s=0.0, take_over=True)
        if outcome is Outcome.MOVED and item.remote is not None:
            await asyncio.to_thread(self._store.gone, thing(self._account, item), [gone])

    # -- in the background -----------------------------------------------------------------------------

    def kick(self) -> None:
        """See to it that this process works on what is due."""
        self._bell.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())

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
        if self._runner is not None:
            self._runner.cancel()
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
                following = await self._step(item)
            except CallError as error:
                following = after_error(item, error)
                if isinstance(error, (Refused, Gone)) and await self._lost_a_file(item, error.message):
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

    async def _lost_a_file(self, item: Item, message: str) -> bool:
        """Whether a store could not be filled because a file is gone from the service: it is uploaded anew then."""
        if item.kind != STORE:
            return False
        wishes = [file_item(ref, "assistants") for ref in item.files]
        items = await asyncio.to_thread(self._store.items, self._account, [wish.name for wish in wishes])
        lost = False
        for file in items:
            if file.remote and file.remote in message and not await self._filing().has_file(file.remote):
                await self._again(file)
                lost = True
        return lost

    async def _step(self, item: Item) -> Next | None:
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
            await asyncio.to_thread(self._store.gone, thing(self._account, item), [known])
        ref = item.file
        if not self._folder.has(ref.sha256):
            return Next.not_here(item, self._folder.root)
        if await self._moved(item, {"state": ItemState.MAKING, "tries": item.tries + 1}, due_s=self._lease_s) is not (
            Outcome.MOVED
        ):
            return None
        self._folder.used(ref.sha256)
        made = await filing.upload(self._folder.path(ref.sha256), name=ref.name, size=ref.size, purpose=item.purpose)
        await self._remember(item, made.id)
        expiry = {} if made.expires_at is None else {"expires_at": made.expires_at}
        return Next.ready(item, remote=made.id, data=expiry)

    async def _on_record(self, item: Item) -> list[RemoteObject]:
        entries = await asyncio.to_thread(self._store.objects, thing(self._account, item))
        return [entry.object for entry in entries if entry.due is None]

    async def _remember(self, item: Item, remote: str) -> None:
        made = RemoteObject(kind=_KINDS[item.kind], id=remote, account=self._account)
        # The reply must not be lost for a store that is away for a moment: nobody else knows this id.
        while True:
            try:
                await asyncio.to_thread(self._store.remember, thing(self._account, item), [made])
                return
            except StoreError as error:
                log.warning("the id of %s waits for the store: %s", item.title, error.message)
                await asyncio.sleep(1.0)

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
                gone = RemoteObject(kind=Kind.VECTOR_STORE, id=item.remote, account=self._account)
                await asyncio.to_thread(self._store.gone, thing(self._account, item), [gone])
            return Next.anew()
        if item.state is ItemState.READY:
            return Next.ready(item)
        if seen.waiting or seen.done + seen.failed < len(item.files):
            return Next.indexing(item, seen)
        failures = await self._failures(item) if seen.failed else []
        return Next.ready(item, data={"done": seen.done, "total": len(item.files), "failures": failures})

    async def _failures(self, item: Item) -> list[tuple[str, str]]:
        wishes = [file_item(ref, "assistants") for ref in item.files]
        items = await asyncio.to_thread(self._store.items, self._account, [wish.name for wish in wishes])
        names = {file.remote: file.title for file in items}
        files = await self._filing().files_of(item.remote or "")
        return [
            (names.get(id_, id_), reason)
            for id_, (status, reason) in files.items()
            if status in ("failed", "cancelled")
        ]

    async def _file_ids(self, item: Item) -> dict[str, str] | Next:
        """The ids of a store's files, by item; or what to do while they are not all uploaded."""
        wishes = [file_item(ref, "assistants") for ref in item.files]
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
            await asyncio.to_thread(self._store.gone, thing(self._account, item), [known])
        # A call may have been sent whose reply nobody has seen.
        if item.state is ItemState.MAKING and (found := await filing.find_stores(thing(self._account, item))):
            await self._remember(item, found[0])
            return Next.filling(item, found[0])
        if await self._moved(item, {"state": ItemState.MAKING, "tries": item.tries + 1}, due_s=self._lease_s) is not (
            Outcome.MOVED
        ):
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
            await filing.fill_store(store_id, list(some.values()))
            return Next.filling(item, store_id, due_s=0.1)
        return Next.indexing(item, Sees(waiting=len(ids), done=0, failed=0))

    # -- the end ---------------------------------------------------------------------------------------

    async def _leave(self, item: Item) -> Next:
        """Delete what the service has of an item, and with a store the files that nothing else uses."""
        filing, mine = self._filing(), thing(self._account, item)
        entries = await asyncio.to_thread(self._store.objects, mine)
        ids = {entry.object.id for entry in entries} | ({item.remote} if item.remote else set())
        for id_ in ids:
            gone = await (filing.delete_file(id_) if item.kind == FILE else filing.delete_store(id_))
            made = RemoteObject(kind=_KINDS[item.kind], id=id_, account=self._account)
            await asyncio.to_thread(self._store.gone, mine, [made], deleted=gone)
        for used in await asyncio.to_thread(self._store.uses, mine):
            if await asyncio.to_thread(self._store.users, used) == [mine]:
                # Before it is let go of: whoever goes on with this would not find it any more.
                await self._leave_too(used)
            await asyncio.to_thread(self._store.unshare, used, mine)
        return Next.gone()

    async def _leave_too(self, used: str) -> None:
        """A file that only a deleted store has used."""
        name = used.partition("/")[2]
        for file in await asyncio.to_thread(self._store.items, self._account, [name]):
            change: Change = {"state": ItemState.LEAVING}
            await asyncio.to_thread(self._store.move_item, self._account, file, change, due_s=0.0, take_over=True)


_KINDS: Mapping[str, Kind] = {FILE: Kind.FILE, STORE: Kind.VECTOR_STORE}


def _failed_files(store: str, failures: Sequence[tuple[str, str]]) -> str:
    told = "; ".join(f"{file}: {reason}" for file, reason in failures[:5])
    more = f" (and {len(failures) - 5} more)" if len(failures) > 5 else ""
    return f"the service could not read {len(failures)} files of {store}: {told}{more}"
