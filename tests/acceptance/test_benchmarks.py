"""A tiny run of every benchmark, so that none rots."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import SCENARIOS, SIDE_BY_SIDE, SURVIVAL
from tests.acceptance.stack import ROOT

pytestmark = [
    pytest.mark.timeout(420),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds what it kills through /proc"),
]


_LONGEST_S = 400.0
"""Beyond the deadlines of every scenario itself: they end what they started before anybody has to."""


def run_tiny(scenario: str, folder: Path) -> dict[str, Any]:
    """What a tiny run of a scenario found."""
    written = folder / "results.json"
    argv = [sys.executable, "-m", "benchmarks", scenario, "--tiny", "--json", str(written)]
    done = subprocess.run(argv, cwd=ROOT, check=False, timeout=_LONGEST_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    results: dict[str, Any] = json.loads(written.read_text("utf-8"))
    assert set(results) == {"machine", scenario}
    found: dict[str, Any] = results[scenario]
    return found


Tiny = Callable[[str], dict[str, Any]]
"""What a tiny run of a scenario found; it waits for the end."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Runs scenarios, each once."""
    return functools.cache(lambda scenario: run_tiny(scenario, tmp_path_factory.mktemp(scenario)))


def test_the_main_job_loses_nothing(tiny: Tiny) -> None:
    for protocol, found in tiny("main-job").items():
        assert found["answered"] == found["questions"] == found["ledger_runs"], protocol
        assert found["wrong_answers"] == 0


def test_everything_killed_at_half_and_the_same_command_again(tiny: Tiny) -> None:
    """Given 40 questions, when every process is SIGKILLed at half, then the same command ends with 40 runs in all."""
    cases = tiny("kill-everything")
    assert set(cases) == {"assistants", "responses"}
    for name, found in cases.items():
        assert 20 <= found["answered_at_the_kill"] < 40, name
        assert set(found["killed"]) == {
            "Flower",
            "Redis",
            "askq run and askq flower",
            "keepers",
            "local API",
            "worker and pool processes",
        }
        assert found["exit_code_of_the_second"] == 0, found
        assert found["answered"] == found["ledger_runs"] == found["questions_with_one_run"] == 40, found
        assert found["wrong_answers"] == found["paid_twice"] == 0, found


@pytest.mark.parametrize("scenario", ["survival", "survival-responses"])
def test_askq_survives_what_the_pipelines_are_measured_with(tiny: Tiny, scenario: str) -> None:
    found = tiny(scenario)
    assert list(found["cells"]) == ["tutorial", "best_practice", "askq"]
    for contender, columns in found["cells"].items():
        for cell in columns.values():
            assert cell["worker_kills"] == cell["pool_process_kills"] == cell["redis_restarts"] == 1, contender
            assert sum(cell["api_faults"].values()) > 0, contender
            ends = ("answered", "wrong", "lost_silently", "lost_reported", "undecided")
            assert sum(cell[end] for end in ends) == found["questions"], contender
    (askq,) = found["cells"]["askq"].values()
    assert askq["lost_silently"] == askq["wrong"] == askq["paid_twice"] == askq["undecided"] == 0, askq
    if scenario == "survival":
        assert askq["answered"] == askq["runs"] == found["questions"], askq


def test_limits_are_found_and_kept(tiny: Tiny) -> None:
    """The figures of a tiny run say little, and nobody's machine is idle: that all is answered says more."""
    found = tiny("limits")
    polls = found.pop("polls")
    for name, case in {**found, **{kind: polls[kind] for kind in ("cold", "learned")}}.items():
        assert case["answered"] == case["ledger_runs"] == case["attempts"] == case["questions"], name
        assert case["wrong_answers"] == 0, name
    assert found["unknown-limit"]["refusals_429"] <= 5
    assert found["tokens"]["refusals_429"] <= 5
    for name in ("unknown-limit-no-headers", "halved-no-headers"):
        assert 1 <= found[name]["refusals_429"] <= 20, "without headers, a refusal is the only word there is"
    assert polls["learned"]["polls_per_run"] < 6


@pytest.mark.parametrize("scenario", ["cost", "sustained"])
def test_every_question_has_one_run_and_its_price_is_told(tiny: Tiny, scenario: str) -> None:
    for protocol, found in tiny(scenario).items():
        assert found["answered"] == found["questions"] == found["ledger_runs"], protocol
        assert found["wrong_answers"] == 0
        assert found["polls_per_question"] >= 1
        assert found["redis_commands_per_question"] > 0
        parts = found["cpu_ms_per_question"]
        assert parts["all"] == pytest.approx(parts["client"] + parts["workers"] + parts["redis"], abs=0.02)


def test_runs_that_wait_are_polled(tiny: Tiny) -> None:
    found = tiny("waiting")
    assert found["still_waiting"] == found["runs_waiting"]
    assert found["polls"] > 0
    assert 0 <= found["late_s"]["p50"] <= found["late_s"]["p95"] <= found["late_s"]["most"]
    assert found["redis_bytes_per_waiting_job_besides_its_text"] > 0


def test_a_worker_that_comes_helps_and_one_that_goes_is_replaced(tiny: Tiny) -> None:
    found = tiny("workers")
    assert found["a_worker_helps_after_it_is_ready_s"] < 30
    assert found["shards_it_held"] > 0
    assert 0 < found["its_runs_are_claimed_again_s"]["first"] <= found["its_runs_are_claimed_again_s"]["last"] < 30


def test_a_list_is_stored_once_and_its_first_run_does_not_wait_for_its_last_row(tiny: Tiny) -> None:
    found = tiny("enqueue")
    assert found["alone"]["stored"] == found["rows"]
    again = found["after_a_killed_producer"]
    assert again["same_batch"]
    assert again["stored_before_the_kill"] + again["added"] == again["stored"] == found["rows"]
    assert set(found["while_a_worker_runs"]) == {"everysec", "always"}
    for (once,) in found["while_a_worker_runs"].values():
        assert once["first_run_after_its_row_s"] > 0


def test_the_commands_that_look_are_timed(tiny: Tiny) -> None:
    found = tiny("commands")
    assert found["askq --help"]["cpu_ms"] > 0
    assert found["askq status"]["cpu_ms"] > 0


def test_a_kill_at_half_and_the_same_command_again_side_by_side(tiny: Tiny) -> None:
    rows = tiny("peers-kill")["rows"]
    assert list(rows) == ["askq", "sdk-gather"]
    askq, gather = rows["askq"], rows["sdk-gather"]
    # A create that was not sent yet when its worker died cannot be told from one that arrived: exit code 5.
    assert askq["exit_code_of_the_second"] == (5 if askq["unanswered_and_told"] else 0), askq
    assert askq["answered"] + askq["unanswered_and_told"] == 20, askq
    assert askq["answered"] == askq["runs"] >= 10, askq
    assert askq["wrong"] == askq["paid_twice"] == 0, askq
    # It keeps nothing, so that all it had asked before the kill is asked again.
    assert gather["answered"] == 20, gather
    assert gather["paid_twice"] >= gather["runs_at_the_kill"] >= 10, gather


@pytest.mark.parametrize("scenario", ["peers-limited", "peers-limited-silently", "peers-cost"])
def test_askq_and_the_sdk_on_the_same_server(tiny: Tiny, scenario: str) -> None:
    found = tiny(scenario)
    for contender, row in found["rows"].items():
        assert row["exit_code"] == 0, contender
        assert row["wrong"] == row["paid_twice"] == 0, contender
        assert row["runs"] == row["requests"]["creates"] - row["requests"].get("refused", 0), contender
        assert row["cpu_ms_per_question"] > 0, contender
    askq = found["rows"]["askq"]
    assert askq["answered"] == askq["runs"] == found["questions"], askq
    assert found["rows"]["sdk-gather"]["runs"] > 0


def test_an_unknown_scenario_is_named() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "main-jobs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "no scenario called main-jobs; there are main-job" in told.stderr


def test_an_unknown_contender_is_named() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "autobatch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "no contender called autobatch; there are askq, " in told.stderr


def test_no_scenario_is_left_out() -> None:
    assert set(SCENARIOS) == {
        "main-job",
        "cost",
        "sustained",
        "waiting",
        "workers",
        "enqueue",
        "commands",
        "limits",
        "kill-everything",
    }
    assert set(SURVIVAL) == {"survival", "survival-responses"}
    assert set(SIDE_BY_SIDE) == {"peers-kill", "peers-limited", "peers-limited-silently", "peers-cost"}
