"""CSV and TSV.

The delimiter is read off the header line alone: questions are full of commas and semicolons, and `csv.Sniffer`
fails on the commonest file there is (one column of sentences). Quoting is strict, because a quote that is not
closed would otherwise swallow the questions after it without a word.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from typing import Protocol, TextIO

from producer.answers.plain import counted
from producer.questions.columns import ColumnFault, Columns
from producer.questions.lines import NAMES as ONE_QUESTION
from producer.questions.reading import QUESTION_MARKS, Fault, Notes, Row, quoted

_DELIMITERS = (",", ";", "\t")
_NONE = "\x1f"
"""For a table of one column: no comma in it separates anything."""

CELL_LIMIT = 64 << 20
"""Characters of one cell. Far above any question; a quote that is never closed ends here and not in the memory."""


class _CsvReader(Protocol):
    """What `csv.reader` returns; the class itself has no public name."""

    @property
    def line_num(self) -> int: ...

    def __next__(self) -> list[str]: ...


def read(text: TextIO, *, delimiter: str | None, columns: Columns, notes: Notes) -> Iterator[Row | Fault]:
    """The rows of a table. `delimiter` None means: find it in the header line."""
    if csv.field_size_limit() < CELL_LIMIT:
        csv.field_size_limit(CELL_LIMIT)
    skipped = 0
    first = ""
    for first in text:
        if said := re.fullmatch(r'\s*"?sep=(.)"?\s*', first, re.IGNORECASE):
            # Excel's own way of naming the delimiter.
            delimiter = said[1]
        elif first.strip():
            break
        skipped += 1
        first = ""
    if not first:
        return
    delimiter = delimiter or _delimiter(first)
    if delimiter in first:
        columns.delimiter = delimiter
    else:
        delimiter = _NONE
    reader = csv.reader(
        itertools.chain((first,), text),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=f'{delimiter} "' in first,
    )
    try:
        header = next(reader)
    except csv.Error as exc:
        yield _broken(exc, skipped + 1, skipped + reader.line_num)
        return
    names, unnamed = _named(header)
    if columns.headless(names):
        notes.say(
            f"the first line ({quoted(names[0])}) reads like a question, not like the name of a column, so it is "
            "asked too; if it is a name, say so with --column"
        )
        yield Row(skipped + 1, ONE_QUESTION, tuple(names), len(names[0]))
        names = ONE_QUESTION
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield Fault(skipped + 1, f"the column {quoted(twice[0])} is there twice", None, "Rename one of them.")
        return
    try:
        columns.layout(tuple(name for index, name in enumerate(names) if index not in unnamed))
    except ColumnFault as exc:
        yield Fault(skipped + 1, exc.message, None, _without_header(first) or exc.remedy)
        return
    yield from _rows(reader, names, unnamed, skipped=skipped, notes=notes)


def _rows(
    reader: _CsvReader, names: tuple[str, ...], unnamed: frozenset[int], *, skipped: int, notes: Notes
) -> Iterator[Row | Fault]:
    width = len(names)
    blank = 0
    thinner: dict[tuple[int, ...], tuple[str, ...]] = {}
    while True:
        start = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            end = skipped + reader.line_num
            yield _broken(exc, start, end)
            if end > start:
                # Where the next row starts cannot be known: everything after would be reported in vain.
                return
            continue
        if cells is None:
            break
        if not any(cells) and (not cells or width > 1):
            blank += bool(cells)
            continue
        if len(cells) != width:
            if len(cells) > width and not any(cells[width:]):
                del cells[width:]
            else:
                yield Fault(start, _ragged(len(cells), width))
                continue
        size = sum(map(len, cells))
        if unnamed:
            # A column without a name exists only where it has something in it.
            empty = tuple(index for index in unnamed if not cells[index])
            if empty not in thinner:
                thinner[empty] = tuple(name for index, name in enumerate(names) if index not in empty)
            yield Row(start, thinner[empty], [cell for i, cell in enumerate(cells) if i not in empty], size)
        else:
            yield Row(start, names, cells, size)
    if blank:
        notes.say(f"{counted(blank, 'row')} with nothing in any cell {'was' if blank == 1 else 'were'} skipped")


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"?', "", header)
    return max(_DELIMITERS, key=bare.count)


def _named(header: list[str]) -> tuple[tuple[str, ...], frozenset[int]]:
    """The names of the columns, and which of them have none of their own: those are called `column_3`."""
    unnamed = frozenset(index for index, name in enumerate(header) if not name.strip()) if len(header) > 1 else None
    if not unnamed:
        return tuple(header), frozenset()
    given = set(header)
    names: list[str] = []
    for index, own in enumerate(header):
        name = own
        if index in unnamed:
            name = f"column_{index + 1}"
            while name in given:
                name += "_"
        names.append(name)
    return tuple(names), unnamed


def _ragged(cells: int, width: int) -> str:
    message = f"the row has {counted(cells, 'cell')}, the header has {width}"
    if cells > width:
        return f"{message}; a cell with the delimiter in it must stand in quotes"
    return message


def _broken(exc: csv.Error, start: int, end: int) -> Fault:
    reason = str(exc)
    if "expected after" in reason:
        reason = 'after a closing quote only a delimiter may follow; a quote inside a quoted cell is written ""'
    elif "unexpected end of data" in reason:
        reason = "the closing quote of a cell is missing"
    elif "field larger than" in reason:
        reason = f"a cell is longer than {CELL_LIMIT >> 20} MiB; is a closing quote missing?"
    if end > start:
        reason = f"the row that starts here breaks in line {end}: {reason}; nothing after it was read"
    return Fault(start, reason)


def _without_header(first: str) -> str | None:
    """Advice for a table whose first line is a question with commas in it."""
    if '"' not in first and first.strip().endswith(QUESTION_MARKS):
        return (
            "The first line reads like a question: if there is no header line, name the file .txt (or say "
            "--format txt), or put a line with the word question on top."
        )
    return None
