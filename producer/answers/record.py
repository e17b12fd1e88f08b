"""The result line: what askq promises to tell about a job, whatever its state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from askq.ends import ENDS
from askq.jobs.model import Job, State
from askq.structured import unfenced
from producer.strict_json import JsonFault, parse

KEYS = (
    "id",
    "custom_id",
    "batch",
    "status",
    "question",
    "answer",
    "error",
    "assistant",
    "protocol",
    "model",
    "thread",
    "thread_id",
    "run_id",
    "attempts",
    "usage",
    "created_at",
    "started_at",
    "completed_at",
    "files",
    "citations",
    "code",
    "tool_calls",
    "output",
    "input",
)
"""The keys of a result line, in order. All are always there."""

USAGE_KEYS = ("input_tokens", "cached_tokens", "output_tokens", "total_tokens", "cost_usd")


def to_record(job: Job) -> dict[str, Any]:
    """A job as its result line, ready for JSON.

    A pending job has its state as status and null for the answer and the error. The values of `usage` are null as
    long as the service has reported none; `cost_usd` also where no price is known. `model` is the one that answered,
    or else the one the row asked for. Times are ISO-8601 in UTC with milliseconds.
    """
    batch, _, row_id = job.id.partition(".")
    answer = job.answer if job.state.terminal else None
    text = None if answer is None else answer.text
    return {
        "id": job.id,
        "custom_id": row_id,
        "batch": batch,
        "status": job.state.value,
        "question": job.question.text,
        "answer": text,
        "error": _error(job),
        "assistant": job.assistant,
        "protocol": job.protocol,
        "model": (answer.model if answer else None) or job.question.model,
        "thread": job.question.thread,
        "thread_id": job.thread_id or None,
        "run_id": job.run_id,
        "attempts": job.attempts,
        "usage": _usage(job),
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "completed_at": timestamp(job.completed_at),
        "files": [dict(part) for part in answer.files] if answer else [],
        "citations": [dict(part) for part in answer.citations] if answer else [],
        "code": [dict(part) for part in answer.code] if answer else [],
        "tool_calls": [dict(part) for part in answer.tool_calls] if answer else [],
        "output": _structured(text) if job.state is State.COMPLETED else None,
        "input": dict(job.question.input),
    }


def timestamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO-8601 in UTC with milliseconds: `2026-11-23T09:30:00.250Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _usage(job: Job) -> dict[str, int | float | None]:
    usage = job.answer.usage if job.answer else None
    if usage is None:
        return dict.fromkeys(USAGE_KEYS)
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cost_usd": usage.cost_usd,
    }


def _error(job: Job) -> dict[str, Any] | None:
    if not job.state.terminal or job.state is State.COMPLETED:
        return None
    code = job.error_code or job.state.value
    end = ENDS.get(code)
    if end is not None:
        retryable, remedy = end.retryable, end.remedy
    else:
        retryable, remedy = False, "This version of askq knows no advice for the code; see the message."
    return {
        "code": code,
        "message": job.error_message or f"The job ended as {job.state.value}.",
        "retryable": retryable,
        "remedy": remedy,
    }


def _structured(text: str | None) -> Mapping[str, object] | list[object] | None:
    """The object or list an answer consists of. A bare number or string is an ordinary answer, not a structure."""
    plain = unfenced(text) if text is not None else ""
    if not plain.startswith(("{", "[")):
        return None
    try:
        value = parse(plain)
    except JsonFault:
        return None
    return value if isinstance(value, dict | list) else None
