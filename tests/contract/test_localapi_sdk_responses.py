"""Responses of the local API, as the real OpenAI SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.contract.localapi_sdk_stage import SECONDS, TWO_ROUNDS, Stage, it, stage

__all__ = ["it"]


async def test_a_background_response_goes_from_queued_to_completed(it: Stage) -> None:
    made = await it.respond("What is 2 + 2?", metadata={"job": "1"}, instructions="Be kind.")
    assert made.id.startswith("resp_")
    assert (made.status, made.background, made.metadata) == ("queued", True, {"job": "1"})
    assert (made.output, made.usage, made.completed_at) == ([], None, None)
    assert (await it.response_after(made, SECONDS / 2)).status == "in_progress"
    done = await it.response_after(made, SECONDS / 2)
    assert (done.status, done.completed_at) == ("completed", int(it.clock.now))
    assert done.output_text == "Answer to: What is 2 + 2?"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0


async def test_without_background_the_reply_is_the_end() -> None:
    async with stage(default={"duration": 0}) as it:
        done = await it.respond("Now?", background=False)
        assert (done.status, done.output_text) == ("completed", "Answer to: Now?")
        assert (await it.client.responses.retrieve(done.id)).output_text == done.output_text
        unstored = await it.respond("Now?", background=False, store=False)
        with pytest.raises(openai.NotFoundError):
            await it.client.responses.retrieve(unstored.id)
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            await it.client.responses.cancel(done.id)


async def test_a_server_can_ignore_background() -> None:
    async with stage({"immediate": True, "answer": "At once."}) as it:
        done = await it.respond()
        assert (done.status, done.output_text) == ("completed", "At once.")


async def test_a_conversation_grows_only_on_completion(it: Stage) -> None:
    conversation = await it.client.conversations.create()
    made = await it.respond("Grow?", conversation=conversation.id)
    assert made.conversation is not None
    assert made.conversation.id == conversation.id
    assert (await it.client.conversations.items.list(conversation.id)).data == []
    it.clock.advance(SECONDS)
    items = (await it.client.conversations.items.list(conversation.id, order="asc")).data
    assert [(item.type, getattr(item, "role", None)) for item in items] == [
        ("message", "user"),
        ("message", "assistant"),
    ]
    done = await it.response_after(made, 0)
    assert items[1].id == done.output[0].id


async def test_a_busy_conversation_is_locked(it: Stage) -> None:
    conversation = await it.client.conversations.create()
    made = await it.respond(conversation={"id": conversation.id})
    for attempt in (
        it.respond(conversation=conversation.id),
        it.client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}]),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await attempt
        body: Any = refused.value.body
        assert body == {
            "message": "Another process is currently operating on this conversation. Please retry in a few seconds.",
            "type": "invalid_request_error",
            "param": "conversation",
            "code": "conversation_locked",
        }
    await it.response_after(made)
    assert (await it.respond(conversation=conversation.id)).status == "queued"


async def test_a_failed_or_cancelled_response_adds_nothing_and_unlocks() -> None:
    async with stage({"contains": "fail", "status": "failed"}) as it:
        conversation = await it.client.conversations.create()
        await it.response_after(await it.respond("fail", conversation=conversation.id))
        other = await it.respond("cancel me", conversation=conversation.id)
        assert (await it.client.responses.cancel(other.id)).status == "cancelled"
        assert (await it.client.conversations.items.list(conversation.id)).data == []
        assert (await it.respond(conversation=conversation.id)).status == "queued"


async def test_cancel_is_idempotent_and_an_end_stays(it: Stage) -> None:
    made = await it.respond()
    first = await it.client.responses.cancel(made.id)
    assert (await it.client.responses.cancel(made.id)) == first
    done = await it.response_after(await it.respond())
    assert (await it.client.responses.cancel(done.id)).status == "completed"


async def test_a_chain_of_responses_remembers(it: Stage) -> None:
    first = await it.response_after(await it.respond("one"))
    second = await it.response_after(await it.respond("two", previous_response_id=first.id))
    third = await it.respond("three", previous_response_id=second.id)
    work = it.server.api.works.get("responses", third.id)
    assert work is not None
    request = it.server.api.works._scribes["responses"].request(work)
    assert [turn.text for turn in request.turns] == ["one", "Answer to: one", "two", "Answer to: two", "three"]
    assert request.history == ("one", "Answer to: one", "two", "Answer to: two")


async def test_a_previous_response_must_exist_and_be_over(it: Stage) -> None:
    with pytest.raises(openai.BadRequestError, match="Previous response with id 'resp_none' not found") as refused:
        await it.respond(previous_response_id="resp_none")
    assert refused.value.code == "previous_response_not_found"
    running_still = await it.respond()
    with pytest.raises(openai.BadRequestError, match="has not ended yet"):
        await it.respond(previous_response_id=running_still.id)


async def test_parameters_that_exclude_or_need_each_other(it: Stage) -> None:
    conversation = await it.client.conversations.create()
    done = await it.response_after(await it.respond())
    with pytest.raises(openai.BadRequestError, match="Mutually exclusive") as refused:
        await it.respond(conversation=conversation.id, previous_response_id=done.id)
    assert refused.value.code == "mutually_exclusive_parameters"
    with pytest.raises(openai.BadRequestError, match="must be provided"):
        await it.client.responses.create(model="m")
    with pytest.raises(openai.BadRequestError, match="requires 'background' to be true"):
        await it.respond(background=False, background_options={"completion_window": "2h"})
    with pytest.raises(openai.BadRequestError, match="does not support prompt objects"):
        await it.respond(prompt={"id": "pmpt_1"})
    with pytest.raises(openai.NotFoundError, match="Conversation with id 'conv_none' not found"):
        await it.respond(conversation="conv_none")
    assert (await it.respond(background_options={"completion_window": "8h"})).status == "queued"


async def test_function_calls_chain_over_three_responses() -> None:
    async with stage(TWO_ROUNDS) as it:
        conversation = await it.client.conversations.create()

        async def answered(response: Response) -> Response:
            outputs = [
                {"type": "function_call_output", "call_id": item.call_id, "output": "3"}
                for item in response.output
                if item.type == "function_call"
            ]
            return await it.response_after(await it.respond(outputs, conversation=conversation.id))

        first = await it.response_after(await it.respond(conversation=conversation.id))
        assert first.status == "completed"
        calls = [item for item in first.output if item.type == "function_call"]
        assert [(call.name, call.arguments) for call in calls] == [("add", '{"a": 1}'), ("sub", "not json")]
        with pytest.raises(openai.BadRequestError, match=f"No tool output found for function call {calls[0].call_id}"):
            await it.respond("Never mind", conversation=conversation.id)
        stray: Any = [{"type": "function_call_output", "call_id": "call_stray", "output": "3"}]
        with pytest.raises(openai.BadRequestError, match=r"No tool call found .* with call_id call_stray"):
            await it.respond(stray)

        second = await answered(first)
        assert [item.type for item in second.output] == ["function_call"]
        third = await answered(second)
        assert third.output_text == "Six."
        assert len({first.id, second.id, third.id}) == 3
        ledger = await it.server.api.storage.ledger(0, 10)
        assert [entry.round for entry in ledger] == [0, 1, 2]


async def test_function_calls_work_through_previous_response_id_too() -> None:
    async with stage({"calls": [[{"name": "f"}]], "answer": "Done."}) as it:
        first = await it.response_after(await it.respond())
        [call] = [item for item in first.output if item.type == "function_call"]
        output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"}]
        second = await it.response_after(await it.respond(output, previous_response_id=first.id))
        assert second.output_text == "Done."


async def test_input_items_are_listed(it: Stage) -> None:
    made = await it.respond([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    items = [item async for item in it.client.responses.input_items.list(made.id, order="asc", limit=1)]
    assert [item.content[0].text for item in items] == ["a", "b"]  # type: ignore[union-attr, index]
    newest = await it.client.responses.input_items.list(made.id)
    assert newest.data[0].id == items[1].id


async def test_a_deleted_response_is_gone_and_frees_its_conversation(it: Stage) -> None:
    conversation = await it.client.conversations.create()
    made = await it.respond(conversation=conversation.id)
    await it.client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{made.id}' not found"):
        await it.client.responses.retrieve(made.id)
    assert (await it.respond(conversation=conversation.id)).status == "queued"


async def test_responses_know_no_expiry() -> None:
    async with stage({"status": "stuck"}) as it:
        assert (await it.response_after(await it.respond(), 86_400)).status == "in_progress"
