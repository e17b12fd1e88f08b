"""While a run exists: polls, cancelling, fetching what it made, and its end."""

from __future__ import annotations

import dataclasses

from askq.assistants.model import Assistant
from askq.jobs.codec import files_brought
from askq.jobs.model import FINISHING, Answer, Claim, Move, Usage
from askq.jobs.took import seen_between
from worker.protocols.base import CallError, Gone, Refused, RunState, Status
from worker.schedule import CANCEL_GRACE_S, Pace, backoff, before_deadline, until_poll
from worker.steps.decision import (
    CLEAN,
    DEADLINE_ERRORS_S,
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

STREAMED_S = 5.0
"""How rarely a run is polled that the service does not show: whoever reads its stream may have died."""
MOST_GONE_TO_CANCEL = 2
"""404s in a row before a run that is to be cancelled counts as one that the service does not show."""


def to_cancel(claim: Claim) -> bool:
    """Whether the service must be told to cancel the run: a person wants it, or it has outlived its deadline."""
    return not claim.cancel_sent and (claim.cancel is not None or _overdue(claim))


def _overdue(claim: Claim) -> bool:
    return claim.deadline is not None and claim.now > claim.deadline


def polled(claim: Claim, status: Status, assistant: Assistant, jitter: float, pace: Pace | None = None) -> Decision:
    """One poll was answered."""
    fields: dict[str, str | int | float | None] = {"polls": claim.polls + 1, "remote": status.raw, **CLEAN}
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
            # A clock that was set back since makes no run older than it is.
            age = max(0.0, claim.now - (claim.started_at or claim.now))
            delay = 1.0 if "cancel_sent" in fields else until_poll(assistant, age, status.poll_after, jitter, pace)
            if claim.deadline is not None:
                delay = before_deadline(delay, claim.deadline - claim.now, jitter)
            fields["seen"] = round(age, 2)
            return moved(claim, "poll", delay=delay, fields=fields)
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
            return moved(claim, "collect", fields=fields)
    return finished(claim, status, fields)


def _why_cancelled(claim: Claim, fields: Fields) -> str | None:
    """Why the service was told to cancel, by an earlier poll or in this very step."""
    return claim.cancel or ("deadline" if fields.get("cancel") == "deadline" else None)


def makes_files(answer: Answer) -> bool:
    """Whether there may be something to fetch: files, or a container in which code has run."""
    return bool(answer.files) or any(call.get("container_id") for call in answer.code)


def unfetched(answer: Answer) -> bool:
    """Whether something of what there is to fetch (`makes_files`) was not looked for yet."""
    return makes_files(answer) and not (answer.files and all({"path", "error"} & file.keys() for file in answer.files))


def is_end(decision: Decision) -> bool:
    """Whether the job ends, and not with the answer of a run that has completed."""
    return decision.move.name != "complete" and decision.move.name in FINISHING.values()


def not_fetched(claim: Claim, why: str, jitter: float) -> Decision:
    """Files of the answer could not be fetched; it is tried again as long as that may help."""
    errors = claim.errors + 1
    note = f"fetching the files of the answer: {why}"[:300]
    return moved(claim, "defer", delay=backoff(min(errors, 5), jitter), fields={"errors": errors, "note": note})


def waits_to_fetch(claim: Claim) -> Decision:
    """Others fetch files already."""
    return moved(claim, "defer", delay=1.0, fields={"note": "waits for its turn to fetch the files of the answer"})


def took(claim: Claim, status: Status, share: float) -> list[int]:
    """What a poll tells of how long runs take (`askq.jobs.took`). One that has ended did so somewhere between the last
    two polls, so at a `share` in [0, 1] of that time. Nothing for a run that has not ended by itself."""
    ended = status.state in (RunState.DONE, RunState.INCOMPLETE)
    if not (ended or status.state is RunState.PENDING) or claim.started_at is None or claim.cancel_sent:
        return []
    if claim.open_rounds and claim.began_at is None:
        return []  # it has waited for functions meanwhile
    age, seen = max(0.0, claim.now - claim.started_at), claim.seen or 0.0
    return seen_between(seen, seen + share * max(0.0, age - seen) if ended else age, ended=ended)


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
    return end(claim, code, message, fields=fields, answer=with_usage(status.answer, status.usage), usage=status.usage)


def answered(claim: Claim, answer: Answer, fields: Fields, *, usage: Usage | None) -> Decision:
    """The answer is here: the job completes, or ends as its run's end says."""
    answer = with_usage(answer, usage) or answer
    if claim.error_code is not None:
        return end(claim, claim.error_code, claim.error_message or "the run ended early", fields=fields, answer=answer)
    if answer.text is None and not answer.code and not answer.files:
        return end(claim, "no_answer", "the run completed without an assistant message", fields=fields, answer=answer)
    answer = dataclasses.replace(answer, usage=summed(claim, answer.usage))
    kept: Fields = {**CLEAN, **fields}
    files = (*files_brought(claim.brought), *answer.files)
    if unfetched := [file for file in files if "error" in file]:
        why = unfetched[0]["error"]["message"]
        kept = {**kept, "note": f"{len(unfetched)} of {len(files)} files were not kept: {why}"[:300]}
    if _why_cancelled(claim, fields) is not None:
        kept = {**kept, "note": "the run completed although it was to be cancelled"}
    return Decision(Move(job=claim.id, fence=claim.fence, name="complete", fields=kept, answer=answer))


def not_polled(claim: Claim, error: CallError, jitter: float) -> Decision:
    """A poll (or fetching the answer) failed: a failed poll is not a failed run."""
    if (later := put_off(claim, error, jitter)) is not None:
        return later
    errors, gone = failures(claim, error)
    if gone > MOST_GONE:
        return end(claim, "run_vanished", error.message, usage=claim.usage)
    if claim.deadline is not None and claim.now > claim.deadline + DEADLINE_ERRORS_S:
        return end(
            claim, "deadline", f"unreachable long after its deadline; the last error: {error}", usage=claim.usage
        )
    fields: Fields = {"errors": errors, "gone": gone or None, "note": str(error)[:300]}
    return moved(claim, "defer", delay=backoff(errors, jitter), fields=fields)


def not_shown(error: CallError) -> bool:
    """Whether the service answers that nobody can look at this run, or at any."""
    return isinstance(error, (Gone, Refused)) or error.code in ("endpoint_gone", "http_404")


def told_elsewhere(claim: Claim, error: CallError, jitter: float) -> Decision:
    """The service does not show the run, and somebody reads its stream: that brings the end, on servers that keep no
    responses. To cancel such a run is to hang up, which whoever reads it does when the job has ended."""
    if not to_cancel(claim):
        return moved(claim, "defer", delay=STREAMED_S * (1 + 0.2 * jitter), fields=CLEAN)
    gone = claim.gone + 1
    if gone > MOST_GONE_TO_CANCEL:
        code = _cancelled(claim, {"cancel": claim.cancel or "deadline"})
        return end(claim, code, f"hung up on a run that the service does not show: {error.message}")
    return moved(claim, "defer", delay=backoff(1, jitter) / 2, fields={"gone": gone, "note": str(error)[:300]})
