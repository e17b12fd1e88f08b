"""A look at answers on a terminal: a table of a few rows, one line each."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TextIO

from askq.jobs.model import Job, State
from producer.answers.plain import plain
from producer.answers.record import to_record

_COLOURS = {
    State.COMPLETED: "green",
    State.INCOMPLETE: "yellow",
    State.FAILED: "red",
    State.UNCERTAIN: "red",
    State.EXPIRED: "red",
    State.CANCELLED: "dim",
}
_GAP = 2
_ID_WIDTH = 24
_LEAST = 10
_SHOWN = 400
"""Characters of a text looked at: more never fits a line, and an answer may have megabytes."""


def print_table(
    jobs: Iterable[Job],
    *,
    file: TextIO,
    width: int | None = None,
    limit: int | None = 20,
    total: int | None = None,
    color: bool | None = None,
) -> int:
    """Print the first `limit` jobs (None: all) to `file`; how many were shown.

    `width` in columns and `color` follow the terminal when they are None; wide characters count double. `total` is
    how many jobs there are, to say how many more. rich is imported only here: a pipe needs none of it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        file=file,
        width=width,
        no_color=None if color is None else not color,
        force_terminal=color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    rows: list[tuple[Text, Text, Text, Text]] = []
    for job in islice(jobs, limit):
        style = _COLOURS.get(job.state, "")
        record = to_record(job)
        error = record["error"]
        answer = record["answer"] or ""
        outcome = Text(_line(answer))
        if error is not None:
            said = f"{error['code']}: {error['message']}"
            outcome = Text(_line(f"{said}  {answer}" if answer else said), style=style)
        # Text, never strings: what stands in brackets is part of the answer, not a colour.
        rows.append(
            (
                Text(_line(record["custom_id"])),
                Text(job.state.value, style=style),
                Text(_line(job.question.text)),
                outcome,
            )
        )
    headings = ("ID", "STATUS", "QUESTION", "ANSWER")
    wanted = [max(len(heading), *(row[at].cell_len for row in rows), 0) for at, heading in enumerate(headings)]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for heading, fits in zip(headings, _widths(wanted, console.width), strict=True):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=fits)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if total is not None and total > len(rows):
        console.print(Text(f"… and {total - len(rows):,} more", style="dim"))
    return len(rows)


def _widths(wanted: list[int], width: int) -> list[int]:
    """The id and the state whole; of the rest, two fifths for the question unless one of the two needs less."""
    row_id, state, question, answer = min(wanted[0], _ID_WIDTH), *wanted[1:]
    left = max(width - row_id - state - 3 * _GAP, _LEAST)
    if question + answer > left:
        question = min(question, max(left * 2 // 5, left - answer))
        answer = left - question
    return [row_id, state, question, answer]


def _line(text: str) -> str:
    return plain(text[:_SHOWN], one_line=True)
