"""One experiment in a process of its own."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from pathlib import Path

from tests.chaos import suite
from tests.chaos.report import Report

_asked_to_end = False


def end_in_order() -> None:
    """Asked to end, a process still ends what it has started: an exception runs through every `finally`.

    Asked again, it goes on with that: `timeout` and others tell a process and its whole group.
    """

    def end(number: int, _: object) -> None:
        global _asked_to_end
        if _asked_to_end:
            return
        _asked_to_end = True
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def run(name: str, profile: str, seed: int, folder: Path) -> tuple[str, Report]:
    """Carry an experiment out: its name and its report."""
    if _asked_to_end:
        # A process of a pool takes the next experiment all the same.
        sys.exit(1)
    began = time.monotonic()
    try:
        report = suite.run(name, profile, seed, folder)
    except Exception as error:  # an experiment that cannot be carried out has failed; the others still say something
        report = Report()
        report.missed.append(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    report.wall_s = time.monotonic() - began
    return name, report
