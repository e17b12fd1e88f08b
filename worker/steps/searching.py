"""Looking for the run of an intent whose call brought no id: what was found, and what is not known."""

from __future__ import annotations

import dataclasses

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Claim, Move
from worker.protocols.base import Blocked, CallError, Found, Limited, Search
from worker.schedule import SETTLE_S, backoff
from worker.steps.decision import (
    CLEAN,
    DEADLINE_ERRORS_S,
    MOST_VOIDS,
    Decision,
    Fields,
    blocked,
    end,
    limited,
    moved,
    run_made,
    summed,
    way_back,
)

MOST_ATTEMPTS = 2
"""Intents a job may have where the assistant allows an uncertain one to be repeated."""


def adopted(claim: Claim, run_id: str, assistant: Assistant, *, runs: int = 1) -> Decision:
    """The run of the intent was found (or its creator left its id): go on with it."""
    return moved(
        claim,
        "adopt",
        fields={
            "run": run_id,
            "runs": claim.runs + runs,
            "deadline": (claim.intent_at or claim.now) + assistant.timeout_s,
            "looks": None,
            "witness": None,
            **CLEAN,
            **run_made(claim),
        },
    )


def never_sent(claim: Claim, jitter: float) -> Decision:
    """There is no run of the intent, and none will come: the attempt did not happen. Not for ever: what fails every
    time is given up (`in_vain`), and so is what kills every worker (`poisoned`)."""
    fields: Fields = {"attempts": max(0, claim.attempts - 1), "looks": None}
    if not claim.errors:
        # Nobody has heard of a failure: whoever was to make the call has died.
        return moved(claim, way_back(claim), fields={**fields, "deaths": claim.deaths + 1, "note": None})
    voids = claim.voids + 1
    delay = 0.0 if voids in (1, MOST_VOIDS) else backoff(voids - 1, jitter)
    note = f"creates have failed {voids} times in a row" if voids > 1 else None
    fields = {**fields, "voids": voids, "deaths": None, "errors": None, "note": note}
    return moved(claim, way_back(claim), delay=delay, fields=fields)


def searched(
    claim: Claim,
    found: Found,
    assistant: Assistant,
    lease_s: float,
    jitter: float,
    *,
    at_worst: float | None = None,
) -> Decision:
    """What looking for the run of an intent brought. `at_worst` is what it may have cost, in US dollars."""
    since = claim.now - (claim.intent_at or claim.now)
    # The clock was set back since the intent: nobody knows how long ago that was, so it is counted from now.
    anew: Fields = {} if since >= 0 else {"intent_at": claim.now}
    since = max(0.0, since)
    match found.search:
        case Search.FOUND:
            return adopted(claim, found.run_ids[0], assistant, runs=len(found.run_ids))
        case Search.ANSWERED:
            fields: Fields = {"started": claim.intent_at, "runs": claim.runs + 1, "looks": None}
            note = "answer found in the conversation; the run's id and usage are unknown"
            if found.error_code is not None:
                message = f"the run stopped early; {note}"
                return end(claim, found.error_code, message, fields=fields, answer=found.answer)
            answer = found.answer or Answer(text=None)
            return Decision(
                Move(
                    job=claim.id,
                    fence=claim.fence,
                    name="complete",
                    fields={**CLEAN, **fields, "note": note},
                    answer=dataclasses.replace(answer, usage=summed(claim, answer.usage)),
                )
            )
        case Search.NOT_STARTED if claim.looks >= 1 and since >= lease_s + SETTLE_S:
            return never_sent(claim, jitter)
        case Search.NOT_STARTED:
            wait = max(1.0, lease_s + SETTLE_S - since)
            return moved(claim, "defer", delay=wait, fields={"looks": claim.looks + 1, **anew})
    if since < assistant.timeout_s:
        return _still_unknown(claim, since, jitter, anew)
    if assistant.on_uncertain == "retry" and claim.attempts - claim.allowance < MOST_ATTEMPTS:
        # The attempt stays counted, and the next one gets a conversation of its own. Outputs of functions need theirs.
        again: dict[str, str | int | float | None] = {"looks": None, "note": "asked again: a run was uncertain"}
        return moved(claim, way_back(claim), fields=again if claim.open_rounds else again | {"thread": None})
    cost = "; what it may have cost is not known" if at_worst is None else f"; it may have cost up to ${at_worst:.4f}"
    looked = f"the reply to the create was lost, and in {claim.looks + 1} looks within {since:.0f} s no answer appeared"
    return end(claim, "uncertain_create", looked + cost)


def _still_unknown(claim: Claim, since: float, jitter: float, anew: Fields) -> Decision:
    delay = min(max(1.0, 0.3 * since), 15.0) * (1 + 0.2 * jitter)
    note = "a run may exist: waiting for its answer to appear in the conversation"
    return moved(claim, "defer", delay=delay, fields={"looks": claim.looks + 1, "note": note, **anew})


def not_searched(claim: Claim, error: CallError, assistant: Assistant, jitter: float) -> Decision:
    """Looking failed: nothing is known, and nothing is paid again for that."""
    match error:
        case Limited():
            return limited(claim, error, "defer", jitter)
        case Blocked():
            return blocked(claim, error, "defer")
    since = claim.now - (claim.intent_at or claim.now)
    # One look that was answered decides; one that failed says nothing of what it would have found.
    if since > assistant.timeout_s + DEADLINE_ERRORS_S:
        return end(claim, "uncertain_create", f"the run of the intent could not be looked for: {error}")
    errors = claim.errors + 1
    return moved(claim, "defer", delay=backoff(errors, jitter), fields={"errors": errors, "note": str(error)[:300]})
