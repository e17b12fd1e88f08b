"""P9: everything at once, at random moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import faults
from tests.chaos.postman import Postman
from tests.chaos.profiles import kills, legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.profiles.redis import STRIKES as REDIS
from tests.chaos.report import Report
from tests.chaos.world import Strike, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    talks: int
    """Conversations of three questions, per protocol."""
    strikes: int
    legs: tuple[Leg, ...]
    share: float
    """Probability of each API fault."""
    least_faults: int


SIZES = {
    "short": Size(40, 3, 6, (legs.MIXED,), 0.02, 10),
    "full": Size(150, 20, 28, legs.BOTH, 0.012, 120),
}

STRIKES: Mapping[Strike, int] = {
    **kills.STRIKES,
    **dict.fromkeys(REDIS.values(), 1),
    REDIS["SIGKILL of Redis"]: 3,
    lambda world: world.crew.stop(): 2,
}


def run(size: Size, seed: int, folder: Path) -> Report:
    def everything(world: World, leg: Leg) -> None:
        for name, rules in faults.OFTEN.items():
            world.arm(name, *(faults.at(rule, size.share) for rule in rules))
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=5)
            world.converse(protocol, size.talks, 3)
        with Postman(world.stack.redis_port, seed) as postman:
            world.begin()
            world.suffer(STRIKES, times=size.strikes, every=(0.2, 1.0))
        world.done += postman.done
        # The API goes on misbehaving until nearly everything has ended: it has as many occasions on any machine.
        world.persist(60)
        world.settle(200)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, everything, timeout_s=25.0):
        report += verdict
    report.need("API faults", sum(report.fault_kinds.values()), size.least_faults)
    return report
