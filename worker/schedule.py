"""When to look at a job again: pure functions of what is known, jitter passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.jobs.took import BUCKETS, NOTHING_KNOWN, Durations, bounds_of, bucket_of

POLL_WORTH_S = 0.25
"""A poll is made when the answer is expected to have waited so long on average: fewer polls or sooner answers, this
number decides between them."""
FIRST_POLL_S = 0.7
"""Runs rarely end sooner, and an early poll costs a request of the account's limit."""
GROWTH = 0.3
"""Where nothing is known of an assistant's runs: share of a run's age until its next poll."""
LONGEST_POLL_S = 10.0
KNOWN_RUNS = 3.0
"""So many runs that have ended are something to go by."""
KNOWN_TO_LIVE = 10.0
"""So are so many that lived to an age, for those that come to it."""
SHORTEST_POLL_S = 0.1
LONGEST_WINDOW_POLL_S = 300.0
"""Never rarer: where nothing is retained, an answer lives about ten minutes (protocols B.6)."""
JITTER = 0.2
LEARNED_JITTER = 0.1
"""Where a delay is known to be right, straying from it costs polls or time; crowds are spread in any case."""
FLEET_POLLS_PER_S = 1000.0
"""More polls a second than this are spread over a longer time, whatever the service allows."""
BUDGET_SHARE = 0.8
"""Of the GETs an account allows, as many are polls: answers are fetched with GETs too."""

BUDGET_S = 20.0
"""How long at most a job waits for its batch's budget before it asks for it again."""
PAUSED_S = 5.0
LONGEST_PAUSED_S = 60.0
"""Between these is how long a job waits whose protocol is paused: ten thousand that look every few seconds would keep
a worker busy, and nobody should wait long once it is over."""
SETTLE_S = 5.0
"""How long a request may still be on its way to a server after its sender has died."""
CANCEL_GRACE_S = 60.0
"""How long after its deadline a cancelled run may take to say so."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of an assistant's runs, and of all that wait."""

    runs: Durations = NOTHING_KNOWN
    crowd_s: float = 0.0
    """How long one poll of every waiting run takes, at the rate the account allows."""


def until_poll(assistant: Assistant, age: float, hint: float | None, jitter: float, pace: Pace | None = None) -> float:
    """Seconds until a run of this age (seconds) is polled again; the server's hint wins. `jitter` is in [-1, 1]."""
    pace = pace or Pace()
    if hint is not None:
        # Hints are the same for all runs, so a crowd is spread here too.
        return min(max(hint, 0.05) + _spread(pace) * (1 + jitter) / 2, LONGEST_WINDOW_POLL_S)
    if assistant.completion_window in ("2h", "8h"):
        delay = min(max(60.0, GROWTH * age), LONGEST_WINDOW_POLL_S)
    else:
        delay = _learned(pace.runs, age)
    share = LEARNED_JITTER if pace.runs.ended >= KNOWN_RUNS else JITTER
    delay = max(delay, pace.crowd_s)
    return min(delay + max(share * delay, pace.crowd_s / 2) * jitter, LONGEST_WINDOW_POLL_S)


def before_deadline(delay: float, left_s: float, jitter: float) -> float:
    """However rarely runs may be looked at, one whose deadline is `left_s` seconds away is looked at soon after it."""
    return min(delay, left_s + 1.5 + jitter) if left_s > 0 else delay


def _learned(runs: Durations, age: float) -> float:
    if runs.ended < KNOWN_RUNS and runs.known[bucket_of(age)] < KNOWN_TO_LIVE:
        return min(max(FIRST_POLL_S, GROWTH * age), LONGEST_POLL_S)
    # Beyond what any run has taken little is expected, and something may be all the same.
    longest = min(max(LONGEST_POLL_S, GROWTH * age, runs.median_s - age), LONGEST_WINDOW_POLL_S)
    return min(max(expected(runs, age), SHORTEST_POLL_S), longest)


def _spread(pace: Pace) -> float:
    """A crowd worth spreading beyond what the hint says."""
    return pace.crowd_s if pace.crowd_s >= 1.0 else 0.0


def crowd_s(waiting: int, gets_per_s: float | None) -> float:
    """How long one poll of all waiting runs takes at the rate that is allowed."""
    rate = FLEET_POLLS_PER_S if gets_per_s is None else min(FLEET_POLLS_PER_S, BUDGET_SHARE * gets_per_s)
    return waiting / max(rate, 1e-3)


def expected(runs: Durations, age: float) -> float:
    """Seconds until a run of this age is worth a poll: the delay d at which the answer is expected to have waited
    `POLL_WORTH_S`, that is ∫ (d − t) p(t) dt over the next d seconds, p being what is known of runs that took longer
    than `age`."""
    bucket = bucket_of(age)
    low, high = bounds_of(bucket)
    here, after = runs.reach[bucket], runs.reach[bucket + 1]
    if age > low:
        here = after + (here - after) * max(0.0, high - age) / (high - low)
    if here <= 0:
        return LONGEST_WINDOW_POLL_S
    total, ended, waited, now = here, 0.0, 0.0, age
    while now - age < LONGEST_WINDOW_POLL_S:
        width = high - now
        density = (here - after) / total / width if width > 0 else 0.0
        if waited + ended * width + density * width * width / 2 >= POLL_WORTH_S:
            left = POLL_WORTH_S - waited
            # Where hardly anything ends the square root would lose all its digits.
            more = 2 * left / (math.sqrt(ended * ended + 2 * density * left) + ended)
            return now - age + more
        waited += ended * width + density * width * width / 2
        ended += density * width
        now, bucket = high, bucket + 1
        if bucket >= BUCKETS:
            break
        _, high = bounds_of(bucket)
        here, after = after, runs.reach[bucket + 1]
    return LONGEST_WINDOW_POLL_S


def backoff(errors: int, jitter: float) -> float:
    """Seconds to wait after the n-th failure in a row (n ≥ 1): 1, 2, 4 … 60, jittered."""
    return min(2.0 ** (max(1, errors) - 1), 60.0) * (1 + JITTER * jitter)
