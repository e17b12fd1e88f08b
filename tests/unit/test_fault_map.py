"""The map of faults names tests and experiments that exist, and leaves out no kind of trouble."""

from __future__ import annotations

import re

from tests.acceptance.deaths import PLACES, STORIES
from tests.chaos import faults, postman, suite
from tests.chaos.profiles import redis
from tests.unit.named_tests import missing, page, rows
from tests.unit.named_tests import named as named_tests

PAGE = page("understand/failure-model.md")
ROWS = rows(PAGE, "| step | before", "| step | what", "| fault |", "| promise |")
KINDS = {
    "api": {*faults.OFTEN, *faults.PAUSING, *faults.LONG, *faults.ENDS.values()},
    "files": {*faults.UPLOADS, *faults.DOWNLOADS, *faults.STORES},
    "forgetting": {*faults.DELETIONS},
    "redis": set(redis.STRIKES),
    "messages": set(postman.KINDS),
}


def named(pattern: str) -> set[str]:
    return set(re.findall(pattern, PAGE))


def test_every_test_that_is_named_exists() -> None:
    assert len(named_tests(PAGE)) > 100, "the search finds what it should"
    assert missing(PAGE) == set()


def test_every_row_says_what_shows_it() -> None:
    assert len(ROWS) > 100
    for row in ROWS:
        assert re.search(r"`test_\w+::|chaos \w+", row[-1]) or row[-2].startswith("`"), row


def test_every_experiment_and_kind_of_trouble_is_named_and_exists() -> None:
    assert named(r"\bchaos ([a-z]+)[,:| ]") - {"suite"} == set(suite.PROFILES)
    for profile, kinds in KINDS.items():
        assert {kind.strip() for kind in named(rf"\bchaos {profile}: ([^,|`]+)")} == kinds


def test_every_story_and_failpoint_that_is_named_exists() -> None:
    table = PAGE.partition("## A process is killed")[2].partition("No failpoint is near these")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "| `" in line]
    for row in rows:
        assert {point for cell in row[1:4] for point in re.findall(r"`([^`]+)`", cell)} <= PLACES, row
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row[4])} == {story.name for story in STORIES}
