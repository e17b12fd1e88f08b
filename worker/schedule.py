"""When to look at a job again: pure functions of what is known, jitter passed in."""

from __future__ import annotations

from askq.assistants.model import Assistant

FIRST_POLL_S = 0.7
"""Runs rarely end sooner, and an early poll costs a request of the account's limit."""
GROWTH = 0.3
"""Share of a run's age until its next poll: seen a third of its age late at worst."""
LONGEST_POLL_S = 10.0
LONGEST_WINDOW_POLL_S = 300.0
"""Never rarer: where nothing is retained, an answer lives about ten minutes (protocols B.6)."""
JITTER = 0.2

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


def until_poll(assistant: Assistant, age: float, hint: float | None, jitter: float) -> float:
    """Seconds until a run of this age (seconds) is polled again; the server's hint wins. `jitter` is in [-1, 1]."""
    if hint is not None:
        return min(max(hint, 0.05), LONGEST_WINDOW_POLL_S)
    longest, shortest = LONGEST_POLL_S, FIRST_POLL_S
    if assistant.completion_window in ("2h", "8h"):
        longest, shortest = LONGEST_WINDOW_POLL_S, 60.0
    return min(max(shortest, GROWTH * age), longest) * (1 + JITTER * jitter)


def backoff(errors: int, jitter: float) -> float:
    """Seconds to wait after the n-th failure in a row (n ≥ 1): 1, 2, 4 … 60, jittered."""
    return min(2.0 ** (max(1, errors) - 1), 60.0) * (1 + JITTER * jitter)
