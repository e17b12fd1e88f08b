"""Writers of answers: one format, one place, any number of jobs in constant memory."""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from askq.errors import InputError
from askq.jobs.model import Job
from producer.answers.openai_lines import to_openai_line
from producer.answers.record import to_record
from producer.answers.table_rows import TableRows
from producer.answers.target import check_place, output_error, whole_file

JSONL, CSV, TSV, OPENAI = "jsonl", "csv", "tsv", "openai"
FORMATS = (JSONL, CSV, TSV, OPENAI)
"""What `format=` accepts; `openai` writes the output lines of OpenAI's Batch API."""

SUFFIXES = {".jsonl": JSONL, ".ndjson": JSONL, ".csv": CSV, ".tsv": TSV}
_INSTEAD = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Write .csv: every spreadsheet opens it."),
    **dict.fromkeys((".json", ".parquet"), "Write .jsonl, which other tools convert."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes jobs in one format to one place; see `writer_for`."""

    format: str
    path: Path | None
    """None: a stream."""
    stream: BinaryIO | None = None
    """Used when there is no path; None means standard output."""
    columns: Sequence[str] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","
    """Of CSV."""
    fields: Sequence[str] = ()
    """Of the answers' schema: columns of their own in CSV and TSV."""

    def check(self) -> None:
        """Raise OutputError unless the place can be written now. Changes nothing."""
        if self.path is not None:
            check_place(self.path)

    def write(self, jobs: Iterable[Job]) -> int:
        """Write the jobs in the order given; how many. Raises OutputError, and what reading the jobs raises.

        A file appears only when all were written, and an existing one is kept until then. A stream whose reader went
        away raises BrokenPipeError.
        """
        if self.path is not None:
            with whole_file(self.path) as file:
                return self._write(jobs, file)
        out = sys.stdout.buffer if self.stream is None else self.stream
        try:
            written = self._write(jobs, out)
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise output_error(getattr(out, "name", "the stream"), exc) from exc
        return written

    def _write(self, jobs: Iterable[Job], out: BinaryIO) -> int:
        if self.format == JSONL:
            return _write_lines(jobs, out, to_record)
        if self.format == OPENAI:
            return _write_lines(jobs, out, to_openai_line)
        delimiter = "\t" if self.format == TSV else self.delimiter
        rows = TableRows(columns=self.columns, roles=self.roles, fields=self.fields)
        return _write_table(jobs, out, rows, delimiter=delimiter)


def writer_for(
    target: Path | str | None = None,
    *,
    format: str | None = None,  # noqa: A002 (the option's name)
    stream: BinaryIO | None = None,
    columns: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    fields: Sequence[str] = (),
) -> Writer:
    """The writer for a file, whose suffix tells the format unless `format` does; or, for None and "-", for `stream`
    (standard output by default), as JSON Lines unless `format` says otherwise.

    `columns` and `roles` (see `producer.questions.Summary`) restore the user's table in CSV and TSV; without them the
    columns appear in the order in which the jobs have them, after the id and the question. `delimiter` is the list's
    own: CSV that came with semicolons goes back with semicolons, because the spreadsheet it came from expects them;
    any other becomes a comma. `fields` are those of the answers' schema (`askq.structured.columns_of`). Raises
    InputError for a format or suffix that is not known.
    """
    path = None if target is None or str(target) == "-" else Path(target)
    if format is not None:
        wanted = format.strip().lower().lstrip(".")
        wanted = {"ndjson": JSONL}.get(wanted, wanted)
        if wanted not in FORMATS:
            near = difflib.get_close_matches(wanted, FORMATS, n=1)
            raise InputError(
                f'"{format}" is no format for answers',
                remedy=f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(FORMATS)}.",
            )
    elif path is None:
        wanted = JSONL
    else:
        wanted = _format_of(path)
    return Writer(
        format=wanted,
        path=path,
        stream=stream,
        columns=tuple(columns),
        roles=dict(roles or {}),
        delimiter=";" if delimiter == ";" else ",",
        fields=tuple(fields),
    )


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    what = f"askq does not write {suffix} files" if suffix else "the name has no suffix that tells the format"
    raise InputError(
        f"the answers cannot be written to {path}: {what}",
        remedy=_INSTEAD.get(suffix)
        or f"Known: {', '.join(SUFFIXES)}. Rename it; `askq results` takes any name with its --format.",
    )


def _write_lines(jobs: Iterable[Job], out: BinaryIO, make: Callable[[Job], dict[str, Any]]) -> int:
    written = 0
    for job in jobs:
        line = make(job)
        try:
            data = json.dumps(line, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            # Half a character in an answer: as an escape it is still valid JSON, and nothing is lost.
            data = json.dumps(line).encode()
        out.write(data + b"\n")
        written += 1
    return written


def _write_table(jobs: Iterable[Job], out: BinaryIO, rows: TableRows, *, delimiter: str) -> int:
    """Rows go to a temporary file first: only after the last job is it known which columns the header needs, and
    reading all jobs twice from the store would cost more."""
    written = 0
    with tempfile.TemporaryFile() as kept:
        for job in jobs:
            kept.write(json.dumps(rows.row(job)).encode() + b"\n")
            written += 1
        kept.seek(0)
        # The mark tells Excel that this is UTF-8. What cannot be encoded becomes a question mark.
        text = io.TextIOWrapper(out, encoding="utf-8-sig", errors="replace", newline="", write_through=False)
        try:
            # All of CSV is quoted, so that a semicolon in an answer starts no cell where a reader takes those for the
            # delimiter.
            table = csv.writer(
                text, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "\t" else csv.QUOTE_ALL
            )
            table.writerow(rows.header())
            table.writerows(_kept_rows(kept, rows))
            text.flush()
        finally:
            text.detach()
    return written


def _kept_rows(kept: BinaryIO, rows: TableRows) -> Iterator[list[str]]:
    for line in kept:
        cells, own = json.loads(line)
        yield rows.joined(cells, own)
