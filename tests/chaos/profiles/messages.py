"""Celery's messages are hints: losing, repeating, delaying, reordering and forging them harms nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.postman import KINDS, Postman
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import QUICK, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol and list; lists are submitted until every kind was seen."""
    legs: tuple[Leg, ...]
    least: int
    """Messages of each kind."""


SIZES = {
    "short": Size(15, (legs.WITHOUT_KEYS,), 2),
    "full": Size(40, (legs.WITHOUT_KEYS,), 20),
}
_MOST_LISTS = 30


def run(size: Size, seed: int, folder: Path) -> Report:
    def mistreat(world: World, leg: Leg) -> None:
        with Postman(world.stack.redis_port, seed) as postman:
            for _ in range(_MOST_LISTS):
                if all(postman.done[f"message: {kind}"] >= size.least for kind in KINDS):
                    break
                for protocol in leg.protocols:
                    world.ask(protocol, size.jobs)
                world.release(1)
                world.live(2.0)
            world.wait(world.ended, seconds=200, what="every job ends although messages are mistreated")
        world.done += postman.done

    report = Report()
    # Short slices make many messages.
    for verdict in legs.each(size.legs, seed, folder, mistreat, settings={**QUICK, "ASKQ_SLICE_S": "0.3"}):
        report += verdict
    for kind in KINDS:
        report.need(f"messages: {kind}", report.strikes[f"message: {kind}"], size.least)
    return report
