"""What askq has made at a service: remote objects, whose they are, and when they are to be deleted.

Every object is on record before it is used, under its *owner*: a job, a batch, or a *thing* that several of them share
(an assistant, an uploaded file, a store), which knows its users and is deleted when the last of them has left. The
thread and the run of a job are fields of its record, so that waiting jobs pay nothing for it; the moves that end the
job, or leave a thread or run behind, bury them.

An object that is *buried* has a due time. It stays on record, as its own tombstone, until the service has said that
it is deleted or that there is no such object.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, unquote

from askq.errors import AskqError
from askq.ids import split_job_id


class Kind(StrEnum):
    """What a service knows an object as."""

    ASSISTANT = "assistant"
    THREAD = "thread"
    """With its messages and runs: they go with it."""
    CONVERSATION = "conversation"
    """With its items: they have to be deleted first."""
    RESPONSE = "response"
    FILE = "file"
    VECTOR_STORE = "vector_store"
    """Without its files: they stay when it goes."""
    CONTAINER = "container"
    """With its files."""


class Keep(StrEnum):
    """How long what a job has made is kept (`[keep]` of its assistant). The first letter stands in its record."""

    NO = "no"
    """It is deleted as soon as the job has ended."""
    RESULTS = "results"
    """It is deleted when the job's results expire, or are forgotten."""
    ALWAYS = "always"
    """It is deleted by `askq forget` alone."""


LISTED = (Kind.ASSISTANT, Kind.VECTOR_STORE)
"""Kinds that services list, with metadata that says who made them."""
TALK = frozenset({Kind.THREAD, Kind.CONVERSATION, Kind.RESPONSE})
"""Kinds that `[keep] threads` is about; `[keep] files` is about all others."""
KEEP_FIELD = "keep"
"""The field of a job's record: two letters, of threads and of files; missing = `rr`."""
ACCOUNT_FIELD = "account"
"""The field of a job's record: the alias of the account that has its thread."""
OF_RECORD: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        # A run goes with its thread.
        "assistants": {"thread": Kind.THREAD},
        "responses": {"thread": Kind.CONVERSATION, "run": Kind.RESPONSE, "witness": Kind.RESPONSE},
    }
)
"""Protocol → fields of a job's record that are ids of objects, and their kind."""
REMOTE_FIELDS = frozenset({"thread", "run", "witness"})
"""Fields of a job's record that may be ids of objects."""
ALSO = "+"
"""Stands behind the kind of what a receipt counts with another entry."""
AT_WORK_S = 86_400.0
"""How much longer something is kept that was left behind while the job goes on, or whose run nobody has seen: a run
may still be at work in it."""


def assistant_thing(digest: str) -> str:
    """The thing that batches share when they ask an assistant of this definition."""
    return f"assistant:{digest}"


def assistant_of_thing(thing: str) -> str | None:
    """The digest that `assistant_thing` was given; None for another thing."""
    kind, _, digest = thing.partition(":")
    return digest if kind == "assistant" else None


def content_thing(sha256: str) -> str:
    """The thing that batches share when a content that is sent along with their questions is kept here."""
    return f"content:{sha256}"


def content_of_thing(thing: str) -> str | None:
    """The hash that `content_thing` was given; None for another thing."""
    kind, _, sha256 = thing.partition(":")
    return sha256 if kind == "content" else None


def folder_thing(identity: str, place: str) -> str:
    """The thing that batches share when files of theirs are kept in this folder. `place` is for people."""
    return f"folder:{identity}:{quote(place, safe='')}"


def folder_of_thing(thing: str) -> tuple[str, str] | None:
    """The folder's identity and its place, as `folder_thing` was given them; None for another thing."""
    kind, _, rest = thing.partition(":")
    identity, _, place = rest.partition(":")
    return (identity, unquote(place)) if kind == "folder" else None


def emptied_thing(identity: str) -> str:
    """The mark that this folder has let go of everything, at what is being forgotten."""
    return f"emptied:{identity}"


def emptied_of_thing(thing: str) -> str | None:
    """The identity that `emptied_thing` was given; None for another thing."""
    kind, _, identity = thing.partition(":")
    return identity if kind == "emptied" else None


def item_of_thing(thing: str) -> tuple[str, str] | None:
    """The account and the name of the library's item that a thing is; None for another thing."""
    account, slash, name = thing.partition("/")
    return (account, name) if slash else None


def is_job(owner: str) -> bool:
    """Whether an owner is a job: batches have no dot in their ids, and things no batch id in front of one."""
    batch, row = split_job_id(owner)
    return bool(row) and batch.startswith("b_") and "/" not in batch


def is_batch(owner: str) -> bool:
    """Whether an owner is a batch."""
    return owner.startswith("b_") and "." not in owner and "/" not in owner


def keep_letters(keep: Mapping[str, str] | None) -> str | None:
    """What a job's record says of what is kept, by its assistant's `keep`; None for what is usual."""
    told = keep or {}
    letters = Keep(told.get("threads", Keep.RESULTS))[0] + Keep(told.get("files", Keep.RESULTS))[0]
    return None if letters == "rr" else letters


def due_after(letters: str, kind: Kind, *, keep_s: float, at_work: bool) -> float | None:
    """Seconds from the burial of an object to its deletion; None = it is kept. The twin of parts/bury.lua."""
    match letters[0 if kind in TALK else 1]:
        case "a":
            return None
        case "n":
            return min(AT_WORK_S, keep_s) if at_work else 0.0
        case _:
            return keep_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteObject:
    """One object at a service."""

    kind: Kind
    id: str
    account: str | None = None
    """Alias of the account that has it; None where that was not noted."""

    @property
    def name(self) -> str:
        """The field under which it is kept."""
        return f"{self.kind} {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object as its owner's record has it."""

    object: RemoteObject
    due: float | None = None
    """When it is to be deleted (Unix seconds); None = it is in use, or kept."""
    tries: int = 0
    """How often its deletion has failed."""
    why: str | None = None
    """What the service said the last time."""
    receipt: str | None = None
    """The name of the receipt that counts it, when it is deleted because something is forgotten."""
    also: bool = False
    """Whether the receipt counts it with another entry: a conversation is on record for each of its questions."""

    def dump(self) -> str:
        """As it is kept, under the object's name."""
        values = {"account": self.object.account, "due": self.due, "tries": self.tries or None}
        values |= {"why": self.why, "receipt": self.receipt, "also": self.also or None}
        return json.dumps({name: value for name, value in values.items() if value is not None}, separators=(",", ":"))

    @classmethod
    def load(cls, name: str, text: str) -> Self:
        """What `dump` wrote, or a script."""
        kind, _, id_ = name.partition(" ")
        values: dict[str, Any] = json.loads(text)
        account = values.pop("account", None)
        return cls(object=RemoteObject(kind=Kind(kind), id=id_, account=account), **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """An object that is to be deleted, and whose it was."""

    owner: str
    entry: Entry

    @property
    def object(self) -> RemoteObject:
        return self.entry.object


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What `askq forget` has done so far. Counts; it holds nothing of what was erased."""

    what: str
    """The id of the batch or job."""
    pending: bool
    """Whether something of it is still to be erased from the store."""
    records: int
    """Questions erased from the store, with their answers."""
    due: Mapping[str, int]
    """Remote objects that are to be deleted, by kind."""
    gone: Mapping[str, int]
    """Those of which the service has said that they are gone."""
    kept: Mapping[str, int]
    """Those that the service cannot delete."""
    again: int = 0
    """Tombstones of conversations that are counted with their first question: they have to go, too."""

    @property
    def left(self) -> int:
        """Remote objects of which it is not known yet."""
        return sum(self.due.values()) - sum(self.gone.values()) - sum(self.kept.values()) + self.again

    @property
    def done(self) -> bool:
        """Whether there is nothing more to wait for."""
        return not self.pending and self.left <= 0


def receipt_name(what: str) -> str:
    """Under which name a receipt is kept: row ids may be somebody's data, and a receipt outlives what it is about."""
    batch, row = split_job_id(what)
    return f"{batch}#{hashlib.sha256(what.encode(errors='surrogatepass')).hexdigest()[:24]}" if row else what


def receipt_of(what: str, counts: Iterable[Mapping[str, int]], *, pending: bool) -> Receipt | None:
    """A receipt, from the counts of all shards; None where nothing was forgotten under this id."""
    added: Counter[str] = Counter()
    for shard in counts:
        added.update(shard)
    if not added and not pending:
        return None
    piles: dict[str, dict[str, int]] = {"due": {}, "gone": {}, "kept": {}}
    again = 0
    for name, count in sorted(added.items()):
        pile, _, kind = name.partition(" ")
        if kind.endswith(ALSO):
            again += count if pile == "due" else -count
        elif kind:
            piles[pile][kind] = count
    return Receipt(what=what, pending=pending, records=added["records"], again=again, **piles)


def checked_owner(owner: str) -> str:
    """The owner, if it can be one. Raises AskqError."""
    if not owner or any(sign.isspace() for sign in owner):
        raise AskqError(f"{owner!r} cannot own remote objects: its name is empty or has spaces")
    return owner


def with_due(entry: Entry, due: float | None, receipt: str | None = None) -> Entry:
    """The entry, to be deleted at that time."""
    return dataclasses.replace(entry, due=due, receipt=entry.receipt or receipt)
