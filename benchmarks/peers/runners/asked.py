"""What every runner needs: the list, the file of answers, the number of calls at a time. Standard library only."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path

MODEL = "gpt-4o-mini"
"""A name every peer knows; the server answers under any."""


def read_list(path: Path) -> list[str]:
    """The questions."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["question"] for row in csv.DictReader(file)]


def line(question: str, answer: str) -> str:
    """One line of the file of answers."""
    return json.dumps({"question": question, "answer": answer}) + "\n"


def write_answers(path: Path, answers: Iterable[tuple[str, str]]) -> None:
    """The whole file at the end, for tools that keep nothing themselves."""
    path.write_text("".join(line(*pair) for pair in answers), "utf-8")


def at_a_time() -> int | None:
    """How many calls the scenario allows at a time; None: whatever the tool does by default."""
    given = os.environ.get("PEER_CONCURRENCY")
    return int(given) if given else None
