"""P3: Redis is killed, paused, frozen, slow, out of memory, and its disk is full. And how fast work goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import recovery
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import Strike, World, world

_APART_S = 7.0


@dataclass(frozen=True, slots=True)
class Size:
    measured_jobs: int
    measured_restarts: int
    """0: recovery is not measured, as in `kills`."""
    jobs: int
    """Per protocol."""
    rounds: int
    """How often each fault happens at least, in each leg."""
    legs: tuple[Leg, ...]
    least_restarts: int


SIZES = {
    "short": Size(0, 0, 30, 1, (legs.MIXED,), 1),
    "full": Size(120, 4, 80, 3, legs.BOTH, 10),
}

STRIKES: Mapping[str, Strike] = {
    "SIGKILL of Redis": lambda world: world.server.kill(world.pick.uniform(0.1, 1.0)),
    "CLIENT PAUSE": lambda world: world.server.pause(1.5),
    "freeze of Redis": lambda world: world.server.freeze(3.5),
    "slow Redis": lambda world: world.server.starve(2.0),
    "out of memory": lambda world: world.server.fill_memory(2.5),
    "disk full": lambda world: world.server.fill_disk(3.0),
}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = _measured(size, seed, folder / "measured") if size.measured_restarts else Report()

    def storm(world: World, leg: Leg) -> None:
        for protocol in leg.protocols:
            world.ask(protocol, size.jobs, waves=4 * size.rounds)
        world.begin()
        strikes = list(STRIKES.values()) * size.rounds
        world.pick.shuffle(strikes)
        for number, strike in enumerate(strikes):
            world.release(number / len(strikes))
            world.live(world.pick.uniform(0.3, 1.5))
            strike(world)
        world.settle(75)

    for verdict in legs.each(size.legs, seed, folder / "storm", storm):
        report += verdict
    report.need("Redis restarts", report.redis_restarts, size.least_restarts)
    report.need("interrupted claims", len(report.restart_s), size.measured_restarts)
    for name in STRIKES:
        report.need(name, report.strikes[name], size.rounds)
    return report


def _measured(size: Size, seed: int, folder: Path) -> Report:
    """Redis is killed every few seconds, with the product's own settings."""
    with world(folder, seed=seed, keyed=True, workers=2, settings={}, run_s=(2.0, 8.0)) as made:
        made.slow_calls(creates_s=1.5, reads_s=0.8)
        for protocol in ("assistants", "responses"):
            made.ask(protocol, size.measured_jobs // 2, waves=max(4, 2 * size.measured_restarts))
        made.begin()
        for restart in range(size.measured_restarts):
            made.release((restart + 0.5) / size.measured_restarts)
            made.live(2.0)
            made.server.kill(0.5)
            made.live(_APART_S - 2.0)
        made.settle(60)
        report = made.verdict()
        report.restart_s = recovery.after_outages(made.tape, made.server.outages)
    return report
