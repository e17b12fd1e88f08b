"""Where a key of a TOML text stands: the standard library's reader tells no lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_NAME = r"""(?:[\w-]+|"(?:\\.|[^"\\])*"|'[^']*')"""
_DOTTED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_TABLE = re.compile(rf"^\s*(\[{{1,2}})\s*({_DOTTED})\s*\]{{1,2}}")
_KEY = re.compile(rf"^\s*({_DOTTED})\s*=")
_INNER = re.compile(r"[{,]\s*([\w-]+)\s*=")
_TEXT_OR_COMMENT = re.compile(r'''"""|\'\'\'|"(?:\\.|[^"\\])*"|'[^']*'|\#.*''')

_Path = tuple[str | int, ...]


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The line (from 1) where the key of this path is written, or the nearest key above it; None if nowhere.

    Numbers in a path count the tables of an array of tables; items of an array that is a value have no line of their
    own and stand where the array begins.
    """
    lines = _key_lines(text)
    wanted = tuple(path)
    while wanted:
        for spelt in (wanted, tuple(part for part in wanted if isinstance(part, str))):
            if spelt in lines:
                return lines[spelt]
        wanted = wanted[:-1]
    return None


def _key_lines(text: str) -> dict[_Path, int]:
    found: dict[_Path, int] = {}
    tables: Counter[_Path] = Counter()
    table: _Path = ()
    key: _Path = ()
    quote = ""
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        bare, quote, begins_inside = _without_texts(line, quote)
        if depth == 0 and not begins_inside:
            if header := _TABLE.match(line):
                table = key = _parts(header.group(2))
                if len(header.group(1)) == 2:
                    table = key = (*table, tables[table])
                    tables[table[:-1]] += 1
                    found.setdefault(table[:-1], number)
                found.setdefault(table, number)
                continue
            if named := _KEY.match(line):
                key = table + _parts(named.group(1))
                for end in range(len(table) + 1, len(key) + 1):
                    found.setdefault(key[:end], number)
        for inner in _INNER.findall(bare):
            # Keys of an inline table, which may be one of several lines of an array.
            found.setdefault((*key, inner), number)
        depth = max(0, depth + sum(bare.count(sign) for sign in "[{") - sum(bare.count(sign) for sign in "]}"))
    return found


def _without_texts(line: str, quote: str) -> tuple[str, str, bool]:
    """The line without texts and comments, the quotes a text of several lines is left open with, and whether the
    line began inside one."""
    inside = bool(quote)
    bare: list[str] = []
    while line or quote:
        if quote:
            _, closed, line = line.partition(quote)
            if not closed:
                return "".join(bare), quote, inside
            quote = ""
            continue
        mark = _TEXT_OR_COMMENT.search(line)
        if mark is None:
            bare.append(line)
            break
        bare.append(line[: mark.start()])
        line = line[mark.end() :]
        if mark.group() in ('"""', "'''"):
            quote = mark.group()
    return "".join(bare), quote, inside


def _parts(dotted: str) -> _Path:
    return tuple(part.strip("\"'") for part in re.findall(_NAME, dotted))
