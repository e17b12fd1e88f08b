"""The verdict of the comparison: every question ends in exactly one count, and every run is counted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from benchmarks.questions import right_answer, texts
from benchmarks.survival_report import PICTURES, picture
from benchmarks.table import as_text
from benchmarks.trouble import Trouble
from benchmarks.verdict import Verdict, judge

ROOT = Path(__file__).parents[2]
ONE, TWO, THREE, FOUR = ASKED = texts(4)


def test_a_perfect_list() -> None:
    found = judge(ASKED, answers={one: right_answer(one) for one in ASKED}, reported=(), quiet=True, runs=ASKED)
    assert found == Verdict(answered=4, wrong=0, lost_silently=0, lost_reported=0, undecided=0, paid_twice=0, runs=4)


def test_each_kind_of_harm_is_told_apart() -> None:
    found = judge(
        ASKED,
        answers={ONE: right_answer(ONE), TWO: right_answer(ONE)},
        reported={THREE},
        quiet=True,
        runs=[ONE, ONE, ONE, TWO, THREE, THREE],
    )
    assert found == Verdict(answered=1, wrong=1, lost_silently=1, lost_reported=1, undecided=0, paid_twice=3, runs=6)


def test_what_may_still_come_is_not_lost() -> None:
    found = judge(ASKED, answers={}, reported={FOUR}, quiet=False, runs=[])
    assert (found.undecided, found.lost_silently, found.lost_reported) == (3, 0, 1)
    counted = dataclasses.asdict(found)
    assert sum(counted[name] for name in ("answered", "wrong", "lost_silently", "lost_reported", "undecided")) == 4


def test_an_answer_outweighs_a_failure_on_record() -> None:
    found = judge([ONE], answers={ONE: right_answer(ONE)}, reported={ONE}, quiet=True, runs=[ONE])
    assert (found.answered, found.lost_reported) == (1, 0)


def test_the_server_is_slow_in_every_column_and_wrong_in_one() -> None:
    kinds = [rule["kind"] for rule in Trouble().rules(create_s=0.5, seed=1)]
    assert kinds == ["slow_body"]
    assert [rule["kind"] for rule in Trouble(api_faults=True).rules(create_s=0.5, seed=1)] == [
        "drop_after",
        "status_after",
        "status",
        "slow_body",
    ]


def test_the_table_has_a_line_for_each_trouble_and_contender() -> None:
    cell = dataclasses.asdict(judge([ONE], answers={}, reported={ONE}, quiet=True, runs=[ONE, ONE]))
    cell["answered_late"] = 0
    table = as_text({"best_practice": {"6 kills": cell}, "askq": {"6 kills": cell | {"paid_twice": 0}}})
    assert table.splitlines()[2:] == [
        "| 6 kills | best practice | 0 | 0 | 0 | 1 | 0 | 0 | 1 |",
        "| 6 kills | askq | 0 | 0 | 0 | 1 | 0 | 0 | 0 |",
    ]


def test_pictures_of_what_was_survived_are_those_of_the_published_results() -> None:
    for scenario in ("survival", "survival-responses"):
        found = json.loads((ROOT / "benchmarks" / "results" / f"{scenario}.json").read_text("utf-8"))[scenario]
        assert picture(scenario, found) == (PICTURES / f"{scenario}.svg").read_text("utf-8")
        for line in as_text(found["cells"]).splitlines()[2:]:
            told = [cell.strip() for cell in line.strip("|").split("|")]
            published = f"| {' | '.join((*told[:6], told[-1]))} |"
            assert published in (ROOT / "benchmarks" / "README.md").read_text("utf-8")
