"""Conversations under kills: each answer quotes what was said before it, so that a wrong neighbour would show."""

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
    conversations: int
    """Per protocol and leg."""
    turns: int
    strikes: int
    """In each leg."""
    legs: tuple[Leg, ...]
    kills: float
    """Factor of the failpoints' shares."""
    run_s: tuple[float, float]
    settle_s: float
    least_kills: int
    least_points: int
    """SIGKILLs at the places where a question joins its conversation."""


SIZES = {
    "short": Size(6, 3, 3, (legs.MIXED,), 0.3, (0.2, 0.6), 150, 3, 0),
    "full": Size(200, 5, 24, legs.BOTH, 0.1, (0.3, 2.0), 150, 70, 5),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 3,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 5,
}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = Report()

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.converse(protocol, size.conversations, size.turns)
        world.begin()
        # To the last turn: a question is in danger only while it joins, runs and ends.
        world.suffer_through(STRIKES, times=size.strikes, patience_s=size.settle_s)
        world.disarm()
        world.settle(size.settle_s)

    options = {"run_s": size.run_s, "kills": size.kills, "timeout_s": 20.0}
    for verdict in legs.each(size.legs, seed, folder, storm, **options):
        report += verdict
    report.need("kills", report.kills, size.least_kills)
    if size.least_points:
        joining = sum(hits for point, hits in report.points.items() if point.startswith(("join.", "follow.")))
        report.need("kills while a question joins", joining, size.least_points)
    return report
