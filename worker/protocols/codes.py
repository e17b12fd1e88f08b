"""The services' words for why a run ended or a request was refused, in askq's (protocols A.4, B.3, C.4)."""

from __future__ import annotations

import re

from worker.protocols.base import RunState
from worker.protocols.fields import JsonObject, a_text

FAILURES = {
    "server_error": "server_error",
    "rate_limit_exceeded": "rate_limit_exceeded",
    "invalid_prompt": "invalid_prompt",
    "context_length_exceeded": "context_length_exceeded",
    "data_residency_mismatch": "bad_request",
    "bio_policy": "content_policy",
    "misalignment_policy_violation": "content_policy",
    "content_filter": "content_policy",
    "vector_store_timeout": "vector_store_timeout",
    "invalid_image": "invalid_image",
    "invalid_image_format": "invalid_image",
    "invalid_base64_image": "invalid_image",
    "invalid_image_url": "invalid_image",
    "image_too_large": "invalid_image",
    "image_too_small": "invalid_image",
    "image_parse_error": "invalid_image",
    "image_content_policy_violation": "content_policy",
    "invalid_image_mode": "invalid_image",
    "image_file_too_large": "invalid_image",
    "unsupported_image_media_type": "invalid_image",
    "empty_image_file": "invalid_image",
    "failed_to_download_image": "invalid_image",
    "image_file_not_found": "invalid_image",
}
"""Codes of failed runs. A test says that every one the SDK knows is here."""

INCOMPLETE = {
    "max_completion_tokens": "max_output_tokens",
    "max_output_tokens": "max_output_tokens",
    "max_prompt_tokens": "max_prompt_tokens",
    "content_filter": "content_filter",
    "max_messages": "incomplete",
    "steered": "incomplete",
}
"""Reasons of incomplete runs. A test says that every one the SDK knows is here."""

_TOO_LONG = re.compile(r"maximum context length|context window|context_length", re.IGNORECASE)


def code_of_failure(code: object) -> str:
    """The end of a job whose run failed with this code."""
    text = str(code or "")
    if text in FAILURES:
        return FAILURES[text]
    if "policy" in text:
        return "content_policy"
    return "invalid_image" if "image" in text else "run_failed"


def code_of_incomplete(reason: object) -> str:
    """The end of a job whose run stopped early for this reason."""
    return INCOMPLETE.get(str(reason or ""), "incomplete")


def why_ended(state: RunState, error: JsonObject, details: JsonObject) -> tuple[str | None, str | None]:
    """Why a run ended otherwise than completed: the code of the job's end, and words.

    `error` and `details` are the run's own, which both protocols shape alike; empty where it has none.
    """
    match state:
        case RunState.FAILED:
            return code_of_failure(error.get("code")), a_text(error.get("message")) or a_text(error.get("code")) or None
        case RunState.INCOMPLETE:
            reason = details.get("reason")
            return code_of_incomplete(reason), f"the run stopped early: {reason or 'no reason given'}"
        case RunState.CANCELLED:
            return "cancelled_remotely", None
        case RunState.EXPIRED:
            return "run_expired", None
    return None, None


def code_of_refusal(code: str, message: str) -> str:
    """The end of a job whose request was refused: never one that says that a run existed."""
    end = code_of_failure(code)
    if end in ("context_length_exceeded", "content_policy", "invalid_image", "invalid_prompt"):
        return end
    # Several servers put only words beside a general code.
    return "context_length_exceeded" if _TOO_LONG.search(message) else "bad_request"
