"""The short profile, one test for each of its parts, so that a failure names it.

A failure prints the command that repeats it; `CHAOS_SEED` sets the seed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.chaos import run_alone, suite
from tests.chaos.report import Report

SEED = int(os.environ.get("CHAOS_SEED", "11"))
NAMES = suite.names("short")
ReportOf = Callable[[str], Report]
"""The report of an experiment; it waits for the end."""


@pytest.fixture(scope="module")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportOf]:
    """Carries an experiment out, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), run_alone.end_in_order) as pool:

        def report(name: str) -> Report:
            return pool.submit(run_alone.run, name, "short", SEED, tmp_path_factory.mktemp(name) / name).result()[1]

        yield report


# Longer than the deadlines of every experiment itself: they say what did not happen.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_stuck_wrong_or_paid_twice(report_of: ReportOf, name: str) -> None:
    report = report_of(name)
    again = f"python -m tests.chaos --profile short --only {name} --seed {SEED}"
    assert not report.broken, "\n".join([*report.broken, *report.problems[:20], again])
    assert not report.missed, "\n".join(["it did not do what it says:", *report.missed, again])
