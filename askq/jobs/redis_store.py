"""The job store in Redis (or Valkey): the truth of the whole system."""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.client import Pipeline

from askq.errors import StoreError
from askq.ids import SHARDS, job_id, new_batch_id, shard_of, split_job_id
from askq.jobs import codec, keys, redis_limits
from askq.jobs.calls import Calls
from askq.jobs.limits import Bound, Heard, Permit, Scope, Wait
from askq.jobs.model import (
    ASKED_AGAIN,
    CANCELLED_IN_TIME,
    DEAD_LETTER,
    LANE_OF,
    MOVES,
    PENDING,
    TERMINAL,
    WAIT_FOR_TURN_S,
    Added,
    BatchStatus,
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
    State,
)
from askq.jobs.objects import REMOTE_FIELDS
from askq.jobs.records import budget_of, claim_of, decoded, earlier_of, encoded, job_of, pause_of, record_of, status_of
from askq.jobs.redis_calls import RedisCalls
from askq.jobs.redis_forgetting import RedisForgetting
from askq.jobs.redis_library import RedisLibrary
from askq.jobs.redis_live import RedisLive
from askq.jobs.redis_wire import Call, lua
from askq.jobs.took import NO_RUNS, Counts

if TYPE_CHECKING:
    from askq.jobs.books import Books

_PAGE = 200
_ROWS_PER_CALL = 50
"""So that no call holds up the others of a busy server for more than a millisecond or two."""
_STATUSES_PER_CALL = 50
_DAY_S = 86_400
_SAME_STEP_S = 10.0
"""Workers that notice within this time that the clock was set back speak of the same step."""


class RedisStore(RedisForgetting, RedisLibrary, RedisLive):
    """`Store` over Redis: one server, one behind Sentinel, or a cluster (`redis_address` has the addresses).

    `keep_days` is how long finished jobs stay; `replicas`, how many replicas of each server must have a promise on
    disk, too, before it is given. Raises StoreUnreachable when the server does not answer twice, each
    time within `timeout_s`, and StoreError when it refuses (wrong password, out of memory, read-only) or when the
    address is no address.
    """

    def __init__(self, url: str, *, keep_days: float = 30, timeout_s: float = 3.0, replicas: int = 0) -> None:
        super().__init__(url, timeout_s=timeout_s, replicas=replicas)
        self._keep_s = int(keep_days * _DAY_S)

    # -- asking ------------------------------------------------------------------------------------------

    def save_assistant(self, digest: str, definition: str) -> None:
        self._run(lambda: self._redis.set(keys.assistant(digest), definition))

    def assistant(self, digest: str) -> str | None:
        found = self._run(lambda: self._redis.get(keys.assistant(digest)))
        return None if found is None else decoded(found)

    def open_batch(self, new: NewBatch) -> tuple[str, bool]:
        mine = new_batch_id()
        batch = mine if new.idempotency_key is None else self._first(keys.idempotency(new.idempotency_key), mine)
        known = batch != mine and bool(self._run(lambda: self._redis.hexists(keys.batch(batch), "created")))
        seconds, micros = self._run(self._redis.time)
        now = f"{seconds}.{micros:06d}"
        values: dict[str, str] = {"assistant": new.assistant, "protocol": new.protocol, "created": now}
        if new.name is not None:
            values["name"] = new.name
        if new.idempotency_key is not None:
            values["idem"] = new.idempotency_key
        if new.table is not None:
            values["table"] = new.table
        if new.metadata:
            values["meta"] = json.dumps(dict(new.metadata))

        def bound(pipe: Pipeline) -> None:
            if new.max_cost_usd is not None and not known:
                # A bound that comes later would know nothing of what is under way already.
                pipe.hsetnx(keys.budget(batch), "limit", codec.limit_in_millionths(new.max_cost_usd))

        def record(pipe: Pipeline) -> None:
            # Field by field "unless there": whoever comes second, or comes back after a crash, changes nothing.
            for field, value in values.items():
                pipe.hsetnx(keys.batch(batch), field, encoded(value))

        def known_to_all(pipe: Pipeline) -> None:
            pipe.zadd(keys.BATCHES, {batch: float(now)}, nx=True)

        # Whoever knows the batch finds its bound, and nobody finds it on the list without its record.
        self._in_order(bound, record, known_to_all)
        if batch != mine:
            # Rows may be coming: a batch that was to expire stays.
            self._in_order(*_persisting(batch, new.idempotency_key))
        return batch, batch == mine

    def _first(self, key: str, value: str) -> str:
        """Put a value under a key unless there is one; the value that is there now."""
        while not self._run(lambda: self._redis.set(key, value, nx=True)):
            known = self._run(lambda: self._redis.get(key))
            if known is not None:
                return decoded(known)
            # It went away between the two calls: the key is free after all.
        return value

    def batch_under(self, idempotency_key: str) -> str | None:
        found = self._run(lambda: self._redis.get(keys.idempotency(idempotency_key)))
        return None if found is None else decoded(found)

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        calls: list[Call] = []
        order: list[int] = []
        for shard, part in _parts(batch, jobs):
            names = [keys.due(shard, Lane.START), keys.rows(shard, batch), keys.count(shard, batch)]
            records, asks = keys.job_stem(shard), keys.ask_stem(shard)
            args: list[str | int | float | bytes] = [WAIT_FOR_TURN_S]
            for at, id_ in part:
                new = jobs[at]
                names += (records + id_, asks + id_)
                order.append(at)
                args += (
                    id_,
                    new.question.row_id,
                    new.question.index,
                    codec.digest(new),
                    new.assistant,
                    new.assistant_digest,
                    new.protocol,
                    codec.dump_question(new.question),
                    new.after or "",
                )
            calls.append(Call("add", names, args))
        verdicts = [verdict for found in self._scripts(calls) for verdict in found]
        # Once they are there, because who is told of before is not there to be woken. In a call of its own: a pipeline
        # to several servers has no order.
        ahead = [(job_id(batch, new.after), new.question.row_id) for new in jobs if new.after is not None]
        found = zip(ahead, self.follow(ahead), strict=True)
        self.wake([job_id(batch, row) for (_, row), seen in found if seen is None or seen.state in TERMINAL])
        return _added(jobs, dict(zip(order, verdicts, strict=True)))

    def compare(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        calls: list[Call] = []
        order: list[int] = []
        for shard, part in _parts(batch, jobs):
            stem = keys.job_stem(shard)
            names = [keys.rows(shard, batch), *(stem + id_ for _, id_ in part)]
            order += (at for at, _ in part)
            calls.append(Call("compare", names, [jobs[at].question.row_id for at, _ in part]))
        found = (old for olds in self._scripts(calls) for old in olds)
        known: dict[str, str] = {}
        # In the order of the shards; of rows with the same id, which share one, the earlier is still first.
        verdicts = {}
        for at, old in zip(order, found, strict=True):
            row, mine = jobs[at].question.row_id, codec.digest(jobs[at])
            if old == 0 and row not in known:
                known[row] = mine
                verdicts[at] = 1
            else:
                before = known[row] if old == 0 else decoded(old)
                # Of a row without a record nothing is known but that it was there: it has ended and expired.
                verdicts[at] = 0 if before in ("", mine) else -1
        return _added(jobs, verdicts)

    def seal(self, batch: str, total: int) -> None:
        key = keys.batch(batch)
        created, idem = self._run(lambda: self._redis.hmget(key, "created", "idem"))
        if created is None:
            raise StoreError(
                f"batch {batch} could not be sealed: its record is not in Redis", remedy="Submit the list again."
            )

        lasting = _persisting(batch, None if idem is None else decoded(idem))
        # The seal last: who is cut off before it submits again.
        self._wait_for_disk(self._in_order(*lasting, lambda pipe: pipe.hset(key, "total", str(total)), self._all))

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        wanted, other = set(ends) & ASKED_AGAIN, TERMINAL - (set(ends) & ASKED_AGAIN)
        calls = []
        for job in jobs:
            shard, (batch, _) = shard_of(job), split_job_id(job)
            names = [keys.job(job), keys.due(shard, Lane.START), keys.count(shard, batch)]
            names += [keys.ask(job), keys.answer(job), keys.dead(shard), keys.objects(job)]
            calls.append(Call("retry", names, [job, _words(wanted), _words(other), " ".join(codec.OF_A_RUN)]))
        # The batch first: once a job is pending again nothing of it may expire.
        self._persist({split_job_id(job)[0] for job in jobs})
        return [Outcome(decoded(found)) for found in self._scripts(calls, on_disk=True)]

    def _persist(self, batches: Collection[str]) -> None:
        for batch in batches:
            idem = self._run(partial(self._redis.hget, keys.batch(batch), "idem"))
            self._in_order(*_persisting(batch, None if idem is None else decoded(idem)))

    def cancel(self, jobs: Sequence[str]) -> list[Outcome]:
        calls = []
        for job in jobs:
            shard = shard_of(job)
            names = [keys.job(job), keys.due(shard, Lane.START), keys.due(shard, Lane.POLL)]
            names += [keys.count(shard, split_job_id(job)[0]), keys.ask(job), keys.objects(job), keys.buried(shard)]
            calls.append(Call("cancel", names, [job, _words(PENDING), self._keep_s, CANCELLED_IN_TIME]))
        # Who waits for them first, as in `commit`; of those that are cancelled here, none has a turn to come.
        waiting = set(self._next_of(jobs)) - set(jobs) if jobs else set()
        outcomes = self._scripts([*map(_wake, waiting), *calls], on_disk=True)[len(waiting) :]
        return [Outcome(decoded(found)) for found in outcomes]

    def _next_of(self, jobs: Sequence[str]) -> list[str]:
        """Who waits for these jobs to end."""

        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for job in jobs:
                pipe.hget(keys.job(job), "next")
            return list(pipe.execute())

        found = zip(jobs, self._run(read), strict=True)
        return [job_id(split_job_id(job)[0], decoded(row)) for job, row in found if row is not None]

    def dead_letters(self) -> dict[str, float]:
        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.dead(shard), 0, -1, withscores=True)
            return list(pipe.execute())

        return {decoded(job): when for members in self._run(read) for job, when in members}

    # -- reading -----------------------------------------------------------------------------------------

    def batch(self, batch: str) -> BatchStatus | None:
        found = self._statuses([batch])
        return found[0] if found else None

    def batches(self, *, limit: int = 20) -> list[BatchStatus]:
        if limit <= 0:
            return []
        ids = self._run(lambda: self._redis.zrevrange(keys.BATCHES, 0, limit - 1))
        return self._statuses([decoded(id_) for id_ in ids])

    def find_batches(self, prefix: str) -> list[str]:
        ids = self._run(lambda: self._redis.zrevrange(keys.BATCHES, 0, -1))
        return [text for id_ in ids if (text := decoded(id_)).startswith(prefix)][:10]

    def _statuses(self, ids: Sequence[str]) -> list[BatchStatus]:
        def read() -> list[tuple[Any, float]]:
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.hgetall(keys.batch(id_))
                pipe.hmget(keys.budget(id_), "limit", "spent", "reserved", "refused")
                for shard in range(SHARDS):
                    pipe.hgetall(keys.count(shard, id_))
            pipe.hgetall(keys.PAUSES)
            pipe.zcard(keys.WAITS)
            return self._timed(pipe)

        if not ids:
            return []
        *found, (pauses, _), (waiting, _) = self._run(read)
        waits = self.waits() if waiting else []
        paused = [pause_of(data) for data in pauses.values()]
        statuses = []
        for at, id_ in enumerate(ids):
            (record, _), (budget, now), *counts = found[at * (SHARDS + 2) : (at + 1) * (SHARDS + 2)]
            if record:
                shards = [count for count, _ in counts]
                statuses.append(status_of(id_, record, budget_of(budget, now), shards, paused, waits))
        return statuses

    def job(self, job: str) -> Job | None:
        found = self._jobs([job])
        return found[0] if found else None

    def jobs(self, batch: str, *, states: Collection[State] | None = None) -> Iterator[Job]:
        page: list[str] = []
        for row in heapq.merge(*(self._rows(shard, batch) for shard in range(SHARDS))):
            page.append(job_id(batch, row[1]))
            if len(page) == _PAGE:
                yield from self._jobs(page, states)
                page = []
        yield from self._jobs(page, states)

    def _rows(self, shard: int, batch: str) -> Iterator[tuple[float, str]]:
        start = 0
        while True:
            page = self._run(
                partial(self._redis.zrange, keys.rows(shard, batch), start, start + _PAGE - 1, withscores=True)
            )
            for row, index in page:
                yield index, decoded(row)
            if len(page) < _PAGE:
                return
            start += _PAGE

    def _jobs(self, ids: Sequence[str], states: Collection[State] | None = None) -> list[Job]:
        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.hgetall(keys.job(id_))
                pipe.get(keys.ask(id_))
                pipe.get(keys.answer(id_))
                for lane in Lane:
                    pipe.zscore(keys.due(shard_of(id_), lane), id_)
            return list(pipe.execute())

        if not ids:
            return []
        found = self._run(read)
        jobs = []
        for at, id_ in enumerate(ids):
            record, question, answer, *scores = found[5 * at : 5 * at + 5]
            if not record or question is None:
                continue
            values = record_of(record)
            if states is None or State(values["state"]) in states:
                due = next((score for score in scores if score is not None), None)
                jobs.append(job_of(id_, values, question, answer, due))
        return jobs

    # -- working -----------------------------------------------------------------------------------------

    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        if not shards or limit <= 0:
            return []

        def call(shard: int, most: int) -> Call:
            stems = (keys.job_stem(shard), most, lease_s, keys.ask_stem(shard))
            return Call("claim", [keys.due(shard, lane)], stems)

        def claims(found: Sequence[Any]) -> list[Claim]:
            return [claim_of(float(now), *member) for now, *members in found for member in members]

        if limit >= len(shards):
            return claims(self._scripts([call(shard, limit // len(shards)) for shard in shards]))
        # Less room than shards: one after the other, so that an empty shard does not use up the room.
        taken: list[Claim] = []
        for shard in shards:
            taken += claims(self._scripts([call(shard, limit - len(taken))]))
            if len(taken) == limit:
                break
        return taken

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        calls = [Call("renew", names, [lease_s, *members]) for names, members in _held(claims)]
        return [decoded(id_) for lost in self._scripts(calls) for id_ in lost]

    def give_back(self, claims: Sequence[tuple[str, int]], *, delay_s: float) -> int:
        calls = [Call("give_back", names, [delay_s, *members]) for names, members in _held(claims)]
        return sum(self._scripts(calls))

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        calls: list[Call] = []
        for move in moves:
            # Each wake just before its move: whoever is woken finds that it has been made.
            calls += [_wake(move.wakes)] if move.wakes is not None else []
            calls.append(self._move(move))
        found = zip(calls, self._scripts(calls, on_disk=on_disk), strict=True)
        return [Outcome(decoded(outcome)) for call, outcome in found if call.script == "move"]

    def follow(self, jobs: Sequence[tuple[str, str]]) -> list[Earlier | None]:
        found = self._scripts([self._follow(job, row) for job, row in jobs])
        return [None if flat is None else earlier_of(job, flat) for (job, _), flat in zip(jobs, found, strict=True)]

    def _follow(self, job: str, row: str) -> Call:
        return Call("follow", [keys.job(job)], [row, _words(PENDING)])

    def wake(self, jobs: Sequence[str]) -> None:
        self._scripts([_wake(job) for job in jobs])

    def _move(self, move: Move) -> Call:
        rule = MOVES[move.name]
        shard, (batch, _) = shard_of(move.job), split_job_id(move.job)
        names = [
            keys.job(move.job),
            keys.due(shard, Lane.START),
            keys.due(shard, Lane.POLL),
            keys.count(shard, batch),
            keys.ask(move.job),
            keys.answer(move.job),
            keys.dead(shard),
            keys.calls(move.job),
            keys.functions(shard),
            keys.objects(move.job),
            keys.buried(shard),
        ]
        lane = ""
        if rule.target is not None and rule.target not in TERMINAL:
            lane = "2" if LANE_OF[rule.target] is Lane.START else "3"
        fields = codec.record_fields(move)
        dropped = [name for name, value in fields.items() if value is None]
        args: list[str | int | float | bytes] = [
            move.job,
            move.fence,
            move.name,
            _words(rule.sources),
            rule.target or "",
            lane,
            move.delay,
            self._keep_s,
            b"" if move.answer is None else codec.dump_answer(move.answer),
            "1" if rule.keeps_claim else "",
            "1" if rule.yields_to_witness else "",
            "1" if move.fields.get("error_code") == DEAD_LETTER else "",
            "1" if fields.keys() & REMOTE_FIELDS else "",
            len(move.calls),
            *(part for call in move.calls for part in (call.key, call.to_json())),
            len(dropped),
            *dropped,
        ]
        for name, value in fields.items():
            if value is not None:
                args += (name, value)
        return Call("move", names, args)

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        self._scripts([Call("witness", [keys.job(job)], [attempt, run_id])])

    def next_due(self, lane: Lane) -> float | None:
        def read() -> list[tuple[Any, float]]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.due(shard, lane), 0, 0, withscores=True)
            return self._timed(pipe)

        # Each by the clock that it was scheduled by.
        return min((head[0][1] - now for head, now in self._run(read) if head), default=None)

    def now(self) -> float:
        return self._time()

    def set_back(self, seconds: float, shards: Sequence[int]) -> bool:
        # Every worker notices; moved twice, jobs would be polled too early, which harms nobody but the service.
        names = [
            [keys.due(shard, Lane.START), keys.due(shard, Lane.POLL), keys.functions(shard), keys.clock(shard)]
            for shard in shards
        ]
        args = [seconds, _millis(_SAME_STEP_S)]
        if not any(moved >= 0 for moved in self._scripts([Call("shift", each, args) for each in names])):
            return False
        self._shift_libraries(args)
        # What is held until a moment of the old clock would be held that much longer. The living take it anew at once.
        held = [keys.lease(shard, lane) for shard in shards for lane in Lane]
        held += [key(lane) for key in (keys.chains, keys.hint) for lane in (*Lane, keys.TOOLS)]
        held += [keys.NODES, *(keys.probe(_concerned(pause.account, pause.protocol)) for pause in self.pauses())]
        pipe = self._redis.pipeline(transaction=False)
        for name in held:
            pipe.delete(name)
        self._run(pipe.execute)
        return True

    # -- sharing the work --------------------------------------------------------------------------------

    def enlist(self, lane: Lane, execution: str, *, ttl_s: float) -> int:
        self._run(lambda: self._redis.delete(keys.hint(lane)))
        return len(self._register(keys.chains(lane), execution, ttl_s))

    def hint(self, lane: Lane, *, ttl_s: float) -> bool:
        return bool(self._run(lambda: self._redis.set(keys.hint(lane), "1", nx=True, px=_millis(ttl_s))))

    def running(self, lane: Lane) -> int:
        return len(self._register(keys.chains(lane), "", 0))

    def discharge(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        self.release(lane, execution, shards)
        self._run(lambda: self._redis.zrem(keys.chains(lane), execution))

    def release(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        self._scripts([Call("release", [keys.lease(shard, lane)], [execution]) for shard in shards])

    def hold(self, lane: Lane, execution: str, shards: Sequence[int], *, ttl_s: float) -> list[int]:
        calls = [Call("hold", [keys.lease(shard, lane)], [execution, _millis(ttl_s)]) for shard in shards]
        return [shard for shard, held in zip(shards, self._scripts(calls), strict=True) if held]

    def _register(self, register: str, member: str, ttl_s: float) -> list[str]:
        (alive,) = self._scripts([Call("register", [register], [member, ttl_s])])
        return [decoded(name) for name in alive]

    # -- budgets -----------------------------------------------------------------------------------------

    def set_budget(self, batch: str, limit_usd: float) -> None:
        def write() -> None:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(keys.budget(batch), "limit", codec.limit_in_millionths(limit_usd))
            pipe.hdel(keys.budget(batch), "refused")
            pipe.execute()

        self._run(write)

    def reserve(self, job: str, attempt: int, cost_usd: float, *, covers_earlier: bool = False) -> bool:
        batch, _ = split_job_id(job)
        cost = codec.cost_in_millionths(cost_usd)
        args = [job, attempt, cost, "1" if covers_earlier else ""]
        (granted,) = self._scripts([Call("reserve", [keys.budget(batch)], args)])
        return bool(granted)

    def settle(self, job: str, attempt: int, cost_usd: float | None) -> None:
        batch, _ = split_job_id(job)
        cost = "" if cost_usd is None else codec.cost_in_millionths(cost_usd)
        self._scripts([Call("settle", [keys.budget(batch)], [job, attempt, cost])])

    def reconcile_budget(self, batch: str, *, only: str | None = None) -> int:
        found = self._run(lambda: self._redis.hgetall(keys.budget(batch)))
        aside = {
            job: int(decoded(kept).partition("/")[0])
            for field, kept in found.items()
            if (job := decoded(field).partition("@")[2]) and only in (None, job)
        }

        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for job in aside:
                pipe.hmget(keys.job(job), "state", "attempts", "cost")
            return list(pipe.execute())

        settled = 0
        for (job, attempt), (state, attempts, cost) in zip(aside.items(), self._run(read), strict=True):
            if state is None or State(decoded(state)) in TERMINAL:
                made = state is None or int(attempts or 0) >= attempt
                known = None if made else 0.0
                self.settle(job, attempt, known if cost is None else float(cost))
                settled += 1
        return settled

    # -- limits ------------------------------------------------------------------------------------------

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        return self._limit(redis_limits.take(scope, asks, bound=bound, window=window))

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        return self._limit(redis_limits.learn(scope, heard))

    def look_limits(self, scope: Scope) -> Permit:
        return self._limit(redis_limits.look(scope))

    def _limit(self, call: redis_limits.Arguments) -> Permit:
        return redis_limits.permit(self._scripts([Call("limit", *call)])[0])

    def waits(self) -> list[Wait]:
        now = self.now()
        # Who waits asks again when the time has come; what is older was left by a worker that is gone.
        found = self._run(
            lambda: self._redis.zrangebyscore(keys.WAITS, now - redis_limits.FORGOTTEN_S, "+inf", withscores=True)
        )
        scopes = [redis_limits.scope(decoded(member)) for member, _ in found]
        looks = self._scripts([Call("limit", *redis_limits.look(scope)) for scope in scopes])
        return [
            redis_limits.wait(scope, until, redis_limits.permit(look))
            for scope, (_, until), look in zip(scopes, found, looks, strict=True)
        ]

    def took(self, digest: str, more: Counts = NO_RUNS) -> Counts:
        (found,) = self._scripts([Call("took", *redis_limits.took(digest, more))])
        return redis_limits.counts(found)

    def waiting(self, lane: Lane) -> int:
        def read() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zcard(keys.due(shard, lane))
            return list(pipe.execute())

        return sum(self._run(read))

    # -- accounts and nodes ------------------------------------------------------------------------------

    def pause(
        self, account: str, code: str, message: str, *, probe_after_s: float, protocol: str | None = None
    ) -> None:
        seconds, micros = self._run(self._redis.time)
        now = seconds + micros / 1e6
        concerned = _concerned(account, protocol)
        pause = Pause(
            account=account,
            code=code,
            message=message,
            since=now,
            probe_at=now + probe_after_s,
            protocol=protocol,
        )
        known = self._run(lambda: self._redis.hget(keys.PAUSES, concerned))
        if known is not None and (before := pause_of(known)).code == code:
            pause = dataclasses.replace(pause, since=before.since)
        self._run(lambda: self._redis.hset(keys.PAUSES, concerned, json.dumps(dataclasses.asdict(pause))))
        self._run(lambda: self._redis.set(keys.probe(concerned), "1", px=_millis(probe_after_s)))

    def resume(self, account: str, *, protocol: str | None = None) -> bool:
        concerned = _concerned(account, protocol)
        found = self._run(lambda: self._redis.hdel(keys.PAUSES, concerned))
        self._run(lambda: self._redis.delete(keys.probe(concerned)))
        return bool(found)

    def pauses(self) -> list[Pause]:
        return [pause_of(data) for data in self._run(lambda: self._redis.hgetall(keys.PAUSES)).values()]

    def probe(self, account: str, *, again_after_s: float, protocol: str | None = None) -> bool:
        key = keys.probe(_concerned(account, protocol))
        return bool(self._run(lambda: self._redis.set(key, "1", nx=True, px=_millis(again_after_s))))

    def return_probe(self, account: str, *, protocol: str | None = None) -> None:
        self._run(lambda: self._redis.delete(keys.probe(_concerned(account, protocol))))

    def remote_assistant(self, account: str, digest: str) -> str | None:
        found = self._run(lambda: self._redis.get(keys.remote(account, digest)))
        return None if found is None else decoded(found)

    def save_remote_assistant(self, account: str, digest: str, remote: str) -> str:
        return self._first(keys.remote(account, digest), remote)

    def drop_remote_assistant(self, account: str, digest: str, remote: str) -> None:
        self._scripts([Call("release", [keys.remote(account, digest)], [remote])])

    def beat(self, node: Node, *, ttl_s: float) -> None:
        self._register(keys.NODES, json.dumps(dataclasses.asdict(node), sort_keys=True), ttl_s)

    def nodes(self) -> list[Node]:
        return [Node(**json.loads(text)) for text in self._register(keys.NODES, "", 0)]

    def tidy(self, *, keep_s: float) -> int:
        ids = [decoded(id_) for id_ in self._run(lambda: self._redis.zrange(keys.BATCHES, 0, -1))]

        def lifetimes() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.ttl(keys.batch(id_))
            return list(pipe.execute())

        self._run(partial(self._forget_dead, keep_s))
        ttls = dict(zip(ids, self._run(lifetimes), strict=True))
        if gone := [id_ for id_, ttl in ttls.items() if ttl == -2]:
            for id_ in gone:
                # What it used is deleted at the service, unless others use it; and so is what it had made itself.
                for thing in self.uses(id_):
                    self.unshare(thing, id_)
                self.bury(id_)
            self._run(lambda: self._redis.zrem(keys.BATCHES, *gone))
        # Only batches that are not marked yet are looked at: finished ones stay for weeks, and this runs every minute.
        open_ = [id_ for id_, ttl in ttls.items() if ttl == -1]
        marked = 0
        for start in range(0, len(open_), _STATUSES_PER_CALL):
            over = [status for status in self._statuses(open_[start : start + _STATUSES_PER_CALL]) if status.done]
            self._run(partial(self._expire, over, int(keep_s)))
            marked += len(over)
        return marked

    def _forget_dead(self, keep_s: float) -> None:
        """Dead letters go when the records they are about do."""
        seconds, _ = self._redis.time()
        pipe = self._redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.zremrangebyscore(keys.dead(shard), "-inf", seconds - keep_s)
        pipe.execute()

    def _expire(self, batches: Sequence[BatchStatus], keep_s: int) -> None:
        rest, own = self._redis.pipeline(transaction=False), self._redis.pipeline(transaction=False)
        for status in batches:
            # It has gone on since it was last audited, or this is its first end.
            rest.hdel(keys.batch(status.id), "audited")
            # The batch itself last: that it expires is the sign that all else does, should this be cut off half-way.
            record, *others = _lasting(status.id, status.idempotency_key)
            for name in others:
                rest.expire(name, keep_s)
            own.expire(record, keep_s)
        rest.execute()
        own.execute()

    def calls(self) -> Calls:
        return RedisCalls(
            self._redis,
            run=self._run,
            timed=self._timed,
            scripts=lambda calls, on_disk: self._scripts([Call(*call) for call in calls], on_disk=on_disk),
        )

    def books(self) -> Books:
        # Here, because most programs audit nothing.
        from askq.jobs.redis_audit import RedisBooks

        return RedisBooks(
            self._redis,
            run=self._run,
            clocks=self.clocks,
            infos=self._infos,
            scripts=lambda calls: self._scripts([Call(*call) for call in calls]),
            text=lambda name: lua()[name][1],
            keep_s=self._keep_s,
        )

    def close(self) -> None:
        self._redis.close()


def _wake(job: str) -> Call:
    return Call("wake", [keys.job(job), keys.due(shard_of(job), Lane.START)], [job])


def _millis(seconds: float) -> int:
    """A lifetime as Redis takes it: there is none of no time at all."""
    return max(1, int(seconds * 1000))


def _words(states: Collection[State]) -> str:
    """States as the scripts look them up."""
    return "," + ",".join(sorted(states)) + ","


def _concerned(account: str, protocol: str | None) -> str:
    return account if protocol is None else f"{account}/{protocol}"


def _held(claims: Sequence[tuple[str, int]]) -> Iterator[tuple[list[str], list[str | int]]]:
    """Keys and arguments of claimed jobs, shard by shard."""
    groups: dict[int, list[tuple[str, int]]] = {}
    for id_, fence in claims:
        groups.setdefault(shard_of(id_), []).append((id_, fence))
    for shard, members in groups.items():
        names = [keys.due(shard, Lane.START), keys.due(shard, Lane.POLL), *(keys.job(id_) for id_, _ in members)]
        yield names, [part for member in members for part in member]


def _lasting(batch: str, idempotency_key: str | None) -> list[str]:
    """The keys of a batch that last as long as any of its jobs has not ended."""
    names = [keys.batch(batch), keys.budget(batch)]
    if idempotency_key is not None:
        names.append(keys.idempotency(idempotency_key))
    for shard in range(SHARDS):
        names += (keys.rows(shard, batch), keys.count(shard, batch))
    return names


def _persisting(batch: str, idempotency_key: str | None) -> list[Callable[[Pipeline], None]]:
    """What lets a batch stay, to be done in this order: once its record stays, `tidy` lets the rest expire again,
    should this be cut off half-way."""
    record, *others = _lasting(batch, idempotency_key)

    def persist(names: Sequence[str], pipe: Pipeline) -> None:
        for name in names:
            pipe.persist(name)

    return [partial(persist, [record]), partial(persist, others)]


def _parts(batch: str, jobs: Sequence[NewJob]) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Position in `jobs` and job id of each, by shard, in parts for one call of a script each."""
    groups: dict[int, list[tuple[int, str]]] = {}
    for at, new in enumerate(jobs):
        id_ = job_id(batch, new.question.row_id)
        groups.setdefault(shard_of(id_), []).append((at, id_))
    for shard, members in groups.items():
        for start in range(0, len(members), _ROWS_PER_CALL):
            yield shard, members[start : start + _ROWS_PER_CALL]


def _added(jobs: Sequence[NewJob], verdicts: Mapping[int, int]) -> Added:
    """`verdicts` says of each position what add.lua says of a row."""
    return Added(
        added=sum(verdict == 1 for verdict in verdicts.values()),
        already=sum(verdict == 0 for verdict in verdicts.values()),
        conflicts=tuple(new.question.row_id for at, new in enumerate(jobs) if verdicts[at] == -1),
    )
