"""P5: the API misbehaves in every way the failure model names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos import faults
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.questions import ODD
from tests.chaos.report import Report
from tests.chaos.world import QUICK, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Plain ones per protocol."""
    odd: int
    """Per protocol and kind of run that ends otherwise."""
    seconds: float
    legs: tuple[Leg, ...]
    often: int
    """How often each rule of the frequent kinds goes off, at most, in each leg."""
    share: float
    """Probability of each rule."""
    pausing: int
    long: int
    """Reads that are told to wait two minutes: in the last leg alone, when nothing more is to be created."""
    least: int
    """Of each kind, over all legs."""
    least_faults: int


SIZES = {
    "short": Size(60, 1, 6.0, (legs.WITHOUT_KEYS,), 2, 0.15, 1, 0, 1, 40),
    "full": Size(220, 3, 25.0, legs.BOTH, 18, 0.06, 5, 5, 5, 900),
}


def run(size: Size, seed: int, folder: Path) -> Report:
    ended_odd: dict[str, int] = {}

    def misbehave(world: World, leg: Leg) -> None:
        for kinds, times in ((faults.OFTEN, size.often), (faults.PAUSING, size.pausing)):
            for name, rules in kinds.items():
                world.arm(name, *({**rule, "times": times, "probability": size.share} for rule in rules))
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
            world.ask(protocol, size.odd * len(ODD), kinds=ODD)
        world.spread(size.seconds)
        world.persist(80)
        if size.long and leg is size.legs[-1]:
            _tell_to_wait(world, size.long)
        world.settle(100)
        for entry in world.stack.ledger():
            kind = entry["question"].partition("]")[0].removeprefix("[")
            if kind in faults.ENDS:
                ended_odd[faults.ENDS[kind]] = ended_odd.get(faults.ENDS[kind], 0) + 1

    report = Report()
    settings = {**QUICK, "ASKQ_PROBE_S": "5"}
    for verdict in legs.each(size.legs, seed, folder, misbehave, settings=settings, timeout_s=25.0):
        report += verdict
    report.fault_kinds.update(ended_odd)
    report.need("API faults", sum(report.fault_kinds.values()), size.least_faults)
    for name in (*faults.OFTEN, *faults.PAUSING, *faults.ENDS.values(), *(faults.LONG if size.long else ())):
        report.need(f"API fault {name!r}", report.fault_kinds[name], size.least)
    return report


def _tell_to_wait(world: World, times: int) -> None:
    """Some runs more, of which a look is answered with 429 and a wait above two minutes."""
    # Refusals at random look like a low limit to the limiter, and it keeps to it.
    world.wait(world.ended, seconds=240, what="everything else ends")
    (name, rules), *_ = faults.LONG.items()
    before = len(world.stack.ledger())
    world.ask("responses", times, kinds=("slow",))
    world.release(1)
    # Whoever is told to wait creates nothing in the meantime.
    world.wait(lambda: len(world.stack.ledger()) >= before + times, seconds=30, what="all of them have runs")
    world.arm(name, *({**rule, "times": times} for rule in rules))
    world.wait(lambda: world.fault_kinds()[name] >= times, seconds=60, what="every one of them is told to wait")
    world.wait(world.ended, seconds=160, what="they are waited for")
