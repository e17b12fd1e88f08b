"""The short profile, one test for each of its parts, so that a failure names it.

A failure prints the command that repeats it; `CHAOS_SEED` sets the seed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import suite

SEED = int(os.environ.get("CHAOS_SEED", "11"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", suite.names("short"))
def test_nothing_is_lost_stuck_wrong_or_paid_twice(tmp_path: Path, name: str) -> None:
    report = suite.run(name, "short", SEED, tmp_path / name)
    again = f"python -m tests.chaos --profile short --only {name} --seed {SEED}"
    assert not report.broken, "\n".join([*report.broken, *report.problems[:20], again])
    assert not report.missed, "\n".join(["it did not do what it says:", *report.missed, again])
