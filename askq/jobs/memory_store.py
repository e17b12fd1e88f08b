"""The stand-in for unit tests: the job store in this process, held to the same contract suite as Redis."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from askq.errors import StoreError
from askq.ids import SHARDS, job_id, new_batch_id, shard_of, split_job_id
from askq.jobs import codec, memory_calls, redis_limits
from askq.jobs.books import Books
from askq.jobs.calls import Calls
from askq.jobs.library import Change, Item, Wish
from askq.jobs.limits import Bound, Heard, LimitRecord, Permit, Scope, Wait
from askq.jobs.live import LiveEntry, Piece
from askq.jobs.memory_audit import Kept, MemoryBooks
from askq.jobs.memory_library import Shelf
from askq.jobs.memory_live import MemoryLog, waited_for
from askq.jobs.memory_objects import Registry
from askq.jobs.model import (
    ASKED_AGAIN,
    CANCELLED_IN_TIME,
    DEAD_LETTER,
    LANE_OF,
    MOVES,
    TERMINAL,
    WAIT_FOR_TURN_S,
    Added,
    Answer,
    BatchStatus,
    Budget,
    Claim,
    Earlier,
    Job,
    Lane,
    Move,
    NewBatch,
    NewJob,
    Node,
    Outcome,
    Pause,
    Question,
    State,
    Usage,
)
from askq.jobs.objects import (
    ACCOUNT_FIELD,
    KEEP_FIELD,
    OF_RECORD,
    REMOTE_FIELDS,
    Entry,
    Receipt,
    RemoteObject,
    Tombstone,
    receipt_name,
    receipt_of,
)
from askq.jobs.store import Health
from askq.jobs.took import counted
from askq.pauses import concerning, waits_for

KEEP_S = 30 * 86_400.0
"""How long what ended jobs have made at a service is kept where nothing else is said."""


@dataclass(slots=True)
class _Record:
    question: Question
    digest: str
    assistant: str
    assistant_digest: str
    protocol: str
    created: float
    due: float
    after: str | None = None
    state: State = State.QUEUED
    fence: int = 0
    claims: int | None = None
    """None while nobody has claimed it since the last move that gave it back."""
    done: str = ""
    completed: float | None = None
    answer: Answer | None = None
    fields: dict[str, str | int | float] = dataclasses.field(default_factory=dict)

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> float | None:
        value = self.fields.get(name)
        return None if value is None else float(value)

    def count(self, name: str) -> int:
        return int(self.fields.get(name, 0))


@dataclass(slots=True)
class _Purse:
    """A budget in millionths of a dollar, as Redis keeps it."""

    limit: int
    spent: int = 0
    aside: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Job → the attempt and the amount put aside for it."""
    refused_at: float | None = None

    @property
    def reserved(self) -> int:
        return sum(amount for _, amount in self.aside.values())

    def shown(self, now: float) -> Budget:
        return Budget(
            limit_usd=self.limit / 1e6,
            spent_usd=self.spent / 1e6,
            reserved_usd=self.reserved / 1e6,
            refused_at=self.refused_at,
            waiting_s=0.0 if self.refused_at is None else max(0.0, now - self.refused_at),
        )


@dataclass(slots=True)
class _Batch:
    new: NewBatch
    created: float
    total: int | None = None
    until: float | None = None
    """When it is to be forgotten."""
    earlier: list[Usage] = dataclasses.field(default_factory=list)
    """What jobs had used when they ended before somebody asked again, or that were forgotten."""
    forgotten: int = 0


class MemoryStore:
    """`Store` in memory. `clock` gives Unix seconds; tests pass their own."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._batches: dict[str, _Batch] = {}
        self._idempotency: dict[str, str] = {}
        self._assistants: dict[str, str] = {}
        self._remote: dict[tuple[str, str], str] = {}
        self._leases: dict[tuple[Lane, int], tuple[str, float]] = {}
        self._chains: dict[Lane, dict[str, float]] = {lane: {} for lane in Lane}
        self._hints: dict[Lane, float] = {}
        self._nodes: dict[Node, float] = {}
        self._pauses: dict[tuple[str, str | None], Pause] = {}
        self._probes: dict[tuple[str, str | None], float] = {}
        self._purses: dict[str, _Purse] = {}
        self._stale: dict[str, int] = {}
        self._dead: dict[str, float] = {}
        self._limits: dict[Scope, LimitRecord] = {}
        self._waits: dict[Scope, float] = {}
        self._took: dict[str, dict[int, float]] = {}
        self._live: dict[str, MemoryLog] = {}
        self._set_back_until: dict[int, float] = {}
        self._kept = Kept()
        self._shelf = Shelf(clock)
        self._registry = Registry(clock)
        self._keep_s = KEEP_S
        self._calls = memory_calls.Kept()
        self._forgetting: set[str] = set()
        self._inventory: tuple[str | None, dict[str, str]] = (None, {})

    # -- asking ----------------------------------------------------------------------------------------

    def save_assistant(self, digest: str, definition: str) -> None:
        self._assistants[digest] = definition

    def assistant(self, digest: str) -> str | None:
        return self._assistants.get(digest)

    def open_batch(self, new: NewBatch) -> tuple[str, bool]:
        with self._lock:
            if new.idempotency_key is not None and new.idempotency_key in self._idempotency:
                known = self._idempotency[new.idempotency_key]
                self._batches[known].until = None
                return known, False
            batch = new_batch_id()
            self._batches[batch] = _Batch(new=new, created=self._clock())
            if new.max_cost_usd is not None:
                self._purses[batch] = _Purse(codec.limit_in_millionths(new.max_cost_usd))
            if new.idempotency_key is not None:
                self._idempotency[new.idempotency_key] = batch
            return batch, True

    def batch_under(self, idempotency_key: str) -> str | None:
        return self._idempotency.get(idempotency_key)

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        with self._lock:
            found = self.compare(batch, jobs)
            now = self._clock()
            for new in jobs:
                self._records.setdefault(
                    job_id(batch, new.question.row_id),
                    _Record(
                        question=new.question,
                        digest=codec.digest(new),
                        assistant=new.assistant,
                        assistant_digest=new.assistant_digest,
                        protocol=new.protocol,
                        created=now,
                        due=now if new.after is None else now + WAIT_FOR_TURN_S,
                        after=new.after,
                    ),
                )
            for new in jobs:
                if new.after is not None:
                    (ahead,) = self.follow([(job_id(batch, new.after), new.question.row_id)])
                    if ahead is None or ahead.state in TERMINAL:
                        self.wake([job_id(batch, new.question.row_id)])
            return found

    def compare(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        with self._lock:
            known = {id_: record.digest for id_, record in self._members(batch)}
            added, conflicts = 0, []
            for new in jobs:
                mine, id_ = codec.digest(new), job_id(batch, new.question.row_id)
                added += id_ not in known
                if known.setdefault(id_, mine) != mine:
                    conflicts.append(new.question.row_id)
            return Added(added=added, already=len(jobs) - added - len(conflicts), conflicts=tuple(conflicts))

    def seal(self, batch: str, total: int) -> None:
        with self._lock:
            if batch not in self._batches:
                raise StoreError(
                    f"batch {batch} could not be sealed: its record is gone", remedy="Submit the list again."
                )
            self._batches[batch].total = total
            self._batches[batch].until = None

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        with self._lock:
            return [self._retry(job, set(ends) & ASKED_AGAIN) for job in jobs]

    def _retry(self, job: str, ends: Collection[State]) -> Outcome:
        record = self._records.get(job)
        if record is None:
            return Outcome.MISSING
        if record.state not in ends:
            return Outcome.NOT_YOURS if record.state in TERMINAL else Outcome.ALREADY
        self._batches[split_job_id(job)[0]].earlier.append(_usage(record))
        record.fields["base"] = record.count("attempts")
        record.fields["retries"] = record.count("retries") + 1
        for name in codec.OF_A_RUN:
            record.fields.pop(name, None)
        record.state, record.due, record.fence = State.QUEUED, self._clock(), self._fence(record)
        record.claims, record.done, record.completed, record.answer = None, "", None, None
        self._batches[split_job_id(job)[0]].until = None
        self._dead.pop(job, None)
        self._registry.expire.pop(job, None)
        return Outcome.MOVED

    def cancel(self, jobs: Sequence[str]) -> list[Outcome]:
        with self._lock:
            for job in jobs:
                record = self._records.get(job)
                if record is not None and (row := record.text("next")) is not None:
                    self.wake([job_id(split_job_id(job)[0], row)])
            return [self._cancel(job) for job in jobs]

    def _cancel(self, job: str) -> Outcome:
        record = self._records.get(job)
        if record is None:
            return Outcome.MISSING
        no_run = record.state is State.QUEUED and record.claims is None and "spent" not in record.fields
        if record.state in TERMINAL or (record.text("cancel") == "asked" and not no_run):
            return Outcome.ALREADY
        record.fields["cancel"] = "asked"
        if record.claims is None:
            record.due = self._clock()
            if no_run:
                record.state, record.completed = State.CANCELLED, record.due
                record.fields |= {"error_code": "cancelled", "error_message": CANCELLED_IN_TIME}
                record.fields.pop("note", None)
                self._leave(job, record, [])
        return Outcome.MOVED

    def _leave(self, job: str, record: _Record, had: Sequence[RemoteObject]) -> None:
        """Bury what a job has no more, and all it has when it has ended."""
        has, ended = _remote(record), record.state in TERMINAL
        letters = record.text(KEEP_FIELD) or "rr"
        if "next" in record.fields:
            # The next question of its conversation needs them still; the last one leaves nothing behind.
            letters = letters.replace("n", "r")
        if ended or any(found not in has for found in had):
            self._registry.leave(
                job,
                [*has, *(found for found in had if found not in has)] if ended else [f for f in had if f not in has],
                letters,
                ended=ended,
                at_work=not ended or record.state is State.UNCERTAIN,
                keep_s=self._keep_s,
            )

    def dead_letters(self) -> dict[str, float]:
        return dict(self._dead)

    # -- reading ---------------------------------------------------------------------------------------

    def batch(self, batch: str) -> BatchStatus | None:
        with self._lock:
            kept = self._batches.get(batch)
            if kept is None:
                return None
            members = self._members(batch)
            counts = {state: sum(record.state is state for _, record in members) for state in State}
            used = [_usage(record) for _, record in members if record.state in TERMINAL] + kept.earlier
            costs = [usage.cost_usd for usage in used if usage.cost_usd is not None]
            status = BatchStatus(
                id=batch,
                name=kept.new.name,
                assistant=kept.new.assistant,
                protocol=kept.new.protocol,
                idempotency_key=kept.new.idempotency_key,
                metadata=kept.new.metadata,
                table=kept.new.table,
                created_at=kept.created,
                sealed=kept.total is not None,
                total=max(len(members), (kept.total or 0) - kept.forgotten),
                counts=counts,
                usage=Usage(
                    input_tokens=sum(usage.input_tokens for usage in used),
                    cached_tokens=sum(usage.cached_tokens for usage in used),
                    output_tokens=sum(usage.output_tokens for usage in used),
                    total_tokens=sum(usage.total_tokens for usage in used),
                    cost_usd=sum(costs) if costs else None,
                ),
                finished_at=max((r.completed for _, r in members if r.completed is not None), default=None),
                budget=self._purses[batch].shown(self._clock()) if batch in self._purses else None,
                stale=self._stale.get(batch, 0),
                forgetting=batch in self._forgetting,
            )
            if status.done:
                return status
            return dataclasses.replace(
                status,
                finished_at=None,
                paused=concerning(status, self.pauses()),
                waits=waits_for(status, self.waits()),
            )

    def batches(self, *, limit: int = 20) -> list[BatchStatus]:
        with self._lock:
            return [status for id_ in self._newest()[: max(0, limit)] if (status := self.batch(id_)) is not None]

    def find_batches(self, prefix: str) -> list[str]:
        with self._lock:
            return [id_ for id_ in self._newest() if id_.startswith(prefix)][:10]

    def _newest(self) -> list[str]:
        return sorted(self._batches, key=lambda id_: (self._batches[id_].created, id_), reverse=True)

    def job(self, job: str) -> Job | None:
        record = self._records.get(job)
        return None if record is None else _job(job, record)

    def jobs(self, batch: str, *, states: Collection[State] | None = None) -> Iterator[Job]:
        with self._lock:
            members = sorted(self._members(batch), key=lambda member: (member[1].question.index, member[0]))
        for id_, record in members:
            if states is None or record.state in states:
                yield _job(id_, record)

    def _members(self, batch: str) -> list[tuple[str, _Record]]:
        return [(id_, record) for id_, record in self._records.items() if split_job_id(id_)[0] == batch]

    # -- working ---------------------------------------------------------------------------------------

    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        with self._lock:
            now = self._clock()
            due = sorted(
                (
                    (record.due, id_, record)
                    for id_, record in self._records.items()
                    if LANE_OF.get(record.state) is lane and record.due <= now and shard_of(id_) in shards
                ),
                key=lambda entry: entry[0],
            )
            claims = []
            for was_due, id_, record in due[: max(0, limit)]:
                first = record.fence == 0
                record.fence = self._fence(record)
                record.claims = (record.claims or 0) + 1
                record.due = now + lease_s
                claims.append(_claim(id_, record, was_due, now, first=first))
            return claims

    def _fence(self, record: _Record) -> int:
        now = int(self._clock() * 1_000_000)
        return now if now > record.fence else record.fence + 1 + now % 1000

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        with self._lock:
            lost = []
            for id_, fence in claims:
                record = self._records.get(id_)
                if record is None or record.fence != fence or record.claims is None:
                    lost.append(id_)
                else:
                    record.due = self._clock() + lease_s
            return lost

    def give_back(self, claims: Sequence[tuple[str, int]], *, delay_s: float) -> int:
        with self._lock:
            given = 0
            for id_, fence in claims:
                record = self._records.get(id_)
                if record is not None and record.fence == fence and record.claims is not None:
                    record.claims = record.claims - 1 or None
                    record.due = self._clock() + delay_s
                    given += 1
            return given

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        with self._lock:
            self.wake([move.wakes for move in moves if move.wakes is not None])
            return [self._commit(move) for move in moves]

    def follow(self, jobs: Sequence[tuple[str, str]]) -> list[Earlier | None]:
        with self._lock:
            return [self._follow(job, row) for job, row in jobs]

    def _follow(self, job: str, row: str) -> Earlier | None:
        record = self._records.get(job)
        if record is None:
            return None
        if record.state not in TERMINAL:
            record.fields["next"] = row
        return Earlier(
            id=job,
            state=record.state,
            after=record.after,
            thread_id=record.text("thread"),
            run_id=record.text("run"),
            joined=record.text("joined"),
            previous=record.text("previous"),
            tokens=record.count("total") or None,
            error_code=record.text("error_code"),
            error_message=record.text("error_message"),
            held=codec.load_held(record.text("held")),
        )

    def wake(self, jobs: Sequence[str]) -> None:
        with self._lock:
            for job in jobs:
                record = self._records.get(job)
                if record is None or record.state is not State.QUEUED:
                    continue
                record.fields.pop("looks", None)
                if record.claims is not None:
                    record.fields["woken"] = 1
                else:
                    record.due = self._clock()

    def _commit(self, move: Move) -> Outcome:
        rule = MOVES[move.name]
        record = self._records.get(move.job)
        if record is None:
            return Outcome.MISSING
        token = f"{move.fence}/{move.name}"
        if record.done == token:
            return Outcome.ALREADY
        if record.fence == 0 or record.fence != move.fence:
            if record.fence:
                batch, _ = split_job_id(move.job)
                self._stale[batch] = self._stale.get(batch, 0) + 1
            return Outcome.NOT_YOURS
        if record.state not in rule.sources:
            return Outcome.NOT_YOURS
        if rule.yields_to_witness and "witness" in record.fields:
            return Outcome.NOT_YOURS
        now, had = self._clock(), _remote(record)
        for name, value in codec.record_fields(move).items():
            if value is None:
                record.fields.pop(name, None)
            else:
                record.fields[name] = value
        record.done = token
        record.claims = 0 if rule.keeps_claim else None
        record.state = rule.target or record.state
        self._leave(move.job, record, had)
        if move.calls:
            began = record.number("began") or record.number("started") or now
            self._calls.offer(move.job, move.calls, min(now, began))
        if record.state in TERMINAL:
            self._calls.calls.pop(move.job, None)
            record.completed = now
            record.answer = move.answer
            if move.fields.get("error_code") == DEAD_LETTER:
                self._dead[move.job] = now
        elif move.name == "defer" and record.fields.pop("woken", 0):
            record.due = now
        else:
            outputs_here = move.name in ("act", "wait") and self._calls.none_left(move.job, record.count("rounds"))
            record.due = now if outputs_here else now + move.delay
        if move.name == "intend":
            record.fields["intent_at"] = now
        elif move.name in ("start", "adopt"):
            record.fields["started"] = now
        return Outcome.MOVED

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        with self._lock:
            record = self._records.get(job)
            if record is not None and record.state is State.STARTING and record.fields.get("attempts") == attempt:
                record.fields["witness"] = run_id

    def next_due(self, lane: Lane) -> float | None:
        with self._lock:
            now = self._clock()
            return min((r.due - now for r in self._records.values() if LANE_OF.get(r.state) is lane), default=None)

    def now(self) -> float:
        return self._clock()

    def clocks(self) -> Sequence[float]:
        return [self._clock()] * SHARDS

    def set_back(self, seconds: float, shards: Sequence[int]) -> bool:
        with self._lock:
            now = self._clock()
            moved = {shard for shard in shards if self._set_back_until.get(shard, now) <= now}
            if not moved:
                return False
            self._set_back_until |= dict.fromkeys(moved, now + 10.0)
            for id_, record in self._records.items():
                if record.due > now and shard_of(id_) in moved:
                    record.due = max(now, record.due - seconds)
            self._shelf.due = {
                key: due if due <= now else max(now, due - seconds) for key, due in self._shelf.due.items()
            }
            for id_, calls in self._calls.calls.items():
                for call in calls.values():
                    if call.due is not None and call.due > now and shard_of(id_) in moved:
                        call.due = max(now, call.due - seconds)
            self._calls.running.clear()
            self._calls.hinted = 0.0
            for lane, shard in list(self._leases):
                if shard in shards:
                    del self._leases[lane, shard]
            self._hints.clear()
            self._nodes.clear()
            self._probes.clear()
            for alive in self._chains.values():
                alive.clear()
            return True

    # -- live logs -------------------------------------------------------------------------------------

    def tell(self, job: str, teller: str, run: str, pieces: Sequence[Piece]) -> Outcome:
        with self._lock:
            record, now = self._records.get(job), self._clock()
            if record is None:
                return Outcome.MISSING
            if record.state in TERMINAL:
                return Outcome.ALREADY
            log = self._live.setdefault(job, MemoryLog())
            if record.text("run") != run or not log.may_tell(teller, now):
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

    def hurry(self, job: str, run: str) -> Outcome:
        with self._lock:
            record = self._records.get(job)
            if record is None:
                return Outcome.MISSING
            if record.state is not State.RUNNING or record.text("run") != run:
                return Outcome.ALREADY
            if record.claims is not None:
                return Outcome.NOT_YOURS
            record.due = min(record.due, self._clock())
            return Outcome.MOVED

    # -- sharing the work ------------------------------------------------------------------------------

    def enlist(self, lane: Lane, execution: str, *, ttl_s: float) -> int:
        with self._lock:
            self._hints.pop(lane, None)
            self._chains[lane][execution] = self._clock() + ttl_s
            return self.running(lane)

    def hint(self, lane: Lane, *, ttl_s: float) -> bool:
        with self._lock:
            now = self._clock()
            if self._hints.get(lane, now) > now:
                return False
            self._hints[lane] = now + ttl_s
            return True

    def running(self, lane: Lane) -> int:
        with self._lock:
            now = self._clock()
            return sum(until > now for until in self._chains[lane].values())

    def discharge(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        with self._lock:
            self._chains[lane].pop(execution, None)
            self.release(lane, execution, shards)

    def release(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        with self._lock:
            for shard in shards:
                if self._leases.get((lane, shard), ("", 0.0))[0] == execution:
                    del self._leases[lane, shard]

    def hold(self, lane: Lane, execution: str, shards: Sequence[int], *, ttl_s: float) -> list[int]:
        with self._lock:
            now = self._clock()
            held = []
            for shard in shards:
                owner, until = self._leases.get((lane, shard), (execution, now))
                if owner == execution or until <= now:
                    self._leases[lane, shard] = (execution, now + ttl_s)
                    held.append(shard)
            return held

    # -- budgets ---------------------------------------------------------------------------------------

    def set_budget(self, batch: str, limit_usd: float) -> None:
        with self._lock:
            purse = self._purses.setdefault(batch, _Purse(0))
            purse.limit, purse.refused_at = codec.limit_in_millionths(limit_usd), None

    def reserve(self, job: str, attempt: int, cost_usd: float, *, covers_earlier: bool = False) -> bool:
        with self._lock:
            purse = self._purses.get(split_job_id(job)[0])
            if purse is None or purse.aside.get(job, (0, 0))[0] == attempt:
                return True
            amount = codec.cost_in_millionths(cost_usd)
            covered = purse.aside.get(job, (0, 0))[1] if covers_earlier else 0
            if not covers_earlier:
                purse.spent += purse.aside.pop(job, (0, 0))[1]
            if purse.spent + purse.reserved - covered + amount > purse.limit:
                purse.refused_at = purse.refused_at or float(int(self._clock()))
                return False
            purse.aside[job] = (attempt, amount)
            purse.refused_at = None
            return True

    def settle(self, job: str, attempt: int, cost_usd: float | None) -> None:
        with self._lock:
            purse = self._purses.get(split_job_id(job)[0])
            if purse is not None and purse.aside.get(job, (0, 0))[0] == attempt:
                amount = purse.aside.pop(job)[1]
                purse.spent += amount if cost_usd is None else codec.cost_in_millionths(cost_usd)
                purse.refused_at = None

    def reconcile_budget(self, batch: str, *, only: str | None = None) -> int:
        with self._lock:
            purse = self._purses.get(batch)
            aside = {} if purse is None else {j: a for j, (a, _) in purse.aside.items() if only in (None, j)}
            settled = 0
            for job, attempt in aside.items():
                record = self._records.get(job)
                if record is None or record.state in TERMINAL:
                    made = record is None or record.count("attempts") >= attempt
                    cost = None if record is None else record.number("cost")
                    self.settle(job, attempt, 0.0 if cost is None and not made else cost)
                    settled += 1
            return settled

    # -- limits ----------------------------------------------------------------------------------------

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        with self._lock:
            found = self._limits.setdefault(scope, LimitRecord()).take(self._clock(), asks, bound=bound, window=window)
            if asks and found.wait_s:
                self._waits[scope] = found.now + found.wait_s
            elif asks:
                self._waits.pop(scope, None)
            return found

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        with self._lock:
            return self._limits.setdefault(scope, LimitRecord()).learn(self._clock(), heard)

    def look_limits(self, scope: Scope) -> Permit:
        with self._lock:
            return dataclasses.replace(self._limits.get(scope, LimitRecord())).look(self._clock())

    def waits(self) -> list[Wait]:
        with self._lock:
            since = self._clock() - redis_limits.FORGOTTEN_S
            return [
                redis_limits.wait(scope, until, self.look_limits(scope))
                for scope, until in self._waits.items()
                if until >= since
            ]

    def took(self, digest: str, seconds: Sequence[float] = ()) -> Mapping[int, float]:
        with self._lock:
            self._took[digest] = counted(self._took.get(digest, {}), seconds)
            return dict(self._took[digest])

    def waiting(self, lane: Lane) -> int:
        with self._lock:
            return sum(LANE_OF.get(record.state) is lane for record in self._records.values())

    # -- remote objects --------------------------------------------------------------------------------

    def remember(self, owner: str, objects: Sequence[RemoteObject]) -> None:
        with self._lock:
            if objects:
                self._registry.remember(owner, objects)

    def objects(self, owner: str) -> list[Entry]:
        with self._lock:
            found = {entry.object.name: entry for entry in self._registry.of(owner)}
            record = self._records.get(owner)
            for made in () if record is None or record.state in TERMINAL else _remote(record):
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
            return sorted(thing for thing, users in self._registry.users.items() if user in users)

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
            _, row = split_job_id(owner)
            self._registry.gone(owner, objects, "gone" if deleted else "kept", self._keep_s if row else None)

    def not_gone(self, owner: str, object_: RemoteObject, why: str, *, again_s: float) -> None:
        with self._lock:
            self._registry.not_gone(owner, object_, why, again_s)

    # -- forgetting ------------------------------------------------------------------------------------

    def begin_forgetting(self, what: str) -> None:
        with self._lock:
            self._forgetting.add(what)

    def forgetting(self) -> list[str]:
        return sorted(self._forgetting)

    def job_ids(self, batch: str) -> Iterator[str]:
        return iter([job.id for job in self.jobs(batch)])

    def forget(self, jobs: Sequence[str], what: str) -> list[Outcome]:
        with self._lock:
            return [self._forget(job, what) for job in jobs]

    def _forget(self, job: str, what: str) -> Outcome:
        record = self._records.get(job)
        if record is not None and record.state not in TERMINAL:
            return Outcome.NOT_YOURS
        found = self._registry.bury(job, (), self._clock(), receipt_name(what))
        if record is not None:
            del self._records[job]
            self._dead.pop(job, None)
            if (kept := self._batches.get(split_job_id(job)[0])) is not None:
                kept.earlier.append(_usage(record))
                kept.forgotten += 1
            self._registry.count(receipt_name(what), "records")
        return Outcome.MOVED if record is not None or found else Outcome.MISSING

    def erase(self, what: str) -> None:
        with self._lock:
            self._leave_things(what, what)
            self._registry.bury(what, (), self._clock(), receipt_name(what))
            kept = self._batches.pop(what, None)
            self._purses.pop(what, None)
            self._stale.pop(what, None)
            if kept is not None and kept.new.idempotency_key is not None:
                self._idempotency.pop(kept.new.idempotency_key, None)
            self._forgetting.discard(what)

    def _leave_things(self, user: str, what: str) -> None:
        for thing in self.uses(user):
            if self._registry.unshare(thing, user, receipt_name(what)):
                self._leave_things(thing, what)
                self._assistants.pop(thing.removeprefix("assistant:"), None)

    def receipt(self, what: str) -> Receipt | None:
        with self._lock:
            counts = self._registry.receipts.get(receipt_name(what), {})
            return receipt_of(what, [counts], pending=what in self._forgetting)

    def ask_inventory(self) -> str:
        self._inventory = ("asked", {})
        return "asked"

    def take_inventory(self) -> str | None:
        with self._lock:
            token, answers = self._inventory
            self._inventory = (None, answers)
            return token

    def give_inventory(self, token: str, found: str) -> None:
        self._inventory[1][token] = found

    def inventory(self, token: str) -> str | None:
        return self._inventory[1].get(token)

    def compact(self) -> str | None:
        return None

    def home(self) -> str:
        return f"memory-{id(self):x}"

    def next_tombstone(self) -> float | None:
        with self._lock:
            return self._registry.next_due()

    def all_buried(self) -> Iterator[Tombstone]:
        with self._lock:
            return iter(list(self._registry.all_buried()))

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

    # -- accounts and nodes ----------------------------------------------------------------------------

    def pause(
        self, account: str, code: str, message: str, *, probe_after_s: float, protocol: str | None = None
    ) -> None:
        with self._lock:
            now, known = self._clock(), self._pauses.get((account, protocol))
            self._pauses[account, protocol] = Pause(
                account=account,
                code=code,
                message=message,
                since=known.since if known is not None and known.code == code else now,
                probe_at=now + probe_after_s,
                protocol=protocol,
            )
            self._probes[account, protocol] = now + probe_after_s

    def resume(self, account: str, *, protocol: str | None = None) -> bool:
        with self._lock:
            self._probes.pop((account, protocol), None)
            return self._pauses.pop((account, protocol), None) is not None

    def pauses(self) -> list[Pause]:
        return list(self._pauses.values())

    def probe(self, account: str, *, again_after_s: float, protocol: str | None = None) -> bool:
        with self._lock:
            now = self._clock()
            if self._probes.get((account, protocol), now) > now:
                return False
            self._probes[account, protocol] = now + again_after_s
            return True

    def return_probe(self, account: str, *, protocol: str | None = None) -> None:
        with self._lock:
            self._probes.pop((account, protocol), None)

    def remote_assistant(self, account: str, digest: str) -> str | None:
        return self._remote.get((account, digest))

    def save_remote_assistant(self, account: str, digest: str, remote: str) -> str:
        return self._remote.setdefault((account, digest), remote)

    def drop_remote_assistant(self, account: str, digest: str, remote: str) -> None:
        with self._lock:
            if self._remote.get((account, digest)) == remote:
                del self._remote[account, digest]

    def beat(self, node: Node, *, ttl_s: float) -> None:
        with self._lock:
            self._nodes[node] = self._clock() + ttl_s

    def nodes(self) -> list[Node]:
        with self._lock:
            now = self._clock()
            return [node for node, until in self._nodes.items() if until > now]

    def health(self) -> Health:
        return Health(version="memory", append_only=True, eviction="noeviction", used_memory=0, max_memory=0)

    def tidy(self, *, keep_s: float) -> int:
        with self._lock:
            now = self._clock()
            for batch in [id_ for id_, kept in self._batches.items() if kept.until is not None and kept.until <= now]:
                for id_, _ in self._members(batch):
                    del self._records[id_]
                    self._dead.pop(id_, None)
                self._purses.pop(batch, None)
                key = self._batches.pop(batch).new.idempotency_key
                if key is not None:
                    del self._idempotency[key]
            marked = 0
            for batch, kept in self._batches.items():
                status = self.batch(batch)
                if kept.until is None and status is not None and status.done:
                    kept.until = now + keep_s
                    marked += 1
            return marked

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


def _remote(record: _Record) -> list[RemoteObject]:
    """What the fields of a record name at the service."""
    kinds = OF_RECORD.get(record.protocol, {})
    return [
        RemoteObject(kind=kinds[name], id=id_, account=record.text(ACCOUNT_FIELD))
        for name in sorted(REMOTE_FIELDS & kinds.keys())
        if (id_ := record.text(name))
    ]


def _job(id_: str, record: _Record) -> Job:
    answer = record.answer
    if answer is not None:
        # What the record says counts: the usage may have been known before the answer was.
        answer = dataclasses.replace(answer, usage=_usage(record) if "total" in record.fields else None)
    return Job(
        id=id_,
        index=record.question.index,
        state=record.state,
        question=record.question,
        assistant=record.assistant,
        assistant_digest=record.assistant_digest,
        protocol=record.protocol,
        fence=record.fence,
        attempts=record.count("attempts"),
        runs=record.count("runs"),
        polls=record.count("polls"),
        remote=record.text("remote"),
        thread_id=record.text("thread"),
        run_id=record.text("run"),
        error_code=record.text("error_code"),
        error_message=record.text("error_message"),
        note=record.text("note"),
        cancel=record.text("cancel"),
        retries=record.count("retries"),
        after=record.after,
        next=record.text("next"),
        answer=answer,
        created_at=record.created,
        started_at=record.number("began") or record.number("started"),
        completed_at=record.completed,
        due_at=None if record.state in TERMINAL else record.due,
    )


def _usage(record: _Record) -> Usage:
    return Usage(
        input_tokens=record.count("in"),
        cached_tokens=record.count("cached"),
        output_tokens=record.count("out"),
        total_tokens=record.count("total"),
        cost_usd=record.number("cost"),
    )


def _claim(id_: str, record: _Record, was_due: float, now: float, *, first: bool) -> Claim:
    return Claim(
        id=id_,
        fence=record.fence,
        state=record.state,
        assistant_digest=record.assistant_digest,
        assistant=record.assistant,
        protocol=record.protocol,
        question=record.question if record.state in (State.QUEUED, State.STARTING, State.ACTION) else None,
        first=first,
        claims=record.claims or 0,
        attempts=record.count("attempts"),
        allowance=record.count("base"),
        resets=record.count("resets"),
        runs=record.count("runs"),
        polls=record.count("polls"),
        looks=record.count("looks"),
        errors=record.count("errors"),
        gone=record.count("gone"),
        thread_id=record.text("thread"),
        run_id=record.text("run"),
        witness=record.text("witness"),
        remote=record.text("remote"),
        cancel=record.text("cancel"),
        fixes=record.count("fixes"),
        wrong=record.text("wrong"),
        refers=record.text("refers"),
        spent=codec.load_usage(spent) if (spent := record.text("spent")) is not None else None,
        cancel_sent="cancel_sent" in record.fields,
        limited_at=record.number("limited"),
        created_at=record.created,
        intent_at=record.number("intent_at"),
        started_at=record.number("started"),
        deadline=record.number("deadline"),
        estimated=record.number("est"),
        asked_of=record.text("asked_of"),
        seen=record.number("seen"),
        rounds=record.count("rounds"),
        closed=record.count("closed"),
        earlier=codec.load_usage(earlier) if (earlier := record.text("earlier")) is not None else None,
        acted_run=record.text("acted"),
        brought=record.text("brought"),
        began_at=record.number("began"),
        live="live" in record.fields,
        usage=_usage(record) if "total" in record.fields else None,
        error_code=record.text("error_code"),
        error_message=record.text("error_message"),
        was_due=was_due,
        now=now,
        after=record.after,
        next=record.text("next"),
        joined=record.text("joined"),
        previous=record.text("previous"),
        history=None if "history" not in record.fields else record.count("history"),
    )
