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
    assert "survival by sex.png (image/png" in told
    assert f"female: {rates['female']:.1%} of" in told.partition("Code 1")[2]


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

    def content(row: str, name: str) -> bytes:
        (file,) = [file for file in found[row]["files"] if file["name"] == name]
        data = (folder.parent / ".askq" / "files" / file["path"]).read_bytes()
        assert len(data) == file["size"]
        return data

    assert content("chart", "survival by sex.png").startswith(b"\x89PNG")
    table = list(csv.DictReader(content("table", "survival by sex.csv").decode().splitlines()))
    assert {row["sex"]: float(row["survival_rate"]) for row in table} == {s: round(r, 4) for s, r in rates.items()}
    ages = list(csv.DictReader(content("ages", "age groups.csv").decode().splitlines()))
    assert sum(int(row["passengers"]) for row in ages) == len(rows)
    assert found["rate"]["code"][0]["input"].startswith("import csv")
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
    shared = "2026.md, delivery.md"
    for row, said, file, quote, given in (
        ("returns", "thirty days", "returns.md", "You may return goods within thirty days", f"{shared}, returns.md"),
        ("delivery", "two working days", "2026.md", "From March on", f"{shared}, returns.md"),
        ("contract", "30 June 2028", "office lease.md", "The lease ends", f"{shared}, office lease.md, returns.md"),
        ("other", "320 euros", "청소 계약.txt", "The cleaning contract", f"{shared}, returns.md, 청소 계약.txt"),
        ("again", "1,450 euros", "office lease.md", "The rent is", f"{shared}, office lease.md, returns.md"),
    ):
        answer = found[row]
        assert said in answer["answer"], row
        # The stand-in says which files its run could read: no other row's.
        assert answer["answer"].endswith(f"(Files: {given})"), row
        (citation,) = answer["citations"]
        assert citation["filename"] == file, row
        assert citation["quote"].startswith(quote), row
    assert found["contract"]["thread_id"] == found["again"]["thread_id"] != found["other"]["thread_id"]
