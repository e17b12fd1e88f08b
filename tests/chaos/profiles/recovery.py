"""How fast work goes on: after the SIGKILL of a claim's holder, and after a restart of Redis.

With the product's own settings, and alone on the machine. Calls take as long as at a real service, or hardly any
claim would be open at the moment of a kill.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos import recovery
from tests.chaos.report import Report
from tests.chaos.world import World, world

_APART_S = 8.0
"""Between two kills: longer than a recovery takes on a machine that is not overloaded, so that each wait is counted
from its own kill."""
_WORTH_IT = 16
"""Claims that are open when one worker of three is killed, or Redis."""


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """In each half."""
    kills: int
    restarts: int
    least: int
    """Interrupted claims in each half."""


SIZES = {"full": Size(252, 6, 3, 10)}


def run(size: Size, seed: int, folder: Path) -> Report:
    report = _kills(size, seed, folder / "kills")
    report += _restarts(size, seed, folder / "restarts")
    report.need("claims interrupted by a kill", len(report.recovery_s), size.least)
    report.need("claims interrupted by a restart of Redis", len(report.restart_s), size.least)
    return report


def _kills(size: Size, seed: int, folder: Path) -> Report:
    with world(folder, seed=seed, keyed=True, workers=3, settings={}, run_s=(2.0, 12.0)) as made:
        _begin(made, size)
        for kill in range(size.kills):
            _until_worth_it(made, (kill + 0.5) / size.kills)
            assert made.crew.kill_group()
            made.live(_APART_S)
        made.settle(60)
        report = made.verdict()
        report.recovery_s = recovery.after_kills(made.tape, made.crew.kills)
    return report


def _restarts(size: Size, seed: int, folder: Path) -> Report:
    with world(folder, seed=seed, keyed=True, workers=2, settings={}, run_s=(2.0, 8.0)) as made:
        _begin(made, size)
        for restart in range(size.restarts):
            _until_worth_it(made, (restart + 0.5) / size.restarts)
            made.server.kill(0.5)
            made.live(_APART_S)
        made.settle(60)
        report = made.verdict()
        report.restart_s = recovery.after_outages(made.tape, made.server.outages)
    return report


def _begin(made: World, size: Size) -> None:
    made.slow_calls(creates_s=1.5, reads_s=0.8)
    for protocol in ("assistants", "responses"):
        made.ask(protocol, size.jobs // 2, waves=14)
    made.begin()


def _until_worth_it(made: World, share: float) -> None:
    made.release(share)
    made.wait(lambda: len(made.server.held()) >= _WORTH_IT, seconds=60, what="calls are open")
