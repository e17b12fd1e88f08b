"""Which formats a list may have, and how the format is chosen."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TextIO

from askq.errors import InputError, Problem

LINES, CSV, TSV, JSONL, JSON, OPENAI = "txt", "csv", "tsv", "jsonl", "json", "openai"

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


def sniff(text: TextIO) -> str:
    """The format of a stream without a name, from its first character that is not blank."""
    while part := text.read(4096):
        if stripped := part.lstrip():
            return {"{": JSONL, "[": JSON}.get(stripped[0], LINES)
    return LINES
