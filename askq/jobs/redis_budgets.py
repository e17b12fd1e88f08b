"""Budgets in Redis: one hash per batch that has one."""

from __future__ import annotations

import hashlib
from typing import Any

from askq.ids import split_job_id
from askq.jobs import codec, keys
from askq.jobs.model import TERMINAL, State
from askq.jobs.records import decoded
from askq.jobs.redis_wire import Call, RedisWire

_AGAIN_S = 30 * 86_400
"""How long after the last one it is known how many runs of a batch were wanted once more."""


class RedisBudgets(RedisWire):
    """What `RedisStore` knows of budgets."""

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

    def asked_again(self, job: str, attempt: int) -> int:
        name = keys.again(split_job_id(job)[0])
        # Row ids may be somebody's data, and this outlives the job.
        member = hashlib.sha256(f"{job}/{attempt}".encode(errors="surrogatepass")).hexdigest()[:24]

        def note() -> int:
            pipe = self._redis.pipeline(transaction=True)
            pipe.sadd(name, member)
            pipe.expire(name, _AGAIN_S)
            pipe.scard(name)
            return int(pipe.execute()[-1])

        return int(self._run(note))

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
