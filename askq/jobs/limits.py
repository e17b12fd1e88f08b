"""What an account grants: one record per account and scope, and the rule by which permits are given and learned.

A scope is what a service counts by itself: the creates of one protocol and model, or the GETs of a protocol. Each has
a bucket of requests and one of tokens (GCRA in its bucket form: rate, burst and level, so that all three can be
learned). How the rate is known:

    search   nothing is known: few calls may be open at once, and more with each quarter of a second
    found    a refusal says that the bucket is empty; what was accepted between two of them is its rate
    told     the service's own headers say limit, remaining and reset

`LimitRecord` is the rule in Python, for the store in memory. `limit.lua` is the same rule in Redis, by the clock of
Redis; a test feeds both with the same random history and compares every field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_WINDOW = 4
"""Calls that may be open at once on an account nothing is known of."""
NO_WINDOW = 1_000_000
"""A window nobody fills: for calls that need no care until the first refusal."""
WIDE_WINDOW = 32
"""From here on, and once something was refused, it grows by a quarter: all that is open when a bucket is empty is
refused."""
WINDOW_DOUBLES_S = 0.25
FORGET_OPEN_S = 5.0
"""Calls of a process that died are never reported: after so long without a new one they count no longer."""
FLOOR_PER_S = 1 / 60
"""However bad the news: one call a minute finds out whether it is over."""
TRUSTED_S = 20.0
"""What was accepted between two refusals further apart is an average, not a rate."""
SHRINK = 0.7
JUST_BELOW = 0.98
MUTE_S = 30.0
"""How long headers are not believed after a refusal that contradicts them."""
LONGEST_HOLD_S = 3600.0
LONGEST_BACKOFF_S = 60.0
STEP_S = 1.0
"""A clock that shows an earlier time than before by so much was set back."""
STAMPS = ("hold", "grown", "opened", "first", "empty", "mute")
WINDOW_WAIT_S = 0.02
"""While a window is full a reply ends the wait, and nobody knows when it comes."""
NEARLY = 1e-6
"""What is missing after reckoning with fractions is not missing."""
TOKEN_BURST_S = 10.0
"""A bound in tokens lets so many seconds' worth through at once: a long question must fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a service counts together."""

    account: str
    protocol: str
    model: str
    """`*` for the GETs of a protocol: no service counts those by model."""

    def __str__(self) -> str:
        return f"{self.account}/{self.protocol}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What headers say of one bucket; None where they do not."""

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    """Seconds until it is full again."""


NOTHING_TOLD = Told()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What people allow at most, per second; None = no bound."""

    requests: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What a scope grants now."""

    granted: int
    wait_s: float
    """Until the next one, exactly where the rate is known; 0 when all were granted."""
    ready: float
    """Permits left after these, as far as requests and open calls decide."""
    rate: float | None
    """Permits per second; None while no limit is known."""
    ratio: float
    """By how much tokens were underestimated so far."""
    now: float
    serial: float = 0.0
    """How many permits were given so far, these included, and for how many tokens."""
    tserial: float = 0.0
    held: bool = False
    """Whether the service asked everybody to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What replies said since the last report."""

    closed: int = 0
    """Calls that are over, whatever came of them."""
    accepted: int = 0
    refused: int = 0
    granted_at: float = 0.0
    """When the latest refused call had got its permit: one from before a hold says nothing new."""
    retry_after_s: float | None = None
    contradicted: bool = False
    """Whether a refusal came with headers by which it could not be."""
    requests: Told = NOTHING_TOLD
    token: Told = NOTHING_TOLD
    serial: float = 0.0
    """Of the call whose reply told this: what was given later, the service may not have counted yet."""
    tserial: float = 0.0
    unused: int = 0
    """Permits given back."""
    unused_tokens: float = 0.0
    estimated: float = 0.0
    """Tokens put aside for runs that have ended since …"""
    used: float = 0.0
    """… and what they used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A scope in which questions wait for the account's limit."""

    account: str
    protocol: str
    model: str
    until: float
    """When the next permit comes (Unix seconds, by the clock of Redis)."""
    now: float
    rate: float | None

    @property
    def seconds(self) -> float:
        """How much longer."""
        return max(0.0, self.until - self.now)


@dataclass(slots=True)
class LimitRecord:
    """One scope's record. Every field is a number, and is kept in Redis under its name."""

    at: float = 0.0
    how: int = 0
    """0 search, 1 found, 2 told."""
    rate: float = 0.0
    burst: float = 0.0
    level: float = 0.0
    hold: float = 0.0
    window: float = 0.0
    grown: float = 0.0
    open: float = 0.0
    opened: float = 0.0
    first: float = 0.0
    taken: float = 0.0
    empty: float = 0.0
    since: float = 0.0
    strikes: float = 0.0
    mute: float = 0.0
    trate: float = 0.0
    tburst: float = 0.0
    tlevel: float = 0.0
    given: float = 0.0
    tgiven: float = 0.0
    ratio: float = 1.0
    cap: float = 0.0
    tcap: float = 0.0

    # -- what both actions begin with ------------------------------------------------------------------

    def _refresh(self, now: float) -> None:
        if self.at - now > STEP_S:
            # The clock was set back, and the record follows it.
            for name in STAMPS:
                if stamp := getattr(self, name):
                    setattr(self, name, stamp + now - self.at)
        passed = max(0.0, now - self.at)
        self.at = now
        if rate := self._rate():
            self.level = min(self._burst(), self.level + rate * passed)
        if trate := self._trate():
            self.tlevel = min(self._tburst(), self.tlevel + trate * passed)
        if now - self.opened > FORGET_OPEN_S or now < self.opened:
            self.open = 0.0

    def _rate(self) -> float:
        """Requests per second; 0 = no limit known."""
        if self.how == 0:
            return self.cap
        return min(self.rate, self.cap) if self.cap else self.rate

    def _burst(self) -> float:
        bound = max(1.0, self.cap)
        if self.how == 0:
            return bound
        return min(self.burst, bound) if self.cap else self.burst

    def _trate(self) -> float:
        return min(self.trate or self.tcap, self.tcap) if self.tcap else self.trate

    def _tburst(self) -> float:
        bound = max(1.0, TOKEN_BURST_S * self.tcap)
        return min(self.tburst or bound, bound) if self.tcap else self.tburst

    def _bound(self, cap: float, tcap: float) -> None:
        """A bound is new, or has changed: what could be had at once under the old one is not carried over."""
        if cap != self.cap:
            self.cap = cap
            self.level = min(self.level, self._burst()) if self.first else self._burst()
        if tcap != self.tcap:
            self.tcap = tcap
            self.tlevel = min(self.tlevel, self._tburst()) if self.first else self._tburst()

    # -- permits ---------------------------------------------------------------------------------------

    def take(self, now: float, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        """Give as many of the permits asked for (tokens of each) as there are, in their order."""
        if self.window == 0:
            self.window, self.at, self.grown = float(window), now, now
        self._bound(bound.requests or 0.0, bound.tokens or 0.0)
        self._refresh(now)
        granted, wait, rate, trate = 0, 0.0, self._rate(), self._trate()
        bounded = False
        if self.hold > now:
            wait = self.hold - now if asks else 0.0
        else:
            for tokens in asks:
                need = min(tokens, self._tburst())
                if rate and self.level < 1 - NEARLY:
                    wait, bounded = (1 - self.level) / rate, self.cap > 0
                elif self.how == 0 and self.open >= self.window:
                    wait, bounded = WINDOW_WAIT_S, False
                elif trate and self.tlevel < need - NEARLY:
                    wait, bounded = (need - self.tlevel) / trate, self.tcap > 0
                else:
                    wait, bounded = 0.0, False
                if wait and granted == 0 and not bounded:
                    # Whatever a service tells of its limits, one call a minute finds out whether it is so.
                    wait = min(wait, max(0.0, self.opened + 1 / FLOOR_PER_S - now))
                if wait > 0:
                    break
                granted += 1
                self.open += 1
                self.given += 1
                self.tgiven += tokens
                if rate:
                    self.level -= 1
                if trate:
                    self.tlevel -= tokens
        if granted:
            self.opened = now
            if self.first == 0:
                self.first = self.grown = now
        return self._permit(now, granted, min(wait, LONGEST_HOLD_S))

    def look(self, now: float) -> Permit:
        """What there is now."""
        self._refresh(now)
        return self._permit(now, 0, max(0.0, self.hold - now))

    def _permit(self, now: float, granted: int, wait: float) -> Permit:
        rate = self._rate()
        ready = self.level if rate else float(NO_WINDOW)
        if self.how == 0 and self.window:
            ready = min(ready, self.window - self.open)
        return Permit(
            granted=granted,
            wait_s=wait,
            ready=0.0 if self.hold > now else max(0.0, ready),
            rate=rate or None,
            ratio=self.ratio,
            now=now,
            serial=self.given,
            tserial=self.tgiven,
            held=self.hold > now,
        )

    # -- learning --------------------------------------------------------------------------------------

    def learn(self, now: float, heard: Heard) -> Permit:
        """Take notice of replies."""
        if self.window == 0:
            # The record was deleted while calls were open: whoever reports begins it anew.
            self.window, self.at, self.grown, self.first = float(FIRST_WINDOW), now, now, now
        self._refresh(now)
        full = self.open >= self.window / 2
        self.open = max(0.0, self.open - heard.closed - heard.unused)
        if self._rate():
            self.level = min(self._burst(), self.level + heard.unused)
        if self._trate():
            # What headers say is what the service counts; without them, what was used.
            given_back = heard.unused_tokens + (0.0 if self.trate else heard.estimated - heard.used)
            self.tlevel = min(self._tburst(), self.tlevel + given_back)
        if heard.estimated > 0:
            share = min(10.0, max(0.1, heard.used / heard.estimated * self.ratio))
            self.ratio += 0.1 * (share - self.ratio)
        if heard.accepted:
            self._accepted(now, heard.accepted, full=full)
        if heard.refused:
            self._refused(now, heard)
        if now >= self.mute and not heard.contradicted:
            self._told(heard)
        return self._permit(now, 0, max(0.0, self.hold - now))

    def _accepted(self, now: float, accepted: int, *, full: bool) -> None:
        self.since += accepted
        self.strikes = 0.0
        if self.how == 0:
            if self.empty == 0:
                self.taken += accepted
            if now - self.grown >= WINDOW_DOUBLES_S and full:
                factor = 2.0 if self.empty == 0 and self.window < WIDE_WINDOW else 1.25
                self.window, self.grown = min(factor * self.window, float(NO_WINDOW)), now
        elif self.how == 1 and self.level < 2 and now - self.empty > 3:
            # The longer all goes well, the bolder: a limit that was raised is found again.
            growth = min(0.2, 0.002 * (now - self.empty))
            self.rate *= 1 + growth * min(1.0, max(0.0, now - self.grown))
            self.grown = now

    def _refused(self, now: float, heard: Heard) -> None:
        fresh = heard.granted_at >= self.hold
        if fresh and not heard.accepted:
            self.strikes += 1
        pause = heard.retry_after_s
        if pause is None:
            pause = min(LONGEST_BACKOFF_S, 2.0 ** max(0.0, self.strikes - 1)) if fresh else 0.0
        held = self.level
        self.hold = max(self.hold, now + min(max(0.05, pause), LONGEST_HOLD_S))
        self.level = min(self.level, 0.0)
        if not fresh:
            return
        if self.how == 2:
            if heard.contradicted or not _useful(heard.requests):
                # The headers were wrong, or are gone: go on by what is refused.
                self.how = 1
                self.rate = max(FLOOR_PER_S, SHRINK * self.rate)
            if heard.contradicted:
                self.mute = now + MUTE_S
        elif self.how == 1:
            self._measured(now, held)
        elif self.how == 0:
            self._searched(now)
        self.empty, self.since = now, 0.0

    def _measured(self, now: float, held: float) -> None:
        """One more refusal: the rate is what was accepted since the last."""
        seen = self._seen(now)
        if seen is None:
            self.rate *= SHRINK
        elif now - self.empty <= TRUSTED_S:
            self.rate = min(self.rate, seen * JUST_BELOW)
        else:
            self.rate = min(SHRINK * self.rate, seen)
        self.rate = max(FLOOR_PER_S, self.rate)
        if held >= 1:
            # There should have been some left: the bucket is smaller than thought.
            self.burst = max(1.0, SHRINK * self.burst)

    def _searched(self, now: float) -> None:
        seen = self._seen(now)
        if seen is not None:
            self.how = 1
            self.rate = max(FLOOR_PER_S, seen * JUST_BELOW)
            self.burst = max(1.0, 0.9 * (self.taken - seen * (self.empty - self.first)))
            self.level = 0.0
        else:
            # The bucket was empty for the first time; how fast it fills, the next refusal will tell.
            self.window = 1.0 if self.strikes >= 2 else 2.0
        self.grown = now

    def _seen(self, now: float) -> float | None:
        """Accepted calls per second between the last refusal and now."""
        passed = now - self.empty
        return self.since / passed if self.empty and self.since >= 2 and passed >= 0.1 else None

    def _told(self, heard: Heard) -> None:
        told = heard.requests
        if _useful(told):
            known = self.how == 2
            self.burst = _burst(told, self.burst if known else 0.0)
            self.rate = _rate(told, self.rate if known else 0.0)
            self.how = 2
            level = _level(told, self.level if known else None, self.given - heard.serial)
            self.level = min(self._burst(), level)
        told = heard.token
        if _useful(told):
            known = self.trate > 0
            self.tburst = _burst(told, self.tburst)
            # A bucket of tokens is never slower than its whole in an hour: a single long question would wait for days.
            self.trate = max(_rate(told, self.trate), self.tburst / LONGEST_HOLD_S)
            level = _level(told, self.tlevel if known else None, self.tgiven - heard.tserial)
            self.tlevel = min(self._tburst(), level)


def _useful(told: Told) -> bool:
    return told.remaining is not None and (told.limit is None or told.limit > 0)


def _burst(told: Told, known: float) -> float:
    return max(1.0, told.limit if told.limit is not None else known, told.remaining or 0.0)


def _level(told: Told, known: float | None, later: float) -> float:
    """What is left. Replies come in any order, so neither bound is sharp: the service had no more than it says, and of
    that it has spent since no more than was given since."""
    most = told.remaining or 0.0
    least = most - max(0.0, later)
    return least if known is None else max(min(known, most), least)


def _rate(told: Told, known: float) -> float:
    """A bucket that lacks so much and is full after so long fills at that rate. Where that cannot be said, what was
    said before, else the whole of it each minute."""
    remaining = told.remaining or 0.0
    if told.limit is not None and told.reset_s and told.reset_s > 0 and told.limit - remaining >= 1:
        return max(FLOOR_PER_S, (told.limit - remaining) / told.reset_s)
    return max(FLOOR_PER_S, known or (told.limit or max(1.0, remaining)) / 60)


FIELDS = tuple(field.name for field in dataclasses.fields(LimitRecord))
