"""The examples of conversations, step by step as a person takes them, on both protocols."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.stack import ROOT

pytestmark = pytest.mark.timeout(300)
PROTOCOLS = ("responses", "assistants")


def step(folder: Path, script: str, *options: str) -> str:
    """What a step of an example prints. It runs in a copy of the example, with the command that is installed here."""
    home = {"HOME": str(folder.parent), "ASKQ_HOME": str(folder.parent / ".askq"), "PYTHONPATH": str(ROOT)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "LANG": "C.UTF-8", "ASKQ_ASSISTANTS_DIR": str(ROOT / "assistants"), **home}
    done = subprocess.run(
        [str(folder / script), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def example(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name))


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
    told = step(folder, "2-read")
    assert "Code 1" in told
    assert "sympy" in told
