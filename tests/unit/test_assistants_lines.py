"""Where a key of a TOML text stands."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

import pytest

from askq.assistants.lines import line_of

TEXT = '''\
# a comment with """ in it, and b = 1
a = 1
b.c = """
d = 4
[not.a.table]
"""
"quoted.name" = 'it''s' # e = 5

[e]  # a table
f = { g = 1, "h" = "x, y = 2" }
list = [
  ["nested"],
  { type = "one" },
  { type = "two", size = 3 },
]
after = \'\'\'
after.all = 1\'\'\'
last = "[z]"

[[h]]
i = 1
[[h]]
i = 2
j = 3
["with.dot".k]
l = 1
'''.replace("'it''s'", "'its'")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["a"], 2),
        (["b"], 3),
        (["b", "c"], 3),
        (["d"], None),
        (["not"], None),
        (["quoted.name"], 7),
        (["e"], 9),
        (["e", "f", "g"], 10),
        (["e", "f", "y"], 10),
        (["e", "list"], 11),
        (["e", "list", 0], 11),
        (["nested"], None),
        (["e", "list", 1, "type"], 13),
        (["e", "list", 2, "size"], 14),
        (["e", "after"], 16),
        (["e", "after", "all"], 16),
        (["e", "last"], 18),
        (["z"], None),
        (["h"], 20),
        (["h", 0, "i"], 21),
        (["h", 1, "i"], 23),
        (["h", 1], 22),
        (["h", 1, "j"], 24),
        (["with.dot", "k", "l"], 26),
        (["e", "unknown"], 9),
        (["unknown"], None),
        ([], None),
    ],
)
def test_where_a_key_stands(path: Sequence[str | int], line: int | None) -> None:
    assert line_of(TEXT, path) == line


def test_the_text_is_toml() -> None:
    assert tomllib.loads(TEXT)["e"]["after"] == "after.all = 1"


def test_lines_of_windows_count_as_one() -> None:
    assert line_of("a = 1\r\n\r\n[b]\r\nc = 1\r\n", ["b", "c"]) == 4
