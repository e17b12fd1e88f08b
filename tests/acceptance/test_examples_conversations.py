"""The examples of conversations, step by step as a person takes them, on both protocols."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.acceptance.examples import PROTOCOLS, example, step

pytestmark = pytest.mark.timeout(300)


def answers(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_conversation_remembers(protocol: str, tmp_path: Path) -> None:
    folder = example("conversation", tmp_path)
    step(folder, "1-ask", "--protocol", protocol)
    found = answers(folder)
    said = {row: found[row]["answer"] for row in found}
    assert said["ann-2"] == "60 × 3 = 180."
    assert said["ann-3"].startswith("No, 180 is not a prime number")
    assert said["ben-2"] == "10 + 7 = 17."
    assert said["ben-3"] == "Yes, 17 is a prime number."
    assert said["민수-2"] == "36 × 10 = 360."
    assert said["민수-3"] == "360 - 100 = 260."
    assert said["alone"] == "6 × 7 = 42."
    threads = {name: {row["thread_id"] for row in found.values() if row["thread"] == name} for name in ("Ann", "민수")}
    assert all(len(ids) == 1 for ids in threads.values())
    assert len({row["thread_id"] for row in found.values()}) == 4
    # The other steps only read, and know of no protocol.
    if protocol != PROTOCOLS[0]:
        return
    told = step(folder, "2-read")
    assert "60 × 3 = 180." in told
    assert "thread:     Ann, after ann-1" in told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_math_tutor_answers_with_code(protocol: str, tmp_path: Path) -> None:
    folder = example("math-tutor", tmp_path)
    step(folder, "1-ask", "--protocol", protocol)
    said = {row: cells["answer"] for row, cells in answers(folder).items()}
    assert said["equation"].endswith("The solution is x = 1.")
    assert said["share"] == "15% of 240 = 36."
    assert "10" in said["slope"]
    if protocol != PROTOCOLS[0]:
        return
    told = step(folder, "2-read")
    assert "Code 1" in told
    assert "sympy" in told
