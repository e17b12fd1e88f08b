"""The services' words for why a run ended, in askq's (protocols A.4, B.3)."""

from __future__ import annotations

from askq.ends import ENDS

_FAILURES = {
    "data_residency_mismatch": "bad_request",
    "failed_to_download_image": "invalid_image",
    "image_content_policy_violation": "content_policy",
}
_INCOMPLETE = {
    "max_completion_tokens": "max_output_tokens",
    "max_output_tokens": "max_output_tokens",
    "max_prompt_tokens": "max_prompt_tokens",
    "content_filter": "content_filter",
}


def code_of_failure(code: object) -> str:
    """The end of a job whose run failed with this code."""
    text = str(code or "")
    if text in _FAILURES:
        return _FAILURES[text]
    if text in ENDS:
        return text
    if "policy" in text:
        return "content_policy"
    if "image" in text:
        return "invalid_image"
    return "run_failed"


def code_of_incomplete(reason: object) -> str:
    """The end of a job whose run stopped early for this reason."""
    return _INCOMPLETE.get(str(reason or ""), "incomplete")
