"""The stand-in for unit tests: the job store in this process, held to the same contract suite as Redis."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from askq.jobs import memory_calls
from askq.jobs.books import Books
from askq.jobs.calls import Calls
from askq.jobs.health import Health
from askq.jobs.library import Change, Item, Wish
from askq.jobs.live import LiveEntry, Piece
from askq.jobs.memory_asking import MemoryAsking
from askq.jobs.memory_audit import MemoryBooks
from askq.jobs.memory_budgets import MemoryBudgets
from askq.jobs.memory_forgetting import MemoryForgetting
from askq.jobs.memory_live import MemoryLog, waited_for
from askq.jobs.memory_records import remote_of
from askq.jobs.memory_sharing import MemorySharing
from askq.jobs.model import TERMINAL, Outcome, State
from askq.jobs.objects import Entry, RemoteObject, Tombstone, is_job, receipt_name


class MemoryStore(MemoryAsking, MemoryForgetting, MemorySharing, MemoryBudgets):
    """`Store` in memory. `clock` gives Unix seconds; tests pass their own."""

    # -- live logs -------------------------------------------------------------------------------------

    def tell(self, job: str, teller: str, run: str, pieces: Sequence[Piece], *, relieves: bool = False) -> Outcome:
        with self._lock:
            record, now = self._records.get(job), self._clock()
            if record is None:
                return Outcome.MISSING
            if record.state in TERMINAL:
                return Outcome.ALREADY
            log = self._live.setdefault(job, MemoryLog())
            if record.text("run") != run or not log.may_tell(teller, now, relieves=relieves):
                return Outcome.NOT_YOURS
            if pieces:
                log.add(run, pieces, now)
            return Outcome.MOVED

    def listen(self, job: str, after: str | None, *, wait_s: float) -> list[LiveEntry]:
        def read() -> list[LiveEntry]:
            with self._lock:
                log = self._live.get(job)
                if log is None or log.until <= self._clock():
                    return []
                return [entry for entry in log.entries if entry.id > (after or "")]

        return waited_for(read, wait_s)

    def told(self, job: str) -> bool:
        with self._lock:
            log = self._live.get(job)
            return log is not None and log.teller[1] > self._clock()

    def hurry(self, job: str, run: str, *, final: str = "", attempt: int = 0) -> Outcome:
        with self._lock:
            record = self._records.get(job)
            if record is None:
                return Outcome.MISSING
            starting = record.state is State.STARTING and record.count("attempts") == attempt
            forgotten = final != "" and starting
            if not forgotten and (record.state is not State.RUNNING or record.text("run") != run):
                return Outcome.ALREADY
            if final:
                record.fields["final"] = final
            if forgotten:
                record.fields["witness"] = run
            if record.claims is not None:
                return Outcome.NOT_YOURS
            record.due = min(record.due, self._clock())
            return Outcome.NOT_YOURS if forgotten else Outcome.MOVED

    # -- remote objects --------------------------------------------------------------------------------

    def remember(self, owner: str, objects: Sequence[RemoteObject]) -> None:
        with self._lock:
            if objects:
                self._registry.remember(owner, objects)

    def objects(self, owner: str) -> list[Entry]:
        with self._lock:
            found = {entry.object.name: entry for entry in self._registry.of(owner)}
            record = self._records.get(owner)
            for made in () if record is None or record.state in TERMINAL else remote_of(record):
                found.setdefault(made.name, Entry(object=made))
            return list(found.values())

    def share(self, thing: str, user: str) -> list[RemoteObject]:
        with self._lock:
            return self._registry.share(thing, user)

    def unshare(self, thing: str, user: str, *, receipt: str | None = None) -> bool:
        with self._lock:
            return self._registry.unshare(thing, user, None if receipt is None else receipt_name(receipt))

    def uses(self, user: str) -> list[str]:
        with self._lock:
            return self._registry.uses(user)

    def users(self, thing: str) -> list[str]:
        with self._lock:
            return sorted(self._registry.users.get(thing, ()))

    def bury(
        self, owner: str, objects: Sequence[RemoteObject] = (), *, after_s: float = 0.0, receipt: str | None = None
    ) -> int:
        with self._lock:
            name = None if receipt is None else receipt_name(receipt)
            return self._registry.bury(owner, objects, self._clock() + after_s, name)

    def tombstones(self, *, limit: int, lease_s: float) -> list[Tombstone]:
        with self._lock:
            return self._registry.due(limit=limit, lease_s=lease_s)

    def gone(self, owner: str, objects: Sequence[RemoteObject], *, deleted: bool = True) -> None:
        with self._lock:
            self._registry.gone(owner, objects, "gone" if deleted else "kept", self._keep_s if is_job(owner) else None)

    def not_gone(self, owner: str, object_: RemoteObject, why: str, *, again_s: float) -> None:
        with self._lock:
            self._registry.not_gone(owner, object_, why, again_s)

    def home(self) -> str:
        return f"memory-{id(self):x}"

    def next_tombstone(self) -> float | None:
        with self._lock:
            return self._registry.next_due()

    def all_buried(self) -> Iterator[Tombstone]:
        with self._lock:
            return iter(list(self._registry.all_buried()))

    def unowned(self) -> Iterator[Tombstone]:
        with self._lock:
            found = self._registry.unowned(lambda owner: owner in self._records or owner in self._batches)
            return iter(list(found))

    # -- the library -----------------------------------------------------------------------------------

    def want(
        self,
        account: str,
        wishes: Sequence[Wish],
        *,
        again: bool = False,
        only_known: bool = False,
        kept: bool = False,
    ) -> list[Item | None]:
        with self._lock:
            return [self._shelf.want(account, wish, again=again, only_known=only_known) for wish in wishes]

    def items(self, account: str, names: Collection[str] | None = None) -> list[Item]:
        with self._lock:
            return self._shelf.items(account, names)

    def claim_items(self, account: str, *, limit: int, lease_s: float) -> list[Item]:
        with self._lock:
            return self._shelf.claim(account, limit=limit, lease_s=lease_s)

    def move_item(
        self, account: str, item: Item, change: Change, *, due_s: float | None, take_over: bool = False
    ) -> Outcome:
        with self._lock:
            return self._shelf.move(account, item, change, due_s=due_s, take_over=take_over)

    def drop_item(self, account: str, item: Item) -> Outcome:
        with self._lock:
            return self._shelf.move(account, item, {}, due_s=None, take_over=False, gone=True)

    def next_item(self, account: str) -> float | None:
        with self._lock:
            return self._shelf.next_due(account)

    # -- the rest --------------------------------------------------------------------------------------

    def health(self) -> Health:
        return Health(version="memory", append_only=True, eviction="noeviction", used_memory=0, max_memory=0)

    def calls(self) -> Calls:
        return memory_calls.MemoryCalls(self._calls, self._records, clock=self._clock, lock=self._lock)

    def books(self) -> Books:
        def marked() -> dict[str, float | None]:
            with self._lock:
                return {id_: kept.until for id_, kept in self._batches.items()}

        def intended(job: str) -> float | None:
            record = self._records.get(job)
            return None if record is None else record.number("intent_at")

        return MemoryBooks(self, self._kept, clock=self._clock, marked=marked, intended=intended)

    def close(self) -> None:
        """Nothing to close."""
