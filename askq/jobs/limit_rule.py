"""The rule by which permits are given and limits learned: one record per account and scope.

Each scope has a bucket of requests and one of tokens (GCRA in its bucket form: rate, burst and level, so that all three
can be learned). How the rate is known:

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

from askq.jobs.limits import NO_WINDOW, Bound, Heard, Permit, Told

WIDE_WINDOW = 32
"""From here on, and once something was refused, it grows by a quarter: all that is open when a bucket is empty is
refused."""
WINDOW_DOUBLES_S = 0.25
FORGET_OPEN_S = 2.0
"""Calls of a process that died are never reported: after so long without a new one they count no longer."""
FLOOR_PER_S = 1 / 60
"""However bad the news: one call a minute finds out whether it is over."""
TRUSTED_S = 20.0
"""What was accepted between two refusals further apart is an average, not a rate."""
PAUSE_S = 0.5
"""Longer than this between two calls of the store, nobody is asking: workers were killed, or there is nothing to do."""
SHORT_S = 2.0
"""A refusal says something of the rate only if permits were short until then."""
FIRST_BACKOFF_S = 0.25
DENSE = 0.3
"""Where calls were free: refusals must be this share of the latest to be taken for a limit."""
MANY_CALLS = 100.0
DOUBT = 0.25
"""By this share of the time since the last refusal that was a limit, another one shortens what was free of them."""
FREE_AGAIN_S = 60.0
"""Free calls that were all answered for so long have no limit. Polls are made the rarer the less may be made, so that a
limit that was found by mistake, or is over, would never be met again."""
LONG_WISH_S = 5.0
SHRINK = 0.7
JUST_BELOW = 0.98
MUTE_S = 30.0
"""How long headers are not believed after a refusal that contradicts them."""
LONGEST_HOLD_S = 3600.0
LONGEST_BACKOFF_S = 60.0
STEP_S = 1.0
"""A clock that shows an earlier time than before by so much was set back."""
STAMPS = ("hold", "grown", "opened", "first", "empty", "short", "mute")
A_SECOND = 0.99
"""Resets are rounded."""
WINDOW_WAIT_S = 0.02
"""While a window is full a reply ends the wait, and nobody knows when it comes."""
SHORTEST_WAIT_S = 0.001
NEARLY = 1e-6
"""What is missing after reckoning with fractions is not missing."""
LONGEST_OWED_S = 86_400.0
"""Whatever a service says that a run has used, no more than a day's worth of a bound is owed for it."""
TOKEN_BURST_S = 10.0
"""A bound in tokens lets so many seconds' worth through at once: a long question must fit."""


@dataclass(slots=True)
class LimitRecord:
    """One scope's record. Every field is a number, and is kept in Redis under its name."""

    at: float = 0.0
    """When the levels were as they are."""
    how: int = 0
    """How the rate is known: 0 search, 1 found, 2 told."""
    rate: float = 0.0
    burst: float = 0.0
    level: float = 0.0
    hold: float = 0.0
    """No permits before: the service asked everybody to wait."""
    window: float = 0.0
    """Calls that may be open at once while nothing is known; 0 = the record is new."""
    grown: float = 0.0
    """When window or rate were last raised."""
    open: float = 0.0
    """Calls with a permit that are not over."""
    opened: float = 0.0
    """When the last permit was given."""
    full: float = 0.0
    """1 = the bucket was full when calls were let go, and none of them is known to have arrived."""
    first: float = 0.0
    """When the first permit was given."""
    taken: float = 0.0
    """Calls accepted before anything was refused."""
    empty: float = 0.0
    """When a refusal last said that the bucket is empty."""
    since: float = 0.0
    """Calls accepted since then."""
    busy: float = 0.0
    """Seconds since then in which somebody asked …"""
    held: float = 0.0
    """… and in which all were held."""
    bad: float = 0.0
    """Free calls refused lately."""
    short: float = 0.0
    """When there were last fewer permits than calls."""
    strikes: float = 0.0
    """Refusals in a row."""
    mute: float = 0.0
    """Until when headers are not believed."""
    trate: float = 0.0
    """Tokens: rate, burst and level, known from headers only; 0 = nothing known."""
    tburst: float = 0.0
    tlevel: float = 0.0
    given: float = 0.0
    """Permits given so far, and the tokens put aside for them: what tells early replies from late ones."""
    tgiven: float = 0.0
    ratio: float = 1.0
    """Tokens used to tokens estimated, lately."""
    cap: float = 0.0
    """The bound people set in requests a second and what is left of it; 0 = none. The same for tokens."""
    clevel: float = 0.0
    tcap: float = 0.0
    tclevel: float = 0.0

    # -- what both actions begin with ------------------------------------------------------------------

    def _refresh(self, now: float) -> None:
        if self.at - now > STEP_S:
            # The clock was set back, and the record follows it.
            for name in STAMPS:
                if stamp := getattr(self, name):
                    setattr(self, name, stamp + now - self.at)
        if now - self.opened > FORGET_OPEN_S or now < self.opened:
            self.open = 0.0
        # A bucket that was full stays so until the calls arrive, and nobody knows when they do before one is answered:
        # what would have come in meanwhile is not there.
        # Time in which nobody asked says nothing of the rate; in a hold nobody may.
        held = min(max(0.0, self.hold - self.at), max(0.0, now - self.at))
        self.held += held
        self.busy += min(max(0.0, now - self.at - held), PAUSE_S)
        passed = 0.0 if self.full and self.open else max(0.0, now - self.at)
        self.at = now
        if self.how:
            self.level = min(self.burst, self.level + self.rate * passed)
        if self.trate:
            self.tlevel = min(self.tburst, self.tlevel + self.trate * passed)
        self.clevel = min(self._size(), self.clevel + self.cap * passed)
        self.tclevel = min(self._tsize(), self.tclevel + self.tcap * passed)

    def _size(self) -> float:
        """What may be asked for at once under a bound in requests."""
        return max(1.0, self.cap)

    def _tsize(self) -> float:
        return max(1.0, TOKEN_BURST_S * self.tcap)

    def _bound(self, cap: float, tcap: float) -> None:
        """A bound is new, or has changed: what could be had at once under the old one is not carried over. What was
        used while there was none is not owed."""
        if cap != self.cap:
            was, self.cap = self.cap, cap
            self.clevel = min(self.clevel, self._size()) if self.first and was else self._size()
        if tcap != self.tcap:
            was, self.tcap = self.tcap, tcap
            self.tclevel = min(self.tclevel, self._tsize()) if self.first and was else self._tsize()

    # -- permits ---------------------------------------------------------------------------------------

    def take(self, now: float, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        """Give as many of the permits asked for (tokens of each) as there are, in their order."""
        if self.window == 0:
            self.window, self.at, self.grown = float(window), now, now
        self._bound(bound.requests or 0.0, bound.tokens or 0.0)
        self._refresh(now)
        granted, wait = 0, 0.0
        brimming = bool(self.how and self.level >= self.burst - NEARLY)
        if self.hold > now:
            wait = self.hold - now if asks else 0.0
        else:
            for tokens in asks:
                wait = self._wait(now, tokens, first=granted == 0 and self.opened > 0)
                if wait > 0:
                    wait = max(wait, SHORTEST_WAIT_S)
                    self.short = now
                    break
                granted += 1
                self.open += 1
                self.given += 1
                self.tgiven += tokens
                self.level -= 1
                self.tlevel -= tokens
                self.clevel -= 1
                self.tclevel -= tokens
        if granted:
            self.opened = now
            if brimming:
                self.full = 1.0
            if self.first == 0:
                self.first = self.grown = now
        return self._permit(now, granted, min(wait, LONGEST_HOLD_S))

    def _wait(self, now: float, tokens: float, *, first: bool) -> float:
        """Until a call of so many tokens may be made; 0 = now. `first`: of those asked for together."""
        wait = 0.0
        if self.how and self.level < 1 - NEARLY:
            wait = (1 - self.level) / self.rate
        if self.how == 0 and self.open >= self.window:
            wait = WINDOW_WAIT_S
        if self.trate and self.tlevel < (need := min(tokens, self.tburst)) - NEARLY:
            wait = max(wait, (need - self.tlevel) / self.trate)
        # Whatever a service tells of its limits, one call a minute finds out whether it is so.
        if first:
            wait = min(wait, max(0.0, self.opened + 1 / FLOOR_PER_S - now))
        if self.cap and self.clevel < 1 - NEARLY:
            wait = max(wait, (1 - self.clevel) / self.cap)
        if self.tcap and self.tclevel < (need := min(tokens, self._tsize())) - NEARLY:
            wait = max(wait, (need - self.tclevel) / self.tcap)
        return wait

    def look(self, now: float) -> Permit:
        """What there is now."""
        self._refresh(now)
        return self._permit(now, 0, max(0.0, self.hold - now))

    def _permit(self, now: float, granted: int, wait: float) -> Permit:
        ready, rate = float(NO_WINDOW), float("inf")
        if self.how:
            ready, rate = self.level, self.rate
        elif self.window:
            ready = self.window - self.open
        if self.cap:
            ready, rate = min(ready, self.clevel), min(rate, self.cap)
        return Permit(
            granted=granted,
            wait_s=wait,
            ready=0.0 if self.hold > now else max(0.0, ready),
            rate=None if rate == float("inf") else rate,
            ratio=self.ratio,
            now=now,
            serial=self.given,
            tserial=self.tgiven,
            held=self.hold > now,
            known=self.window > 0,
        )

    # -- learning --------------------------------------------------------------------------------------

    def learn(self, now: float, heard: Heard) -> Permit:
        """Take notice of replies."""
        if self.window == 0:
            # The record was deleted while calls were open: whoever reports begins it anew.
            self.window, self.at, self.grown, self.first = float(heard.window), now, now, now
        self._refresh(now)
        full = self.open >= self.window / 2
        self.open = max(0.0, self.open - heard.closed - heard.unused)
        if heard.closed:
            self.full = 0.0
        # What headers say is what the service counts; a bound counts what was used.
        self.level = min(self.burst, self.level + heard.unused)
        self.tlevel = min(self.tburst, self.tlevel + heard.unused_tokens)
        self.clevel = min(self._size(), self.clevel + heard.unused)
        level = min(self._tsize(), self.tclevel + heard.unused_tokens + heard.estimated - heard.used)
        self.tclevel = max(level, -LONGEST_OWED_S * self.tcap)
        if heard.estimated > 0:
            share = min(10.0, max(0.1, heard.used / heard.estimated * self.ratio))
            self.ratio += 0.1 * (share - self.ratio)
        # What was not refused for the limits went through them, whatever came of it.
        self.since += max(0, heard.closed - heard.refused)
        if heard.accepted:
            self._accepted(now, heard, full=full)
        if heard.refused:
            self._refused(now, heard)
        if now >= self.mute and not heard.contradicted:
            self._told(heard)
        return self._permit(now, 0, max(0.0, self.hold - now))

    def _accepted(self, now: float, heard: Heard, *, full: bool) -> None:
        self.strikes = 0.0
        if heard.free and self.how != 2 and self.empty and now - self.empty > FREE_AGAIN_S:
            self.how, self.window, self.empty, self.taken = 0, float(NO_WINDOW), 0.0, 0.0
            self.bad, self.since = 0.0, 0.0
        if self.how == 0:
            if self.empty == 0:
                self.taken += heard.accepted
            if now - self.grown >= WINDOW_DOUBLES_S and full:
                factor = 2.0 if self.empty == 0 and self.window < WIDE_WINDOW else 1.25
                self.window, self.grown = min(factor * self.window, float(NO_WINDOW)), now
        elif self.how == 1 and (self.level < 2 or heard.free) and now - self.empty > 3:
            # The longer all goes well, the bolder: a limit that was raised is found again.
            growth = min(0.2, 0.003 * (now - self.empty))
            self.rate *= 1 + growth * min(10.0 if heard.free else 1.0, max(0.0, now - self.grown))
            self.grown = now

    def _refused(self, now: float, heard: Heard) -> None:
        if heard.free and self.how != 2 and not self._dense(heard):
            # Not taken for a limit, but for less certainty that there is none.
            self.empty += DOUBT * (now - self.empty) if self.empty else 0.0
            return
        fresh = heard.granted_at >= self.hold
        if fresh and not heard.accepted:
            self.strikes += 1
        pause = heard.retry_after_s
        if pause is None:
            pause = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** max(0.0, self.strikes - 1)) if fresh else 0.0
        had = self.level
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
            self._measured(now, had, free=heard.free)
        elif self.how == 0:
            self._searched(now)
        self.empty, self.since, self.busy, self.held, self.bad = now, 0.0, 0.0, 0.0, 0.0

    def _dense(self, heard: Heard) -> bool:
        """Whether refusals of free calls are a limit. Services refuse one now and then, and that one waits by itself;
        many, or one that is told to wait for long, are everybody's."""
        self.bad += heard.refused
        if self.bad + self.since > MANY_CALLS:
            self.bad, self.since = self.bad / 2, self.since / 2
        many = self.bad >= 5 and self.bad > DENSE * (self.bad + self.since)
        return many or (heard.retry_after_s or 0.0) >= LONG_WISH_S

    def _measured(self, now: float, had: float, *, free: bool) -> None:
        """One more refusal: the rate is what was accepted since the last."""
        seen = self._seen(now)
        if not self._was_short(now) and not free:
            # More was granted than asked for: the refusal is not for this rate, and what was accepted is the demand.
            pass
        elif seen is None:
            self.rate *= SHRINK
        elif now - self.empty <= TRUSTED_S:
            # Replies are counted on either side of a refusal: one short interval may say far too little.
            self.rate = max(SHRINK * self.rate, min(self.rate, seen * JUST_BELOW))
        else:
            self.rate = min(SHRINK * self.rate, seen)
        self.rate = max(FLOOR_PER_S, self.rate)
        if had >= 1:
            # There should have been some left: the bucket is smaller than thought.
            self.burst = max(1.0, SHRINK * self.burst)

    def _searched(self, now: float) -> None:
        seen = self._seen(now)
        if seen is not None and self._was_short(now):
            self.how = 1
            self.rate = max(FLOOR_PER_S, seen * JUST_BELOW)
            # What it took before it was empty, and a second's worth where that says nothing.
            self.burst = max(1.0, self.rate, 0.9 * (self.taken - seen * (self.empty - self.first)))
            self.level = 0.0
        else:
            # The bucket was empty for the first time; how fast it fills, the next refusal will tell.
            self.window = 1.0 if self.strikes >= 2 else 2.0
        self.grown = now

    def _was_short(self, now: float) -> bool:
        return now - self.short <= SHORT_S

    def _seen(self, now: float) -> float | None:
        """Accepted calls per second between the last refusal and now."""
        passed = self.busy + self.held
        if not self.empty or self.since < 2 or passed < 0.1:
            return None
        seen = self.since / passed
        if self.how and self.burst < seen * self.held and self.busy >= 0.1 and self.since > self.burst:
            # While all were held the bucket took in no more than it holds; the rest is the rate of the time after.
            return max(seen, (self.since - self.burst) / self.busy)
        return seen

    def _told(self, heard: Heard) -> None:
        told = heard.requests
        if _useful(told):
            known = self.how == 2
            if _of_a_part(told, self.burst if known else 0.0):
                self.burst = max(1.0, (told.remaining or 0.0) + 1, self.burst if known else 0.0)
                self.rate = max(FLOOR_PER_S, (told.limit or 0.0) / 60)
            else:
                self.burst = _burst(told, self.burst if known else 0.0)
                self.rate = _rate(told, self.rate if known else 0.0)
            self.how = 2
            level = _level(told, self.level if known else None, self.given - heard.serial)
            self.level = min(self.burst, level)
        told = heard.token
        if _useful(told):
            known = self.trate > 0
            self.tburst = _burst(told, self.tburst)
            # A bucket of tokens is never slower than its whole in an hour: a single long question would wait for days.
            self.trate = max(_rate(told, self.trate), self.tburst / LONGEST_HOLD_S)
            level = _level(told, self.tlevel if known else None, self.tgiven - heard.tserial)
            self.tlevel = min(self.tburst, level)


def _useful(told: Told) -> bool:
    return told.remaining is not None and (told.limit is None or told.limit > 0)


def _of_a_part(told: Told, known: float) -> bool:
    """Whether a service tells the limit of a minute and counts in a smaller bucket: half of what it tells was never
    there, and yet all of it would be back within a second. Then no more is had at once than was seen to be left."""
    if told.limit is None or told.reset_s is None or told.remaining is None or known >= told.limit:
        return False
    return told.remaining < told.limit / 2 and told.limit - told.remaining >= A_SECOND * told.limit * told.reset_s


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
