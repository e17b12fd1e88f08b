"""What becomes of an item of the library after a step: decisions made by functions that touch nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from askq.jobs.library import FILE, STORE, Change, Item, ItemState, Wish, file_item
from askq.jobs.objects import Kind, RemoteObject
from worker.protocols.base import Blocked, CallError, Limited, Refused
from worker.schedule import backoff

MOST_TRIES = 40
"""Attempts before an item is given up: each is a failed call, or a worker that died."""
CHECK_STORE_S = 600.0
"""A store that nobody has looked at for so long is looked at before it is used: it may have expired."""
AGAIN_S = 30.0
_NOT_HERE_TRIES = 30
_EXPIRES_SOON_S = 3600.0
_KINDS: Mapping[str, Kind] = {FILE: Kind.FILE, STORE: Kind.VECTOR_STORE}


class Look(Protocol):
    """How far the index of a store is."""

    @property
    def waiting(self) -> int: ...

    @property
    def done(self) -> int: ...

    @property
    def failed(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sees:
    """A `Look` by itself."""

    waiting: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Next:
    """A change to commit, and when the item is due again (None: it is at rest)."""

    change: Change = field(default_factory=dict)
    due_s: float | None = None
    drop: bool = False

    @classmethod
    def ready(cls, item: Item, *, remote: str | None = None, data: Mapping[str, Any] | None = None) -> Self:
        """It can be used."""
        change: dict[str, Any] = {"state": ItemState.READY, "error": None, "tries": None}
        change["data"] = {**(item.data if data is None else data), "checked": round(item.now, 3)}
        if remote is not None:
            change["remote"] = remote
        return cls(change)

    @classmethod
    def failed(cls, why: str) -> Self:
        """It cannot be made."""
        return cls({"state": ItemState.FAILED, "error": " ".join(why.split())[:500]})

    @classmethod
    def anew(cls) -> Self:
        """The service has it no more."""
        return cls({"state": ItemState.WANTED, "remote": None, "data": None, "tries": None}, due_s=0.0)

    @classmethod
    def filling(cls, item: Item, remote: str, *, due_s: float = 0.0) -> Self:
        """The store exists; files go in."""
        return cls({"state": ItemState.FILLING, "remote": remote, "error": None}, due_s=due_s)

    @classmethod
    def indexing(cls, item: Item, seen: Look) -> Self:
        """The service reads the files."""
        looks = int(item.data.get("looks", 0)) + 1
        data = {**item.data, "looks": looks, "total": len(item.files), "done": seen.done, "failed": seen.failed}
        return cls({"state": ItemState.INDEXING, "data": data, "error": None}, due_s=min(0.1 * 1.4**looks, 10.0))

    @classmethod
    def not_here(cls, item: Item, folder: Path) -> Self:
        """The content is not in this worker's folder: it may come, or be another's."""
        if item.tries >= _NOT_HERE_TRIES:
            return cls.failed(
                f"its content is not in {folder}: producers and workers must share one folder (ASKQ_FILES)"
            )
        return cls({"tries": item.tries + 1}, due_s=min(0.2 * 1.3**item.tries, 10.0))

    @classmethod
    def gone(cls) -> Self:
        """Nothing is left of it."""
        return cls(drop=True)


def thing(account: str, item: Item) -> str:
    """What an item is called among the remote objects."""
    return f"{account}/{item.name}"


def made_of(account: str, item: Item, id_: str) -> RemoteObject:
    """The object of an item that has this id at the service."""
    return RemoteObject(kind=_KINDS[item.kind], id=id_, account=account)


def file_wishes(item: Item) -> list[Wish]:
    """The files of a store, as items of their own."""
    return [file_item(ref, "assistants") for ref in item.files]


def expires_soon(item: Item) -> bool:
    """Whether the service will delete a file soon."""
    expires_at = item.data.get("expires_at")
    return isinstance(expires_at, (int, float)) and item.now > expires_at - _EXPIRES_SOON_S


def failed_long_ago(item: Item) -> bool:
    """Whether what has failed is worth another try when it is asked for again."""
    return item.now - float(item.data.get("failed_at", 0.0)) > AGAIN_S


def checked_late(item: Item) -> bool:
    """Whether a store must be looked at before it is used."""
    return item.kind == STORE and item.now - float(item.data.get("checked", 0.0)) > CHECK_STORE_S


def after_error(item: Item, error: CallError) -> Next:
    """A call failed."""
    why = " ".join(str(error).split())[:500]
    match error:
        case Limited():
            return Next({"error": why}, due_s=error.retry_after or 5.0)
        case Blocked() if error.code == "endpoint_gone":
            what = "vector stores" if item.kind == STORE else "files"
            return Next.failed(f"this server has no {what}: {error.message}")
        case Blocked():
            # The account is paused by the jobs; when it works again, so does this.
            return Next({"error": None}, due_s=15.0)
        case Refused() if item.state not in (ItemState.READY, ItemState.LEAVING):
            return Next.failed(f"the service refused it: {error.message}")
    tries = item.tries + 1
    if item.state is ItemState.LEAVING:
        # It is never given up: its record names a file, and somebody may have asked for it to be forgotten.
        return Next({"tries": tries}, due_s=backoff(min(tries, 10), 0.0))
    if tries > MOST_TRIES:
        return Next.failed(f"{tries} attempts failed; the last: {error}")
    return Next({"tries": tries, "error": why}, due_s=backoff(min(tries, 6), 0.0))
