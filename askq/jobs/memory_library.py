"""The library of the stand-in store: what redis_library.py and its scripts do, in this process."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from askq.jobs.library import Change, Item, ItemState, Wish, change_fields
from askq.jobs.model import Outcome


@dataclass(slots=True)
class Shelf:
    """Records and due times of the items of all accounts."""

    clock: Callable[[], float]
    records: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    due: dict[tuple[str, str], float] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shelf:
        # A snapshot for tests: time is no part of what is stored.
        return Shelf(self.clock, copy.deepcopy(self.records, memo), copy.deepcopy(self.due, memo))

    def want(self, account: str, wish: Wish, *, again: bool, only_known: bool) -> Item | None:
        key, now = (account, wish.name), self.clock()
        record = self.records.get(key)
        if record is None:
            if only_known:
                return None
            fresh = Item(**_parts(wish), state=ItemState.WANTED, created_at=now)
            record = self.records[key] = fresh.record()
            self.due[key] = now
        elif (record["state"] == "failed" and again) or (record["state"] == "leaving" and not only_known):
            record |= {"state": "wanted", "fence": str(self._fence(record))}
            for name in ("error", "tries", "remote", "data"):
                record.pop(name, None)
            self.due[key] = now
        return Item.of(wish.name, record, now)

    def items(self, account: str, names: Collection[str] | None) -> list[Item]:
        wanted = [name for owner, name in self.records if owner == account] if names is None else names
        return [
            Item.of(name, record, self.clock())
            for name in wanted
            if (record := self.records.get((account, name))) is not None
        ]

    def claim(self, account: str, *, limit: int, lease_s: float) -> list[Item]:
        now = self.clock()
        ripe = sorted((due, key) for key, due in self.due.items() if key[0] == account and due <= now)
        claimed = []
        for _, key in ripe[: max(0, limit)]:
            record = self.records[key]
            record["fence"] = str(self._fence(record))
            self.due[key] = now + lease_s
            claimed.append(Item.of(key[1], record, now))
        return claimed

    def move(
        self, account: str, item: Item, change: Change, *, due_s: float | None, take_over: bool, gone: bool = False
    ) -> Outcome:
        key = (account, item.name)
        record = self.records.get(key)
        if record is None:
            return Outcome.MISSING
        if int(record.get("fence", 0)) != item.fence:
            return Outcome.NOT_YOURS
        if gone:
            del self.records[key]
            self.due.pop(key, None)
            return Outcome.MOVED
        for name, value in change_fields(change).items():
            if value is None:
                record.pop(name, None)
            else:
                record[name] = value
        if take_over:
            record["fence"] = str(self._fence(record))
        if due_s is None:
            self.due.pop(key, None)
        else:
            self.due[key] = self.clock() + due_s
        return Outcome.MOVED

    def next_due(self, account: str) -> float | None:
        return min((due - self.clock() for key, due in self.due.items() if key[0] == account), default=None)

    def _fence(self, record: dict[str, str]) -> int:
        return max(int(self.clock() * 1e6), int(record.get("fence", 0)) + 1)


def _parts(wish: Wish) -> dict[str, Any]:
    return {each.name: getattr(wish, each.name) for each in dataclasses.fields(Wish)}
