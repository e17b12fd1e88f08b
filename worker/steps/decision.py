"""What every step may come to: a move, an end, waiting, or giving up, and how each is written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from askq.ends import ENDS
from askq.jobs.model import FINISHING, Answer, Claim, Move, Pause, State, Usage
from worker.protocols.base import Blocked, CallError, Gone, Limited
from worker.schedule import BUDGET_S, LONGEST_PAUSED_S, PAUSED_S, backoff

MOST_ERRORS = 8
"""Failed free calls in a row before a job that has no run yet is given up."""
MOST_GONE = 4
"""404s in a row before a run counts as vanished: reads may lag behind writes."""
MOST_VOIDS = 12
"""Creates in a row that failed and made no run before a job is given up: with the pauses between them and the search
after each, a service that is out of order has about ten minutes."""
MOST_CLAIMS = 8
"""Claims without progress before a job counts as poison: each is a worker that died on it."""
SUSPECT_CLAIMS = 3
"""Claims without progress after which a job is worked on alone: if it kills, it must not take others with it."""
DEADLINE_ERRORS_S = 600.0
"""How long after its deadline a run may be unreachable before it is given up."""
LIMITED_S = 86_400.0
"""How long a job may hear nothing but "not now" before it is given up: limits that last are nobody's rate."""

OWN_LIMIT = "own_limit"
"""The code of a refusal of our own: the account's limit leaves no permit for the call now."""

Fields = Mapping[str, str | int | float | None]
CLEAN: Fields = {"errors": None, "gone": None, "note": None, "limited": None}


@dataclass(frozen=True, slots=True)
class Decision:
    """A move to commit, and why the account must be paused, if it must."""

    move: Move
    pause: Blocked | None = None


def moved(claim: Claim, name: str, *, delay: float = 0.0, fields: Fields | None = None) -> Decision:
    return Decision(Move(job=claim.id, fence=claim.fence, name=name, delay=delay, fields=fields or {}))


def end(
    claim: Claim,
    code: str,
    message: str,
    *,
    fields: Fields | None = None,
    answer: Answer | None = None,
    usage: Usage | None = None,
) -> Decision:
    """The job ends with a code of the table, keeping what text there is."""
    whole = summed(claim, answer.usage if answer is not None and answer.usage is not None else usage)
    if whole is not None:
        answer = dataclasses.replace(answer or Answer(text=None), usage=whole)
    return Decision(
        Move(
            job=claim.id,
            fence=claim.fence,
            name=FINISHING[ENDS[code].state],
            fields={**CLEAN, **(fields or {}), "error_code": code, "error_message": message[:2000]},
            answer=answer,
        )
    )


def summed(claim: Claim, usage: Usage | None) -> Usage | None:
    """What the runs of a job have used, the present one's `usage` included; where that is unknown, so is the cost."""
    earlier = claim.earlier
    if earlier is None:
        return usage
    if usage is None:
        # Waiting for functions, or refused, there is no present run.
        return earlier if claim.state is State.ACTION else dataclasses.replace(earlier, cost_usd=None)
    return added(earlier, usage)


def added(one: Usage, other: Usage) -> Usage:
    """What both have used; the cost is known if both costs are."""
    known = one.cost_usd is not None and other.cost_usd is not None
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        total_tokens=one.total_tokens + other.total_tokens,
        cost_usd=(one.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
    )


def with_usage(answer: Answer | None, usage: Usage | None) -> Answer | None:
    """The answer, with this usage where it does not tell its own."""
    return None if answer is None else dataclasses.replace(answer, usage=answer.usage or usage)


def run_made(claim: Claim) -> Fields:
    """What a run puts an end to: the count of creates in a row that brought none."""
    return {"voids": None, "deaths": None} if claim.voids or claim.deaths else {}


def suspect(claim: Claim) -> bool:
    """Whether workers have died with this job in hand so often that it must be in hand alone."""
    return claim.claims > SUSPECT_CLAIMS or claim.deaths >= SUSPECT_CLAIMS


def poisoned(claim: Claim) -> bool:
    """Whether workers have died on this job so often that it must not be touched again."""
    return claim.claims > MOST_CLAIMS or (claim.deaths >= MOST_CLAIMS and claim.state is not State.STARTING)


def in_vain(claim: Claim) -> bool:
    """Whether creates have failed so often in a row that no other is worth a try. Never over an intent: whoever has
    made its call may yet leave the run as a witness, and the way back from it is refused then."""
    return claim.voids >= MOST_VOIDS and claim.state is not State.STARTING


def give_up_creates(claim: Claim) -> Decision:
    """The end of a job whose creates fail every time."""
    return end(claim, "upstream", f"{claim.voids} creates in a row failed, and none made a run")


def may_run(claim: Claim) -> bool:
    """Whether there may be a run whose id is not known."""
    return claim.state is State.STARTING and not claim.never_sent


def give_up_poison(claim: Claim) -> Decision:
    """The end of a job that kills workers."""
    code = "uncertain_create" if may_run(claim) else "poison"
    if claim.claims <= MOST_CLAIMS:
        return end(claim, code, f"{claim.deaths} workers in a row died as they were to create its run")
    return end(claim, code, f"claimed {claim.claims - 1} times without any progress in state {claim.state}")


def without_assistant(claim: Claim) -> Decision:
    """Nothing is known any more of whoever was asked. A run that may exist can not even be looked for."""
    code = "uncertain_create" if may_run(claim) else "assistant_missing"
    return end(claim, code, f"the record of assistant {claim.assistant} is gone", usage=claim.usage)


def limited(claim: Claim, error: Limited, name: str, jitter: float, fields: Fields | None = None) -> Decision:
    """Nobody's fault: wait as told, and count nothing against the job."""
    if error.code == OWN_LIMIT:
        # No call was made: a long list on a small account waits for days, and that is as it should be.
        note = f"waiting for {error.message}"[:300]
        return moved(claim, name, delay=error.retry_after or 1.0, fields={**(fields or {}), "note": note})
    since = claim.limited_at if claim.limited_at is not None else claim.now
    if claim.state is State.QUEUED and claim.now - since > LIMITED_S:
        code = "unreachable" if error.code == "unreachable" else "rate_limited"
        return end(claim, code, f"for {LIMITED_S / 3600:.0f} hours: {error.message}", fields=fields)
    delay = error.retry_after if error.retry_after is not None else backoff(1, jitter)
    note = f"waiting for the service: {error.message}"[:300]
    return moved(claim, name, delay=delay, fields={**(fields or {}), "limited": since, "note": note})


def blocked(claim: Claim, error: Blocked, name: str, fields: Fields | None = None) -> Decision:
    # Due again soon: while the account is paused nobody claims it, and afterwards nobody should have to wait.
    told: Fields = {**(fields or {}), "limited": None, "note": f"paused: {error.message}"[:300]}
    made = moved(claim, name, delay=1.0, fields=told)
    return Decision(made.move, pause=error)


def put_off(claim: Claim, error: CallError, jitter: float) -> Decision | None:
    """What follows where a free call failed through no fault of the job or its run; None for any other error."""
    match error:
        case Limited():
            return limited(claim, error, "defer", jitter)
        case Blocked():
            return blocked(claim, error, "defer")
    return None


def failures(claim: Claim, error: CallError) -> tuple[int, int]:
    """How many calls in a row have failed with this one, and how often the run was not found among them."""
    return claim.errors + 1, claim.gone + isinstance(error, Gone)


def paused(claim: Claim, pause: Pause) -> Decision:
    """What the job would need must not be called now. The longer that lasts the more rarely anybody looks."""
    delay = min(max(PAUSED_S, 0.2 * (claim.now - pause.since)), LONGEST_PAUSED_S)
    return moved(claim, "defer", delay=delay, fields={"limited": None, "note": f"paused: {pause.message}"[:300]})


def over_budget(claim: Claim) -> Decision:
    """What is left of the batch's budget would not cover the job at worst; finished jobs may free some.

    Asked ever more rarely: thousands of such jobs must not keep workers busy.
    """
    fields: Fields = {"looks": claim.looks + 1, "limited": None, "note": "waiting for the batch's budget"}
    return moved(claim, "defer", delay=min(2.0**claim.looks, BUDGET_S), fields=fields)


def unbounded(claim: Claim) -> Decision:
    """The batch has a budget, and nobody can say what the job may cost at worst: it is not asked."""
    return end(claim, "unbounded_cost", "the batch has a budget, and nothing bounds what this question may cost")


def way_back(claim: Claim) -> str:
    """How to go back from an intent: to the question, or to the outputs of functions that are to be submitted."""
    return "withdraw" if claim.open_rounds else "void"
