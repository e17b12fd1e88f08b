"""What the contenders have to survive: the same for each, from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.crew import Crew
from tests.acceptance.stack import Stack

_CREATES = "/(runs|responses)$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One column of the table."""

    kills: int = 0
    """SIGKILLs, by turns of a whole worker and of one pool process, one every 0.6 to 2 seconds."""
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

    def strike(self, stack: Stack, crew: Crew, *, seed: int) -> Counter[str]:
        """Do the killing; what was done, by kind."""
        pick = random.Random(seed)
        done: Counter[str] = Counter()
        for number in range(self.kills):
            crew.watch(pick.uniform(0.6, 2.0))
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
