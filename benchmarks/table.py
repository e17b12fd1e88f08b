"""The cells of `survival` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROWS = (
    ("answered", "answered"),
    ("of these, only after the visibility timeout", "answered_late"),
    ("lost, nobody told", "lost_silently"),
    ("failed, and on record", "lost_reported"),
    ("undecided at the deadline", "undecided"),
    ("paid twice", "paid_twice"),
    ("wrong", "wrong"),
)


def as_text(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A Markdown table: a column for each trouble and contender."""
    contenders = list(cells)
    columns = list(next(iter(cells.values())))
    heads = [f"{column}: {contender.replace('_', ' ')}" for column in columns for contender in contenders]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for label, key in _ROWS:
        values = [str(cells[contender][column][key]) for column in columns for contender in contenders]
        lines.append(f"| {label} | " + " | ".join(values) + " |")
    return "\n".join(lines)
