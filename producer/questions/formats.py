"""Which formats a list may have, and how the format is chosen."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from askq.errors import InputError, Problem
from producer.questions.columns import QUESTION_NAMES, key_of

LINES, CSV, TSV, JSONL, JSON, OPENAI = "txt", "csv", "tsv", "jsonl", "json", "openai"

_HEADER_LIMIT = 64 << 10
"""Characters of a line looked at: a header is shorter."""

FORMATS = (LINES, CSV, TSV, JSONL, JSON, OPENAI)
"""What `format=` accepts; `openai` is the JSONL of OpenAI's Batch API, recognised by itself in any JSONL."""

_ALIASES = {"ndjson": JSONL, "text": LINES, "lines": LINES}
SUFFIXES = {".txt": LINES, ".csv": CSV, ".tsv": TSV, ".jsonl": JSONL, ".ndjson": JSONL, ".json": JSON}

_EXPORT = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "Export the sheet as CSV (UTF-8) and submit that."),
    **dict.fromkeys(
        (".parquet", ".feather", ".arrow"),
        "Export it as JSON Lines, e.g. duckdb -c \"copy 'FILE' to 'questions.jsonl'\".",
    ),
    **dict.fromkeys((".docx", ".doc", ".odt", ".pdf", ".rtf"), "Save the questions as plain text, one per line."),
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), "Decompress it first."),
}


def known_format(name: str) -> str:
    """The format of that name or alias. Raises InputError."""
    wanted = name.strip().lower().lstrip(".")
    wanted = _ALIASES.get(wanted, wanted)
    if wanted in FORMATS:
        return wanted
    near = difflib.get_close_matches(wanted, [*FORMATS, *_ALIASES], n=1)
    remedy = f"Did you mean {near[0]}? " if near else ""
    raise InputError(f'"{name}" is no format of a list', remedy=f"{remedy}Known: {', '.join(FORMATS)}.")


def format_of(path: Path) -> str:
    """The format a file's suffix says. Raises InputError for any other."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix in _EXPORT:
        raise InputError(
            [Problem(file=str(path), message=f"askq does not read {suffix} files")], remedy=_EXPORT[suffix]
        )
    what = f"askq does not know {suffix} files" if suffix else "the name has no suffix that tells the format"
    raise InputError(
        [Problem(file=str(path), message=what)],
        remedy=f"Known: {', '.join(SUFFIXES)}. Rename the file, or say its format with --format.",
    )


def sniff(text: TextIO, *, columns: Collection[str] = ()) -> str:
    """The format of a stream without a name, from its first line that is not blank.

    A table is one whose header names a question column, or one of `columns`, which somebody has asked for; anything
    else that is not JSON is lines.
    """
    known = (*QUESTION_NAMES, *columns)
    for line in iter(lambda: text.readline(_HEADER_LIMIT), ""):
        if stripped := line.strip():
            if stripped[0] in "{[":
                return JSONL if stripped[0] == "{" else JSON
            return CSV if _is_header(stripped, known) else LINES
    return LINES


def _is_header(line: str, known: Collection[str]) -> bool:
    """Whether a line is the header of a table."""
    if line.strip('"').strip().casefold() in {name.casefold() for name in known}:
        # A table of one column: nobody asks the word "question".
        return True
    keys = set(map(key_of, known))
    for delimiter in (",", ";", "\t"):
        names = [key_of(name.strip().strip('"')) for name in line.split(delimiter)]
        if len(names) > 1 and not keys.isdisjoint(names):
            return True
    return False
