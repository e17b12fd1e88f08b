"""The list every scenario asks, and the script of the server that answers it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def texts(count: int) -> list[str]:
    """So many questions, no two alike: the ledger tells by its text which one a run was for."""
    return [f"What is the square of {n}?" for n in range(count)]


def write_list(path: Path, questions: Sequence[str]) -> None:
    """A CSV file with the columns `id` and `question`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question"])
        writer.writerows([f"q{n:04d}", text] for n, text in enumerate(questions))


def script(run_seconds: Sequence[float]) -> dict[str, Any]:
    """Each question has an answer of its own, after a time drawn from its text."""
    return {"default": {"answer": "Answer to: {question}", "duration": list(run_seconds)}}


def right_answer(question: str) -> str:
    """What the script answers."""
    return f"Answer to: {question}"
