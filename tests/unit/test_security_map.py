"""The page of security checks leaves none out, and whatever shows one exists."""

from __future__ import annotations

import re

from tests.chaos import suite
from tests.unit.named_tests import missing, named, page, rows

PAGE = page("understand/security.md")
ROWS = rows(PAGE, "| # |")


def test_every_check_has_its_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 36))


def test_every_test_that_is_named_exists() -> None:
    assert len(named(PAGE)) > 50, "the search finds what it should"
    assert missing(PAGE) == set()
    assert set(re.findall(r"\bchaos ([a-z]+) \|", PAGE)) <= set(suite.PROFILES)


def test_every_row_says_what_shows_it_or_why_nothing_does() -> None:
    for _, check, does, shown in ROWS:
        assert check
        if not re.search(r"`test_\w+::test_\w+`", shown):
            assert shown.startswith(("does not apply", "not judged")), shown
            assert len(shown) > len("does not apply: "), "with the reason"
        else:
            assert does
