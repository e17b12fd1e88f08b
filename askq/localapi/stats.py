"""Counters since the start: what was asked, and what mischief was done."""

from __future__ import annotations

from collections import Counter


class Stats:
    """Plain counters; they are not stored."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        """By `METHOD /v1/route/{placeholder}`; `unknown` where there is no such route."""
        self.statuses: Counter[str] = Counter()
        """By status code; `dropped` where no reply was sent."""
        self.faults: Counter[str] = Counter()
        """By kind of fault."""
        self.created: Counter[str] = Counter()
        """Runs and responses by protocol."""
