"""How long the runs of an assistant have taken: a few numbers, however many runs there were.

Durations fall into buckets, each a fifth longer than the one before. Two things are counted of each: how many runs
ended in it, and how many were seen to outlive it. The second tells of runs that are still at work: without them the
first to end, the shortest of all, would seem to be what runs take. All counts are halved when there are many: what
happened lately counts most, and one run that took a day moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

SHORTEST_S = 0.1
FACTOR = 1.2
BUCKETS = 72
"""Up to about a day and a half."""
MANY = 400.0
"""Counts are halved when more runs than that have ended."""

Counts = Mapping[int, float]
"""Runs that ended in bucket n under n, those that outlived it under −1 − n."""
NO_RUNS: Counts = MappingProxyType({})

_BOUNDS = tuple(0.0 if bucket == 0 else SHORTEST_S * FACTOR**bucket for bucket in range(BUCKETS + 1))
_LN_FACTOR = math.log(FACTOR)


def bucket_of(seconds: float) -> int:
    """The bucket a duration falls into."""
    if not seconds > SHORTEST_S:
        return 0
    return min(BUCKETS - 1, int(math.log(min(seconds, 1e9) / SHORTEST_S) / _LN_FACTOR))


def bounds_of(bucket: int) -> tuple[float, float]:
    """The durations of a bucket, from and to. The first begins at nothing."""
    return _BOUNDS[bucket], _BOUNDS[bucket + 1]


def seen_between(seen: float, age: float, *, ended: bool) -> list[int]:
    """What to count of a run that was at work at the age `seen`, and at the age `age` still was, or had just ended."""
    first, last = bucket_of(seen), bucket_of(age)
    outlived = [-1 - bucket for bucket in range(first, last)]
    return [*outlived, last] if ended else outlived


def summed(found: Iterable[int]) -> dict[int, float]:
    """Counts of what is to be counted."""
    counts: dict[int, float] = {}
    for one in found:
        counts[one] = counts.get(one, 0.0) + 1.0
    return counts


def counted(counts: Counts, more: Counts) -> dict[int, float]:
    """The counts with more added. `took.lua` does the same."""
    found = dict(counts)
    for one, times in more.items():
        found[one] = found.get(one, 0.0) + times
    if ended(found) > MANY:
        found = {one: times / 2 for one, times in found.items() if times >= 0.1}
    return found


def ended(counts: Counts) -> float:
    """How many runs have ended."""
    return sum(times for one, times in counts.items() if one >= 0)


@dataclass(frozen=True, slots=True)
class Durations:
    """What is to be expected of runs."""

    ended: float
    """How many were seen to end."""
    known: tuple[float, ...]
    """How many have come into each bucket, and ended in it or outlived it."""
    reach: tuple[float, ...]
    """Which part of all runs come into each bucket; one more than there are buckets."""

    @property
    def median_s(self) -> float:
        """Half of all runs take longer, or about as long."""
        return next((_BOUNDS[bucket] for bucket in range(BUCKETS) if self.reach[bucket + 1] <= 0.5), _BOUNDS[-1])


_PRIOR_RUNS = 1.0
_PRIOR = range(bucket_of(0.7), bucket_of(3600.0) + 1)
"""What is expected where nothing is known: anything from a second to an hour, each magnitude as likely as the other. It
counts as much as one run."""


def durations(counts: Counts) -> Durations:
    """What counts say of the next runs: of those that come into a bucket, as many end in it as did (Kaplan-Meier)."""
    known, reach = [], [1.0]
    for bucket in range(BUCKETS):
        ends, all_ = counts.get(bucket, 0.0), counts.get(bucket, 0.0) + counts.get(-1 - bucket, 0.0)
        known.append(all_)
        expected = 1.0 / (_PRIOR.stop - bucket) if bucket in _PRIOR else 0.0 if bucket < _PRIOR.start else 0.5
        reach.append(reach[-1] * (1.0 - (ends + _PRIOR_RUNS * expected) / (all_ + _PRIOR_RUNS)))
    return Durations(ended(counts), tuple(known), tuple(reach))


NOTHING_KNOWN = durations(NO_RUNS)
