"""The objects that have no course of their own: assistants, threads, messages, conversations, items, files, stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from askq.localapi.storage import Storage, StoredObject
from askq.localapi.wire import JsonObject

Kind = Literal[
    "assistant", "thread", "message", "conversation", "item",
    "file", "vector_store", "vector_store_file", "file_batch", "container", "container_file",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(slots=True)
class _Record:
    kind: Kind
    parent: str | None
    seq: int
    body: JsonObject


class Store:
    """Objects by id, and in order of creation below their parent. Changes are noted in the storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._records: dict[str, _Record] = {}
        self._below: dict[tuple[Kind, str | None], dict[str, JsonObject]] = {}
        self._seq = 0

    def load(self, stored: StoredObject, kind: Kind) -> None:
        """Take in an object read from the data folder; they come oldest first."""
        self._add(stored.id, _Record(kind, stored.parent, stored.seq, stored.body))

    def seen(self, seq: int) -> None:
        """Never hand out `seq` or a smaller number again."""
        self._seq = max(self._seq, seq)

    def next_seq(self) -> int:
        """A number above all that were handed out: the order of creation."""
        self._seq += 1
        return self._seq

    def _add(self, object_id: str, record: _Record) -> None:
        self.seen(record.seq)
        self._records[object_id] = record
        self._below.setdefault((record.kind, record.parent), {})[object_id] = record.body

    def add(self, kind: Kind, body: JsonObject, *, parent: str | None = None) -> None:
        """Keep a new object; its id is `body["id"]`. Adding an id again replaces the object in its place."""
        object_id = body["id"]
        known = self._records.get(object_id)
        record = _Record(kind, parent, self.next_seq() if known is None else known.seq, body)
        self._add(object_id, record)
        self._storage.put(StoredObject(object_id, kind, parent, record.seq, body))

    def get(self, kind: Kind, object_id: str, *, parent: str | None = None) -> JsonObject | None:
        """The object, if it exists and (when `parent` is given) belongs there."""
        record = self._records.get(object_id)
        if record is None or record.kind != kind or (parent is not None and record.parent != parent):
            return None
        return record.body

    def change(self, object_id: str, **changes: object) -> JsonObject:
        """Change fields of an object that exists; its new body."""
        record = self._records[object_id]
        record.body.update(changes)
        self._storage.put(StoredObject(object_id, record.kind, record.parent, record.seq, record.body))
        return record.body

    def below(self, kind: Kind, parent: str | None = None) -> list[JsonObject]:
        """The objects of a kind under `parent`, oldest first."""
        return list(self._below.get((kind, parent), {}).values())

    def remove(self, object_id: str) -> None:
        """Forget an object that exists."""
        record = self._records.pop(object_id)
        siblings = self._below[record.kind, record.parent]
        del siblings[object_id]
        if not siblings:
            del self._below[record.kind, record.parent]
        self._storage.delete(object_id)

    def counts(self) -> dict[str, int]:
        """How many objects of each kind there are."""
        counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        for (kind, _), objects in self._below.items():
            counts[kind] += len(objects)
        return counts
