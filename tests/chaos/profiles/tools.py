"""P11: every question needs functions, and workers, those that run functions and the functions' own processes are
killed throughout. What is finished and on record is never run again."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.diary import at_work, cut_off
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.questions import TOOLS
from tests.chaos.report import Report
from tests.chaos.world import Strike, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    strikes: int
    every: tuple[float, float]
    """Seconds between two of them: in full size they last as long as the work does."""
    legs: tuple[Leg, ...]
    kills: float
    """Failpoints: a factor for their shares."""
    least_kills: int
    least_runners: int
    """Processes of functions that were killed."""
    patience_s: float


SIZES = {
    "short": Size(10, 7, (0.2, 0.8), (legs.MIXED,), 0.3, 5, 1, 150.0),
    "full": Size(250, 90, (0.8, 2.4), (legs.MIXED,), 0.1, 80, 20, 120.0),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 2,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 3,
    lambda world: world.crew.kill_runner(at_work(world.diary)): 4,
    lambda world: world.crew.ask_to_end(signal.SIGTERM): 1,
}


def _cuts_off(world: World) -> bool:
    """Kill a function that is at work; whether it had not come to its end by itself just before."""
    return world.crew.kill_runner(at_work(world.diary)) and cut_off(world.diary)


def run(size: Size, seed: int, folder: Path) -> Report:
    report = Report()

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4, kinds=(TOOLS,))
        world.begin()
        # Where workers take long to start, the other blows may all fall before the first function is at work.
        world.wait(lambda: _cuts_off(world), seconds=100, what="a function is cut off")
        world.suffer(STRIKES, times=size.strikes, every=size.every)
        # A worker that dies of itself at every turn would make any question look like poison at last.
        world.disarm()
        world.settle(size.patience_s)

    options = {"kills": size.kills, "tools": 2, "timeout_s": 600.0, "run_s": (0.2, 1.0)}
    for verdict in legs.each(size.legs, seed, folder, storm, **options):
        report += verdict
    report.need("kills", report.kills, size.least_kills)
    report.need("kills of functions", report.strikes["kill of a function's process"], size.least_runners)
    report.need("calls", report.calls, 3 * report.jobs)
    report.need("calls run again after a kill", report.executions - report.calls, 1)
    return report
