"""No library that is installed is below a version with a known hole.

The list is by hand, because looking for holes needs a network: from the advisories of 2026-11-23.
"""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

# Library → the first version without the holes, and which they were.
FLOORS = {
    # CVE-2022-51020 (requests of other sites could end workers), CVE-2022-30034.
    "flower": "2.2.0",
    # CVE-2026-82397, -91990, -91991 (requests that stop a server); Flower asks for less.
    "tornado": "6.6.0",
    # CVE-2021-23727 (commands through a result backend).
    "celery": "5.2.2",
    # CVE-2023-28858, -28859 (a cancelled command leaves its reply to the next one).
    "redis": "4.5.4",
}


def numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


@pytest.mark.parametrize("name", FLOORS)
def test_no_library_is_below_a_version_with_a_known_hole(name: str) -> None:
    assert numbers(version(name))[:3] >= numbers(FLOORS[name])
