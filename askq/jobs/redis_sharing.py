"""Who works on what, in Redis: chains, the shards they hold, and the processes that are alive."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from askq.jobs import keys
from askq.jobs.model import Lane, Node
from askq.jobs.records import decoded, node_of
from askq.jobs.redis_wire import Call, RedisWire, millis


class RedisSharing(RedisWire):
    """What `RedisStore` knows of those who work."""

    def enlist(self, lane: Lane, execution: str, *, ttl_s: float) -> int:
        self._run(lambda: self._redis.delete(keys.hint(lane)))
        return len(self._register(keys.chains(lane), execution, ttl_s))

    def hint(self, lane: Lane, *, ttl_s: float) -> bool:
        return bool(self._run(lambda: self._redis.set(keys.hint(lane), "1", nx=True, px=millis(ttl_s))))

    def running(self, lane: Lane) -> int:
        return len(self._register(keys.chains(lane), "", 0))

    def discharge(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        self.release(lane, execution, shards)
        self._run(lambda: self._redis.zrem(keys.chains(lane), execution))

    def release(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        self._scripts([Call("release", [keys.lease(shard, lane)], [execution]) for shard in shards])

    def hold(self, lane: Lane, execution: str, shards: Sequence[int], *, ttl_s: float) -> list[int]:
        calls = [Call("hold", [keys.lease(shard, lane)], [execution, millis(ttl_s)]) for shard in shards]
        return [shard for shard, held in zip(shards, self._scripts(calls), strict=True) if held]

    def beat(self, node: Node, *, ttl_s: float) -> None:
        self._register(keys.NODES, json.dumps(dataclasses.asdict(node), sort_keys=True), ttl_s)

    def nodes(self) -> list[Node]:
        return [node_of(text) for text in self._register(keys.NODES, "", 0)]

    def _register(self, register: str, member: str, ttl_s: float) -> list[str]:
        (alive,) = self._scripts([Call("register", [register], [member, ttl_s])])
        return [decoded(name) for name in alive]
