"""How long the runs of an assistant have taken: a few numbers, however many runs there were.

Runs are counted in buckets, each a fifth longer than the one before, and all counts are halved when there are many:
what happened lately counts most, and one run that took a day moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SHORTEST_S = 0.1
FACTOR = 1.2
BUCKETS = 72
"""Up to about a day and a half."""
MANY = 400.0
"""Counts are halved when they sum up to more."""


def bucket_of(seconds: float) -> int:
    """The bucket a duration falls into."""
    if not seconds > SHORTEST_S:
        return 0
    return min(BUCKETS - 1, int(math.log(min(seconds, 1e9) / SHORTEST_S) / math.log(FACTOR)))


def bounds_of(bucket: int) -> tuple[float, float]:
    """The durations of a bucket, from and to. The first begins at nothing."""
    low = 0.0 if bucket == 0 else SHORTEST_S * FACTOR**bucket
    return low, SHORTEST_S * FACTOR ** (bucket + 1)


def counted(weights: Mapping[int, float], seconds: Sequence[float]) -> dict[int, float]:
    """The weights with more runs counted. `took.lua` does the same."""
    found = dict(weights)
    for one in seconds:
        found[bucket_of(one)] = found.get(bucket_of(one), 0.0) + 1.0
    if sum(found.values()) > MANY:
        found = {bucket: weight / 2 for bucket, weight in found.items() if weight >= 0.1}
    return found
