"""Before a run exists: its files, its thread or conversation, the intent, and what the paid call brought."""

from __future__ import annotations

from collections.abc import Mapping

from askq.assistants.model import Assistant
from askq.jobs.model import WAIT_FOR_TURN_S, Claim, Move
from askq.jobs.objects import ACCOUNT_FIELD, KEEP_FIELD
from worker.conversations import Joins, Waits
from worker.protocols.base import Blocked, Busy, CallError, Gone, Limited, Refused, RunState, Status, Unread
from worker.schedule import SETTLE_S, Pace, backoff, before_deadline, until_poll
from worker.steps.decision import (
    CLEAN,
    MOST_ERRORS,
    MOST_GONE,
    OWN_LIMIT,
    Decision,
    Fields,
    blocked,
    end,
    limited,
    moved,
    run_made,
    way_back,
)
from worker.steps.running import finished, makes_files

PREPARED_AHEAD_S = 5.0
"""Seconds by which a prepared job goes before its place in the line: longer than preparing takes as a rule, in which
a fast producer stores ten thousand rows that would all be prepared first."""
FILES_S = 10.0
"""How rarely a question looks whether its files are ready, at most."""
TURN_S = 1.0
"""How long a question waits for the one before it until it looks again, at first: the end of that one wakes it, and who
made it may have died in between."""


def waits_for_files(claim: Claim, note: str, jitter: float) -> Decision:
    """A file is not uploaded yet, or a store not read. Looked at ever more rarely: thousands may wait for one index."""
    delay = min(0.4 * 1.5 ** min(claim.looks, 12), FILES_S) * (1 + 0.2 * jitter)
    fields: Fields = {"looks": claim.looks + 1, "errors": None, "limited": None, "note": note[:300]}
    return moved(claim, "defer", delay=delay, fields=fields)


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
        count = "1 file" if len(found.failed) == 1 else f"{len(found.failed)} files"
        return end(claim, "index_failed", f"the service could not read {count} of the message: {told}")
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
    return moved(
        claim,
        "prepare",
        delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S,
        # A thread that vanishes every time it was made is not remade for ever.
        fields={
            "thread": thread_id,
            "looks": None,
            ACCOUNT_FIELD: account,
            KEEP_FIELD: keep,
            **CLEAN,
            "gone": claim.gone or None,
            **({} if held is None else {"held": held}),
        },
    )


def not_yet(claim: Claim, wait_s: float) -> Decision:
    """The account's limit leaves no permit for the job soon: it comes back when its turn comes."""
    message = f"the account's limit: {wait_s:.0f} s"
    return limited(claim, Limited(OWN_LIMIT, message, retry_after=wait_s), "defer", 0.0)


def not_prepared(claim: Claim, error: CallError, jitter: float) -> Decision:
    """Preparing is free: whatever happened, no run exists and nothing was paid."""
    match error:
        case Refused():
            return end(claim, error.code, error.message)
        case Limited():
            return limited(claim, error, "defer", jitter)
        case Blocked():
            return blocked(claim, error, "defer")
    errors = claim.errors + 1
    if errors > MOST_ERRORS:
        return end(claim, "upstream", f"{errors} calls in a row failed; the last: {error}")
    return moved(claim, "defer", delay=backoff(errors, jitter), fields={"errors": errors, "note": str(error)[:300]})


# -- in a conversation -------------------------------------------------------------------------------------


def waits(claim: Claim, turn: Waits, jitter: float) -> Decision:
    """The question before it has not ended. Looked at ever more rarely, because it will be told: ten thousand that wait
    must cost next to nothing."""
    delay = WAIT_FOR_TURN_S if turn.deep else min(TURN_S * 2.0 ** min(claim.looks, 10), WAIT_FOR_TURN_S)
    note = f"waits for question {turn.row} of its conversation"
    fields: Fields = {"looks": claim.looks + 1, "errors": None, "limited": None, "note": note}
    return moved(claim, "defer", delay=delay * (1 + 0.2 * jitter), fields=fields)


def joined_again(claim: Claim, mark: str) -> Decision:
    """The request to mend an answer is in the thread: the next run is told from the one it is about by the mark."""
    fields: Fields = {
        "joined": mark,
        "previous": claim.refers,
        "refers": None,
        "history": None if claim.spent is None else claim.spent.total_tokens,
        "looks": None,
        **CLEAN,
    }
    return moved(claim, "prepare", delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S, fields=fields)


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
        **CLEAN,
        **({} if held is None else {"held": held}),
    }
    return moved(claim, "prepare", delay=min(0.0, claim.was_due - claim.now) - PREPARED_AHEAD_S, fields=fields)


def not_joined(claim: Claim, error: CallError, assistant: Assistant, jitter: float) -> Decision:
    """Joining is free, and a thread with earlier turns cannot be made anew."""
    match error:
        case Gone():
            gone = claim.gone + 1
            if gone > MOST_GONE:
                return end(claim, "conversation_vanished", error.message)
            return moved(claim, "defer", delay=backoff(gone, jitter), fields={"gone": gone, "note": str(error)[:300]})
        case Busy():
            # The question before has ended, and its run not yet, or not for all to see.
            since = claim.limited_at if claim.limited_at is not None else claim.now
            if claim.now - since > assistant.timeout_s:
                return end(claim, "conversation_busy", error.message)
            told: Fields = {"limited": since, "note": f"waits for its conversation: {error.message}"[:300]}
            return moved(claim, "defer", delay=min(max(0.5, 0.3 * (claim.now - since)), 15.0), fields=told)
    return not_prepared(claim, error, jitter)


def intent(claim: Claim, lease_s: float, *, told: bool = False) -> Move:
    """The durable record that precedes the paid call. The lease is kept. `told`: it will be on record when the call
    leaves (`send`)."""
    fields: Fields = {
        "attempts": claim.attempts + 1,
        "looks": None,
        "witness": None,
        "errors": None,
        "note": None,
        "live": 1 if claim.question is not None and claim.question.stream else None,
        "unsent": 1 if told else None,
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


def send(claim: Claim, lease_s: float) -> Move:
    """The call of the intent leaves now."""
    return Move(job=claim.id, fence=claim.fence, name="send", delay=lease_s, fields={"unsent": None})


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
        **CLEAN,
        **run_made(claim),
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
    return moved(claim, "start", delay=delay, fields=fields)


def not_created(claim: Claim, error: CallError, jitter: float) -> Decision:
    """The paid call brought no run id. `claim` is as it was before the intent."""
    never: Fields = {"attempts": claim.attempts, "looks": None}
    void = way_back(claim)
    match error:
        case Refused():
            return end(claim, error.code, error.message, fields=never)
        case Limited():
            return limited(claim, error, void, jitter, never)
        case Blocked():
            return blocked(claim, error, void, never)
        case Gone():
            gone = claim.gone + 1
            if gone > MOST_GONE:
                code = "thread_vanished" if claim.joined is None else "conversation_vanished"
                return end(claim, code, error.message, fields=never)
            if claim.joined is not None or claim.open_rounds:
                # What was said in it cannot be made anew. Reads may lag behind writes, so it is tried again.
                return moved(claim, void, delay=backoff(gone, jitter), fields={**never, "gone": gone})
            anew: Fields = {**never, "thread": None, "resets": claim.resets + 1, "gone": gone}
            return moved(claim, "void", delay=backoff(gone, jitter), fields=anew)
        case Busy():
            told: Fields = {"errors": claim.errors + 1, "note": "the thread is busy: looking for our run in it"}
            return moved(claim, "defer", delay=0.2, fields=told)
    # Ambiguous, and anything a new adapter may invent: a run may exist, so it is looked for before anything else.
    return moved(
        claim,
        "defer",
        delay=min(SETTLE_S, 1.0),
        fields={
            "errors": claim.errors + 1,
            "note": f"the reply to the create was lost ({error.code}): looking for the run"[:300],
        },
    )


def not_sent(claim: Claim) -> Decision:
    """The intent is on record, and its call was not made: the claim had become too old. `claim` is as before it."""
    return moved(claim, way_back(claim), fields={"attempts": claim.attempts, "looks": None})
