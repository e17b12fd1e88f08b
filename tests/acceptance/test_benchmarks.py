"""A tiny run of every benchmark, so that none rots."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import SCENARIOS
from tests.acceptance.stack import ROOT


def test_every_scenario_runs_and_finds_nothing_lost(tmp_path: Path) -> None:
    written = tmp_path / "results.json"
    argv = [sys.executable, "-m", "benchmarks", "--tiny", "--json", str(written)]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=110, capture_output=True)
    results = json.loads(written.read_text("utf-8"))
    assert set(results) == {"machine", *SCENARIOS}
    for protocol, found in results["main-job"].items():
        assert found["answered"] == found["questions"] == found["ledger_runs"], protocol
        assert found["wrong_answers"] == 0


def test_an_unknown_scenario_is_named() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "main-jobs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "no scenario called main-jobs; there are main-job" in told.stderr
