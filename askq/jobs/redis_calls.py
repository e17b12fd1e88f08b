"""Function calls in Redis: beside the records of their jobs, in the same shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from askq.ids import SHARDS, shard_of
from askq.jobs import keys
from askq.jobs.calls import CallClaim, CallResult, KeptCall, Recorded, WantedCall, kept_calls
from askq.jobs.model import Lane
from askq.jobs.records import decoded, record_of

Script = tuple[str, Sequence[str], Sequence[Any]]
"""Name, keys and arguments of a script call."""


class RedisCalls:
    """`Calls` over one Redis server; made by the store, whose connections and scripts it uses.

    `run` turns the client's errors into ours; `timed` carries out a pipeline and tells the time beside each reply;
    `scripts` runs calls in one pipeline, and waits for the disk if told.
    """

    def __init__(
        self,
        client: Any,
        *,
        run: Callable[[Callable[[], Any]], Any],
        timed: Callable[[Any], list[tuple[Any, float]]],
        scripts: Callable[[Sequence[Script], bool], list[Any]],
    ) -> None:
        self._redis = client
        self._run = run
        self._timed = timed
        self._scripts = scripts

    def look(self, job: str) -> Sequence[KeptCall]:
        names = [keys.job(job), keys.calls(job), keys.functions(shard_of(job))]
        (flat,) = self._scripts([("call_look", names, [job])], False)
        return kept_calls(record_of(flat))

    def claim(self, *, limit: int, lease_s: float) -> list[CallClaim]:
        # The shard whose first call's run has waited longest comes first.
        ranked = sorted((ahead, shard) for shard, ahead in enumerate(self._heads()) if ahead is not None and ahead <= 0)
        due = [shard for _, shard in ranked]
        taken: list[CallClaim] = []
        for shard in due:
            args = [keys.job_stem(shard), keys.calls_stem(shard), limit - len(taken), lease_s]
            (found,) = self._scripts([("call_claim", [keys.functions(shard)], args)], False)
            taken += (_claim(*call) for call in found)
            if len(taken) >= limit:
                break
        return taken

    def begin(self, claim: CallClaim) -> Recorded:
        return self._change(claim, "begin", "", on_disk=True)

    def renew(self, claim: CallClaim, *, lease_s: float) -> Recorded:
        return self._change(claim, "renew", lease_s)

    def finish(self, claim: CallClaim, result: CallResult, *, on_disk: bool = False) -> Recorded:
        # To wait for each would make every process run two calls a second, where the disk is written once a second.
        return self._change(claim, "finish", result.to_json(), on_disk=on_disk)

    def again(self, claim: CallClaim, *, crashed: bool, delay_s: float) -> Recorded:
        return self._change(claim, "crashed" if crashed else "untouched", delay_s)

    def _change(self, claim: CallClaim, what: str, value: str | float, *, on_disk: bool = False) -> Recorded:
        shard = shard_of(claim.job)
        names = [keys.job(claim.job), keys.calls(claim.job), keys.functions(shard), keys.due(shard, Lane.POLL)]
        args = [claim.job, claim.wanted.key, claim.fence, what, value]
        (found,) = self._scripts([("call_change", names, args)], on_disk)
        return Recorded(decoded(found))

    def next_due(self) -> float | None:
        return min((ahead for ahead in self._heads() if ahead is not None), default=None)

    def _heads(self) -> list[float | None]:
        """Seconds until the earliest call of each shard is due, by the clock that it was scheduled by."""

        def read() -> list[tuple[Any, float]]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.functions(shard), 0, 0, withscores=True)
            return self._timed(pipe)

        return [head[0][1] - now if head else None for head, now in self._run(read)]

    def waiting(self) -> int:
        def read() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zcard(keys.functions(shard))
            return list(pipe.execute())

        return sum(self._run(read))

    def enlist(self, execution: str, *, ttl_s: float) -> int:
        self._run(lambda: self._redis.delete(keys.hint(keys.TOOLS)))
        return self._register(execution, ttl_s)

    def discharge(self, execution: str) -> None:
        self._run(lambda: self._redis.zrem(keys.chains(keys.TOOLS), execution))

    def running(self) -> int:
        return self._register("", 0)

    def hint(self, *, ttl_s: float) -> bool:
        key = keys.hint(keys.TOOLS)
        return bool(self._run(partial(self._redis.set, key, "1", nx=True, px=int(ttl_s * 1000))))

    def _register(self, member: str, ttl_s: float) -> int:
        (alive,) = self._scripts([("register", [keys.chains(keys.TOOLS)], [member, ttl_s])], False)
        return len(alive)


def _claim(
    job: bytes, key: bytes, text: bytes, fence: bytes, claims: int, crashes: bytes, begun: int, digest: bytes
) -> CallClaim:
    return CallClaim(
        job=decoded(job),
        wanted=WantedCall.of(decoded(key), decoded(text)),
        fence=int(fence),
        assistant_digest=decoded(digest),
        claims=claims,
        crashes=int(crashes),
        begun=bool(begun),
    )
