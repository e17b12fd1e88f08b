"""A job as an output line of OpenAI's Batch API, so that programs that read those lines need no change.

The body has the shape of the endpoint the row asked for: a chat completion for `/v1/chat/completions`, else a
response. What did not end with an answer has no response but an `error`; a job that is still pending too, with its
state as the code.
"""

from __future__ import annotations

from typing import Any

from askq.jobs.model import Job, State
from producer.answers.record import to_record

_CHAT_URL = "/v1/chat/completions"


def to_openai_line(job: Job) -> dict[str, Any]:
    """The job as `{id, custom_id, response: {status_code, request_id, body} | null, error: {code, message} | null}`."""
    record = to_record(job)
    line: dict[str, Any] = {"id": record["id"], "custom_id": record["custom_id"], "response": None, "error": None}
    if job.state in (State.COMPLETED, State.INCOMPLETE):
        make = _chat_completion if job.question.input.get("url") == _CHAT_URL else _response
        line["response"] = {"status_code": 200, "request_id": job.run_id, "body": make(job, record)}
    elif record["error"] is not None:
        line["error"] = {"code": record["error"]["code"], "message": record["error"]["message"]}
    else:
        line["error"] = {"code": job.state.value, "message": "The job has not ended yet."}
    return line


def _seconds(job: Job) -> int:
    return int(job.started_at or job.created_at)


def _response(job: Job, record: dict[str, Any]) -> dict[str, Any]:
    usage = record["usage"]
    text = record["answer"]
    complete = job.state is State.COMPLETED
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": record["citations"]}]
    return {
        "id": job.run_id,
        "object": "response",
        "created_at": _seconds(job),
        "status": "completed" if complete else "incomplete",
        "error": None,
        "incomplete_details": None if complete else {"reason": record["error"]["code"]},
        "model": record["model"],
        "output": [
            {
                "id": f"msg_{job.id}",
                "type": "message",
                "role": "assistant",
                "status": "completed" if complete else "incomplete",
                "content": content,
            }
        ],
        "usage": None
        if usage["total_tokens"] is None
        else {
            "input_tokens": usage["input_tokens"],
            "input_tokens_details": {"cached_tokens": usage["cached_tokens"]},
            "output_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        },
    }


def _chat_completion(job: Job, record: dict[str, Any]) -> dict[str, Any]:
    usage = record["usage"]
    if job.state is State.COMPLETED:
        finish = "stop"
    else:
        finish = "content_filter" if record["error"]["code"] == "content_filter" else "length"
    return {
        "id": job.run_id,
        "object": "chat.completion",
        "created": _seconds(job),
        "model": record["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": record["answer"], "refusal": None},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": None
        if usage["total_tokens"] is None
        else {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["cached_tokens"]},
        },
    }
