"""Limits of an account, as services have them: so many requests a second, so many tokens a minute.

`--limit` and `POST /_askq/limits` take the same fields; what is left out is as before, `null` ends a limit:

    requests_per_second   creates of runs a second, as a bucket that fills at this rate …
    burst                 … and holds so many (one second's worth)
    tokens_per_minute     tokens a minute: a create counts a quarter of its text's length, and `max_output_tokens`
    gets_per_second       GETs below /v1 a second, with a burst of one second's worth
    headers               whether replies to creates carry `x-ratelimit-*` (true)
    retry_after           seconds a 429 asks to wait, as `Retry-After`; null: none (1)

Creates of runs are limited (`POST …/runs`, `POST /responses`), as OpenAI limits them by model; threads and
conversations are not. A refused request counts for nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from askq.localapi.errors import ApiError, invalid
from askq.localapi.fields import json_name
from askq.localapi.wire import JsonObject

_NUMBERS = ("requests_per_second", "burst", "tokens_per_minute", "gets_per_second", "retry_after")
NAMES = (*_NUMBERS, "headers")
_MOST = 1e9


@dataclass(slots=True)
class _Bucket:
    rate: float
    size: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + self.rate * max(0.0, now - self.at))
        self.at = now


@dataclass(slots=True)
class Limits:
    """The limits in force and what is left of them. `clock` is monotonic: nobody sets it."""

    given: JsonObject = field(default_factory=lambda: {"headers": True, "retry_after": 1.0})
    clock: Callable[[], float] = time.monotonic
    refused: dict[str, int] = field(default_factory=dict)
    """By what was exhausted: requests, tokens, gets."""
    tokens_accepted: float = 0.0
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def change(self, given: Mapping[str, object]) -> JsonObject:
        """Put limits in force; what is in force now. Raises ApiError (400)."""
        wanted = {**self.given, **checked(given)}
        now = self.clock()
        rates = {
            "requests": (wanted.get("requests_per_second"), wanted.get("burst")),
            "tokens": (_per_second(wanted.get("tokens_per_minute")), wanted.get("tokens_per_minute")),
            "gets": (wanted.get("gets_per_second"), None),
        }
        buckets = {}
        for name, (rate, burst) in rates.items():
            if rate is None:
                continue
            size = max(1.0, rate if burst is None else burst)
            old = self._buckets.get(name)
            level = size
            if old is not None:
                old.fill(now)
                level = min(size, old.level)
            buckets[name] = _Bucket(rate, size, level, now)
        self.given, self._buckets = wanted, buckets
        return self.given

    def any(self) -> bool:
        """Whether anything is limited."""
        return bool(self._buckets)

    def check(self, method: str, path: str, body: bytes) -> dict[str, str]:
        """Count a request; the headers of its reply. Raises ApiError (429)."""
        if not self._buckets:
            return {}
        now = self.clock()
        if method == "GET":
            self._count("gets", 1.0, now)
            return {}
        if method != "POST" or not _creates_run(path):
            return {}
        tokens = _tokens(body)
        # Both must have enough before either is counted.
        for name, cost in (("requests", 1.0), ("tokens", tokens)):
            self._must_have(name, cost, now)
        for name, cost in (("requests", 1.0), ("tokens", tokens)):
            self._count(name, cost, now)
        self.tokens_accepted += tokens
        return self._headers(now)

    def _must_have(self, name: str, cost: float, now: float) -> None:
        bucket = self._buckets.get(name)
        if bucket is None:
            return
        bucket.fill(now)
        if bucket.level < cost:
            self.refused[name] = self.refused.get(name, 0) + 1
            headers = {} if name == "gets" else self._headers(now)
            if self.given["retry_after"] is not None:
                headers["Retry-After"] = f"{self.given['retry_after']:g}"
            raise ApiError(
                429,
                f"Rate limit reached for {name}: {bucket.level:.1f} left of {bucket.size:g}, {cost:g} asked for.",
                code="rate_limit_exceeded",
                kind="tokens" if name == "tokens" else "requests",
                headers=headers,
            )

    def _count(self, name: str, cost: float, now: float) -> None:
        self._must_have(name, cost, now)
        if name in self._buckets:
            self._buckets[name].level -= cost

    def _headers(self, now: float) -> dict[str, str]:
        if not self.given["headers"]:
            return {}
        told = {}
        for name in ("requests", "tokens"):
            if (bucket := self._buckets.get(name)) is not None:
                bucket.fill(now)
                told[f"x-ratelimit-limit-{name}"] = f"{bucket.size:.0f}"
                told[f"x-ratelimit-remaining-{name}"] = f"{math.floor(bucket.level)}"
                told[f"x-ratelimit-reset-{name}"] = f"{(bucket.size - bucket.level) / bucket.rate * 1000:.0f}ms"
        return told

    def to_wire(self) -> JsonObject:
        """What is in force, and what it did."""
        return {**self.given, "refused": dict(self.refused), "tokens_accepted": self.tokens_accepted}


def checked(given: Mapping[str, object]) -> JsonObject:
    """A copy of limits that can be put in force; raises ApiError (400)."""
    for name, value in given.items():
        if name not in NAMES:
            raise invalid(f"Unknown limit '{name}'. There are: {', '.join(NAMES)}.", param=name)
        if name == "headers":
            right = isinstance(value, bool)
        else:
            least = 0.0 if name == "retry_after" else 1e-6
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = value is None or (number and least <= float(str(value)) <= _MOST)
        if not right:
            raise invalid(f"Wrong value for the limit '{name}': {json_name(value)} {value!r}.", param=name)
    return dict(given)


def _per_second(per_minute: float | None) -> float | None:
    return None if per_minute is None else per_minute / 60


def _creates_run(path: str) -> bool:
    return path.endswith(("/runs", "/responses"))


def _tokens(body: bytes) -> float:
    """What a create counts for: as services reserve it, not as they bill it."""
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        return 0.0
    if not isinstance(asked, dict):
        return 0.0
    read = asked.get("input")
    text = read if isinstance(read, str) else json.dumps(read) if read else ""
    longest = asked.get("max_output_tokens") or asked.get("max_completion_tokens") or 0
    answer = longest if isinstance(longest, int) else 0
    return float(math.ceil(len(text + str(asked.get("instructions") or "")) / 4) + answer)
