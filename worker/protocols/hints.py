"""How long the service asks to wait, read from the headers of a reply (protocols A.10, C.1, C.5). All in seconds."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from askq.jobs.limits import NOTHING_TOLD, Told

LONGEST_WAIT_S = 3600.0
"""No header may keep a job, or an account, waiting longer than this."""

_RESET = "x-ratelimit-reset-"
_REMAINING = "x-ratelimit-remaining-"
_LIMIT = "x-ratelimit-limit-"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_WHOLE_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reply says of the account's limits."""

    requests: Told = NOTHING_TOLD
    tokens: Told = NOTHING_TOLD


NO_LIMITS = Limits()


def limits(headers: Mapping[str, str]) -> Limits:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; of an account's and a project's tokens, the fewer."""
    tokens = [_told(headers, kind) for kind in ("tokens", "project-tokens")]
    known = [told for told in tokens if told.remaining is not None]
    return Limits(
        requests=_told(headers, "requests"),
        tokens=min(known, key=lambda told: told.remaining or 0.0, default=NOTHING_TOLD),
    )


def _told(headers: Mapping[str, str], kind: str) -> Told:
    reset = headers.get(_RESET + kind)
    return Told(
        limit=_at_least_0(headers.get(_LIMIT + kind)),
        remaining=_at_least_0(headers.get(_REMAINING + kind)),
        reset_s=None if reset is None or (wait := go_duration(reset)) is None else _bounded(wait),
    )


def _at_least_0(text: str | None) -> float | None:
    # Some say -1 where there is no limit: that is no number of anything.
    value = _number(text)
    return value if value is not None and value >= 0 else None


def poll_after(headers: Mapping[str, str]) -> float | None:
    """Until the next poll: `openai-poll-after-ms`, else Retry-After."""
    hint = _number(headers.get("openai-poll-after-ms"))
    return _asked(headers) if hint is None else _bounded(hint / 1000)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Until a refused call may be repeated: Retry-After, else when the limits are full again."""
    asked = _asked(headers)
    return _reset(headers) if asked is None else asked


def _asked(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms`, then `retry-after` in seconds, then as a date."""
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return _bounded(exact / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return _bounded(seconds)
    until = _date(text)
    if until is None:
        return None
    # By the server's clock where it tells the time: ours may differ.
    now = _date(headers.get("date"))
    return _bounded(until - (time.time() if now is None else now))


def _reset(headers: Mapping[str, str]) -> float | None:
    """When the exhausted limits are full again, or, where the headers do not say which they are, all of them."""
    resets = {
        name.removeprefix(_RESET): wait
        for name in headers
        if name.startswith(_RESET) and (wait := go_duration(headers[name])) is not None
    }
    exhausted = [wait for what, wait in resets.items() if headers.get(_REMAINING + what) == "0"]
    waits = exhausted or list(resets.values())
    return _bounded(max(waits)) if waits else None


def go_duration(text: str) -> float | None:
    """Seconds of a Go duration such as `1h2m3s`, `6m0s`, `20ms` (or of a bare number); None where it is neither."""
    text = text.strip()
    if _WHOLE_DURATION.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
    return _number(text)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    # Not a number, or a point in time instead of a duration; what is negative says nothing, and not "at once".
    return value if 0 <= value < 1e9 else None


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_WAIT_S)
