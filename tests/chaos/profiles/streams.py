"""Watched questions while their streams are cut, stall, lie and never come, workers are killed and Redis restarts. A
stream is a way to see a run early and nothing more: whatever happens to it, its run is neither lost nor repeated, and
whoever watches sees the answer once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import faults
from tests.chaos.audience import Audience
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.questions import PLAIN, TOOLS
from tests.chaos.report import Report
from tests.chaos.world import QUICK, Strike, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """Per protocol and leg; with keys every sixth needs functions, whose outputs are streamed, too."""
    people: int
    """Who watch at the same time."""
    strikes: int
    """In each leg."""
    every: tuple[float, float]
    legs: tuple[Leg, ...]
    share: float | None
    """Probability of each fault; None lets each happen once, one after the other."""
    often: int
    """How often each rule goes off at most, in each leg."""
    kills: float
    """Factor of the failpoints' shares."""
    runners: int
    """Workers that run functions."""
    settle_s: float
    least: int
    """Of each kind of fault, over all legs."""
    least_kills: int
    least_live: int
    """Answers that were seen before they were whole."""


SIZES = {
    "short": Size(20, 4, 4, (0.2, 0.6), (legs.MIXED,), None, 1, 0.0, 1, 150, 1, 2, 5),
    "full": Size(120, 10, 24, (0.4, 1.4), (legs.WITHOUT_KEYS, legs.MIXED), 0.06, 12, 0.3, 2, 100, 4, 40, 150),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 3,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 5,
    lambda world: world.server.kill(0.3): 1,
}
_KINDS = (*[PLAIN] * 5, TOOLS)


def run(size: Size, seed: int, folder: Path) -> Report:
    report = Report()

    def storm(world: World, leg: Leg) -> None:
        _arm(world, size)
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=6, kinds=_KINDS if leg.keyed else (PLAIN,))
        with Audience(world, size.people) as audience:
            world.begin()
            world.suffer(STRIKES, times=size.strikes, every=size.every)
            if size.kills:
                world.disarm()
            world.persist(size.settle_s)
            world.settle(size.settle_s)
        report.strikes["answers seen live"] += audience.seen["live"]
        report.strikes["answers seen whole"] += audience.seen["whole"]
        report.wrong += len(audience.problems)
        report.problems += audience.problems

    for leg in size.legs:
        # Without keys a lost create is waited for until the deadline. Functions need a later one: those that run them
        # are killed, too.
        options = {"tools": size.runners, "timeout_s": 300.0} if leg.keyed else {"timeout_s": 20.0}
        (verdict,) = legs.each(
            (leg,),
            seed,
            folder / leg.name.replace(" ", "-"),
            storm,
            settings=QUICK,
            kills=size.kills,
            run_s=(0.5, 2.5),
            watched=True,
            **options,
        )
        report += verdict
    report.need("kills", report.kills, size.least_kills)
    report.need("answers seen live", report.strikes["answers seen live"], size.least_live)
    for name in faults.STREAMS:
        report.need(f"API fault {name!r}", report.fault_kinds[name], size.least)
    return report


def _arm(world: World, size: Size) -> None:
    for number, (name, rules) in enumerate(faults.STREAMS.items()):
        if size.share is None:
            # Only the first of each, and each when others have had their turn.
            world.arm(name, rules[0] | {"times": size.often, "skip": number // 2, "probability": 1.0})
        else:
            world.arm(name, *(faults.at(rule, size.share, times=size.often) for rule in rules))
