"""The examples, as their pages say to run them, in a copy of their folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import ROOT
from tests.acceptance.test_commands import Folder, folder, read_lines

__all__ = ["folder"]

pytestmark = pytest.mark.timeout(300)


def switched(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The devices that were switched, and which way."""
    assert {call["name"] for call in record["tool_calls"]} <= {"equipment_control"}
    given = [json.loads(call["arguments"]) for call in record["tool_calls"]]
    assert [call["output"] for call in record["tool_calls"]] == [f"the {g['device']} is {g['action']}" for g in given]
    return sorted((one["device"], one["action"]) for one in given)


@pytest.mark.parametrize("protocol", ["responses", "assistants"])
def test_equipment_is_switched_where_a_question_needs_it(folder: Folder, protocol: str) -> None:
    shutil.copytree(ROOT / "examples" / "equipment-control", folder.path, dirs_exist_ok=True)
    here = {"ASKQ_ASSISTANTS_DIR": "assistants"}
    checked = folder.askq("assistants", "validate", "assistants/home.toml", **here)
    assert (checked.returncode, "nothing wrong" in checked.stderr) == (0, True)
    asked = ["run", "questions.csv", "--assistant", "home", "-o", "answers.jsonl", "--protocol", protocol]
    done = folder.askq(*asked, **here)
    assert done.returncode == 0, done.stderr
    found = {record["custom_id"]: record for record in read_lines(folder.path / "answers.jsonl")}
    assert switched(found["hot"]) == [("AC", "on"), ("fan", "on")]
    assert switched(found["drama"]) == [("TV", "on")]
    assert switched(found["sleep"]) == [("AC", "off"), ("TV", "off"), ("fan", "off"), ("light", "off")]
    assert (found["sum"]["tool_calls"], "144" in found["sum"]["answer"]) == ([], True)
    assert all(f"the {device} is {way}" in found["hot"]["answer"] for device, way in switched(found["hot"]))
    assert found["hot"]["attempts"] == (2 if protocol == "responses" else 1)
    assert found["hot"]["usage"]["total_tokens"] > 0


def test_every_step_of_the_page_is_a_command(folder: Folder) -> None:
    """Given the page, each command line in it is one that askq has."""
    page = (ROOT / "examples" / "equipment-control" / "README.md").read_text("utf-8")
    commands = [line.split()[1] for line in page.splitlines() if line.strip().startswith("askq ")]
    assert commands == ["assistants", "run", "show", "run"]
    for name in ("home.py", "questions.csv", "assistants/home.toml"):
        assert Path(ROOT / "examples" / "equipment-control" / name).is_file()
        assert Path(name).name in page
