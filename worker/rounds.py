"""Runs that ask for functions: what follows from the calls, from their outputs, and from submitting them.

Pure, like `worker.steps`. A round is one list of calls. On the Assistants protocol the run waits for its outputs and
goes on; on Responses it has ended, and the outputs go into a run of their own, which is paid for like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from askq.assistants.model import Assistant
from askq.jobs.calls import KeptCall, WantedCall
from askq.jobs.codec import dump_brought, dump_usage
from askq.jobs.model import Answer, Claim, Move, State, Usage
from askq.names import QUEUE_TOOLS
from worker.protocols.base import CallError, Refused, RunState, Status, ToolCall, ToolOutput
from worker.schedule import Pace, backoff, until_poll
from worker.steps.decision import (
    CLEAN,
    MOST_ERRORS,
    MOST_GONE,
    Decision,
    Fields,
    end,
    failures,
    moved,
    put_off,
    summed,
    with_usage,
)

LOOK_S = 5.0
"""After so long the first look at functions that still run; the last output makes the job due before that."""
LONGEST_LOOK_S = 60.0


def asked(
    claim: Claim,
    calls: Sequence[ToolCall],
    known: Sequence[KeptCall],
    assistant: Assistant,
    fields: Fields,
    *,
    run_id: str | None,
    usage: Usage | None,
    new_runs: bool,
    answer: Answer | None = None,
    attempts: int | None = None,
) -> Decision:
    """The run asks for functions: its calls go on record, or the job ends because nothing could answer them.

    `new_runs`: the run has ended with this, having used `usage` and brought what `answer` has besides text. `attempts`
    is the job's, where the claim is older.
    """
    whole = summed(claim, usage) if new_runs else None
    if (refusal := _unanswerable(calls, assistant)) is not None:
        return end(claim, "unknown_function", refusal, fields=fields, answer=with_usage(answer, usage), usage=usage)
    wanted = _wanted(calls, claim.rounds)
    last = [call.wanted for call in known if call.round == claim.rounds]
    if last and claim.acted_run == run_id and _same(last, wanted):
        # Its outputs did not arrive, or were not understood to have: they are submitted once more.
        kept: Fields = {**fields, "errors": claim.errors or None}
        return Decision(Move(job=claim.id, fence=claim.fence, name="act", fields=kept, calls=tuple(last)))
    if claim.open_rounds >= assistant.most_rounds:
        told = f"the run asked for functions {claim.open_rounds + 1} times; [run] max_rounds is {assistant.most_rounds}"
        return end(claim, "too_many_rounds", told, fields=fields, answer=with_usage(answer, usage), usage=usage)
    if new_runs:
        brought = claim.brought if answer is None else dump_brought(answer, claim.brought)
        fields = {**fields, "brought": brought}
        fields = {**fields, "earlier": dump_usage(whole if usage is not None and whole else _unpriced(whole))}
    names = ", ".join(sorted({call.name for call in calls}))
    new: Fields = {
        **fields,
        "rounds": claim.rounds + 1,
        "acted": run_id,
        # What binds the number of attempts counts anew with each round.
        "base": claim.attempts if attempts is None else attempts,
        "looks": None,
        "note": f"functions: {names}"[:300],
    }
    calls_of_round = tuple(_wanted(calls, claim.rounds + 1))
    return Decision(Move(job=claim.id, fence=claim.fence, name="act", delay=LOOK_S, fields=new, calls=calls_of_round))


def _unpriced(usage: Usage | None) -> Usage:
    """What is known to have been used, when not all is."""
    return dataclasses.replace(usage or Usage(), cost_usd=None)


def _unanswerable(calls: Sequence[ToolCall], assistant: Assistant) -> str | None:
    """Why nothing that askq runs could answer these calls."""
    if not calls:
        return "the run asks for an action, and names no function"
    odd = sorted({f"{call.kind} {call.name}" for call in calls if call.kind != "function"})
    if odd:
        return f"the run asks for what askq does not do: {', '.join(odd)}"
    if not assistant.functions:
        names = ", ".join(sorted({call.name for call in calls}))
        return f"the run asks for functions ({names}), and the assistant's file names none"
    return None


def _wanted(calls: Sequence[ToolCall], round_: int) -> list[WantedCall]:
    return [
        WantedCall(key=f"{round_}.{number}", call_id=call.call_id, name=call.name, arguments=call.arguments)
        for number, call in enumerate(calls)
    ]


def _same(one: Sequence[WantedCall], other: Sequence[WantedCall]) -> bool:
    return [(call.call_id, call.name, call.arguments) for call in one] == [
        (call.call_id, call.name, call.arguments) for call in other
    ]


def too_many_wait(claim: Claim, waiting: int, jitter: float) -> Decision:
    """Functions cannot keep up with the runs: one that asks for some would wait, and might expire meanwhile."""
    note = f"{waiting} function calls wait: the run is made later"
    return moved(claim, "defer", delay=2.0 * (1 + 0.5 * jitter), fields={"limited": None, "note": note})


# -- while the job waits for outputs -------------------------------------------------------------------------


def of_this_round(claim: Claim, kept: Sequence[KeptCall]) -> list[KeptCall]:
    """The calls the job waits for."""
    return [call for call in kept if call.round == claim.rounds]


def outputs_of(claim: Claim, kept: Sequence[KeptCall]) -> tuple[ToolOutput, ...]:
    """What is to be submitted; empty while an output is missing, and where none is waited for."""
    calls = of_this_round(claim, kept) if claim.open_rounds else []
    found = {call.wanted.call_id: call.result.output for call in calls if call.result is not None}
    if any(call.result is None for call in calls):
        return ()
    return tuple(ToolOutput(call_id=call_id, output=output) for call_id, output in found.items())


def undecided(claim: Claim, kept: Sequence[KeptCall], *, nobody: bool = False) -> Decision | None:
    """What to do while the outputs are not all there; None when they are. `nobody`: no worker runs functions."""
    calls = of_this_round(claim, kept)
    if not calls:
        if claim.acted_run is None:
            return end(claim, "run_vanished", "the record of its function calls is gone")
        return moved(claim, "poll", fields={"note": "the record of its function calls is gone: asking the run again"})
    for call in calls:
        if call.result is not None and call.result.error == "unavailable":
            return end(claim, "function_unavailable", call.result.output)
    left = [call.wanted.name for call in calls if call.result is None]
    if not left:
        return None
    delay = min(LOOK_S * 2.0**claim.looks, LONGEST_LOOK_S)
    if claim.deadline is not None:
        delay = min(delay, max(0.5, claim.deadline - claim.now))
    note = f"functions: {', '.join(sorted(set(left)))} ({len(calls) - len(left)} of {len(calls)} done)"
    if nobody:
        note = f"no worker runs functions: start `askq worker`, or one with --queues {QUEUE_TOOLS}; {note}"
    return moved(claim, "wait", delay=delay, fields={"looks": claim.looks + 1, "limited": None, "note": note[:300]})


def stopped(claim: Claim, *, new_runs: bool) -> Decision:
    """The job is to end while it waits for outputs: the run has ended already, or was just told to."""
    why = claim.cancel or "deadline"
    if new_runs or claim.cancel_sent:
        code = {"asked": "cancelled", "deadline": "deadline"}.get(why, "cancelled_remotely")
        told = "cancelled" if code == "cancelled" else "its deadline passed"
        return end(claim, code, f"{told} while the run waited for the output of a function")
    return moved(claim, "poll", delay=0.2, fields={"cancel": why, "cancel_sent": 1, **CLEAN})


def submitted(claim: Claim, status: Status, assistant: Assistant, jitter: float, pace: Pace | None) -> Decision:
    """The run has the outputs, and goes on."""
    delay = 0.0
    if status.state is RunState.PENDING:
        # As if it had just begun: what it did before has nothing to do with how long it takes from here.
        delay = until_poll(assistant, 0.0, status.poll_after, jitter, pace)
    return moved(claim, "poll", delay=delay, fields={"remote": status.raw, "looks": None, **CLEAN})


def not_submitted(claim: Claim, error: CallError, jitter: float) -> Decision:
    """Submitting brought no usable reply. It is free, and a second time it is refused: the run itself says what is."""
    if (later := put_off(claim, error, jitter)) is not None:
        return later
    errors, gone = failures(claim, error)
    if gone > MOST_GONE:
        return end(claim, "run_vanished", error.message)
    if isinstance(error, Refused) and errors > MOST_ERRORS:
        return end(claim, error.code, error.message)
    note = f"the outputs may not have arrived ({error.code}): asking the run"
    return moved(
        claim,
        "poll",
        delay=backoff(errors, jitter),
        fields={"errors": errors, "gone": gone or None, "note": note[:300]},
    )


def ends_over_a_run(decision: Decision, claim: Claim) -> bool:
    """Whether the job ends while its run still waits for outputs, so that the run is to be cancelled."""
    code = decision.move.fields.get("error_code")
    return (claim.state is State.RUNNING and code in ("unknown_function", "too_many_rounds")) or (
        claim.state is State.ACTION and code is not None
    )
