"""The cells of `survival` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COUNTS = {
    "answered": "answered",
    "answered_late": "of these, only after the visibility timeout",
    "lost_silently": "lost, nobody told",
    "lost_reported": "failed, and on record",
    "undecided": "undecided at the deadline",
    "wrong": "wrong",
    "paid_twice": "paid twice",
}


def as_text(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A Markdown table: a line for each trouble and contender."""
    lines = [_line("", "", *_COUNTS.values()), "|---" * (len(_COUNTS) + 2) + "|"]
    for trouble in next(iter(cells.values()), ()):
        for contender, columns in cells.items():
            counts = [str(columns[trouble][count]) for count in _COUNTS]
            lines.append(_line(trouble, contender.replace("_", " "), *counts))
    return "\n".join(lines)


def _line(*words: str) -> str:
    return f"| {' | '.join(words)} |"
