"""Limits and durations as the scripts take and give them: what `RedisStore` sends, and how it reads the replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askq.jobs import keys
from askq.jobs.limits import Bound, Heard, Permit, Scope, Told, Wait
from askq.jobs.took import MANY, Counts

KEEP_S = 7 * 86_400
"""How long what was learned stays after its last use: limits change, but seldom over a weekend."""
FORGOTTEN_S = 2.0
"""A wait that is over for so long was given up."""

Arguments = tuple[list[str], list[str | int | float | bytes]]


def take(scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Arguments:
    """Keys and arguments of `limit.lua` for permits."""
    names, args = _about(scope)
    return names, [*args, "take", bound.requests or 0, bound.tokens or 0, window, *asks]


def learn(scope: Scope, heard: Heard) -> Arguments:
    """Keys and arguments of `limit.lua` for what was heard."""
    names, args = _about(scope)
    return names, [
        *args,
        "learn",
        heard.closed,
        heard.accepted,
        heard.refused,
        heard.granted_at,
        "" if heard.retry_after_s is None else heard.retry_after_s,
        "1" if heard.contradicted else "",
        *_told(heard.requests),
        *_told(heard.token),
        heard.serial,
        heard.tserial,
        heard.unused,
        heard.unused_tokens,
        heard.estimated,
        heard.used,
        heard.window,
    ]


def look(scope: Scope) -> Arguments:
    """Keys and arguments of `limit.lua` for a look that changes nothing."""
    names, args = _about(scope)
    return names, [*args, "look"]


def permit(found: Sequence[Any]) -> Permit:
    """The reply of `limit.lua`."""
    granted, wait, ready, rate, ratio, now, serial, tserial, held, known = found
    return Permit(
        granted=int(granted),
        wait_s=float(wait),
        ready=float(ready),
        rate=float(rate) if rate else None,
        ratio=float(ratio),
        now=float(now),
        serial=float(serial),
        tserial=float(tserial),
        held=bool(held),
        known=bool(known),
    )


def wait(scope: Scope, until: float, looked: Permit) -> Wait:
    """A scope in which calls wait."""
    return Wait(
        account=scope.account,
        protocol=scope.protocol,
        model=scope.model,
        until=max(until, looked.now + looked.wait_s),
        now=looked.now,
        rate=looked.rate,
    )


def took(digest: str, more: Counts) -> Arguments:
    """Keys and arguments of `took.lua`."""
    return [keys.took(digest)], [KEEP_S, MANY, *(part for one in more.items() for part in one)]


def counts(found: Sequence[Any]) -> dict[int, float]:
    """The reply of `took.lua`."""
    return {int(what): float(times) for what, times in zip(found[::2], found[1::2], strict=True)}


def scope(text: str) -> Scope:
    """The scope of this name. A model's name may contain anything; the other two parts do not."""
    account, protocol, model = text.split("/", 2)
    return Scope(account=account, protocol=protocol, model=model)


def _about(scope_: Scope) -> Arguments:
    return [keys.limit(str(scope_)), keys.WAITS], [str(scope_), KEEP_S]


def _told(told: Told) -> list[str | float]:
    return ["" if number is None else number for number in (told.limit, told.remaining, told.reset_s)]
