"""A question's turn in its conversation: whether it has come, and what the question joins then.

Nothing but the records of the questions before it decides that, one after the other and each read by itself: they live
in other shards.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.files.model import Attachment
from askq.ids import job_id, split_job_id
from askq.jobs.model import Claim, Earlier, State
from askq.jobs.store import Store
from worker.protocols.base import Before


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A question before it has not ended."""

    row: str
    deep: bool
    """Whether that one waits for its own turn, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The conversation does not go on."""

    code: str
    """A key of `askq.ends.ENDS`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joins:
    """Its turn has come, in a conversation that others have begun."""

    before: Before
    previous: str | None
    """The run to go on from, where the service knows no conversations."""
    history: int | None
    """Tokens of the conversation so far; None where nobody knows."""
    held: tuple[Attachment, ...] = ()
    """Files of the conversation so far, where the service does not remember them."""


Turn = Waits | Stopped | Joins
"""None stands for the first question: it begins the conversation."""


async def turn(store: Store, claim: Claim, assistant: Assistant) -> Turn | None:
    """Where a question stands in its conversation. Raises StoreError."""
    batch, row = split_job_id(claim.id)
    at = claim.after
    while at is not None:
        (seen,) = await asyncio.to_thread(store.follow, [(job_id(batch, at), row)])
        if seen is None:
            return Stopped(code="conversation_vanished", message=f"the record of {at}, the question before it, is gone")
        if not seen.state.terminal:
            return Waits(row=at, deep=seen.state is State.QUEUED and seen.after is not None)
        # An answer that may still come would be taken for that of the next question.
        if seen.state is not State.COMPLETED and (assistant.on_failure == "stop" or seen.state is State.UNCERTAIN):
            return Stopped(code="conversation_stopped", message=_why(at, seen))
        if seen.thread_id is not None:
            return _joins(seen)
        # It ended before it came so far: what it would have joined is what the one before it left.
        at = seen.after
    return None


async def files_before(store: Store, claim: Claim) -> frozenset[str]:
    """Ids of the files that the questions before it in its conversation have brought. Code goes on in their container,
    whose list has them still. Raises StoreError."""
    batch, _ = split_job_id(claim.id)
    found: set[str] = set()
    at = claim.after
    while at is not None:
        job = await asyncio.to_thread(store.job, job_id(batch, at))
        if job is None:
            break
        files = () if job.answer is None else job.answer.files
        found.update(str(file["file_id"]) for file in files if file.get("file_id"))
        at = job.after
    return frozenset(found)


def _joins(seen: Earlier) -> Joins:
    done = seen.state is State.COMPLETED
    return Joins(
        before=Before(
            thread_id=seen.thread_id or "",
            run_id=seen.run_id or seen.joined or "",
            joined=seen.joined or "",
            answered=done,
        ),
        previous=(seen.run_id if done else None) or seen.previous,
        history=seen.tokens,
        held=seen.held,
    )


def _why(row: str, seen: Earlier) -> str:
    if seen.error_code == "conversation_stopped" and seen.error_message:
        return seen.error_message
    code = f" ({seen.error_code})" if seen.error_code not in (None, seen.state.value) else ""
    return f"question {row} of the conversation ended {seen.state}{code}"
