"""Who works on what, in the store in memory: the twin of redis_sharing.py."""

from __future__ import annotations

from collections.abc import Sequence

from askq.jobs.memory_state import MemoryState
from askq.jobs.model import Lane, Node


class MemorySharing(MemoryState):
    """What `MemoryStore` knows of those who work."""

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

    def beat(self, node: Node, *, ttl_s: float) -> None:
        with self._lock:
            self._nodes[node] = self._clock() + ttl_s

    def nodes(self) -> list[Node]:
        with self._lock:
            now = self._clock()
            return [node for node, until in self._nodes.items() if until > now]
