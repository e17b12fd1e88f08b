"""P3: Redis is killed, paused, frozen, slow, out of memory, and its disk is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import Strike, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    talks: int
    """Conversations of three questions, per protocol."""
    rounds: int
    """How often each fault happens at least, in each leg."""
    kills: int
    """SIGKILLs more in each round."""
    legs: tuple[Leg, ...]
    least_restarts: int


SIZES = {
    "short": Size(30, 3, 1, 0, (legs.MIXED,), 1),
    "full": Size(80, 20, 2, 2, legs.BOTH, 12),
}

STRIKES: Mapping[str, Strike] = {
    "SIGKILL of Redis": lambda world: world.server.kill(world.pick.uniform(0.1, 1.0)),
    "CLIENT PAUSE": lambda world: world.server.pause(1.5),
    "freeze of Redis": lambda world: world.server.freeze(3.5),
    "slow Redis": lambda world: world.server.starve(2.0),
    "out of memory": lambda world: world.server.fill_memory(2.5),
    "disk full": lambda world: world.server.fill_disk(3.0),
}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = Report()

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4 * size.rounds)
            world.converse(protocol, size.talks, 3)
        world.begin()
        strikes = [*STRIKES.values(), *size.kills * [STRIKES["SIGKILL of Redis"]]] * size.rounds
        world.pick.shuffle(strikes)
        for number, strike in enumerate(strikes):
            world.release(number / len(strikes))
            world.live(world.pick.uniform(0.3, 1.5))
            strike(world)
        world.settle(150)

    for verdict in legs.each(size.legs, seed, folder, storm):
        report += verdict
    report.need("Redis restarts", report.redis_restarts, size.least_restarts)
    for name in STRIKES:
        report.need(name, report.strikes[name], size.rounds)
    return report
