"""Limits and durations in Redis: what the scripts take, and how their replies are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askq.jobs import keys
from askq.jobs.limits import FORGOTTEN_S, Bound, Heard, Permit, Scope, Told, Wait
from askq.jobs.records import decoded
from askq.jobs.redis_wire import Call, RedisWire
from askq.jobs.took import MANY, NO_RUNS, Counts

KEEP_S = 7 * 86_400
"""How long what was learned stays after its last use: limits change, but seldom over a weekend."""

Arguments = tuple[list[str], list[str | int | float | bytes]]


class RedisLimits(RedisWire):
    """What `RedisStore` knows of limits."""

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        return self._limit(take(scope, asks, bound=bound, window=window))

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        return self._limit(learn(scope, heard))

    def look_limits(self, scope: Scope) -> Permit:
        return self._limit(look(scope))

    def _limit(self, call: Arguments) -> Permit:
        return permit(self._scripts([Call("limit", *call)])[0])

    def waits(self) -> list[Wait]:
        now = self.now()
        # Who waits asks again when the time has come; what is older was left by a worker that is gone.
        found = self._run(lambda: self._redis.zrangebyscore(keys.WAITS, now - FORGOTTEN_S, "+inf", withscores=True))
        scopes = [scope(decoded(member)) for member, _ in found]
        looks = self._scripts([Call("limit", *look(one)) for one in scopes])
        return [
            Wait.of(one, until, permit(looked)) for one, (_, until), looked in zip(scopes, found, looks, strict=True)
        ]

    def took(self, digest: str, more: Counts = NO_RUNS) -> Counts:
        (found,) = self._scripts([Call("took", *took(digest, more))])
        return counts(found)


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
