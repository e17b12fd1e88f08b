"""Why work can stand still through no fault of the questions: one table that engine, commands and documents read.

A pause concerns an account, one protocol of it, or one batch. Jobs keep their state meanwhile, no attempt is used up,
and one call in a while probes whether it is over, unless it is a batch's. `askq resume` ends it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from askq.jobs.limits import GETS, Wait
from askq.jobs.model import BatchStatus, Pause, State
from askq.jobs.objects import is_batch


@dataclass(frozen=True, slots=True)
class Standstill:
    """One documented reason."""

    code: str
    stops_polls: bool
    """Whether runs that exist cannot be looked at either."""
    meaning: str
    remedy: str


_PAUSES = (
    Standstill(
        "rejected_key",
        True,
        "The service rejects the key.",
        "Set a valid OPENAI_API_KEY and start the workers again.",
    ),
    Standstill(
        "forbidden_account",
        True,
        "The account may not call the service (country, organization, permission).",
        "Give the account what the message names; work goes on by itself.",
    ),
    Standstill(
        "quota_exhausted",
        False,
        "The account's credit or spending limit is used up. Runs that exist are still looked after.",
        "Add credit or raise the limit; work goes on by itself.",
    ),
    Standstill(
        "endpoint_gone",
        True,
        "The server has no such endpoint: it does not speak this protocol (OpenAI's Assistants API ended 2026-08-26).",
        'Set OPENAI_BASE_URL to a server that speaks it, or ask with protocol = "responses".',
    ),
    Standstill(
        "bad_address",
        True,
        "OPENAI_BASE_URL cannot be used as an address.",
        "Correct OPENAI_BASE_URL and start the workers again.",
    ),
    Standstill(
        "budget_exceeded",
        False,
        "What is left of the batch's budget would not cover another question at worst.",
        "Finished questions free what was put aside for them; `askq resume BATCH --max-cost USD` raises it.",
    ),
    Standstill(
        "asked_again",
        False,
        "Too many runs of the batch were to be paid for once more, because nobody knows what became of them.",
        "Find out why replies are lost (a proxy, a time-out), and then `askq resume`: nothing else ends it.",
    ),
)

PAUSES: MappingProxyType[str, Standstill] = MappingProxyType({pause.code: pause for pause in _PAUSES})


def waits_for(status: BatchStatus, waits: Sequence[Wait]) -> tuple[Wait, ...]:
    """The limits that questions of a batch may wait for: those of its protocol, the longest wait first."""
    asking = status.counts.get(State.QUEUED, 0) + status.counts.get(State.STARTING, 0) > 0
    mine = [wait for wait in waits if wait.protocol == status.protocol and (asking or wait.model == GETS)]
    return tuple(sorted(mine, key=lambda wait: -wait.seconds))


def concerning(status: BatchStatus, pauses: Sequence[Pause]) -> tuple[Pause, ...]:
    """The pauses that keep jobs of a batch from moving: of its account, and of its budget."""
    found = [
        pause
        for pause in pauses
        if pause.protocol in (None, status.protocol) and (pause.account == status.id or not is_batch(pause.account))
    ]
    budget = status.budget
    if budget is not None and budget.refused_at is not None:
        left = budget.limit_usd - budget.spent_usd - budget.reserved_usd
        found.append(
            Pause(
                account=status.id,
                code="budget_exceeded",
                message=f"of ${budget.limit_usd:.2f}, ${budget.spent_usd:.4f} are spent and ${budget.reserved_usd:.4f} "
                f"put aside for questions under way; the ${left:.4f} left would not cover the next one",
                since=budget.refused_at,
                probe_at=budget.refused_at,
            )
        )
    return tuple(found)
