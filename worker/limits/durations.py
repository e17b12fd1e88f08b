"""How long runs of each assistant take: noted here, told to the store together, and known from it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from askq.errors import StoreError
from askq.jobs import took
from askq.jobs.model import Lane
from askq.jobs.store import Store

log = logging.getLogger(__name__)

_FRESH_S = 2.0
_FRESH_AT_FIRST_S = 0.5
"""The same while every poll tells something new."""
_AT_FIRST = 50.0
"""Until so many runs have ended."""
_REMEMBERED = 1000


@dataclass(slots=True)
class _Known:
    runs: took.Durations = took.NOTHING_KNOWN
    noted: list[int] = field(default_factory=list)
    asked: bool = True
    """Whether somebody has asked since it was last read."""


class Durations:
    """Belongs to one event loop. Answers at once with what is known, and asks the store in the background."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}
        self._waiting = 0
        self._fresh_s = _FRESH_AT_FIRST_S
        self._asked_at = -_FRESH_S
        self._task: asyncio.Task[None] | None = None

    def note(self, digest: str, seen: Sequence[int]) -> None:
        """What a poll of a run of this assistant has shown (`took.seen_between`)."""
        if seen:
            self._of(digest).noted += seen
            self._refresh(noted=True)

    def of(self, digest: str) -> took.Durations:
        """What is known of this assistant's runs."""
        known = self._of(digest)
        known.asked = True
        self._refresh()
        return known.runs

    @property
    def runs_waiting(self) -> int:
        """How many runs wait for their next poll, in the whole fleet."""
        return self._waiting

    def _of(self, digest: str) -> _Known:
        if digest not in self._known:
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = _Known()
            self._asked_at = -_FRESH_S
        return self._known[digest]

    def _refresh(self, *, noted: bool = False) -> None:
        wait = self._asked_at + self._fresh_s - time.monotonic()
        if (noted or wait <= 0) and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask(wait))

    async def _ask(self, wait: float) -> None:
        await asyncio.sleep(wait)
        self._asked_at, self._fresh_s = time.monotonic(), _FRESH_S
        try:
            self._waiting = await asyncio.to_thread(self._store.waiting, Lane.POLL)
            for digest, known in list(self._known.items()):
                if known.noted or known.asked:
                    noted, known.noted, known.asked = known.noted, [], False
                    counts = await asyncio.to_thread(self._store.took, digest, took.summed(noted))
                    known.runs = took.durations(counts)
                if known.runs.ended < _AT_FIRST:
                    self._fresh_s = _FRESH_AT_FIRST_S
        except StoreError as error:
            # A few runs less to learn from.
            log.info("how long runs take was not stored: %s", error.message)
