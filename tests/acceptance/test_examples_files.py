"""The examples of code interpreter and file search, step by step as a person takes them, on both protocols."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.examples import PROTOCOLS, example, step

pytestmark = pytest.mark.timeout(300)


def answers(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "answers.jsonl").read_text("utf-8").splitlines()
    return {answer["custom_id"]: answer for answer in map(json.loads, lines)}


def test_code_interpreter_reads_a_table_and_gives_back_files(tmp_path: Path) -> None:
    folder = example("code-interpreter", tmp_path)
    step(folder, "1-make-data")
    for protocol in PROTOCOLS:
        step(folder, "2-ask", "--protocol", protocol)
        rates = _check_analyst(folder)
    told = step(folder, "3-look")
    assert "survived_by_sex.png (image/png" in told
    assert f"female: {rates['female']:.1%} (n = " in told.partition("Code 1")[2]


def _check_analyst(folder: Path) -> dict[str, float]:
    """The rates, if all answers are right."""
    found = answers(folder)
    assert {answer["status"] for answer in found.values()} == {"completed"}
    with (folder / "titanic.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rates = {
        sex: sum(int(row["survived"]) for row in rows if row["sex"] == sex) / sum(row["sex"] == sex for row in rows)
        for sex in ("female", "male")
    }
    for sex, rate in rates.items():
        assert f"{sex}: {rate:.1%}" in found["rate"]["answer"]

    def content(row: str) -> bytes:
        (file,) = found[row]["files"]
        data = (folder.parent / ".askq" / "files" / file["path"]).read_bytes()
        assert len(data) == file["size"]
        return data

    assert content("chart").startswith(b"\x89PNG")
    table = list(csv.DictReader(content("table").decode().splitlines()))
    assert {row["sex"]: float(row["survived_rate"]) for row in table} == {s: round(r, 6) for s, r in rates.items()}
    ages = list(csv.DictReader(content("ages").decode().splitlines()))
    for group in ages:
        low, high = map(int, group["age group"].split("-"))
        of_group = [int(row["survived"]) for row in rows if low <= int(row["age"]) <= high]
        assert [int(group["count"]), int(group["survived_count"])] == [len(of_group), sum(of_group)]
    assert sum(int(group["count"]) for group in ages) == len(rows)
    assert "csv.DictReader" in found["rate"]["code"][0]["input"]
    # The second question of the conversation has the table that came with the first.
    assert content("ages-chart").startswith(b"\x89PNG")
    assert found["ages-chart"]["thread_id"] == found["ages"]["thread_id"] != found["chart"]["thread_id"]
    return rates


def test_file_search_cites_its_sources_and_remembers_attachments(tmp_path: Path) -> None:
    folder = example("file-search", tmp_path)
    for protocol in PROTOCOLS:
        step(folder, "1-ask", "--protocol", protocol)
        _check_clerk(folder)
    told = step(folder, "2-look")
    assert "[1] returns.md" in told
    assert "shop-handbook" in told
    assert "ready: 2 of 2 files" in told


def _check_clerk(folder: Path) -> None:
    found = answers(folder)
    assert {answer["status"] for answer in found.values()} == {"completed"}, found
    for row, file, quote in (
        ("returns", "returns.md", "You may return goods within thirty days"),
        ("delivery", "2026.md", "From March on delivery takes two working days"),
        ("contract", "office lease.md", "The lease ends on 30 June 2028."),
        ("other", "청소 계약.txt", "The cleaning contract costs 320 euros a month."),
        ("again", "office lease.md", "The rent is 1,450 euros a month"),
    ):
        answer = found[row]
        assert quote in answer["answer"], row
        cited = {citation["filename"]: citation["quote"] for citation in answer["citations"]}
        assert quote in cited[file], row
        # What was sent with one conversation's messages is not read for another.
        assert not {"office lease.md", "청소 계약.txt"} & cited.keys() - {file}, row
    assert found["contract"]["thread_id"] == found["again"]["thread_id"] != found["other"]["thread_id"]
