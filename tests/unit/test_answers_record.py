"""The result line, and the output line of OpenAI's Batch API."""

from __future__ import annotations

import dataclasses
import json

import pytest

from askq.ends import ENDS
from askq.jobs.model import PENDING, Answer, Job, Question, State, Usage
from producer.answers.openai_lines import to_openai_line
from producer.answers.record import KEYS, to_record

QUESTION = Question(row_id="r.1", index=0, text="Solve 3x + 11 = 14", input={"lang": "en", "n": 1})
USAGE = Usage(input_tokens=20, cached_tokens=5, output_tokens=7, total_tokens=27, cost_usd=0.00012)
JOB = Job(
    id="b_01.r.1",
    index=0,
    state=State.COMPLETED,
    question=QUESTION,
    assistant="tutor",
    assistant_digest="d",
    protocol="responses",
    attempts=1,
    runs=1,
    thread_id="conv_1",
    run_id="resp_1",
    answer=Answer(
        text="x = 1",
        citations=({"title": "t"},),
        code=({"input": "1", "output": "1"},),
        files=({"file_id": "f"},),
        model="m-2026",
        usage=USAGE,
    ),
    created_at=1_795_426_200.0,
    started_at=1_795_426_201.25,
    completed_at=1_795_426_203.5,
)


def ended(state: State, code: str | None, *, text: str | None = None, message: str | None = None) -> Job:
    return dataclasses.replace(
        JOB, state=state, error_code=code, error_message=message, answer=Answer(text=text) if text else None
    )


def test_a_result_line_has_the_promised_keys_in_order() -> None:
    record = to_record(JOB)
    assert tuple(record) == KEYS
    assert record == {
        "id": "b_01.r.1",
        "custom_id": "r.1",
        "batch": "b_01",
        "status": "completed",
        "question": "Solve 3x + 11 = 14",
        "answer": "x = 1",
        "error": None,
        "assistant": "tutor",
        "protocol": "responses",
        "model": "m-2026",
        "thread": None,
        "thread_id": "conv_1",
        "run_id": "resp_1",
        "attempts": 1,
        "usage": {
            "input_tokens": 20,
            "cached_tokens": 5,
            "output_tokens": 7,
            "total_tokens": 27,
            "cost_usd": 0.00012,
        },
        "created_at": "2026-11-23T09:30:00.000Z",
        "started_at": "2026-11-23T09:30:01.250Z",
        "completed_at": "2026-11-23T09:30:03.500Z",
        "files": [{"file_id": "f"}],
        "citations": [{"title": "t"}],
        "code": [{"input": "1", "output": "1"}],
        "output": None,
        "input": {"lang": "en", "n": 1},
    }
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_pending_job_has_its_state_and_no_answer(state: State) -> None:
    job = dataclasses.replace(
        JOB, state=state, started_at=None, completed_at=None, error_code="upstream", error_message="not the end"
    )
    record = to_record(dataclasses.replace(job, question=dataclasses.replace(QUESTION, model="asked-for")))
    assert tuple(record) == KEYS
    assert record["status"] == state.value
    assert (record["answer"], record["error"], record["output"], record["completed_at"]) == (None, None, None, None)
    assert (record["files"], record["citations"], record["code"]) == ([], [], [])
    assert record["model"] == "asked-for"


def test_usage_keeps_its_keys_when_nothing_is_known() -> None:
    assert set(to_record(ended(State.FAILED, "server_error"))["usage"].values()) == {None}


@pytest.mark.parametrize("code", sorted(ENDS))
def test_every_end_has_its_advice(code: str) -> None:
    end = ENDS[code]
    assert to_record(ended(end.state, code, message="as the service said"))["error"] == {
        "code": code,
        "message": "as the service said",
        "retryable": end.retryable,
        "remedy": end.remedy,
    }


def test_ends_without_a_code_or_with_an_unknown_one() -> None:
    assert to_record(ended(State.CANCELLED, None))["error"] == {
        "code": "cancelled",
        "message": "The job ended as cancelled.",
        "retryable": True,
        "remedy": ENDS["cancelled"].remedy,
    }
    error = to_record(ended(State.FAILED, "from_the_future"))["error"]
    assert (error["code"], error["retryable"]) == ("from_the_future", False)
    assert error["remedy"] == "This version of askq knows no advice for the code; see the message."


def test_a_partial_text_is_kept() -> None:
    record = to_record(ended(State.INCOMPLETE, "max_output_tokens", text='{"a": 1}'))
    assert record["answer"] == '{"a": 1}'
    assert record["error"]["code"] == "max_output_tokens"
    assert record["output"] is None


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ('{"x": [1, null]}', {"x": [1, None]}),
        ("\n [1, 2]\n", [1, 2]),
        ("42", None),
        ('"text"', None),
        ("{x = 1}", None),
        ("[1] is a source", None),
        ('{"x": NaN}', None),
        ('{"x": 1e999}', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_structured_answers(text: str, output: object) -> None:
    assert to_record(dataclasses.replace(JOB, answer=Answer(text=text)))["output"] == output


def test_an_openai_line_of_a_response() -> None:
    assert to_openai_line(JOB) == {
        "id": "b_01.r.1",
        "custom_id": "r.1",
        "response": {
            "status_code": 200,
            "request_id": "resp_1",
            "body": {
                "id": "resp_1",
                "object": "response",
                "created_at": 1_795_426_201,
                "status": "completed",
                "error": None,
                "incomplete_details": None,
                "model": "m-2026",
                "output": [
                    {
                        "id": "msg_b_01.r.1",
                        "type": "message",
                        "role": "assistant",
                        "status": "completed",
                        "content": [{"type": "output_text", "text": "x = 1", "annotations": [{"title": "t"}]}],
                    }
                ],
                "usage": {
                    "input_tokens": 20,
                    "input_tokens_details": {"cached_tokens": 5},
                    "output_tokens": 7,
                    "total_tokens": 27,
                },
            },
        },
        "error": None,
    }


def test_an_openai_line_of_a_chat_completion() -> None:
    question = dataclasses.replace(QUESTION, input={"url": "/v1/chat/completions"})
    line = to_openai_line(dataclasses.replace(JOB, question=question))
    body = line["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "x = 1"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 7,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 5},
    }


@pytest.mark.parametrize(
    ("code", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("incomplete", "length")],
)
def test_openai_lines_of_partial_answers(code: str, finish: str) -> None:
    job = ended(State.INCOMPLETE, code, text="half")
    body = to_openai_line(job)["response"]["body"]
    assert (body["status"], body["incomplete_details"], body["usage"]) == ("incomplete", {"reason": code}, None)
    chat = dataclasses.replace(job, question=dataclasses.replace(QUESTION, input={"url": "/v1/chat/completions"}))
    choice = to_openai_line(chat)["response"]["body"]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("half", finish)


def test_openai_lines_without_an_answer() -> None:
    line = to_openai_line(ended(State.FAILED, "bad_request", message="no such parameter"))
    assert (line["response"], line["error"]) == (None, {"code": "bad_request", "message": "no such parameter"})
    line = to_openai_line(dataclasses.replace(JOB, state=State.RUNNING))
    assert (line["response"], line["error"]) == (None, {"code": "running", "message": "The job has not ended yet."})


def test_the_sdk_reads_the_bodies() -> None:
    """The promise of the format: programs written for OpenAI's lines need no change."""
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    line = to_openai_line(dataclasses.replace(JOB, answer=Answer(text="x = 1", model="m", usage=USAGE)))
    body = line["response"]["body"]
    assert Response.construct(**body).output_text == "x = 1"
    question = dataclasses.replace(QUESTION, input={"url": "/v1/chat/completions"})
    line = to_openai_line(dataclasses.replace(JOB, question=question))
    completion = ChatCompletion.model_validate(line["response"]["body"])
    assert completion.choices[0].message.content == "x = 1"
