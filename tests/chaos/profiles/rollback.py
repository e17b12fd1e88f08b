"""P4: power cuts take back what Redis had not yet written to its disk: up to a second of everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import aof
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol."""
    talks: int
    """Conversations of three questions, per protocol."""
    cuts: int
    """In each leg."""
    legs: tuple[Leg, ...]


SIZES = {
    "short": Size(60, 4, 3, (legs.WITHOUT_KEYS,)),
    "full": Size(150, 20, 6, legs.BOTH),
}


_WORTH_IT = 1000
"""Bytes that were written since the disk stopped: workers that have just begun may write nothing for a while."""


def run(size: Size, seed: int, folder: Path) -> Report:
    def cut_power(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=size.cuts + 1)
            world.converse(protocol, size.talks, 3)
        world.begin()
        for cut in range(size.cuts):
            created = len(world.stack.ledger())
            # New rows at every cut: there is something to lose.
            world.release((cut + 1) / size.cuts)
            world.live(0.0)
            if cut % 2:
                _until_runs(world, more_than=created)
            _cut(world, cut + 1)
        world.settle(150)

    report = Report()
    for verdict in legs.each(size.legs, seed, folder, cut_power, blind=True):
        report += verdict
    report.rollbacks += report.strikes["roll-back"]
    report.need("roll-backs that took something back", report.rollbacks, size.cuts * len(size.legs) * 0.6)
    return report


def _until_runs(world: World, *, more_than: int) -> None:
    world.wait(lambda: len(world.stack.ledger()) > more_than, seconds=90, what="new runs")


def _cut(world: World, number: int) -> None:
    """The disk stops, work goes on for a second or two, and the power fails."""
    folder = world.stack.folder / "redis" / "appendonlydir"
    aof.stop_disk(world.server.client, number)
    world.pause(world.pick.uniform(1.0, 2.0))
    until = time.monotonic() + 30
    while aof.behind_mark(folder, number) < _WORTH_IT and time.monotonic() < until:
        world.pause(0.1)
    down_at = time.time()
    world.stack.redis.kill()
    lost = aof.cut(folder, number, world.pick)
    world.server.start(down_at)
    world.done["roll-back" if lost else "roll-back of nothing"] += 1
