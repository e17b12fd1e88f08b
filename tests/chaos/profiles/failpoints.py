"""P1: processes kill themselves (SIGKILL) at named places, before and after every call, commit and step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.questions import ODD, PLAIN
from tests.chaos.report import Report
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol and list; lists are submitted until places and kills are enough."""
    kills: int
    """In each leg."""
    points: int
    """Different places in each leg."""
    legs: tuple[Leg, ...]
    factor: float
    timeout_s: float
    least_points: int
    """Over all legs."""


SIZES = {
    "short": Size(20, 5, 4, (legs.MIXED,), 1.8, 10.0, 4),
    "full": Size(50, 55, 24, (legs.WITHOUT_KEYS, legs.MIXED), 1.6, 20.0, 30),
}
_MOST_LISTS = 16


def run(size: Size, seed: int, folder: Path) -> Report:
    def die(world: World, leg: Leg) -> None:
        for number in range(_MOST_LISTS):
            for protocol in leg.protocols:
                # A run that ends without an answer and whose id was lost leaves no trace where there are no keys.
                kinds = (PLAIN,) * 6 + ODD if leg.keyed or protocol == "assistants" else (PLAIN,)
                # A few rows at a time: every death also costs the claims of all jobs the process had in hand.
                world.ask(protocol, size.jobs, kinds=kinds, waves=5)
            world.spread(6.0)
            # On a slow machine the places are come to later.
            world.persist(3 if number < _MOST_LISTS // 4 else 15)
            died = world.fired()["kill"]
            if died.total() >= size.kills and len(died) >= size.points:
                break
        world.disarm()
        world.settle(200)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, die, kills=size.factor, workers=3, timeout_s=size.timeout_s):
        report += verdict
    report.need("kills", report.kills, size.kills * len(size.legs))
    report.need("failpoints", len(report.points), size.least_points)
    return report
