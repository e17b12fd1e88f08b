"""Function calls and their outputs, as both protocols speak of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.protocols_stage import Service, ask, assistant
from tests.unit.test_protocols_responses import QUESTION, called, response, said
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.assistants_bodies import assistant_body
from worker.protocols.base import Ambiguous, Ask, Found, Refused, RunState, Search, ToolCall, ToolOutput
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.responses_bodies import chosen_id, request_body

OUTPUTS = (ToolOutput(call_id="call_1", output="on"), ToolOutput(call_id="call_2", output='{"error": 1}'))
TOOL = {"type": "function", "name": "light", "description": "Switch.", "parameters": {"type": "object"}, "strict": True}
HOME = assistant(protocol="responses", tools=(TOOL,), functions={"light": {"module": "home", "function": "light"}})


def follow_up(**changes: Any) -> Ask:
    values: dict[str, Any] = {"outputs": OUTPUTS, "previous": "resp_1", "attempt": 2, "assistant": HOME}
    return ask(**(values | changes))


def given(call_id: str = "call_1", output: str = "on") -> dict[str, Any]:
    return {"id": f"fco_{call_id}", "type": "function_call_output", "call_id": call_id, "output": output}


# -- Assistants ----------------------------------------------------------------------------------------------


def test_functions_are_nested_for_assistants_and_say_nothing_of_askq() -> None:
    body = assistant_body(HOME)
    assert body["tools"] == [{"type": "function", "function": {n: v for n, v in TOOL.items() if n != "type"}}]
    assert "module" not in str(body)
    assert "module" not in str(request_body(follow_up(), "conv_1"))
    assert request_body(ask(assistant=HOME), "conv_1")["tools"] == [TOOL]


async def test_outputs_go_to_the_run_that_waits_for_them() -> None:
    service = Service()
    service.says({"id": "run_1", "object": "thread.run", "status": "queued"})
    async with service.client() as client:
        status = await AssistantsProtocol(client).submit_tool_outputs("thread_1", "run_1", OUTPUTS)
    assert (status.state, status.run_id) == (RunState.PENDING, "run_1")
    assert service.calls == ["POST /threads/thread_1/runs/run_1/submit_tool_outputs"]
    assert service.body() == {
        "tool_outputs": [
            {"tool_call_id": "call_1", "output": "on"},
            {"tool_call_id": "call_2", "output": '{"error": 1}'},
        ]
    }


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, 'Runs in status "queued" do not accept tool outputs.', Refused),
        (500, "The server had an error.", Ambiguous),
    ],
)
async def test_what_becomes_of_outputs_that_are_not_taken(status: int, message: str, error: type[Exception]) -> None:
    service = Service()
    service.refuses(status, message)
    async with service.client() as client:
        with pytest.raises(error):
            await AssistantsProtocol(client).submit_tool_outputs("thread_1", "run_1", OUTPUTS)


# -- Responses -----------------------------------------------------------------------------------------------


def test_outputs_take_the_place_of_the_question() -> None:
    body = request_body(follow_up(model="row-model", instructions="Be brief."), "conv_1")
    assert body["input"] == [
        {"type": "function_call_output", "call_id": "call_1", "output": "on"},
        {"type": "function_call_output", "call_id": "call_2", "output": '{"error": 1}'},
    ]
    assert (body["conversation"], body["model"], body["instructions"]) == ("conv_1", "row-model", "Be brief.")
    assert body["metadata"]["askq_attempt"] == "2"
    assert "previous_response_id" not in body


def test_without_a_conversation_the_last_response_is_named() -> None:
    body = request_body(follow_up(), "")
    assert (body["previous_response_id"], "conversation" in body) == ("resp_1", False)


def test_every_round_has_keys_of_its_own() -> None:
    first, second = ask(), follow_up()
    assert first.idempotency_key != second.idempotency_key
    assert chosen_id(first) != chosen_id(second)
    assert second.idempotency_key == dataclasses.replace(second, outputs=()).idempotency_key


async def found(question: Ask, *items: object) -> Found:
    service = Service()
    service.lists(*items)
    async with service.client() as client:
        return await ResponsesProtocol(client).find_started(question, "conv_1")


CALL_2 = called(call_id="call_2", id="fc_2")


async def test_a_response_that_asks_for_functions_shows_in_its_conversation() -> None:
    shown = await found(ask(), QUESTION, said("I will look."), called())
    assert (shown.search, shown.tool_calls) == (
        Search.ASKED,
        (ToolCall(call_id="call_1", name="f", arguments="{}"),),
    )
    assert shown.answer is not None
    assert (await found(ask(), QUESTION, called(status="in_progress"))).search is Search.UNKNOWN


async def test_what_was_there_before_the_outputs_says_nothing_of_them() -> None:
    """The commentary and the calls of the round before are no answer."""
    before = (QUESTION, said("I will look."), called(), CALL_2)
    assert (await found(follow_up(), *before)).search is Search.UNKNOWN
    assert (await found(follow_up(), *before, given("call_1"))).search is Search.UNKNOWN
    both = (given("call_1"), given("call_2"))
    assert (await found(follow_up(), *before, *both)).search is Search.UNKNOWN
    answered = await found(follow_up(), *before, *both, said("The light is on.", status="completed"))
    assert answered.search is Search.ANSWERED
    assert answered.answer is not None
    assert answered.answer.text == "The light is on."


async def test_the_next_round_shows_after_the_outputs() -> None:
    before = (QUESTION, called(), CALL_2, given("call_1"), given("call_2"))
    shown = await found(follow_up(), *before, called(call_id="call_3", id="fc_3"))
    assert (shown.search, [call.call_id for call in shown.tool_calls]) == (Search.ASKED, ["call_3"])


async def test_code_that_ran_before_a_function_was_asked_for_is_told() -> None:
    service = Service()
    code = {"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]}
    service.says(response(code, called()))
    async with service.client() as client:
        status = await ResponsesProtocol(client).poll("conv_1", "resp_1")
    assert status.state is RunState.ACTION
    assert status.answer is not None
    assert status.answer.code == ({"input": "1+1", "output": "2"},)


async def test_calls_that_are_no_functions_say_what_they_are() -> None:
    service = Service()
    approval = {"id": "mcpr_1", "type": "mcp_approval_request", "name": "delete", "arguments": "{}"}
    service.says(response(approval))
    async with service.client() as client:
        status = await ResponsesProtocol(client).poll("conv_1", "resp_1")
    assert [call.kind for call in status.tool_calls] == ["mcp_approval_request"]


async def test_outputs_are_not_submitted_to_a_response() -> None:
    service = Service()
    async with service.client() as client:
        with pytest.raises(NotImplementedError):
            await ResponsesProtocol(client).submit_tool_outputs("conv_1", "resp_1", OUTPUTS)
