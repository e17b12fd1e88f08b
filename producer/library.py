"""Files and stores that a person makes by command: put down in the store, made by a worker, followed until they are."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from askq.accounts import alias
from askq.assistants.local_files import expand
from askq.errors import InputError, NotFound, Problem, WaitTimeout
from askq.files import kinds
from askq.files.folder import Folder
from askq.files.kinds import CODE, SEARCH, Unfit
from askq.files.model import FileRef
from askq.jobs.library import AT_REST, BY_COMMAND, FILE, STORE, Change, Item, ItemState, Wish, file_item
from askq.jobs.model import Outcome
from askq.jobs.store import Store
from producer.api import Api

_LOOK_EVERY_S = 0.2
_TRIES = 20


class Shelves:
    """The library of one account, as commands use it."""

    def __init__(self, store: Store, api: Api, folder: Folder) -> None:
        self._store = store
        self._account = alias(api.base_url, api.api_key)
        self._folder = folder

    # -- files -----------------------------------------------------------------------------------------

    def add_files(self, paths: Sequence[Path], *, purpose: str | None = None) -> list[Item]:
        """Put files down to be uploaded; the items as they are now. Raises InputError with all that is wrong."""
        refs = self._kept(paths, tool=None)
        told = purpose or "assistants"
        return self._want([file_item(ref, told) for ref in refs])

    def _kept(self, paths: Sequence[Path], *, tool: str | None) -> list[FileRef]:
        """The files of paths, folders and patterns, copied into the folder."""
        found: list[Path] = []
        problems: list[Problem] = []
        for path in paths:
            try:
                one = expand(Path(), str(path), tool or CODE)
            except Unfit as unfit:
                problems.append(Problem(file=str(path), message=f"{unfit.message}. {unfit.remedy}"))
                continue
            found += one
            for file in one:
                # Of a folder the file is named that cannot be taken, and each of them.
                try:
                    _check(file, tool)
                except Unfit as unfit:
                    problems.append(Problem(file=str(file), message=f"{unfit.message}. {unfit.remedy}"))
                except OSError as error:
                    problems.append(Problem(file=str(file), message=f"it cannot be read: {error.strerror or error}"))
        if not problems:
            try:
                return list({ref.identity: ref for ref in map(self._folder.keep, found)}.values())
            except OSError as error:
                where = error.filename or self._folder.root
                problems.append(Problem(file=str(where), message=f"it cannot be copied: {error.strerror or error}"))
        raise InputError(problems, remedy="Nothing was uploaded.")

    def _want(self, wishes: Sequence[Wish]) -> list[Item]:
        items = self._store.want(self._account, wishes, again=True, kept=True)
        found = [item for item in items if item is not None]
        for item in found:
            self._store.share(self._thing(item), BY_COMMAND)
        return found

    def files(self) -> list[Item]:
        """Every file there is a record of."""
        return [item for item in self._store.items(self._account) if item.kind == FILE]

    def file(self, name: str) -> Item:
        """The file of this name or id. Raises NotFound."""
        found = [item for item in self.files() if name in (item.title, item.remote, item.about.get("sha256"))]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(item.remote or item.name for item in found)
            raise NotFound(f"{name} may be {ids}", remedy="Name it by its id.")
        raise _unknown("file", name, [item.title for item in self.files()])

    # -- stores ----------------------------------------------------------------------------------------

    def create_store(self, name: str, paths: Sequence[Path]) -> Item:
        """Put a store down to be made of files. Raises InputError; also when there is one with other files."""
        _check_name(name)
        refs = self._kept(paths, tool=SEARCH)
        wish = Wish(name=f"store:{name}", kind=STORE, title=name, about={"files": [ref.to_json() for ref in refs]})
        (item,) = self._want([wish])
        if {ref.identity for ref in item.files} != {ref.identity for ref in refs}:
            raise InputError(
                f"there is a store {name} already, with other files",
                remedy=f"`askq stores add {name} PATH…` adds to it; `askq stores delete {name}` deletes it.",
            )
        return item

    def add_to_store(self, name: str, paths: Sequence[Path]) -> Item:
        """Put more files down for a store. Raises NotFound."""
        refs = self._kept(paths, tool=SEARCH)
        for _ in range(_TRIES):
            item = self.store(name)
            files = {ref.identity: ref for ref in (*item.files, *refs)}
            if len(files) == len(item.files) and item.state is not ItemState.FAILED:
                return item
            change: Change = {
                "about": {"files": [ref.to_json() for ref in files.values()]},
                "state": ItemState.WANTED if item.remote is None else ItemState.FILLING,
                **dict.fromkeys(("data", "error", "tries")),
            }
            if self._store.move_item(self._account, item, change, due_s=0.0, take_over=True) is Outcome.MOVED:
                return self.store(name)
        raise InputError(f"the store {name} changes all the time", remedy="Try again.")

    def stores(self) -> list[Item]:
        """Every store there is a record of."""
        return [item for item in self._store.items(self._account) if item.kind == STORE]

    def store(self, name: str) -> Item:
        """The store of this name or id. Raises NotFound."""
        for item in self.stores():
            if name in (item.name.removeprefix("store:"), item.remote):
                return item
        raise _unknown("store", name, [item.name.removeprefix("store:") for item in self.stores()])

    # -- both ------------------------------------------------------------------------------------------

    def users(self, item: Item) -> list[str]:
        """Batches and stores that use an item."""
        return [user for user in self._store.users(self._thing(item)) if user != BY_COMMAND]

    def delete(self, item: Item) -> None:
        """Put an item down to be deleted at the service."""
        for _ in range(_TRIES):
            change: Change = {"state": ItemState.LEAVING, "error": None, "tries": None}
            if self._store.move_item(self._account, item, change, due_s=0.0, take_over=True) is not Outcome.NOT_YOURS:
                self._store.unshare(self._thing(item), BY_COMMAND)
                return
            # A worker has it in hand: what it was doing comes too late.
            (item,) = self._store.items(self._account, [item.name]) or [item]

    def follow(
        self,
        items: Sequence[Item],
        *,
        shown: Callable[[Item], None],
        tick: Callable[[], None],
        timeout_s: float | None,
        until_gone: bool = False,
    ) -> list[Item]:
        """Wait until all are at rest (or gone); how they are then. `shown` is told whenever one gets on. Raises
        WaitTimeout."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        told: dict[str, str] = {}
        while True:
            tick()
            found = self._store.items(self._account, [item.name for item in items])
            for item in found:
                if told.get(item.name) != item.progress():
                    told[item.name] = item.progress()
                    shown(item)
            if until_gone and all(item.state is not ItemState.LEAVING for item in found):
                return found
            if not until_gone and all(item.state in AT_REST for item in found):
                return found
            if until is not None and time.monotonic() > until:
                raise WaitTimeout(
                    f"not ready after {timeout_s:g} s", remedy="It goes on by itself as long as a worker runs."
                )
            time.sleep(_LOOK_EVERY_S)

    def _thing(self, item: Item) -> str:
        return f"{self._account}/{item.name}"


def _unknown(kind: str, name: str, known: Sequence[str]) -> NotFound:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return NotFound(f"there is no {kind} {name}", remedy=f"{hint}`askq {kind}s list` shows the {kind}s there are.")


def _check(file: Path, tool: str | None) -> None:
    kinds.check_size(file.stat().st_size, tool)
    if tool == SEARCH:
        kinds.check_searched(file.name)


def _check_name(name: str) -> None:
    if not name or len(name) > 64 or any(char.isspace() or char in "@/:" for char in name):
        raise InputError(
            f"{name!r} cannot be the name of a store", remedy="It has 1 to 64 characters, without spaces, @, / and :."
        )
