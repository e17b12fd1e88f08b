"""P6: workers stopped (SIGSTOP) for longer than a lease wake up with claims that are others' by then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    stops: int
    legs: tuple[Leg, ...]
    least_stale: int


SIZES = {
    "short": Size(40, 4, (legs.MIXED,), 1),
    "full": Size(70, 10, legs.BOTH, 20),
}


_BETWEEN = {"commit.start.before": 0.01, "commit.poll.before": 0.004, "start.before": 0.005, "claim.after": 0.002}
"""Between claim and commit, on both sides of the paid call: place → share of SIGSTOPs there."""


def run(size: Size, seed: int, folder: Path) -> Report:
    def zombies(world: World, leg: Leg) -> None:
        # Calls that take a while are open at the moment of a stop; their replies wait in the socket for the zombie.
        world.slow_calls(creates_s=0.6, reads_s=0.4)
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
        world.begin()
        world.suffer({lambda world: world.crew.stop(): 1}, times=size.stops, every=(1.0, 3.0))
        world.disarm()
        world.settle(60)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, zombies, workers=3, stops=_BETWEEN):
        report += verdict
    report.need("stale commits attempted", report.stale_commits, size.least_stale)
    return report
