"""The job store in Redis (or Valkey): the truth of the whole system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from askq.jobs.calls import Calls
from askq.jobs.redis_asking import RedisAsking
from askq.jobs.redis_budgets import RedisBudgets
from askq.jobs.redis_calls import RedisCalls
from askq.jobs.redis_forgetting import RedisForgetting
from askq.jobs.redis_live import RedisLive
from askq.jobs.redis_sharing import RedisSharing
from askq.jobs.redis_wire import Call, lua

if TYPE_CHECKING:
    from askq.jobs.books import Books

_DAY_S = 86_400


class RedisStore(RedisAsking, RedisForgetting, RedisSharing, RedisBudgets, RedisLive):
    """`Store` over Redis: one server, one behind Sentinel, or a cluster (`redis_address` has the addresses).

    `keep_days` is how long finished jobs stay; `replicas`, how many replicas of each server must have a promise on
    disk, too, before it is given. Raises StoreUnreachable when the server does not answer twice, each
    time within `timeout_s`, and StoreError when it refuses (wrong password, out of memory, read-only) or when the
    address is no address.
    """

    def __init__(self, url: str, *, keep_days: float = 30, timeout_s: float = 3.0, replicas: int = 0) -> None:
        super().__init__(url, timeout_s=timeout_s, replicas=replicas)
        self._keep_s = int(keep_days * _DAY_S)

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
            text=lambda name: lua(name)[1],
            keep_s=self._keep_s,
        )
