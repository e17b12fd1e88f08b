"""The library: files and vector stores that askq keeps at a service, each made once per account.

An *item* is a file by its content and name, or a store by its name or its files. Jobs and people want items; a worker
makes them: an item that is to be worked on is *due*, like a job, and whoever claims it holds a lease and a fence. What
an item is at the service is on record among the remote objects (`askq.jobs.objects`), under the same name and before it
is used; this record says how far it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from askq.files.model import FileRef, StoreRef, content_digest


class ItemState(StrEnum):
    """Where an item stands."""

    WANTED = "wanted"
    """It is to be made: nothing of it is at the service, as far as anybody knows."""
    MAKING = "making"
    """Somebody has begun: a call that makes it may have been sent."""
    FILLING = "filling"
    """A store exists; files are still to be put into it."""
    INDEXING = "indexing"
    """All files are in the store, and the service reads them."""
    READY = "ready"
    FAILED = "failed"
    """It cannot be made; `error` says why. It is tried again when somebody asks for it anew."""
    LEAVING = "leaving"
    """It is to be deleted."""


AT_REST = frozenset({ItemState.READY, ItemState.FAILED})
FILE, STORE = "file", "store"
BY_COMMAND = "kept"
"""The user of what a person has made with `askq files` and `askq stores`: it stays until a person deletes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An item somebody needs, as far as it must be known to make it."""

    name: str
    kind: str
    """`file` or `store`."""
    title: str
    """What people call it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of a file: name, sha256, size, purpose. Of a store: files, a list of files; without them it must be there."""

    @property
    def file(self) -> FileRef:
        """The file that is to be uploaded."""
        return FileRef.from_json(self.about)

    @property
    def purpose(self) -> str:
        """What the service is told that a file is for."""
        return str(self.about["purpose"])

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The files that are to be in a store."""
        return tuple(FileRef.from_json(file) for file in self.about.get("files", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Wish):
    """An item as its record has it."""

    state: ItemState
    fence: int = 0
    """Proves who may change it."""
    remote: str | None = None
    """Its id at the service."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """How far it is: `done`, `total`, `failures` ([[file, reason], …]), `checked` (when it was last seen) …"""
    error: str | None = None
    """Why it failed, or why the last attempt did."""
    tries: int = 0
    """Attempts since it was last at rest."""
    created_at: float = 0.0
    now: float = 0.0
    """The store's clock when this was read."""

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Files of a store that the service could not read, and why."""
        return [(str(file), str(reason)) for file, reason in self.data.get("failures", ())]

    def progress(self) -> str:
        """How far it is, for people."""
        trouble = self.error is not None and self.state not in AT_REST
        return self._progress() + (f"; the last attempt failed: {self.error}" if trouble else "")

    def _progress(self) -> str:
        if self.kind == FILE:
            told = {
                ItemState.READY: "uploaded",
                ItemState.FAILED: "failed",
                ItemState.LEAVING: "is being deleted",
            }
            return told.get(self.state, "waits to be uploaded")
        total = self.data.get("total", len(self.about.get("files", ())))
        match self.state:
            case ItemState.READY:
                return f"ready: {self.data.get('done', total)} of {total} files"
            case ItemState.MAKING:
                return f"is being made of {total} files"
            case ItemState.FILLING:
                return f"{total} files are put into it"
            case ItemState.INDEXING:
                return f"the service reads it: {self.data.get('done', 0)} of {total} files"
            case ItemState.FAILED:
                return "failed"
            case ItemState.LEAVING:
                return "is being deleted"
        return f"files are uploaded: {self.data.get('uploaded', 0)} of {total}"

    def record(self) -> dict[str, str]:
        """As it is kept."""
        return {
            "kind": self.kind,
            "title": self.title,
            "about": json.dumps(dict(self.about), ensure_ascii=False, separators=(",", ":")),
            "state": self.state.value,
            "fence": str(self.fence),
            "created": str(self.created_at),
            **({} if self.remote is None else {"remote": self.remote}),
            **({} if self.error is None else {"error": self.error}),
            **({} if not self.data else {"data": json.dumps(dict(self.data), ensure_ascii=False)}),
            **({} if not self.tries else {"tries": str(self.tries)}),
        }

    @classmethod
    def of(cls, name: str, values: Mapping[str, str], now: float) -> Self:
        """What `record` wrote, or a script changed."""
        return cls(
            name=name,
            kind=values["kind"],
            title=values["title"],
            about=json.loads(values["about"]),
            state=ItemState(values["state"]),
            fence=int(values.get("fence", 0)),
            remote=values.get("remote"),
            data=json.loads(values.get("data", "{}")),
            error=values.get("error"),
            tries=int(values.get("tries", 0)),
            created_at=float(values.get("created", 0)),
            now=now,
        )


Change = Mapping[str, str | int | Mapping[str, Any] | None]
"""Fields of an item's record to be written: `state`, `remote`, `data`, `error`, `tries`, `about`; None deletes one."""


def change_fields(change: Change) -> dict[str, str | None]:
    """A change as it is kept."""
    return {
        name: None
        if value is None
        else json.dumps(dict(value), ensure_ascii=False)
        if isinstance(value, Mapping)
        else str(value)
        for name, value in change.items()
    }


def file_item(ref: FileRef, purpose: str) -> Wish:
    """The item of a file, for this purpose."""
    return Wish(
        name=f"file:{purpose}:{ref.identity}", kind=FILE, title=ref.name, about={**ref.to_json(), "purpose": purpose}
    )


def store_item(ref: StoreRef) -> Wish:
    """The item of a store. One that has a name and files is another for other files: what is asked today is answered
    from the files of today, while yesterday's questions go on with theirs."""
    if ref.files is None:
        return Wish(name=f"store:{ref.name}", kind=STORE, title=ref.name or "", about={})
    digest = content_digest(ref.files)
    title = ref.name or _titled(ref.files)
    return Wish(
        name=f"store:{ref.name or ''}@{digest}",
        kind=STORE,
        title=title,
        about={"files": [file.to_json() for file in ref.files]},
    )


def _titled(files: Sequence[FileRef]) -> str:
    first = files[0].name if files else "nothing"
    return first if len(files) < 2 else f"{first} and {len(files) - 1} more"
