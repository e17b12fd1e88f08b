"""A token bucket, as accounts have for requests."""

from __future__ import annotations


class Bucket:
    """`burst` requests at once, `rate` more each second; what it refuses costs nothing. The caller has the clock."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more request is allowed now."""
        self._left = self.left(now)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def left(self, now: float) -> float:
        """Requests that would be allowed at once."""
        return min(self.burst, self._left + (now - self._at) * self.rate)
