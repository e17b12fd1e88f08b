"""Structured output: an answer must fit its assistant's schema, or the job ends so, or is asked once to do it again."""

from __future__ import annotations

import dataclasses

from askq.assistants.model import Assistant
from askq.ends import ENDS
from askq.jobs.codec import dump_brought, dump_usage
from askq.jobs.model import FINISHING, Answer, Claim, Move, Usage
from askq.structured import why_invalid
from worker.steps.decision import added

MOST_CORRECTIONS = 1
_OF_ROUNDS = ("earlier", "acted", "began")
"""Fields that speak of the functions asked for on the way to one answer."""


def correction(reason: str) -> str:
    """What is asked in place of the question, in the same conversation."""
    return (
        f"Your last answer cannot be used: {reason}. "
        "Answer again with JSON that fits the schema, and with nothing else."
    )


def judged(claim: Claim, move: Move, assistant: Assistant) -> Move:
    """The move to make instead of one that ends a job, where a schema is asked for: the same if the answer fits, the
    job's other end if it does not, or one that asks again. What earlier attempts have used is added."""
    schema = assistant.schema
    if schema is None or move.answer is None or move.name not in FINISHING.values():
        return _whole(claim, move)
    if move.name != "complete":
        return _whole(claim, move)
    if move.answer.refused:
        return _whole(claim, _end(move, "refused", "the model has refused to answer"))
    reason = why_invalid(move.answer.text, schema)
    if reason is None:
        return _whole(claim, move)
    if assistant.on_invalid == "retry" and claim.fixes < MOST_CORRECTIONS and claim.cancel is None:
        return _again(claim, move, reason)
    return _whole(claim, _end(move, "invalid_output", reason))


def _end(move: Move, code: str, message: str) -> Move:
    fields = {**move.fields, "error_code": code, "error_message": message[:2000]}
    return dataclasses.replace(move, name=FINISHING[ENDS[code].state], fields=fields)


def _again(claim: Claim, move: Move, reason: str) -> Move:
    """The job is queued once more, with what it has cost so far and the run that is to be corrected.

    Functions that were called on the way have done what they do: their calls stay on record, under their numbers, and
    so do code and files. The second answer, as a rule, repeats nothing but the text.
    """
    assert move.answer is not None, "what is to be mended is an answer"
    used = _sum(claim.spent, move.answer.usage)
    made = dataclasses.replace(move.answer, citations=())
    run = move.fields.get("run", claim.run_id)
    fields: dict[str, str | int | float | None] = {
        **dict(move.fields),
        "fixes": claim.fixes + 1,
        "wrong": reason,
        "refers": run or "",
        "closed": claim.rounds or None,
        "brought": dump_brought(made, claim.brought),
        "spent": None if used is None else dump_usage(used),
        "run": None,
        "note": f"asked again: {reason}"[:300],
        **dict.fromkeys(("deadline", "looks", "witness", "est", "seen", "started", *_OF_ROUNDS)),
    }
    for name in ("in", "cached", "out", "total", "cost"):
        fields[name] = None
    return Move(job=move.job, fence=move.fence, name="correct", delay=0.0, fields=fields)


def _whole(claim: Claim, move: Move) -> Move:
    """The move with the usage of all attempts."""
    if claim.spent is None or move.name not in FINISHING.values():
        return move
    answer = move.answer or Answer(text=None)
    return dataclasses.replace(move, answer=dataclasses.replace(answer, usage=_sum(claim.spent, answer.usage)))


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return added(one, other)
