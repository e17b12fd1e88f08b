"""What follows from what was seen: the decisions of the engine, made by functions that touch nothing.

Each takes the claim and what a call brought (a value or a `CallError`) and returns the `Decision`: the move to
commit and, where the account itself is at fault, why to pause it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.ends import ENDS
from askq.jobs.codec import files_brought
from askq.jobs.model import FINISHING, WAIT_FOR_TURN_S, Answer, Claim, Move, Pause, State, Usage
from askq.jobs.objects import ACCOUNT_FIELD, KEEP_FIELD
from worker.conversations import Joins, Waits
from worker.protocols.base import (
    Blocked,
    Busy,
    CallError,
    Found,
    Gone,
    Limited,
    Refused,
    RunState,
    Search,
    Status,
    Unread,
)
from worker.schedule import (
    BUDGET_S,
    CANCEL_GRACE_S,
    LONGEST_PAUSED_S,
    PAUSED_S,
    SETTLE_S,
    Pace,
    backoff,
    before_deadline,
    until_poll,
)

MOST_ERRORS = 8
"""Failed free calls in a row before a job that has no run yet is given up."""
MOST_GONE = 4
"""404s in a row before a run counts as vanished: reads may lag behind writes."""
MOST_CLAIMS = 8
"""Claims without progress before a job counts as poison: each is a worker that died on it."""
SUSPECT_CLAIMS = 3
"""Claims without progress after which a job is worked on alone: if it kills, it must not take others with it."""
MOST_ATTEMPTS = 2
"""Intents a job may have where the assistant allows an uncertain one to be repeated."""
PREPARED_AHEAD_S = 5.0
"""Seconds by which a prepared job goes before its place in the line: longer than preparing takes as a rule, in which
a fast producer stores ten thousand rows that would all be prepared first."""
DEADLINE_ERRORS_S = 600.0
"""How long after its deadline a run may be unreachable before it is given up."""
FILES_S = 10.0
"""How rarely a question looks whether its files are ready, at most."""
TURN_S = 1.0
"""How long a question waits for the one before it until it looks again, at first: the end of that one wakes it, and who
made it may have died in between."""
LIMITED_S = 86_400.0
"""How long a job may hear nothing but "not now" before it is given up: limits that last are nobody's rate."""

OWN_LIMIT = "own_limit"
"""The code of a refusal of our own: the account's limit leaves no permit for the call now."""

Fields = Mapping[str, str | int | float | None]
_CLEAN: Fields = {"errors": None, "gone": None, "note": None, "limited": None}


@dataclass(frozen=True, slots=True)
class Decision:
    """A move to commit, and why the account must be paused, if it must."""

    move: Move
    pause: Blocked | None = None


def _move(claim: Claim, name: str, *, delay: float = 0.0, fields: Fields | None = None) -> Decision:
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
            fields={**_CLEAN, **(fields or {}), "error_code": code, "error_message": message[:2000]},
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
    known = earlier.cost_usd is not None and usage.cost_usd is not None
    return Usage(
        input_tokens=earlier.input_tokens + usage.input_tokens,
        cached_tokens=earlier.cached_tokens + usage.cached_tokens,
        output_tokens=earlier.output_tokens + usage.output_tokens,
        total_tokens=earlier.total_tokens + usage.total_tokens,
        cost_usd=(earlier.cost_usd or 0.0) + (usage.cost_usd or 0.0) if known else None,
    )


def suspect(claim: Claim) -> bool:
    """Whether workers have died with this job in hand so often that it must be in hand alone."""
    return claim.claims > SUSPECT_CLAIMS


def poisoned(claim: Claim) -> bool:
    """Whether workers have died on this job so often that it must not be touched again."""
    return claim.claims > MOST_CLAIMS


def give_up_poison(claim: Claim) -> Decision:
    """The end of a job that kills workers."""
    code = "uncertain_create" if claim.state is State.STARTING else "poison"
    return end(claim, code, f"claimed {claim.claims - 1} times without any progress in state {claim.state}")


def without_assistant(claim: Claim) -> Decision:
    """Nothing is known any more of whoever was asked. A run that may exist can not even be looked for."""
    code = "uncertain_create" if claim.state is State.STARTING else "assistant_missing"
    return end(claim, code, f"the record of assistant {claim.assistant} is gone", usage=claim.usage)


def _limited(claim: Claim, error: Limited, name: str, jitter: float, fields: Fields | None = None) -> Decision:
    """Nobody's fault: wait as told, and count nothing against the job."""
    if error.code == OWN_LIMIT:
        # No call was made: a long list on a small account waits for days, and that is as it should be.
        note = f"waiting for {error.message}"[:300]
        return _move(claim, name, delay=error.retry_after or 1.0, fields={**(fields or {}), "note": note})
    since = claim.limited_at if claim.limited_at is not None else claim.now
    if claim.state is State.QUEUED and claim.now - since > LIMITED_S:
        code = "unreachable" if error.code == "unreachable" else "rate_limited"
        return end(claim, code, f"for {LIMITED_S / 3600:.0f} hours: {error.message}", fields=fields)
    delay = error.retry_after if error.retry_after is not None else backoff(1, jitter)
    note = f"waiting for the service: {error.message}"[:300]
    return _move(claim, name, delay=delay, fields={**(fields or {}), "limited": since, "note": note})


def _blocked(claim: Claim, error: Blocked, name: str, fields: Fields | None = None) -> Decision:
    # Due again soon: while the account is paused nobody claims it, and afterwards nobody should have to wait.
    told: Fields = {**(fields or {}), "limited": None, "note": f"paused: {error.message}"[:300]}
    made = _move(claim, name, delay=1.0, fields=told)
    return Decision(made.move, pause=error)


def paused(claim: Claim, pause: Pause) -> Decision:
    """What the job would need must not be called now. The longer that lasts the more rarely anybody looks."""
    delay = min(max(PAUSED_S, 0.2 * (claim.now - pause.since)), LONGEST_PAUSED_S)
    return _move(claim, "defer", delay=delay, fields={"limited": None, "note": f"paused: {pause.message}"[:300]})


def over_budget(claim: Claim) -> Decision:
    """What is left of the batch's budget would not cover the job at worst; finished jobs may free some.

    Asked ever more rarely: thousands of such jobs must not keep workers busy.
    """
    fields: Fields = {"looks": claim.looks + 1, "limited": None, "note": "waiting for the batch's budget"}
    return _move(claim, "defer", delay=min(2.0**claim.looks, BUDGET_S), fields=fields)


def unbounded(claim: Claim) -> Decision:
    """The batch has a budget, and nobody can say what the job may cost at worst: it is not asked."""
    return end(claim, "unbounded_cost", "the batch has a budget, and nothing bounds what this question may cost")


# -- before the run exists -----------------------------------------------------------------------------------


def waits_for_files(claim: Claim, note: str, jitter: float) -> Decision:
    """A file is not uploaded yet, or a store not read. Looked at ever more rarely: thousands may wait for one index."""
    delay = min(0.4 * 1.5 ** min(claim.looks, 12), FILES_S) * (1 + 0.2 * jitter)
    fields: Fields = {"looks": claim.looks + 1, "errors": None, "limited": None, "note": note[:300]}
    return _move(claim, "defer", delay=delay, fields=fields)


def without_files(claim: Claim, code: str, message: str) -> Decision:
    """A file that goes with the question cannot be made ready: the question is not asked without it."""
    return end(claim, code, message)


def unread(
    claim: Claim, found: Unread, assistant: Assistant, names: Mapping[str, str], jitter: float
) -> Decision | None:
    """What to do while the service reads the files of a message; None to go on."""
    if found.waiting:
        return waits_for_files(claim, f"waits for the index: {found.waiting} files of the message", jitter)
    if found.failed and assistant.on_failed_file == "stop":
        told = "; ".join(f"{names.get(id_, id_)}: {reason}" for id_, reason in found.failed[:5])
        return end(
            claim, "index_failed", f"the service could not read {len(found.failed)} files of the message: {told}"
        )
    return None


def prepared(
    claim: Claim,
    thread_id: str,
    *,
    held: str | None = None,
    account: str | None = None,
    keep: str | None = None,
) -> Decision:
    """The thread exists: save its id, the account it is on and how long it is kept. The job goes on before those that
    were to come after it: behind all others, a long list would be prepared whole before its first run."""
    return _move(
        claim,
        "prepare",
        delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S,
        # A thread that vanishes every time it was made is not remade for ever.
        fields={
            "thread": thread_id,
            "looks": None,
            ACCOUNT_FIELD: account,
            KEEP_FIELD: keep,
            **_CLEAN,
            "gone": claim.gone or None,
            **({} if held is None else {"held": held}),
        },
    )


def not_yet(claim: Claim, wait_s: float) -> Decision:
    """The account's limit leaves no permit for the job soon: it comes back when its turn comes."""
    message = f"the account's limit: {wait_s:.0f} s"
    return _limited(claim, Limited(OWN_LIMIT, message, retry_after=wait_s), "defer", 0.0)


def not_prepared(claim: Claim, error: CallError, jitter: float) -> Decision:
    """Preparing is free: whatever happened, no run exists and nothing was paid."""
    match error:
        case Refused():
            return end(claim, error.code, error.message)
        case Limited():
            return _limited(claim, error, "defer", jitter)
        case Blocked():
            return _blocked(claim, error, "defer")
    errors = claim.errors + 1
    if errors > MOST_ERRORS:
        return end(claim, "upstream", f"{errors} calls in a row failed; the last: {error}")
    return _move(claim, "defer", delay=backoff(errors, jitter), fields={"errors": errors, "note": str(error)[:300]})


# -- in a conversation -------------------------------------------------------------------------------------


def waits(claim: Claim, turn: Waits, jitter: float) -> Decision:
    """The question before it has not ended. Looked at ever more rarely, because it will be told: ten thousand that wait
    must cost next to nothing."""
    delay = WAIT_FOR_TURN_S if turn.deep else min(TURN_S * 2.0 ** min(claim.looks, 10), WAIT_FOR_TURN_S)
    note = f"waits for question {turn.row} of its conversation"
    fields: Fields = {"looks": claim.looks + 1, "errors": None, "limited": None, "note": note}
    return _move(claim, "defer", delay=delay * (1 + 0.2 * jitter), fields=fields)


def joined_again(claim: Claim, mark: str) -> Decision:
    """The request to mend an answer is in the thread: the next run is told from the one it is about by the mark."""
    fields: Fields = {
        "joined": mark,
        "previous": claim.refers,
        "refers": None,
        "history": None if claim.spent is None else claim.spent.total_tokens,
        "looks": None,
        **_CLEAN,
    }
    return _move(claim, "prepare", delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S, fields=fields)


def joined(
    claim: Claim,
    turn: Joins,
    mark: str,
    *,
    held: str | None = None,
    account: str | None = None,
    keep: str | None = None,
) -> Decision:
    """Its turn has come, and the question is in the thread: it takes over the thread, and goes on at once."""
    fields: Fields = {
        "thread": turn.before.thread_id,
        "joined": mark,
        "previous": turn.previous,
        "history": turn.history,
        "looks": None,
        "woken": None,
        ACCOUNT_FIELD: account,
        KEEP_FIELD: keep,
        **_CLEAN,
        **({} if held is None else {"held": held}),
    }
    return _move(claim, "prepare", delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S, fields=fields)


def not_joined(claim: Claim, error: CallError, assistant: Assistant, jitter: float) -> Decision:
    """Joining is free, and a thread with earlier turns cannot be made anew."""
    match error:
        case Gone():
            gone = claim.gone + 1
            if gone > MOST_GONE:
                return end(claim, "conversation_vanished", error.message)
            return _move(claim, "defer", delay=backoff(gone, jitter), fields={"gone": gone, "note": str(error)[:300]})
        case Busy():
            # The question before has ended, and its run not yet, or not for all to see.
            since = claim.limited_at if claim.limited_at is not None else claim.now
            if claim.now - since > assistant.timeout_s:
                return end(claim, "conversation_busy", error.message)
            told: Fields = {"limited": since, "note": f"waits for its conversation: {error.message}"[:300]}
            return _move(claim, "defer", delay=min(max(0.5, 0.3 * (claim.now - since)), 15.0), fields=told)
    return not_prepared(claim, error, jitter)


def intent(claim: Claim, lease_s: float) -> Move:
    """The durable record that precedes the paid call. The lease is kept."""
    fields: Fields = {
        "attempts": claim.attempts + 1,
        "looks": None,
        "witness": None,
        "note": None,
        "live": 1 if claim.question is not None and claim.question.stream else None,
    }
    if claim.open_rounds:
        fields = {**fields, "began": claim.began_at or claim.started_at}
    return Move(
        job=claim.id,
        fence=claim.fence,
        name="intend",
        delay=lease_s,
        fields=fields,
    )


def created(
    claim: Claim,
    status: Status,
    assistant: Assistant,
    jitter: float,
    pace: Pace | None = None,
    *,
    estimated: float | None = None,
) -> Decision:
    """The paid call was answered: a run exists. `claim` is as it was before the intent; `estimated` is the tokens put
    aside for the run."""
    fields: dict[str, str | int | float | None] = {
        "run": status.run_id,
        "runs": claim.runs + 1,
        "remote": status.raw,
        "deadline": claim.now + assistant.timeout_s,
        "looks": None,
        "witness": None,
        "est": estimated,
        "asked_of": claim.question.model if claim.question is not None else None,
        "seen": None,
        **_CLEAN,
    }
    match status.state:
        case RunState.DONE if status.answer is not None and not makes_files(status.answer):
            # A server without background mode answers at once, and may know nothing of the run afterwards.
            return finished(claim, status, fields | {"started": claim.now})
        case RunState.INCOMPLETE | RunState.FAILED if status.answer is not None or status.error_code:
            return finished(claim, status, fields | {"started": claim.now})
    delay = 0.0
    if status.state is RunState.PENDING:
        delay = until_poll(assistant, 0.0, status.poll_after, jitter, pace)
        delay = before_deadline(delay, assistant.timeout_s, jitter)
    return _move(claim, "start", delay=delay, fields=fields)


def not_created(claim: Claim, error: CallError, jitter: float) -> Decision:
    """The paid call brought no run id. `claim` is as it was before the intent."""
    never: Fields = {"attempts": claim.attempts, "looks": None}
    void = _void(claim)
    match error:
        case Refused():
            return end(claim, error.code, error.message, fields=never)
        case Limited():
            return _limited(claim, error, void, jitter, never)
        case Blocked():
            return _blocked(claim, error, void, never)
        case Gone():
            gone = claim.gone + 1
            if gone > MOST_GONE:
                code = "thread_vanished" if claim.joined is None else "conversation_vanished"
                return end(claim, code, error.message, fields=never)
            if claim.joined is not None or claim.open_rounds:
                # What was said in it cannot be made anew. Reads may lag behind writes, so it is tried again.
                return _move(claim, void, delay=backoff(gone, jitter), fields={**never, "gone": gone})
            anew: Fields = {**never, "thread": None, "resets": claim.resets + 1, "gone": gone}
            return _move(claim, "void", delay=backoff(gone, jitter), fields=anew)
        case Busy():
            return _move(claim, "defer", delay=0.2, fields={"note": "the thread is busy: looking for our run in it"})
    # Ambiguous, and anything a new adapter may invent: a run may exist, so it is looked for before anything else.
    return _move(
        claim,
        "defer",
        delay=min(SETTLE_S, 1.0),
        fields={"note": f"the reply to the create was lost ({error.code}): looking for the run"[:300]},
    )


def _void(claim: Claim) -> str:
    """How to go back from an intent: to the question, or to the outputs of functions that are to be submitted."""
    return "withdraw" if claim.open_rounds else "void"


def not_sent(claim: Claim) -> Decision:
    """The intent is on record, and its call was not made: the claim had become too old. `claim` is as before it."""
    return _move(claim, _void(claim), fields={"attempts": claim.attempts, "looks": None})


# -- looking for the run of an intent ------------------------------------------------------------------------


def adopted(claim: Claim, run_id: str, assistant: Assistant, *, runs: int = 1) -> Decision:
    """The run of the intent was found (or its creator left its id): go on with it."""
    return _move(
        claim,
        "adopt",
        fields={
            "run": run_id,
            "runs": claim.runs + runs,
            "deadline": (claim.intent_at or claim.now) + assistant.timeout_s,
            "looks": None,
            "witness": None,
            **_CLEAN,
        },
    )


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
                    fields={**_CLEAN, **fields, "note": note},
                    answer=dataclasses.replace(answer, usage=summed(claim, answer.usage)),
                )
            )
        case Search.NOT_STARTED if claim.looks >= 1 and since >= lease_s + SETTLE_S:
            fields = {"attempts": max(0, claim.attempts - 1), "looks": None, "note": None}
            return _move(claim, _void(claim), fields=fields)
        case Search.NOT_STARTED:
            wait = max(1.0, lease_s + SETTLE_S - since)
            return _move(claim, "defer", delay=wait, fields={"looks": claim.looks + 1, "errors": None})
    if since < assistant.timeout_s:
        return _still_unknown(claim, since, jitter)
    if assistant.on_uncertain == "retry" and claim.attempts - claim.allowance < MOST_ATTEMPTS:
        # The attempt stays counted, and the next one gets a conversation of its own. Outputs of functions need theirs.
        again: dict[str, str | int | float | None] = {"looks": None, "note": "asked again: a run was uncertain"}
        return _move(claim, _void(claim), fields=again if claim.open_rounds else again | {"thread": None})
    cost = "; what it may have cost is not known" if at_worst is None else f"; it may have cost up to ${at_worst:.4f}"
    looked = f"the reply to the create was lost, and in {claim.looks + 1} looks within {since:.0f} s no answer appeared"
    return end(claim, "uncertain_create", looked + cost)


def _still_unknown(claim: Claim, since: float, jitter: float) -> Decision:
    delay = min(max(1.0, 0.3 * since), 15.0) * (1 + 0.2 * jitter)
    note = "a run may exist: waiting for its answer to appear in the conversation"
    return _move(claim, "defer", delay=delay, fields={"looks": claim.looks + 1, "note": note})


def not_searched(claim: Claim, error: CallError, assistant: Assistant, jitter: float) -> Decision:
    """Looking failed: nothing is known, and nothing is paid again for that."""
    match error:
        case Limited():
            return _limited(claim, error, "defer", jitter)
        case Blocked():
            return _blocked(claim, error, "defer")
    since = claim.now - (claim.intent_at or claim.now)
    # One look that was answered decides; one that failed says nothing of what it would have found.
    if since > assistant.timeout_s + DEADLINE_ERRORS_S:
        return end(claim, "uncertain_create", f"the run of the intent could not be looked for: {error}")
    errors = claim.errors + 1
    return _move(claim, "defer", delay=backoff(errors, jitter), fields={"errors": errors, "note": str(error)[:300]})


# -- while the run exists ------------------------------------------------------------------------------------


def to_cancel(claim: Claim) -> bool:
    """Whether the service must be told to cancel the run: a person wants it, or it has outlived its deadline."""
    return not claim.cancel_sent and (claim.cancel is not None or _overdue(claim))


def _overdue(claim: Claim) -> bool:
    return claim.deadline is not None and claim.now > claim.deadline


def polled(claim: Claim, status: Status, assistant: Assistant, jitter: float, pace: Pace | None = None) -> Decision:
    """One poll was answered."""
    fields: dict[str, str | int | float | None] = {"polls": claim.polls + 1, "remote": status.raw, **_CLEAN}
    if to_cancel(claim):
        fields["cancel"] = claim.cancel or "deadline"
        fields["cancel_sent"] = 1
    match status.state:
        case RunState.PENDING:
            if claim.cancel_sent and claim.deadline is not None and claim.now > claim.deadline + CANCEL_GRACE_S:
                return end(
                    claim,
                    _cancelled(claim, fields),
                    f"still {status.raw} after its deadline and a cancel",
                    fields=fields,
                )
            age = claim.now - (claim.started_at or claim.now)
            delay = 1.0 if "cancel_sent" in fields else until_poll(assistant, age, status.poll_after, jitter, pace)
            if claim.deadline is not None:
                delay = before_deadline(delay, claim.deadline - claim.now, jitter)
            fields["seen"] = round(age, 2)
            return _move(claim, "poll", delay=delay, fields=fields)
        case RunState.ACTION if _why_cancelled(claim, fields) is not None:
            return end(
                claim,
                _cancelled(claim, fields),
                "cancelled while the run waited for the output of a function",
                fields=fields,
                usage=status.usage,
            )
        case RunState.ACTION:
            raise AssertionError("`worker.rounds.asked` decides what comes of calls")
        case RunState.DONE | RunState.INCOMPLETE if status.answer is None or makes_files(status.answer):
            usage = status.usage or Usage()
            fields |= {
                "in": usage.input_tokens,
                "cached": usage.cached_tokens,
                "out": usage.output_tokens,
                "total": usage.total_tokens,
                "cost": usage.cost_usd,
                "error_code": status.error_code,
                "error_message": status.error_message,
            }
            return _move(claim, "collect", fields=fields)
    return finished(claim, status, fields)


def _why_cancelled(claim: Claim, fields: Fields) -> str | None:
    """Why the service was told to cancel, by an earlier poll or in this very step."""
    return claim.cancel or ("deadline" if fields.get("cancel") == "deadline" else None)


def makes_files(answer: Answer) -> bool:
    """Whether there may be something to fetch: files, or a container in which code has run."""
    return bool(answer.files) or any(call.get("container_id") for call in answer.code)


def not_fetched(claim: Claim, why: str, jitter: float) -> Decision:
    """Files of the answer could not be fetched; it is tried again as long as that may help."""
    errors = claim.errors + 1
    note = f"fetching the files of the answer: {why}"[:300]
    return _move(claim, "defer", delay=backoff(min(errors, 5), jitter), fields={"errors": errors, "note": note})


def waits_to_fetch(claim: Claim) -> Decision:
    """Others fetch files already."""
    return _move(claim, "defer", delay=1.0, fields={"note": "waits for its turn to fetch the files of the answer"})


def took(claim: Claim, status: Status, share: float) -> float | None:
    """How long a run took, as far as polls can tell: it ended somewhere between the last two, so at a `share` in [0, 1]
    of that time. None for a run that has not ended, or not by itself."""
    if status.state not in (RunState.DONE, RunState.INCOMPLETE) or claim.started_at is None or claim.cancel_sent:
        return None
    if claim.open_rounds and claim.began_at is None:
        return None  # it has waited for functions meanwhile
    age, seen = max(0.0, claim.now - claim.started_at), claim.seen or 0.0
    return seen + share * max(0.0, age - seen)


def _cancelled(claim: Claim, fields: Fields) -> str:
    """The end of a job whose run was cancelled: by a person through askq, by its deadline, or by somebody else."""
    why = _why_cancelled(claim, fields)
    return {"asked": "cancelled", "deadline": "deadline"}.get(why or "", "cancelled_remotely")


def finished(claim: Claim, status: Status, fields: Fields) -> Decision:
    """The run ended, and the reply said everything."""
    if status.state is RunState.DONE and status.answer is not None:
        return answered(claim, status.answer, fields, usage=status.usage)
    code = status.error_code or {
        RunState.INCOMPLETE: "incomplete",
        RunState.EXPIRED: "run_expired",
    }.get(status.state, "run_failed")
    if status.state is RunState.CANCELLED:
        code = _cancelled(claim, fields)
    message = status.error_message or f"the run ended {status.raw}"
    return end(claim, code, message, fields=fields, answer=_with_usage(status.answer, status.usage), usage=status.usage)


def answered(claim: Claim, answer: Answer, fields: Fields, *, usage: Usage | None) -> Decision:
    """The answer is here: the job completes, or ends as its run's end says."""
    answer = _with_usage(answer, usage) or answer
    if claim.error_code is not None:
        return end(claim, claim.error_code, claim.error_message or "the run ended early", fields=fields, answer=answer)
    if answer.text is None and not answer.code and not answer.files:
        return end(claim, "no_answer", "the run completed without an assistant message", fields=fields, answer=answer)
    answer = dataclasses.replace(answer, usage=summed(claim, answer.usage))
    kept: Fields = {**_CLEAN, **fields}
    files = (*files_brought(claim.brought), *answer.files)
    if unfetched := [file for file in files if "error" in file]:
        why = unfetched[0]["error"]["message"]
        kept = {**kept, "note": f"{len(unfetched)} of {len(files)} files were not kept: {why}"[:300]}
    if _why_cancelled(claim, fields) is not None:
        kept = {**kept, "note": "the run completed although it was to be cancelled"}
    return Decision(Move(job=claim.id, fence=claim.fence, name="complete", fields=kept, answer=answer))


def _with_usage(answer: Answer | None, usage: Usage | None) -> Answer | None:
    if answer is None or answer.usage is not None or usage is None:
        return answer
    return dataclasses.replace(answer, usage=usage)


def not_polled(claim: Claim, error: CallError, jitter: float) -> Decision:
    """A poll (or fetching the answer) failed: a failed poll is not a failed run."""
    match error:
        case Limited():
            return _limited(claim, error, "defer", jitter)
        case Blocked():
            return _blocked(claim, error, "defer")
    errors = claim.errors + 1
    gone = claim.gone + 1 if isinstance(error, Gone) else claim.gone
    if isinstance(error, Gone) and gone > MOST_GONE:
        return end(claim, "run_vanished", error.message, usage=claim.usage)
    if claim.deadline is not None and claim.now > claim.deadline + DEADLINE_ERRORS_S:
        return end(
            claim, "deadline", f"unreachable long after its deadline; the last error: {error}", usage=claim.usage
        )
    fields: Fields = {"errors": errors, "gone": gone or None, "note": str(error)[:300]}
    return _move(claim, "defer", delay=backoff(errors, jitter), fields=fields)
