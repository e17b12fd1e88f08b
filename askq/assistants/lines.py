"""Where a key of a TOML text stands: the standard library's reader tells no lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TABLE = re.compile(r"^\s*\[{1,2}\s*([^\]]+?)\s*\]{1,2}")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_MULTILINE = re.compile(r'"""|' + "'''")


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The line (from 1) where the key of this path is written, or the nearest key above it; None if nowhere."""
    wanted = tuple(str(part) for part in path if isinstance(part, str))
    lines = _key_lines(text)
    while wanted:
        if wanted in lines:
            return lines[wanted]
        wanted = wanted[:-1]
    return None


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    quoted = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quoted:
            quoted = "" if quoted in line else quoted
            continue
        if header := _TABLE.match(line):
            table = _parts(header.group(1))
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            path = table + _parts(key.group(1))
            for depth in range(len(table) + 1, len(path) + 1):
                found.setdefault(path[:depth], number)
            # Keys of an inline table stand on the line of the table.
            for inner in re.findall(r"[{,]\s*([\w-]+)\s*=", line[key.end() :]):
                found.setdefault((*path, inner), number)
        marks = _MULTILINE.findall(line)
        if len(marks) % 2:
            quoted = marks[-1]
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
