"""The remote objects of the stand-in store: what redis_objects.py and its scripts do, in this process."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from askq.jobs.objects import ALSO, Entry, RemoteObject, Tombstone, checked_owner, due_after, is_batch, is_job, with_due


@dataclass(slots=True)
class Registry:
    """Entries by owner and name, who uses what, and until when a deletion is somebody's."""

    clock: Callable[[], float]
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict)
    expire: dict[str, float] = field(default_factory=dict)
    """Owner → when what is kept of it is no longer on record."""
    users: dict[str, set[str]] = field(default_factory=dict)
    leased: dict[str, float] = field(default_factory=dict)
    """Owner → when somebody else may try to delete its objects."""
    receipts: dict[str, dict[str, int]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        # A snapshot for tests: time is no part of what is stored.
        kept = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "clock"}
        return Registry(self.clock, **copy.deepcopy(kept, memo))

    def remember(self, owner: str, objects: Iterable[RemoteObject]) -> None:
        mine = self.entries.setdefault(checked_owner(owner), {})
        for found in objects:
            mine.setdefault(found.name, Entry(object=found))
        self.expire.pop(owner, None)

    def of(self, owner: str) -> list[Entry]:
        if self.expire.get(owner, self.clock() + 1) <= self.clock():
            self.entries.pop(owner, None)
            del self.expire[owner]
        return list(self.entries.get(owner, {}).values())

    def share(self, thing: str, user: str) -> list[RemoteObject]:
        self.users.setdefault(checked_owner(thing), set()).add(checked_owner(user))
        return [entry.object for entry in self.of(thing) if entry.due is None]

    def unshare(self, thing: str, user: str, receipt: str | None) -> bool:
        users = self.users.get(thing, set())
        users.discard(user)
        if users:
            return False
        self.users.pop(thing, None)
        self.bury(thing, (), self.clock(), receipt)
        return True

    def uses(self, user: str) -> list[str]:
        return sorted(thing for thing, users in self.users.items() if user in users)

    def bury(
        self, owner: str, objects: Sequence[RemoteObject], due: float, receipt: str | None, *, joined: str | None = None
    ) -> int:
        """`joined`: id of a conversation that the receipt counts with another entry."""
        mine = self.entries.get(owner, {})
        names = [found.name for found in objects if found.name in mine] if objects else list(mine)
        for name in names:
            known = mine[name].due
            if receipt is not None and mine[name].receipt is None:
                mine[name] = dataclasses.replace(mine[name], also=mine[name].object.id == joined)
                self.count(receipt, f"due {_counted(mine[name])}")
            mine[name] = with_due(mine[name], due if known is None else min(known, due), receipt)
        if names:
            self.expire.pop(owner, None)
            self.leased.pop(owner, None)
        return len(names)

    def leave(
        self, owner: str, objects: Iterable[RemoteObject], letters: str, *, ended: bool, at_work: bool, keep_s: float
    ) -> None:
        """The twin of parts/bury.lua: what a job leaves behind, and all that it owns when it has ended."""
        mine = self.entries.setdefault(owner, {})
        named = {found.name for found in objects}
        for found in objects:
            mine.setdefault(found.name, Entry(object=found))
        now = self.clock()
        for name, entry in mine.items():
            if (ended and not at_work) or (entry.due is None and (ended or name in named)):
                after_s = due_after(letters, entry.object.kind, keep_s=keep_s, at_work=at_work)
                if after_s is not None and (entry.due is None or now + after_s < entry.due):
                    mine[name] = with_due(entry, now + after_s)
        if ended and mine and all(entry.due is None for entry in mine.values()):
            self.expire[owner] = now + keep_s
        self.drop_empty(owner)

    def due(self, *, limit: int, lease_s: float) -> list[Tombstone]:
        now, found, owners = self.clock(), [], 0
        for owner, mine in self.entries.items():
            ripe = [entry for entry in mine.values() if entry.due is not None and entry.due <= now]
            if ripe and self.leased.get(owner, now) <= now and owners < limit:
                owners += 1
                self.leased[owner] = now + lease_s
                found += [Tombstone(owner=owner, entry=entry) for entry in ripe]
        return found

    def drop_empty(self, owner: str) -> None:
        """As Redis does: what holds nothing is not there."""
        if not self.entries.get(owner, True):
            del self.entries[owner]

    def count(self, receipt: str, name: str) -> None:
        """One more on a receipt."""
        counts = self.receipts.setdefault(receipt, {})
        counts[name] = counts.get(name, 0) + 1

    def gone(self, owner: str, objects: Iterable[RemoteObject], why: str, keep_s: float | None) -> None:
        mine = self.entries.get(owner, {})
        for found in objects:
            entry = mine.pop(found.name, None)
            if entry is not None and entry.receipt is not None:
                self.count(entry.receipt, f"{why} {_counted(entry)}")
        self.leased.pop(owner, None)
        self.drop_empty(owner)
        if mine and keep_s is not None and all(entry.due is None for entry in mine.values()):
            self.expire[owner] = self.clock() + keep_s

    def not_gone(self, owner: str, object_: RemoteObject, why: str, again_s: float) -> None:
        entry = self.entries.get(owner, {}).get(object_.name)
        if entry is not None:
            due = self.clock() + again_s
            self.entries[owner][object_.name] = dataclasses.replace(entry, due=due, why=why, tries=entry.tries + 1)
            self.leased.pop(owner, None)

    def next_due(self) -> float | None:
        now = self.clock()
        return min(
            (
                max(entry.due, self.leased.get(owner, entry.due)) - now
                for owner, mine in self.entries.items()
                for entry in mine.values()
                if entry.due is not None
            ),
            default=None,
        )

    def all_buried(self) -> Iterator[Tombstone]:
        for owner, mine in self.entries.items():
            for entry in mine.values():
                if entry.due is not None:
                    yield Tombstone(owner=owner, entry=entry)

    def unowned(self, there: Callable[[str], bool]) -> Iterator[Tombstone]:
        """`there`: whether a job or batch is."""
        for owner, mine in self.entries.items():
            owned = there(owner) if is_job(owner) or is_batch(owner) else bool(self.users.get(owner))
            for entry in () if owned or owner in self.expire else mine.values():
                if entry.due is None:
                    yield Tombstone(owner=owner, entry=entry)


def _counted(entry: Entry) -> str:
    return entry.object.kind + (ALSO if entry.also else "")
