"""P2: SIGKILL of groups, main and pool processes; SIGTERM deploys and cold shutdowns. And how fast that is mended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import recovery
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import Strike, World, world

_APART_S = 9.0
"""Between two kills whose recovery is measured: longer than a recovery may take at most on a machine that is not
overloaded, so that a wait is counted from its own kill."""
_WORTH_A_KILL = 12
"""Claims that are open when one worker of three is killed."""


@dataclass(frozen=True, slots=True)
class Size:
    measured_jobs: int
    measured_kills: int
    """0: recovery is not measured, which takes time and says little of a machine that others use."""
    jobs: int
    """Per protocol."""
    strikes: int
    """In each leg."""
    legs: tuple[Leg, ...]
    timeout_s: float
    least_kills: int
    least_recoveries: int


SIZES = {
    "short": Size(0, 0, 40, 12, (legs.WITHOUT_KEYS,), 12.0, 6, 0),
    "full": Size(250, 8, 100, 40, legs.BOTH, 20.0, 50, 40),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 3,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 5,
    lambda world: world.crew.ask_to_end(signal.SIGTERM): 1,
    lambda world: world.crew.ask_to_end(signal.SIGQUIT): 1,
}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = _measured(size, seed, folder / "measured") if size.measured_kills else Report()
    report.need("interrupted claims", len(report.recovery_s), size.least_recoveries)

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4)
        world.begin()
        world.suffer(STRIKES, times=size.strikes, every=(0.2, 0.8))
        world.settle(60)

    for verdict in legs.each(size.legs, seed, folder / "storm", storm, timeout_s=size.timeout_s):
        report += verdict
    report.need("kills", report.kills, size.least_kills)
    for how in ("SIGTERM", "SIGQUIT"):
        report.need(how, report.strikes[f"{how} to a worker"], 1)
    return report


def _measured(size: Size, seed: int, folder: Path) -> Report:
    """One worker of three is killed every few seconds, with the product's own settings."""
    with world(folder, seed=seed, keyed=True, workers=3, settings={}, run_s=(2.0, 12.0)) as made:
        # A call takes as long as at a real service, or hardly any claim would be open at a kill.
        made.slow_calls(creates_s=1.5, reads_s=0.8)
        for protocol in ("assistants", "responses"):
            made.ask(protocol, size.measured_jobs // 2, waves=max(4, 2 * size.measured_kills))
        made.begin()
        for kill in range(size.measured_kills):
            made.release((kill + 0.5) / size.measured_kills)
            made.wait(lambda: len(made.server.held()) >= _WORTH_A_KILL, seconds=30, what="calls are open")
            assert made.crew.kill_group()
            made.live(_APART_S)
        made.settle(60)
        report = made.verdict()
        report.recovery_s = recovery.after_kills(made.tape, made.crew.kills)
    return report
