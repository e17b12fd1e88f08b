"""What the contenders have to survive: the same for each, from one seed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.crew import Crew
from tests.acceptance.stack import Stack

_CREATES = "/(runs|responses)$"
_APART_S = 1.0
"""Between two kills at least: without it, those on a list whose runs are made at once would all be one."""
_STALLED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One column of the table."""

    kills: int = 0
    """SIGKILLs, by turns of a whole worker and of one pool process. The first half comes while runs are created, spread
    evenly over the list; the second half one every 2 to 4 seconds after that."""
    redis_restarts: int = 0
    """SIGKILLs of Redis, which comes back after 0.3 to 1.5 seconds, one every `redis_every_s`."""
    redis_every_s: tuple[float, float] = (3.0, 6.0)
    api_faults: bool = False
    """A fifth of the creates goes wrong: 5 % are carried out and the reply is lost, 5 % are carried out and answered
    with 500, 10 % are refused with 429 and Retry-After."""

    def rules(self, *, create_s: float, seed: int) -> list[Mapping[str, Any]]:
        """The server's orders. Every create that goes well takes `create_s` to answer, the run being made first."""
        creates = {"method": "POST", "path": _CREATES}
        faults = [
            creates | {"kind": "drop_after", "probability": 0.05, "seed": seed},
            creates | {"kind": "status_after", "status": 500, "probability": 0.05, "seed": seed + 1},
            creates
            | {
                "kind": "status",
                "status": 429,
                "code": "rate_limit_exceeded",
                "headers": {"Retry-After": "1"},
                "probability": 0.1,
                "seed": seed + 2,
            },
        ]
        latency = creates | {"kind": "slow_body", "seconds": create_s}
        return [*(faults if self.api_faults else []), latency]

    def strike(self, stack: Stack, crew: Crew, *, questions: int, seed: int) -> Counter[str]:
        """Do the killing; what was done, by kind."""
        pick = random.Random(seed)
        done: Counter[str] = Counter()
        early = (self.kills + 1) // 2
        for number in range(self.kills):
            if number < early:
                _wait_for_runs(stack, crew, questions * (number + 1) // (early + 1))
            else:
                crew.watch(pick.uniform(2.0, 4.0))
            if number % 2 == 0:
                crew.kill_worker(pick)
                done["worker_kills"] += 1
            else:
                crew.kill_pool_process(pick)
                done["pool_process_kills"] += 1
        for _ in range(self.redis_restarts):
            crew.watch(pick.uniform(*self.redis_every_s))
            stack.redis.kill()
            crew.watch(pick.uniform(0.3, 1.5))
            stack.redis.start()
            stack.wait_for_redis()
            done["redis_restarts"] += 1
        return done


def _wait_for_runs(stack: Stack, crew: Crew, runs: int) -> None:
    """Until the server has made so many, or none for a while: by the kills before this one, perhaps."""
    crew.watch(_APART_S)
    most, since = -1, time.monotonic()
    while (made := stack.admin("stats")["ledger"]) < runs:
        if made > most:
            most, since = made, time.monotonic()
        if time.monotonic() - since > _STALLED_S:
            return
        crew.watch(0.05)
