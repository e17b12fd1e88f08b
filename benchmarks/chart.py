"""Horizontal bars as an SVG file, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW = 26
_NAMES = 170
_BARS = 420
_NOTES = 290
_TOP = 44
_LEGEND = 22
_STYLE = (
    "text{fill:#1f2328}.bar{fill:#8c959f;stroke:#8c959f}.ours{fill:#1a7f37;stroke:#1a7f37}"
    ".short{fill-opacity:.15;stroke-dasharray:4 2}@media (prefers-color-scheme:dark){text{fill:#e6edf3}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: its length, and words beside it."""

    name: str
    value: float | None
    """None: not measured, no bar."""
    note: str = ""
    ours: bool = False
    short: bool = False
    """Whether less was done than by the others, so that the lengths must not be compared: drawn as an outline."""


def bars(title: str, rows: Sequence[Bar], *, short: str = "", names: int = _NAMES) -> str:
    """The picture: lengths in proportion, from 0. `short` explains the outlined ones, where there are some; `names` is
    the width kept for names."""
    longest = max((row.value for row in rows if row.value is not None), default=0) or 1
    explained = short if any(row.short and row.value for row in rows) else ""
    height = _TOP + _ROW * len(rows) + 10 + (_LEGEND if explained else 0)
    size = f"0 0 {names + _BARS + _NOTES} {height}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="8" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        top = _TOP + number * _ROW
        length = 0.0 if row.value is None else _BARS * row.value / longest
        lines.append(f'<text x="{names - 8}" y="{top + 15}" text-anchor="end">{escape(row.name)}</text>')
        if row.value is not None:
            kind = ("ours" if row.ours else "bar") + (" short" if row.short else "")
            lines.append(f'<rect class="{kind}" x="{names}" y="{top + 2}" width="{length:.1f}" height="18" rx="2"/>')
        lines.append(f'<text x="{names + length + 8:.1f}" y="{top + 15}">{escape(row.note)}</text>')
    if explained:
        top = _TOP + _ROW * len(rows) + 6
        lines.append(f'<rect class="bar short" x="{names}" y="{top}" width="24" height="12" rx="2"/>')
        lines.append(f'<text x="{names + 32}" y="{top + 11}">{escape(explained)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
