"""Reading batches and jobs in Redis."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from askq.ids import SHARDS, job_id, shard_of
from askq.jobs import keys
from askq.jobs.model import BatchStatus, Job, Lane, State
from askq.jobs.records import budget_of, decoded, job_of, pause_of, record_of, status_of
from askq.jobs.redis_accounts import RedisAccounts
from askq.jobs.redis_limits import RedisLimits

_PAGE = 200


class RedisReading(RedisAccounts, RedisLimits):
    """What `RedisStore` tells of batches and jobs."""

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

    def dead_letters(self) -> dict[str, float]:
        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.dead(shard), 0, -1, withscores=True)
            return list(pipe.execute())

        return {decoded(job): when for members in self._run(read) for job, when in members}
