"""Pages that name the tests which show what they say."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
_NAMED = re.compile(r"`(test_\w+::test_\w+)`")


def page(name: str) -> str:
    """The text of a page of the documents."""
    return (TESTS.parent / "docs" / name).read_text("utf-8")


def rows(text: str, *heads: str) -> list[list[str]]:
    """The cells of all rows of a page's tables, without the head rows, by how these begin."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(heads)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(text: str) -> set[str]:
    """The tests that a text names: module and test."""
    return set(_NAMED.findall(text))


def missing(text: str) -> set[str]:
    """Those of them that do not exist."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        found[path.stem] |= set(re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))
    return {name for name in named(text) if name.partition("::")[2] not in found[name.partition("::")[0]]}
