"""Forgetting a batch or a job, step by step: whoever goes on with it goes on where another was killed.

Nothing is erased while a worker may still write to it: what has not ended is cancelled first. What was made at the
service is buried in the same step that erases the record which knew it; workers delete it (worker.cleaner). Files that
runs have made, and what was sent along with the questions, go from the folder of files.

Machines may have folders of their own. A batch is on record as a user of each folder that files of it were kept in,
and is erased only when every one of them was emptied of it, by somebody who has that folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from askq.failpoints import hit
from askq.files.folder import Folder
from askq.ids import split_job_id
from askq.jobs.library import ItemState
from askq.jobs.model import Outcome
from askq.jobs.objects import (
    content_of_thing,
    emptied_of_thing,
    emptied_thing,
    folder_of_thing,
    folder_thing,
    item_of_thing,
)
from askq.jobs.store import Store

_PAGE = 500
_TRIES = 20
"""How often what a worker has claimed in between is looked at again."""


def keeps_files_of(store: Store, folder: Folder, batch: str) -> None:
    """Note that files of a batch are in this folder, before they are. Raises StoreError and OSError."""
    store.share(folder_thing(folder.identity(), folder.place()), batch)


def begin(store: Store, what: str) -> None:
    """Note that a batch or job is to be forgotten: from then on it will be, whoever dies."""
    hit("forget.begin.before")
    store.begin_forgetting(what)
    hit("forget.begin.after")


def advance(store: Store, what: str, folder: Folder | None, *, most: int | None = None) -> int:
    """Erase what has ended, and cancel what has not; how many have not. When there are none, the rest is erased.

    `most` bounds how many jobs are looked at, for those who have other duties. Raises StoreError and OSError.
    """
    batch, row = split_job_id(what)
    if folder is not None:
        # Before the records: while they are there, somebody comes back to it.
        folder.forget(batch, row or None)
    waiting = looked = 0
    for page in _pages(store, what):
        hit("forget.jobs.before")
        outcomes = store.forget(page, what)
        hit("forget.jobs.after")
        pending = [job for job, outcome in zip(page, outcomes, strict=True) if outcome is Outcome.NOT_YOURS]
        if pending:
            store.cancel(pending)
            # Those that were in nobody's hands have ended with that.
            again = store.forget(pending, what)
            waiting += sum(outcome is Outcome.NOT_YOURS for outcome in again)
        looked += len(page)
        if most is not None and looked >= most:
            return max(1, waiting)
    if waiting == 0:
        if folder is not None:
            # Once more: a run that was in hand may have left files meanwhile.
            folder.forget(batch, row or None)
        if not _let_go(store, folder, what):
            return 1
        if folder is not None and _folders(store, batch) and (identity := _identity(folder)) is not None:
            hit("forget.folder.before")
            store.share(emptied_thing(identity), what)
            hit("forget.folder.after")
        if _not_emptied(store, what):
            return 1
        hit("forget.erase.before")
        store.erase(what)
        hit("forget.erase.after")
    return waiting


def elsewhere(store: Store, what: str, folder: Folder) -> dict[str, str]:
    """When all else is done: folders that files may still be in, because nobody who has them came by yet. Identity of
    the folder → where it was, for people. Raises StoreError and OSError."""
    found = _not_emptied(store, what)
    if not found or (identity := _identity(folder)) is None:
        return found
    return found if emptied_thing(identity) in store.uses(what) else {}


def take_for_deleted(store: Store, what: str, folders: Collection[str]) -> None:
    """A person says that these folders (by their identities) are no more: nobody need empty them."""
    for identity in folders:
        store.share(emptied_thing(identity), what)


def _identity(folder: Folder) -> str | None:
    """The folder's identity; None for one that has none and cannot be written: nothing is noted to be in it. Raises
    OSError."""
    try:
        return folder.identity()
    except OSError:
        if folder.named:
            raise
        return None


def _folders(store: Store, batch: str) -> dict[str, str]:
    return dict(found for thing in store.uses(batch) if (found := folder_of_thing(thing)) is not None)


def _not_emptied(store: Store, what: str) -> dict[str, str]:
    emptied = {emptied_of_thing(thing) for thing in store.uses(what)}
    found = _folders(store, split_job_id(what)[0])
    return {identity: place for identity, place in found.items() if identity not in emptied}


def go_on(store: Store, folder: Folder | None, *, most: int) -> None:
    """A piece of everything that is being forgotten: what a worker does for those who have gone. Raises StoreError, and
    OSError in the end."""
    refused: OSError | None = None
    for what in store.forgetting():
        try:
            advance(store, what, folder, most=most)
        except OSError as error:
            # One file that cannot be deleted must not hold up the others: only this machine can empty its folder.
            refused = refused or error
    if refused is not None:
        raise refused


def _let_go(store: Store, folder: Folder | None, what: str) -> bool:
    """Let go of things that only this uses, or others that are being forgotten at the same time; whether all of them
    are on their way. They are noted as used until that is done, so that it can be repeated. What others go on using
    stays, and they are told in which folder a copy of it is."""
    going, ends, done = {what, *store.forgetting()}, list[str](), True
    reached, todo = set[str](), [what]
    while todo:
        new = [thing for thing in store.uses(todo.pop()) if thing not in reached and not _of_folders(thing)]
        reached.update(new)
        todo += new
    while more := [thing for thing in sorted(reached - going) if going.issuperset(store.users(thing))]:
        going.update(more)
        ends += more
    # What others use comes first: once a store leaves, a worker lets go of its files, and has no receipt for them.
    for thing in reversed(ends):
        if (sha256 := content_of_thing(thing)) is not None and folder is not None:
            folder.drop(sha256)
        elif (item := item_of_thing(thing)) is not None:
            store.bury(thing, receipt=what)
            done = _send_away(store, *item) and done
    return _leave_to_others(store, folder, sorted(reached - going), going) and done


def _of_folders(thing: str) -> bool:
    return folder_of_thing(thing) is not None or emptied_of_thing(thing) is not None


def _leave_to_others(store: Store, folder: Folder | None, things: Collection[str], going: Collection[str]) -> bool:
    """Whoever goes on using a content is to know that a copy of it is in this folder; False when one of them has begun
    to go meanwhile, and may not have heard of it."""
    heard = True
    for thing in things:
        sha256 = content_of_thing(thing)
        if sha256 is None or folder is None or not folder.has(sha256):
            continue
        for user in (user for user in store.users(thing) if user not in going):
            keeps_files_of(store, folder, user)
            # In this order: who begins to go after the first look finds the note, and who is gone uses nothing.
            heard = user not in store.forgetting() and heard
            if user not in store.users(thing):
                store.unshare(folder_thing(folder.identity(), folder.place()), user)
                heard = False
    return heard


def _send_away(store: Store, account: str, name: str) -> bool:
    """Have the library delete an item at the service, and then its record; False when others were always faster."""
    for _ in range(_TRIES):
        found = store.items(account, [name])
        if not found or found[0].state is ItemState.LEAVING:
            return True
        change = {"state": ItemState.LEAVING}
        if store.move_item(account, found[0], change, due_s=0.0, take_over=True) is not Outcome.NOT_YOURS:
            return True
    return False


def _pages(store: Store, what: str) -> Iterator[list[str]]:
    batch, row = split_job_id(what)
    # All of them first: rows that vanish while the list is read would hide others.
    ids = iter([what] if row else list(store.job_ids(batch)))
    while page := list(islice(ids, _PAGE)):
        yield page
