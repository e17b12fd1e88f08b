"""`python -m benchmarks.survival_report FILE…`: tables and pictures of `survival`, from results in JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chart import Bar, bars
from benchmarks.publish import publish
from benchmarks.table import as_text

PICTURES = Path(__file__).parents[1] / "docs" / "understand" / "survival"
_PROTOCOLS = {"survival": "Assistants", "survival-responses": "Responses, no keys"}


def picture(scenario: str, found: Mapping[str, Any]) -> str:
    """What went wrong with each contender, trouble by trouble: questions without an answer and runs paid for twice."""
    cells, rows = found["cells"], []
    for trouble in next(iter(cells.values())):
        for contender, columns in cells.items():
            cell = columns[trouble]
            missing, twice = found["questions"] - cell["answered"], cell["paid_twice"]
            name = f"{trouble}: {contender.replace('_', ' ')}"
            rows.append(Bar(name, missing + twice, _words(cell), ours=contender == "askq"))
    title = f"{_PROTOCOLS[scenario]}: of {found['questions']} questions not answered, or paid for twice"
    return bars(title, rows, names=220)


def _words(cell: Mapping[str, Any]) -> str:
    parts = [
        f"{cell[key]} {what}"
        for key, what in (
            ("lost_silently", "lost without a word"),
            ("lost_reported", "failed on record"),
            ("paid_twice", "paid twice"),
            ("wrong", "wrong"),
            ("undecided", "undecided"),
        )
        if cell[key]
    ]
    return ", ".join(parts) or "0"


def _text(scenario: str, results: Mapping[str, Any]) -> str:
    return f"{scenario}\n\n{as_text(results[scenario]['cells'])}"


def main(argv: list[str] | None = None) -> int:
    return publish(
        argv,
        program="benchmarks.survival_report",
        about=__doc__,
        pictures=PICTURES,
        scenarios=_PROTOCOLS.keys(),
        text=_text,
        picture=picture,
    )


if __name__ == "__main__":
    sys.exit(main())
