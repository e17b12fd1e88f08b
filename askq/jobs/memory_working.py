"""Working on jobs in the store in memory: the twin of redis_working.py and its scripts."""

from __future__ import annotations

from collections.abc import Sequence

from askq.ids import SHARDS, shard_of, split_job_id
from askq.jobs import codec
from askq.jobs.memory_records import Record, claim_of, remote_of
from askq.jobs.memory_state import MemoryState
from askq.jobs.model import DEAD_LETTER, LANE_OF, MOVES, TERMINAL, Claim, Earlier, Lane, Move, Outcome, State
from askq.jobs.objects import KEEP_FIELD, RemoteObject


class MemoryWorking(MemoryState):
    """What `MemoryStore` does for who works on jobs."""

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
                claims.append(claim_of(id_, record, was_due, now, first=first))
            return claims

    def _fence(self, record: Record) -> int:
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
        now, had = self._clock(), remote_of(record)
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

    def _leave(self, job: str, record: Record, had: Sequence[RemoteObject]) -> None:
        """Bury what a job has no more, and all it has when it has ended."""
        has, ended = remote_of(record), record.state in TERMINAL
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

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        with self._lock:
            record = self._records.get(job)
            if record is not None and record.state is State.STARTING and record.fields.get("attempts") == attempt:
                record.fields["witness"] = run_id

    def next_due(self, lane: Lane) -> float | None:
        with self._lock:
            now = self._clock()
            return min((r.due - now for r in self._records.values() if LANE_OF.get(r.state) is lane), default=None)

    def waiting(self, lane: Lane) -> int:
        with self._lock:
            return sum(LANE_OF.get(record.state) is lane for record in self._records.values())

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
