"""Live logs of the store in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from askq.jobs import live
from askq.jobs.live import LiveEntry, Piece

_LOOK_EVERY_S = 0.01


@dataclass(slots=True)
class MemoryLog:
    """One job's log."""

    entries: deque[LiveEntry] = field(default_factory=lambda: deque(maxlen=live.MOST_ENTRIES))
    told: int = 0
    until: float = 0.0
    """When the log is forgotten."""
    teller: tuple[str, float] = ("", 0.0)
    """Who tells, and until when nobody else may."""

    def may_tell(self, teller: str, now: float, *, relieves: bool) -> bool:
        """Whether this teller may: if so, nobody else may for a while, unless it relieves this one."""
        if self.teller[0] != teller and self.teller[1] > now and not relieves:
            return False
        self.teller = (teller, now + live.TELLS_S)
        return True

    def add(self, run: str, pieces: Sequence[Piece], now: float) -> None:
        """One more entry."""
        if self.until <= now:
            self.entries.clear()
        self.told += 1
        # Written and read as Redis does, so that nothing is kept here that could not be kept there.
        self.entries.append(LiveEntry(id=f"{self.told:016d}-0", run=run, pieces=live.load(live.dump(pieces))))
        self.until = now + live.KEPT_S


def waited_for(read: Callable[[], list[LiveEntry]], wait_s: float) -> list[LiveEntry]:
    """What can be read, as soon as there is something, or when the time is up."""
    until = time.monotonic() + min(wait_s, live.LONGEST_WAIT_S)
    while not (found := read()) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
    return found
