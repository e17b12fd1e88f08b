"""Asking, in Redis: batches are opened, filled and sealed; their jobs are cancelled and asked again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from redis.client import Pipeline

from askq.errors import StoreError
from askq.ids import job_id, new_batch_id, shard_of, split_job_id
from askq.jobs import codec, keys
from askq.jobs.model import (
    ASKED_AGAIN,
    CANCELLED_IN_TIME,
    PENDING,
    TERMINAL,
    WAIT_FOR_TURN_S,
    Added,
    Lane,
    NewBatch,
    NewJob,
    Outcome,
    State,
)
from askq.jobs.records import decoded, encoded
from askq.jobs.redis_forgetting import persisting
from askq.jobs.redis_wire import Call, words
from askq.jobs.redis_working import RedisWorking, waking

_ROWS_PER_CALL = 50
"""So that no call holds up the others of a busy server for more than a millisecond or two."""


class RedisAsking(RedisWorking):
    """What `RedisStore` does for who asks."""

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
            self._in_order(*persisting(batch, new.idempotency_key))
        return batch, batch == mine

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

        lasting = persisting(batch, None if idem is None else decoded(idem))
        # The seal last: who is cut off before it submits again.
        self._wait_for_disk(self._in_order(*lasting, lambda pipe: pipe.hset(key, "total", str(total)), self._all))

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        wanted, other = set(ends) & ASKED_AGAIN, TERMINAL - (set(ends) & ASKED_AGAIN)
        calls = []
        for job in jobs:
            shard, (batch, _) = shard_of(job), split_job_id(job)
            names = [keys.job(job), keys.due(shard, Lane.START), keys.count(shard, batch)]
            names += [keys.ask(job), keys.answer(job), keys.dead(shard), keys.objects(job)]
            calls.append(Call("retry", names, [job, words(wanted), words(other), " ".join(codec.OF_A_RUN)]))
        # The batch first: once a job is pending again nothing of it may expire.
        self._persist({split_job_id(job)[0] for job in jobs})
        return [Outcome(decoded(found)) for found in self._scripts(calls, on_disk=True)]

    def _persist(self, batches: Collection[str]) -> None:
        for batch in batches:
            idem = self._run(partial(self._redis.hget, keys.batch(batch), "idem"))
            self._in_order(*persisting(batch, None if idem is None else decoded(idem)))

    def cancel(self, jobs: Sequence[str]) -> list[Outcome]:
        calls = []
        for job in jobs:
            shard = shard_of(job)
            names = [keys.job(job), keys.due(shard, Lane.START), keys.due(shard, Lane.POLL)]
            names += [keys.count(shard, split_job_id(job)[0]), keys.ask(job), keys.objects(job), keys.buried(shard)]
            calls.append(Call("cancel", names, [job, words(PENDING), self._keep_s, CANCELLED_IN_TIME]))
        # Who waits for them first, as in `commit`; of those that are cancelled here, none has a turn to come.
        waiting = set(self._next_of(jobs)) - set(jobs) if jobs else set()
        outcomes = self._scripts([*map(waking, waiting), *calls], on_disk=True)[len(waiting) :]
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
