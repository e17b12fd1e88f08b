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


_MOST_MORE = 6
_AT_WORK = 6
"""Claims in somebody's hands."""


def run(size: Size, seed: int, folder: Path) -> Report:
    def zombies(world: World, leg: Leg) -> None:
        # Calls that take a while are open at the moment of a stop; their replies wait in the socket for the zombie.
        world.slow_calls(creates_s=0.6, reads_s=0.4)
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
        world.begin()
        world.suffer({lambda world: world.crew.stop(): 1}, times=size.stops, every=(1.0, 3.0))
        for _ in range(_MOST_MORE):
            # A worker that was stopped while it booted, or had nothing in hand, says nothing.
            if world.tape.stale_attempted >= size.least_stale / len(size.legs):
                break
            _stop_one_at_work(world, leg)
        world.disarm()
        world.settle(150)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, zombies, workers=3, stops=_BETWEEN):
        report += verdict
    report.need("stale commits attempted", report.stale_commits, size.least_stale)
    return report


def _stop_one_at_work(world: World, leg: Leg) -> None:
    for protocol in leg.protocols:
        world.ask(protocol, 10)
    world.release(1)
    world.wait(
        lambda: len(world.server.held()) >= _AT_WORK and world.crew.stop(),
        seconds=60,
        what="somebody at work is stopped",
    )
    # Until it is awake again, and has tried.
    world.live(world.crew.sleep_s + 2.0)
