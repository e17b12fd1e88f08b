"""P2: SIGKILL of groups, main and pool processes; SIGTERM deploys and cold shutdowns."""

from __future__ import annotations

import signal
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
    strikes: int
    """In each leg."""
    legs: tuple[Leg, ...]
    timeout_s: float
    least_kills: int


SIZES = {
    "short": Size(40, 12, (legs.WITHOUT_KEYS,), 12.0, 6),
    "full": Size(120, 44, legs.BOTH, 20.0, 60),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 3,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 5,
    lambda world: world.crew.ask_to_end(signal.SIGTERM): 1,
    lambda world: world.crew.ask_to_end(signal.SIGQUIT): 1,
}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = Report()

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
        world.begin()
        world.suffer(STRIKES, times=size.strikes, every=(0.2, 0.8))
        world.settle(150)

    for verdict in legs.each(size.legs, seed, folder, storm, timeout_s=size.timeout_s):
        report += verdict
    report.need("kills", report.kills, size.least_kills)
    for how in ("SIGTERM", "SIGQUIT"):
        report.need(how, report.strikes[f"{how} to a worker"], 1)
    return report
