"""P4: power cuts take back what Redis had not yet written to its disk: up to a second of everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.aof import Marks
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    cuts: int
    """In each leg."""
    legs: tuple[Leg, ...]


SIZES = {
    "short": Size(60, 3, (legs.WITHOUT_KEYS,)),
    "full": Size(150, 6, legs.BOTH),
}


def run(size: Size, seed: int, folder: Path) -> Report:
    def cut_power(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=size.cuts + 1)
        with Marks(world.stack.redis_port) as marks:
            world.begin()
            for cut in range(size.cuts):
                # New rows at every cut: there is something to lose.
                created = len(world.stack.ledger())
                world.release((cut + 1) / size.cuts)
                world.live(0.0)
                if cut % 2:
                    # Runs have just been created, and their ids are not on the disk yet.
                    _until_runs(world, more_than=created)
                    world.wait(marks.young, seconds=30, what="the disk confirms a mark")
                else:
                    # Rows were confirmed a moment ago, and what has been done with them since is not.
                    world.wait(lambda: marks.young(least_s=0.3), seconds=30, what="the disk has confirmed a mark")
                _cut(world, marks)
            world.settle(75)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, cut_power):
        report += verdict
    report.rollbacks += report.strikes["roll-back"]
    report.need("roll-backs that took something back", report.rollbacks, size.cuts * len(size.legs) * 0.6)
    return report


def _until_runs(world: World, *, more_than: int) -> None:
    world.wait(lambda: len(world.stack.ledger()) > more_than, seconds=30, what="new runs")


def _cut(world: World, marks: Marks) -> None:
    down_at = time.time()
    world.stack.redis.kill()
    lost = marks.cut(world.stack.folder / "redis" / "appendonlydir", world.pick)
    world.server.start(down_at)
    world.done["roll-back" if lost else "roll-back of nothing"] += 1
