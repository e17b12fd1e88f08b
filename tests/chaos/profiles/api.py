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
    "full": Size(260, 3, 25.0, legs.BOTH, 18, 0.06, 5, 5, 5, 900),
}


def run(size: Size, seed: int, folder: Path) -> Report:
    ended_odd: dict[str, int] = {}

    def misbehave(world: World, leg: Leg) -> None:
        for kinds, times in ((faults.OFTEN, size.often), (faults.PAUSING, size.pausing)):
            for name, rules in kinds.items():
                world.arm(name, *(faults.at(rule, size.share, times=times) for rule in rules))
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
            world.ask(protocol, size.odd * len(ODD), kinds=ODD)
        world.spread(size.seconds)
        world.persist(80)
        if size.long and leg is size.legs[-1]:
            _tell_to_wait(world, size.long)
        world.settle(200)
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
    """Some runs more, and looks at them are answered with 429 and a wait above two minutes."""
    world.calm()
    # What was refused at random looked like a low limit, and it takes the limiter a while to find that there is none.
    world.wait(world.ended, seconds=120, what="everything else ends")
    (name, rules), *_ = faults.LONG.items()
    before, runs = len(world.stack.ledger()), 6 * times
    world.ask("responses", runs, kinds=("slow",))
    world.release(1)
    # Whoever is told to wait creates nothing in the meantime.
    world.wait(lambda: len(world.stack.ledger()) >= before + runs, seconds=90, what="all of them have runs")
    world.arm(name, *({**rule, "times": times} for rule in rules))
    world.wait(lambda: world.fault_kinds()[name] >= times, seconds=60, what="so many of them are told to wait")
    world.wait(world.ended, seconds=160, what="they are waited for")
