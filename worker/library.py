"""The library as jobs see it: the files and stores they need, made once and shared.

A job never waits in a worker for a file: it asks whether what it needs is ready, and is put off with a note. What it
needs is put down in the store, where items are due like jobs; `worker.library_runner` works on them in the background.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from askq.files.folder import Folder
from askq.jobs.library import STORE, Item, ItemState, Wish, file_item
from askq.jobs.objects import RemoteObject
from askq.jobs.store import Store
from worker.library_making import Making, let_go, make_anew
from worker.library_runner import Runner
from worker.library_steps import checked_late, expires_soon, failed_long_ago, file_wishes, thing
from worker.needs import Needs
from worker.protocols.base import Given, Gone
from worker.protocols.filing import Filing

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


_FORGOTTEN = Unavailable(code="file_unavailable", message="the question has been forgotten")


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
        self._account = account
        self._filing = filing
        self._ready: dict[tuple[str, str], _Ready] = {}
        making = Making(store, account, folder, filing, lease_s=lease_s)
        self._runner = Runner(store, account, making, lease_s=lease_s)

    # -- for jobs --------------------------------------------------------------------------------------

    async def give(
        self, needs: Needs, *, user: str, go_on: bool, job: str | None = None
    ) -> Given | NotReady | Unavailable:
        """The ids of what a job needs, if all of it is ready. `user` is the job's batch: what it uses is noted.
        `go_on`: files that could not be indexed are done without. `job`: nothing is wanted or used for it once it has
        been forgotten. Raises StoreError."""
        wishes = needs.wishes()
        if needs.own_store and needs.thread_store is not None:
            # The thread's own store is made of the same files; the shared one only says which.
            wishes = [wish for wish in wishes if wish.name != needs.thread_store.name]
            files = await self._files_of(needs.thread_store, user, job)
            if not isinstance(files, tuple):
                return files
            wishes += files
        else:
            files = ()
        # Taken now: while others are asked for, what is known may be found gone, or make room.
        ready = {wish.name: one for wish in wishes if (one := self._known(wish.name, user)) is not None}
        if missing := [wish for wish in wishes if wish.name not in ready]:
            found = await self._ask(missing, user, job)
            if isinstance(found, (NotReady, Unavailable)):
                return found
            ready.update(found)
        if not go_on:
            for wish in wishes:
                if failures := ready[wish.name].failures:
                    return Unavailable(code="index_failed", message=_failed_files(wish.title, failures))
        ids = {name: one.remote for name, one in ready.items()}
        return needs.given(ids, tuple(ids[wish.name] for wish in files))

    async def _files_of(self, wish: Wish, user: str, job: str | None) -> tuple[Wish, ...] | NotReady | Unavailable:
        """The files of which a thread gets a store of its own."""
        if "files" in wish.about:
            return tuple(file_item(ref, "assistants") for ref in wish.files)
        if (known := self._known(wish.name, user)) is not None:
            return known.files
        found = await self._ask([wish], user, job)
        return found if isinstance(found, (NotReady, Unavailable)) else found[wish.name].files

    def _known(self, name: str, user: str) -> _Ready | None:
        known = self._ready.get((name, user))
        return None if known is None or time.monotonic() >= known.until else known

    async def _ask(
        self, wishes: Sequence[Wish], user: str, job: str | None
    ) -> dict[str, _Ready] | NotReady | Unavailable:
        """Read how far items are, and put down those that nobody wanted before; by name, when all are ready."""
        if await self._is_forgotten(job):
            return _FORGOTTEN
        try:
            return await self._wanted(wishes, user)
        finally:
            # Whoever forgets erases the jobs first and then ends what their batch uses: either this use is ended with
            # all others, or its job is gone by now.
            if await self._is_forgotten(job):
                await self._take_back([wish.name for wish in wishes], user)

    async def _is_forgotten(self, job: str | None) -> bool:
        """Whether a job's record is gone: this process was stopped for long, and nobody waits for the job any more."""
        return job is not None and await asyncio.to_thread(self._store.job, job) is None

    async def _take_back(self, names: Sequence[str], user: str) -> None:
        """End the use of items by a batch that is gone, or about to be."""
        status = await asyncio.to_thread(self._store.batch, user)
        if status is not None and not status.forgetting:
            return  # a single question was forgotten: what its batch uses goes with the batch
        for name in names:
            await let_go(self._store, self._account, name, user)

    async def _wanted(self, wishes: Sequence[Wish], user: str) -> dict[str, _Ready] | NotReady | Unavailable:
        named = [wish for wish in wishes if wish.kind == STORE and "files" not in wish.about]
        rest = [wish for wish in wishes if wish not in named]
        found: list[tuple[Wish, Item | None]] = []
        for some, known in ((rest, False), (named, True)):
            if some:
                items = await asyncio.to_thread(self._store.want, self._account, some, only_known=known)
                found += zip(some, items, strict=True)
        ready: dict[str, _Ready] = {}
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
                ready[wish.name] = self._note(item, user)
        if not waiting:
            return ready
        self.kick()
        first = waiting[0]
        what = f"waits for the index of {first.title}" if first.kind == STORE else f"waits for the file {first.title}"
        more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
        return NotReady(note=f"{what}: {first.progress()}{more}")

    async def _is_stale(self, item: Item, usable: Sequence[RemoteObject]) -> bool:
        """Whether an item that was ready must be looked after: then it is due."""
        if item.remote not in {made.id for made in usable} or expires_soon(item):
            # It was deleted meanwhile, or is about to go.
            await make_anew(self._store, self._account, item)
            return True
        if checked_late(item):
            await asyncio.to_thread(self._store.move_item, self._account, item, {}, due_s=0.0)
            return True
        return False

    def _note(self, item: Item, user: str) -> _Ready:
        while len(self._ready) >= _REMEMBERED:
            del self._ready[next(iter(self._ready))]
        until = time.monotonic() + _TRUSTED_S
        known = _Ready(item.remote or "", until, tuple(item.failures), tuple(file_wishes(item)))
        self._ready[item.name, user] = known
        return known

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
                # Many are refused for the same file at once.
                self._ready.pop(key, None)
                for item in await asyncio.to_thread(self._store.items, self._account, [key[0]]):
                    if item.remote == id_:
                        await make_anew(self._store, self._account, item)
        return gone

    # -- in the background -----------------------------------------------------------------------------

    def kick(self) -> None:
        """See to it that this process works on what is due."""
        self._runner.kick()

    def held(self) -> AbstractAsyncContextManager[None]:
        """Begin nothing meanwhile (`Runner.held`)."""
        return self._runner.held()

    def stop(self) -> set[asyncio.Task[None]]:
        """Begin nothing more; what is under way."""
        return self._runner.stop()


def _failed_files(store: str, failures: Sequence[tuple[str, str]]) -> str:
    told = "; ".join(f"{file}: {reason}" for file, reason in failures[:5])
    more = f" (and {len(failures) - 5} more)" if len(failures) > 5 else ""
    count = "1 file" if len(failures) == 1 else f"{len(failures)} files"
    return f"the service could not read {count} of {store}: {told}{more}"
