"""Responses in background mode as askq speaks them: what is sent, and what is read from replies of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from askq.ends import ENDS
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from tests.unit.protocols_stage import Service, ask, assistant
from worker.protocols.base import Ambiguous, Blocked, Found, Gone, RunState, Search, Status
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.responses_bodies import request_body
from worker.protocols.responses_replies import read_answer

USED = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1100,
}
USAGE = Usage(input_tokens=1000, cached_tokens=400, output_tokens=100, total_tokens=1100)
MARKS = {"askq_job": "b_1.r1", "askq_attempt": "1"}


def part(text: str, *annotations: object) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations)}


def said(*texts: str, phase: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"msg_{'_'.join(texts)}",
        "type": "message",
        "role": "assistant",
        "phase": phase,
        "content": [part(text) for text in texts],
        **fields,
    }


def called(kind: str = "function_call", **fields: Any) -> dict[str, Any]:
    return {"id": "fc_1", "type": kind, "call_id": "call_1", "name": "f", "arguments": "{}", **fields}


def response(*output: object, status: object = "completed", **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "gpt-t", "output": list(output), **fields}


async def polled(body: Mapping[str, Any], *, base_url: str = "http://service.test/v1", **headers: str) -> Status:
    service = Service()
    service.says(body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    async with service.client(base_url) as client:
        status = await ResponsesProtocol(client).poll("conv_1", "resp_1")
    assert service.calls == ["GET /responses/resp_1"]
    assert service.requests[0].url.params.get_list("include[]") == [
        "code_interpreter_call.outputs",
        "file_search_call.results",
    ]
    return status


def read(*items: dict[str, Any]) -> Answer:
    return read_answer(items, model=None, usage=None)


# What is sent


def test_a_bare_assistant_makes_a_bare_body() -> None:
    assert request_body(ask(), "conv_1") == {
        "model": "gpt-test",
        "input": "Why?",
        "background": True,
        "store": True,
        "conversation": "conv_1",
        "metadata": MARKS,
    }
    assert "conversation" not in request_body(ask(), "")


def test_every_field_of_an_assistant_finds_its_place() -> None:
    full = assistant(
        instructions="Be kind.",
        temperature=0.0,
        top_p=0.5,
        tools=({"type": "code_interpreter"}, {"type": "file_search", "max_num_results": 3}, {"type": "web_search"}),
        tool_resources={
            "code_interpreter": {"file_ids": ["file-1"]},
            "file_search": {"vector_store_ids": ["vs_1"]},
        },
        reasoning_effort="low",
        text_format={"type": "json_schema", "name": "answer", "schema": {"type": "object"}},
        max_output_tokens=100,
        truncation="disabled",
        service_tier="flex",
        completion_window="8h",
    )
    assert request_body(ask(assistant=full, metadata={"team": "maths"}), "conv_1") == {
        "model": "gpt-test",
        "input": "Why?",
        "instructions": "Be kind.",
        "background": True,
        "store": True,
        "background_options": {"completion_window": "8h"},
        "conversation": "conv_1",
        "metadata": {"team": "maths", **MARKS, "askq_window": "8h"},
        "tools": [
            {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}},
            {"type": "file_search", "max_num_results": 3, "vector_store_ids": ["vs_1"]},
            {"type": "web_search"},
        ],
        "include": ["code_interpreter_call.outputs", "file_search_call.results"],
        "temperature": 0.0,
        "top_p": 0.5,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}},
        "max_output_tokens": 100,
        "truncation": "disabled",
        "service_tier": "flex",
    }


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (
            {"tools": ({"type": "code_interpreter"},)},
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        ),
        (
            {"tools": ({"type": "code_interpreter", "container": "cntr_1"},)},
            {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        ),
        (
            {"tools": ({"type": "file_search", "vector_store_ids": ["vs_2"]},)},
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_2"]}]},
        ),
        (
            # Without anything to search it would be refused; a later row of the conversation may bring a file.
            {"tools": ({"type": "file_search"}, {"type": "web_search"})},
            {"tools": [{"type": "web_search"}]},
        ),
        (
            {"text_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}},
        ),
        ({"completion_window": "soonest"}, {"background_options": {"completion_window": "soonest"}, "metadata": MARKS}),
    ],
)
def test_fields_in_either_protocols_words_are_understood(fields: dict[str, Any], body: dict[str, Any]) -> None:
    made = request_body(ask(assistant=assistant(**fields)), "conv_1")
    assert {name: made[name] for name in body} == body


def test_a_rows_own_model_and_instructions_replace_the_assistants() -> None:
    body = request_body(ask(model="gpt-other", instructions="Briefly.", assistant=assistant(instructions="x")), "c")
    assert (body["model"], body["instructions"]) == ("gpt-other", "Briefly.")


async def test_the_conversation_is_made_and_there_is_no_remote_assistant() -> None:
    service = Service()
    service.says({"id": "conv_1"})
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        assert await protocol.ensure_assistant(assistant()) is None
        assert await protocol.prepare(ask(), None) == "conv_1"
    assert service.calls == ["POST /conversations"]
    assert service.body() == {"metadata": {"askq_job": "b_1.r1"}}


@pytest.mark.parametrize(("status", "text"), [(404, "404 page not found"), (404, '{"detail": "Not Found"}'), (405, "")])
async def test_a_server_without_conversations_is_asked_once(status: int, text: str) -> None:
    service = Service()
    service.says(status=status, text=text)
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        assert [await protocol.prepare(ask(), None) for _ in range(3)] == ["", "", ""]
        assert await protocol.find_started(ask(), "") == Found(search=Search.UNKNOWN)
    assert service.calls == ["POST /conversations"]


async def test_a_rejected_key_is_not_taken_for_a_server_without_conversations() -> None:
    service = Service()
    service.refuses(401, "Incorrect API key provided.")
    service.says({"id": "conv_1"})
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        with pytest.raises(Blocked):
            await protocol.prepare(ask(), None)
        assert await protocol.prepare(ask(), None) == "conv_1"


async def test_the_paid_call_carries_its_key() -> None:
    service = Service()
    service.says(response(status="queued"), headers={"retry-after": "2"})
    async with service.client() as client:
        status = await ResponsesProtocol(client).start(ask(), "conv_1", None)
    assert status == Status(state=RunState.PENDING, raw="queued", run_id="resp_1", poll_after=2.0)
    assert service.calls == ["POST /responses"]
    assert service.body() == request_body(ask(), "conv_1")
    assert service.requests[0].headers["idempotency-key"] == ask().idempotency_key


async def test_a_server_that_ignores_background_answers_at_once() -> None:
    service = Service()
    service.says(response(said("x = 1"), usage=USED))
    async with service.client() as client:
        status = await ResponsesProtocol(client).start(ask(), "", None)
    assert (status.state, status.run_id) == (RunState.DONE, "resp_1")
    assert status.answer == Answer(text="x = 1", model="gpt-t", usage=USAGE)


# Statuses


@pytest.mark.parametrize("raw", ["queued", "in_progress", "cancelling", "hibernating"])
async def test_a_pending_response_is_polled_again(raw: str) -> None:
    status = await polled(response(status=raw), openai_poll_after_ms="1500")
    assert status == Status(state=RunState.PENDING, raw=raw, run_id="resp_1", poll_after=1.5)


@pytest.mark.parametrize(
    ("body", "state", "code", "message", "text"),
    [
        (response(said("x = 1")), RunState.DONE, None, None, "x = 1"),
        (response(status="cancelled"), RunState.CANCELLED, "cancelled_remotely", None, None),
        (response(status="expired"), RunState.EXPIRED, "run_expired", None, None),
        (
            response(status="failed", error={"code": "server_error", "message": "It broke."}),
            RunState.FAILED,
            "server_error",
            "It broke.",
            None,
        ),
        (
            response(status="failed", error={"code": "image_too_small", "message": ""}),
            RunState.FAILED,
            "invalid_image",
            "image_too_small",
            None,
        ),
        (response(status="failed", error="it broke"), RunState.FAILED, "run_failed", None, None),
        (response(status="failed", error=None), RunState.FAILED, "run_failed", None, None),
        (
            response(said("x ="), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            RunState.INCOMPLETE,
            "max_output_tokens",
            "the run stopped early: max_output_tokens",
            "x =",
        ),
        (
            response(status="incomplete", incomplete_details={"reason": "content_filter"}),
            RunState.INCOMPLETE,
            "content_filter",
            "the run stopped early: content_filter",
            None,
        ),
        (
            response(status="incomplete", incomplete_details={"reason": "steered"}),
            RunState.INCOMPLETE,
            "incomplete",
            "the run stopped early: steered",
            None,
        ),
        (
            response(status="incomplete", incomplete_details="tired"),
            RunState.INCOMPLETE,
            "incomplete",
            "the run stopped early: no reason given",
            None,
        ),
    ],
)
async def test_a_response_ends(
    body: dict[str, Any], state: RunState, code: str | None, message: str | None, text: str | None
) -> None:
    status = await polled(body)
    assert (status.state, status.raw, status.error_code) == (state, body["status"], code)
    assert status.error_message == message
    assert status.answer == Answer(text=text, model="gpt-t")
    assert code is None or code in ENDS


@pytest.mark.parametrize(
    ("items", "calls"),
    [
        ([called()], [("call_1", "f", "{}")]),
        ([said("I will look."), called(), called(call_id="call_2")], [("call_1", "f", "{}"), ("call_2", "f", "{}")]),
        ([called("custom_tool_call", input="1+1")], [("call_1", "f", "1+1")]),
        ([called("mcp_approval_request", id="mcpr_1")], [("mcpr_1", "f", "{}")]),
        ([called(arguments=None, name=7)], [("call_1", "", "")]),
        (
            [called(), {"type": "function_call_output", "call_id": "call_1", "output": "2"}, called(call_id="call_2")],
            [("call_2", "f", "{}")],
        ),
    ],
)
async def test_a_completed_response_may_wait_for_us(
    items: list[dict[str, Any]], calls: list[tuple[str, str, str]]
) -> None:
    status = await polled(response(*items, usage=USED))
    assert status.state is RunState.ACTION
    assert [(call.call_id, call.name, call.arguments) for call in status.tool_calls] == calls
    assert status.usage == USAGE


async def test_calls_that_were_answered_are_done_with() -> None:
    answered = [called(), {"type": "function_call_output", "call_id": "call_1"}, said("2")]
    approved = [called("mcp_approval_request", id="m"), {"type": "mcp_approval_response", "approval_request_id": "m"}]
    assert (await polled(response(*answered))).state is RunState.DONE
    assert (await polled(response(*approved))).state is RunState.DONE
    failed = await polled(response(called(), status="failed"))
    assert failed.state is RunState.FAILED


async def test_a_response_without_its_fields_breaks_nothing() -> None:
    assert (await polled({"id": "resp_1"})).state is RunState.PENDING
    assert (await polled({"id": "resp_1", "status": None})).raw == "unknown"
    assert (await polled({"status": "queued"})).run_id == "resp_1"
    outputs: tuple[object, ...] = (None, "x", {}, [None, "x", {}], [{"type": "message"}])
    for output in outputs:
        status = await polled({"id": "resp_1", "status": "completed", "output": output, "usage": output})
        assert (status.state, status.answer) == (RunState.DONE, Answer(text=None))
    with pytest.raises(Ambiguous, match="neither status nor id"):
        await polled({"error": "busy"})


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({}, 1.0),
        ({"metadata": {"askq_window": "8h"}}, 0.6),
        ({"metadata": {"askq_window": "2h"}, "service_tier": "default"}, 0.7),
        ({"metadata": None, "service_tier": "flex"}, 0.5),
    ],
)
async def test_a_price_follows_the_window_that_was_asked_for_and_the_tier_that_was_granted(
    fields: dict[str, Any], factor: float
) -> None:
    body = response(said("x"), usage=USED) | {"model": "gpt-5", **fields}
    status = await polled(body, base_url="https://api.openai.com/v1")
    assert status.usage is not None
    assert status.usage.cost_usd == pytest.approx((600 * 1.25 + 400 * 0.125 + 100 * 10) / 1e6 * factor)
    assert status.answer is not None
    assert status.answer.usage == status.usage
    assert (await polled(body)).usage == USAGE, "other services have prices of their own"


async def test_an_answer_can_be_fetched_again() -> None:
    service = Service()
    service.says(response(said("x = 1")))
    service.says(response(status="in_progress"))
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        assert (await protocol.answer("conv_1", "resp_1", assistant())).text == "x = 1"
        assert (await protocol.answer("conv_1", "resp_1", assistant())).text is None


# The way back


async def found(*items: object) -> Found:
    service = Service()
    service.lists(*items)
    async with service.client() as client:
        result = await ResponsesProtocol(client).find_started(ask(), "conv_1")
    assert service.calls == ["GET /conversations/conv_1/items"]
    return result


QUESTION = {"id": "msg_0", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why?"}]}


async def test_an_empty_conversation_tells_nothing() -> None:
    assert await found() == Found(search=Search.UNKNOWN)
    assert await found(QUESTION) == Found(search=Search.UNKNOWN)


async def test_the_answer_appears_in_the_conversation() -> None:
    code = {"id": "ci_1", "type": "code_interpreter_call", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]}
    assert await found(QUESTION, code, said("x = 1", status="completed")) == Found(
        search=Search.ANSWERED, answer=Answer(text="x = 1", code=({"input": "1", "output": "1"},))
    )


async def test_an_answer_that_was_cut_is_told_as_such() -> None:
    cut = await found(QUESTION, said("x =", status="incomplete"))
    assert (cut.search, cut.error_code) == (Search.ANSWERED, "incomplete")
    assert cut.error_code in ENDS


async def test_what_is_not_the_end_is_not_the_answer() -> None:
    assert (await found(QUESTION, said("x", status="in_progress"))).search is Search.UNKNOWN
    assert (await found(QUESTION, said("I will look.", status="in_progress"), called())).search is Search.UNKNOWN


async def test_a_search_in_a_conversation_that_is_gone_says_so() -> None:
    service = Service()
    service.refuses(404, "Conversation with id 'conv_1' not found.")
    async with service.client() as client:
        with pytest.raises(Gone):
            await ResponsesProtocol(client).find_started(ask(), "conv_1")


# The answer


def test_pieces_of_a_message_are_one_text_and_messages_are_apart() -> None:
    assert read(said("x ", "= 1"), said("Clear?")).text == "x = 1\n\nClear?"


def test_commentary_is_left_out_where_final_answers_are_marked() -> None:
    assert read(said("Let me see.", phase="commentary"), said("x = 1", phase="final_answer")).text == "x = 1"
    assert read(said("Let me see.", phase="commentary")).text == "Let me see."


def test_a_refusal_is_an_answer() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]}
    assert read(message).text == "I will not."


def test_a_content_that_is_plain_text_is_read() -> None:
    assert read({"type": "message", "role": "assistant", "content": "x = 1"}).text == "x = 1"


@pytest.mark.parametrize("content", [None, [], [None, "x"], [{}], [part("")], [part(" \n")], ""])
def test_a_message_without_words_is_no_answer(content: object) -> None:
    assert read({"type": "message", "role": "assistant", "content": content}).text is None


def test_citations_are_kept_and_files_collected_once_each() -> None:
    source = {"type": "file_citation", "file_id": "file-1", "filename": "rules.pdf", "index": 3}
    page = {"type": "url_citation", "url": "http://x", "title": "X", "start_index": 0, "end_index": 1}
    made = {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1", "filename": "a.csv"}
    old = {"type": "file_path", "file_id": "file-2", "index": 0}
    message = {
        "type": "message",
        "role": "assistant",
        "content": [part("x", source, page, made), part("y", made, old, "odd", {"type": "file_path"})],
    }
    answer = read(message)
    assert answer.text == "xy"
    assert answer.citations == (source, page, made, made, old, {"type": "file_path"})
    assert answer.files == (
        {"kind": "file", "file_id": "cfile_1", "name": "a.csv", "container_id": "cntr_1"},
        {"kind": "file", "file_id": "file-2"},
    )


def test_code_is_kept_with_what_it_printed() -> None:
    outputs = [{"type": "logs", "logs": "1"}, {"type": "image", "url": "http://i"}, {"type": "logs", "logs": "2"}, 7]
    answer = read(
        {"type": "code_interpreter_call", "code": "print(1)", "outputs": outputs},
        {"type": "code_interpreter_call", "code": None, "outputs": None},
    )
    assert answer.code == ({"input": "print(1)", "output": "1\n2"}, {"input": "", "output": ""})
    assert answer.files == ({"kind": "image", "url": "http://i"},)


async def test_everything_remote_is_deleted_the_words_first() -> None:
    service = Service()
    service.says(text="")
    service.lists({"id": "msg_0"}, {"id": "msg_1"}, {})
    for _ in range(3):
        service.says({"deleted": True})
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        assert await protocol.delete(Kind.RESPONSE, "resp_1")
        assert await protocol.delete(Kind.CONVERSATION, "conv_1")
    assert service.calls == [
        "DELETE /responses/resp_1",
        "GET /conversations/conv_1/items",
        "DELETE /conversations/conv_1/items/msg_0",
        "DELETE /conversations/conv_1/items/msg_1",
        "DELETE /conversations/conv_1",
    ]
