"""Assistants v2 as askq speaks it: what is sent, and what is read from replies of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from askq.ends import ENDS
from askq.jobs.model import Answer, Usage
from tests.unit.protocols_stage import Service, ask, assistant
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.assistants_bodies import assistant_body, run_body
from worker.protocols.assistants_replies import read_answer
from worker.protocols.base import Ambiguous, Found, Gone, RunState, Search, Status, ToolCall

CODE = assistant(tools=({"type": "code_interpreter"},))
RUN = {"id": "run_1", "object": "thread.run", "status": "completed", "model": "gpt-test-2026", "usage": None}


async def polled(run: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Status:
    service = Service()
    service.says(run, headers=headers)
    async with service.client() as client:
        status = await AssistantsProtocol(client).poll("thread_1", "run_1")
    assert service.calls == ["GET /threads/thread_1/runs/run_1"]
    return status


# What is sent


async def test_the_remote_assistant_says_whose_it_is() -> None:
    service = Service()
    service.says({"id": "asst_1"})
    made = assistant(instructions="Be kind.", metadata={"team": "maths"})
    async with service.client() as client:
        assert await AssistantsProtocol(client).ensure_assistant(made) == "asst_1"
    assert service.calls == ["POST /assistants"]
    assert service.requests[0].headers["openai-beta"] == "assistants=v2"
    assert service.body() == {
        "model": "gpt-test",
        "name": "tutor",
        "instructions": "Be kind.",
        "metadata": {"team": "maths", "askq_digest": made.digest},
    }


async def test_an_assistant_that_exists_is_used_as_it_is() -> None:
    service = Service()
    async with service.client() as client:
        assert await AssistantsProtocol(client).ensure_assistant(assistant(assistant_id="asst_9")) == "asst_9"
    assert service.calls == []


def test_every_field_of_an_assistant_finds_its_place() -> None:
    full = assistant(
        description="Teaches.",
        instructions="Be kind.",
        temperature=0.0,
        top_p=0.5,
        tools=(
            {"type": "code_interpreter"},
            {"type": "file_search", "max_num_results": 3, "vector_store_ids": ["vs_1"]},
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
        ),
        tool_resources={"code_interpreter": {"file_ids": ["file-1"]}},
        reasoning_effort="low",
        text_format={"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True},
        max_output_tokens=100,
        max_prompt_tokens=200,
        truncation="auto",
        service_tier="flex",
        completion_window="8h",
    )
    assert assistant_body(full) == {
        "name": "tutor",
        "description": "Teaches.",
        "instructions": "Be kind.",
        "tools": [
            {"type": "code_interpreter"},
            {"type": "file_search", "file_search": {"max_num_results": 3}},
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
            },
        ],
        "tool_resources": {
            "code_interpreter": {"file_ids": ["file-1"]},
            "file_search": {"vector_store_ids": ["vs_1"]},
        },
        "temperature": 0.0,
        "top_p": 0.5,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
        "metadata": {"askq_digest": full.digest},
    }
    assert run_body(ask(assistant=full)) == {
        "metadata": {"askq_job": "b_1.r1", "askq_attempt": "1"},
        "max_completion_tokens": 100,
        "max_prompt_tokens": 200,
        "truncation_strategy": {"type": "auto"},
    }


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (
            {"tools": ({"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-2"]}},)},
            {
                "tools": [{"type": "code_interpreter"}],
                "tool_resources": {"code_interpreter": {"file_ids": ["file-2"]}},
            },
        ),
        ({"text_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"text_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        ),
        ({"truncation": "disabled"}, {}),
    ],
)
def test_fields_in_the_words_of_responses_are_turned_into_those_of_assistants(
    fields: dict[str, Any], body: dict[str, Any]
) -> None:
    made = assistant(**fields)
    assert assistant_body(made) == {"name": "tutor", "metadata": {"askq_digest": made.digest}, **body}
    assert "truncation_strategy" not in run_body(ask(assistant=made))


async def test_the_message_travels_with_the_thread() -> None:
    service = Service()
    service.says({"id": "thread_1"})
    async with service.client() as client:
        protocol = AssistantsProtocol(client)
        assert await protocol.prepare(ask(metadata={"team": "maths"}), "asst_1") == "thread_1"
    assert service.calls == ["POST /threads"]
    assert service.body() == {
        "messages": [{"role": "user", "content": "Why?"}],
        "metadata": {"team": "maths", "askq_job": "b_1.r1"},
    }
    key = service.requests[0].headers["idempotency-key"]
    assert key == ask().thread_key
    assert key not in {ask(resets=1).thread_key, ask(attempt=2).thread_key, ask().idempotency_key}, (
        "not a gone thread's"
    )


async def test_the_paid_call_names_job_attempt_and_key() -> None:
    service = Service()
    service.says({**RUN, "status": "queued"}, headers={"openai-poll-after-ms": "700"})
    asked = ask(attempt=2, model="gpt-other", instructions="Briefly.", metadata={"askq_job": "not this one"})
    async with service.client() as client:
        status = await AssistantsProtocol(client).start(asked, "thread_1", "asst_1")
    assert status == Status(state=RunState.PENDING, raw="queued", run_id="run_1", poll_after=0.7)
    assert service.calls == ["POST /threads/thread_1/runs"]
    assert service.body() == {
        "assistant_id": "asst_1",
        "model": "gpt-other",
        "instructions": "Briefly.",
        "metadata": {"askq_job": "b_1.r1", "askq_attempt": "2"},
    }
    key = service.requests[0].headers["idempotency-key"]
    assert key == asked.idempotency_key
    assert len(key) == 64


def test_a_key_is_one_intents_own() -> None:
    keys = {ask().idempotency_key, ask(attempt=2).idempotency_key, ask(job_id="b_1.r2").idempotency_key}
    assert len(keys) == 3
    assert ask().idempotency_key == ask(text="other words", model="other").idempotency_key


# Statuses


@pytest.mark.parametrize("raw", ["queued", "in_progress", "cancelling", "hibernating"])
async def test_a_pending_run_is_polled_again(raw: str) -> None:
    status = await polled({**RUN, "status": raw}, {"openai-poll-after-ms": "1500"})
    assert status == Status(state=RunState.PENDING, raw=raw, run_id="run_1", poll_after=1.5)


@pytest.mark.parametrize(
    ("fields", "state", "code", "message"),
    [
        ({"status": "completed"}, RunState.DONE, None, None),
        ({"status": "cancelled"}, RunState.CANCELLED, "cancelled_remotely", None),
        ({"status": "expired"}, RunState.EXPIRED, "run_expired", None),
        (
            {"status": "failed", "last_error": {"code": "rate_limit_exceeded", "message": "Too fast."}},
            RunState.FAILED,
            "rate_limit_exceeded",
            "Too fast.",
        ),
        (
            {"status": "failed", "last_error": {"code": "odd"}},
            RunState.FAILED,
            "run_failed",
            "odd",
        ),
        ({"status": "failed", "last_error": None}, RunState.FAILED, "run_failed", None),
        ({"status": "failed", "last_error": "it broke"}, RunState.FAILED, "run_failed", None),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_completion_tokens"}},
            RunState.INCOMPLETE,
            "max_output_tokens",
            "the run stopped early: max_completion_tokens",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_prompt_tokens"}},
            RunState.INCOMPLETE,
            "max_prompt_tokens",
            "the run stopped early: max_prompt_tokens",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            RunState.INCOMPLETE,
            "content_filter",
            "the run stopped early: content_filter",
        ),
        ({"status": "incomplete"}, RunState.INCOMPLETE, "incomplete", "the run stopped early: no reason given"),
    ],
)
async def test_a_run_ends(fields: dict[str, Any], state: RunState, code: str | None, message: str | None) -> None:
    status = await polled({**RUN, **fields})
    assert (status.state, status.raw, status.error_code) == (state, fields["status"], code)
    assert status.error_message == message
    assert code is None or code in ENDS


async def test_a_run_asks_for_functions() -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "call_2", "type": "function"},
    ]
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
    status = await polled({**RUN, "status": "requires_action", "required_action": action})
    assert status.state is RunState.ACTION
    assert status.tool_calls == (
        ToolCall(call_id="call_1", name="f", arguments='{"x": 1}'),
        ToolCall(call_id="call_2", name="", arguments=""),
    )


@pytest.mark.parametrize(
    "action", [None, "?", {}, {"submit_tool_outputs": []}, {"submit_tool_outputs": {"tool_calls": 3}}]
)
async def test_an_action_without_calls_is_still_an_action(action: object) -> None:
    status = await polled({**RUN, "status": "requires_action", "required_action": action})
    assert (status.state, status.tool_calls) == (RunState.ACTION, ())


async def test_a_run_without_its_fields_breaks_nothing() -> None:
    assert (await polled({"id": "run_1"})).raw == "unknown"
    assert (await polled({"id": "run_1", "status": None})).state is RunState.PENDING
    assert (await polled({"id": "run_1", "status": ["completed"]})).state is RunState.PENDING
    assert (await polled({"status": "completed"})).run_id == "run_1"
    with pytest.raises(Ambiguous, match="neither status nor id"):
        await polled({"error": "busy"})


async def test_usage_is_normalised_and_priced_at_openai_alone() -> None:
    used = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    run = {**RUN, "model": "gpt-5", "usage": used}
    expected = Usage(input_tokens=1000, cached_tokens=400, output_tokens=100, total_tokens=1100)
    assert (await polled(run)).usage == expected
    service = Service()
    service.says(run)
    async with service.client("https://api.openai.com/v1") as client:
        status = await AssistantsProtocol(client).poll("thread_1", "run_1")
    assert status.usage is not None
    assert status.usage.cost_usd == pytest.approx((600 * 1.25 + 400 * 0.125 + 100 * 10) / 1e6)


# The way back


async def found(*runs: object, attempt: int = 1) -> Found:
    service = Service()
    service.lists(*runs)
    async with service.client() as client:
        return await AssistantsProtocol(client).find_started(ask(attempt=attempt), "thread_1")


def run_of(run_id: str, job: str | None = "b_1.r1", attempt: str | None = "1", **fields: Any) -> dict[str, Any]:
    marks = {"askq_job": job, "askq_attempt": attempt}
    return {"id": run_id, "metadata": {name: value for name, value in marks.items() if value}, **fields}


async def test_the_run_of_an_intent_is_found_by_its_metadata() -> None:
    assert await found() == Found(search=Search.NOT_STARTED)
    assert await found(run_of("run_1")) == Found(search=Search.FOUND, run_ids=("run_1",))
    assert await found(run_of("run_1", job="b_1.r2", status="queued")) == Found(search=Search.NOT_STARTED)


async def test_runs_that_were_paid_twice_are_told_oldest_first() -> None:
    runs = [run_of("run_2", created_at=20), run_of("run_1", created_at=10)]
    assert (await found(*runs)).run_ids == ("run_1", "run_2")


async def test_a_run_of_an_earlier_attempt_counts_while_it_is_at_work() -> None:
    assert (await found(run_of("run_1", status="failed"), attempt=2)).search is Search.NOT_STARTED
    assert (await found(run_of("run_1", status="in_progress"), attempt=2)).run_ids == ("run_1",)
    assert (await found(run_of("run_1", attempt=None, status="failed"), attempt=2)).run_ids == ("run_1",)


async def test_a_server_that_drops_metadata_is_not_paid_twice() -> None:
    assert (await found({"id": "run_1", "metadata": None}, "?", {"object": "thread.run"})).run_ids == ("run_1",)


async def test_a_search_in_a_thread_that_is_gone_says_so() -> None:
    service = Service()
    service.refuses(404, "No thread found with id 'thread_1'.")
    async with service.client() as client:
        with pytest.raises(Gone):
            await AssistantsProtocol(client).find_started(ask(), "thread_1")


# The answer


def text(value: str, *annotations: object) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": list(annotations)}}


def message(*parts: object, **fields: Any) -> dict[str, Any]:
    return {"id": "msg_1", "role": "assistant", "content": list(parts), **fields}


def read(*messages: dict[str, Any], steps: tuple[dict[str, Any], ...] = ()) -> Answer:
    return read_answer(messages, steps, model=None, usage=None)


async def test_an_answer_is_fetched_after_the_end_without_another_look_at_the_run() -> None:
    service = Service()
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    service.says({**RUN, "usage": usage})
    service.says(
        {"data": [{"id": "msg_0", "role": "user", "content": [text("Why?")]}, message(text("x = 1"))], "has_more": True}
    )
    service.lists(message(text("Clear?"), id="msg_2"), message(text("Not ours"), id="msg_3", run_id="run_9"))
    async with service.client() as client:
        protocol = AssistantsProtocol(client)
        await protocol.poll("thread_1", "run_1")
        answer = await protocol.answer("thread_1", "run_1", assistant())
    assert answer == Answer(
        text="x = 1\n\nClear?",
        model="gpt-test-2026",
        usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7),
    )
    assert service.calls[1:] == ["GET /threads/thread_1/messages"] * 2
    assert dict(service.requests[1].url.params) == {"limit": "100", "order": "asc", "run_id": "run_1"}


async def test_another_process_looks_at_the_run_again_and_steps_are_read_where_code_may_be() -> None:
    service = Service()
    service.lists(message(text("4")))
    call = {
        "type": "code_interpreter",
        "code_interpreter": {"input": "2+2", "outputs": [{"type": "logs", "logs": "4"}]},
    }
    service.lists({"id": "step_1", "step_details": {"type": "tool_calls", "tool_calls": [call]}})
    service.says(RUN)
    async with service.client() as client:
        answer = await AssistantsProtocol(client).answer("thread_1", "run_1", CODE)
    assert answer == Answer(text="4", code=({"input": "2+2", "output": "4"},), model="gpt-test-2026")
    assert service.calls == [
        "GET /threads/thread_1/messages",
        "GET /threads/thread_1/runs/run_1/steps",
        "GET /threads/thread_1/runs/run_1",
    ]


def test_source_marks_are_taken_out_and_their_sources_kept() -> None:
    first = {
        "type": "file_citation",
        "text": "【4:0†rules.pdf】",
        "start_index": 5,
        "end_index": 20,
        "file_citation": {"file_id": "file-1", "quote": "so it is"},
    }
    odd = {"type": "file_citation", "text": "【source】", "file_citation": {"file_id": "file-2"}}
    answer = read(message(text("It is 【4:0†rules.pdf】. Also【source】 this【9†x】, and 【this】.", first, odd)))
    assert answer.text == "It is. Also this, and 【this】."
    assert answer.citations == (
        {"type": "file_citation", "file_id": "file-1", "quote": "so it is", "index": 5},
        {"type": "file_citation", "file_id": "file-2", "index": 11},
    )


def test_words_that_a_server_calls_a_mark_stay() -> None:
    note = {"type": "url_citation", "text": "the rules", "url_citation": {"url": "http://x"}}
    answer = read(message(text("See the rules.", note)))
    assert answer.text == "See the rules."
    assert answer.citations == ({"type": "url_citation", "url": "http://x"},)


def test_files_are_collected_once_each() -> None:
    link = {
        "type": "file_path",
        "text": "sandbox:/mnt/data/plot.csv",
        "file_path": {"file_id": "file-csv"},
    }
    image = {"type": "image_file", "image_file": {"file_id": "file-png"}}
    outputs = [{"type": "image", "image": {"file_id": "file-png"}}, {"type": "image", "image": {"file_id": "file-2"}}]
    step = {"step_details": {"tool_calls": [{"type": "code_interpreter", "code_interpreter": {"outputs": outputs}}]}}
    answer = read(
        message(
            image,
            text("[csv](sandbox:/mnt/data/plot.csv)", link),
            attachments=[{"file_id": "file-csv"}, {"file_id": "file-3"}, {}],
        ),
        steps=(step,),
    )
    assert answer.text == "[csv](sandbox:/mnt/data/plot.csv)"
    assert answer.files == (
        {"kind": "image", "file_id": "file-png"},
        {"kind": "file", "file_id": "file-csv", "name": "plot.csv"},
        {"kind": "file", "file_id": "file-3"},
        {"kind": "image", "file_id": "file-2"},
    )
    assert answer.code == ({"input": "", "output": ""},)


def test_a_refusal_is_an_answer() -> None:
    assert read(message({"type": "refusal", "refusal": "I will not."})).text == "I will not."


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "x",
        [None],
        ["x"],
        [{}],
        [{"type": "text"}],
        [{"type": "text", "text": "x"}],
        [text("")],
        [text(" \n")],
    ],
)
def test_a_message_without_words_is_no_answer(content: object) -> None:
    assert read({"role": "assistant", "content": content}).text is None


@pytest.mark.parametrize(
    "step", [{}, {"step_details": None}, {"step_details": {"tool_calls": [{"type": "code_interpreter"}, 3]}}]
)
def test_steps_without_their_fields_break_nothing(step: dict[str, Any]) -> None:
    assert read(message(text("4")), steps=(step,)).text == "4"


async def test_what_was_seen_of_ended_runs_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.protocols.assistants._REMEMBERED", 2)
    service = Service()
    async with service.client() as client:
        protocol = AssistantsProtocol(client)
        for run_id in ("run_1", "run_2", "run_3"):
            service.says({**RUN, "id": run_id})
            await protocol.poll("thread_1", run_id)
        for run_id, looks in (("run_1", 1), ("run_2", 0), ("run_3", 0)):
            before = len(service.requests)
            service.lists()
            for _ in range(looks):
                service.says(RUN)
            await protocol.answer("thread_1", run_id, assistant())
            assert len(service.requests) - before == 1 + looks
