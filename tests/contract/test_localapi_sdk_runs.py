"""Runs of the local API, as the real OpenAI SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.localapi_sdk_stage import SECONDS, TWO_ROUNDS, Stage, ids, it, stage

__all__ = ["it"]


async def test_a_run_goes_from_queued_to_completed_and_answers_its_question(it: Stage) -> None:
    assistant_id = await it.assistant(instructions="Be kind.", tools=[{"type": "code_interpreter"}])
    thread_id = await it.thread("What is the capital of France?")
    run = await it.beta.threads.runs.create(thread_id, assistant_id=assistant_id, metadata={"job": "7"})
    created = int(it.clock.now)
    assert run.id.startswith("run_")
    assert (run.status, run.created_at, run.expires_at) == ("queued", created, created + 600)
    assert (run.model, run.instructions, run.metadata) == ("gpt-test", "Be kind.", {"job": "7"})
    assert (run.usage, run.started_at, run.completed_at) == (None, None, None)

    half_way = await it.after(run, SECONDS / 2)
    assert half_way.status == "in_progress"
    assert half_way.started_at == created + 1

    done = await it.after(run, SECONDS / 2)
    assert (done.status, done.completed_at, done.expires_at) == ("completed", created + 10, None)
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 0
    assert await it.texts(done) == ["Answer to: What is the capital of France?"]
    [message] = (await it.beta.threads.messages.list(thread_id, run_id=run.id)).data
    assert (message.role, message.assistant_id, message.status) == ("assistant", assistant_id, "completed")


async def test_the_answer_appears_in_the_thread_though_nobody_polls_the_run(it: Stage) -> None:
    run = await it.run("Ping?")
    it.clock.advance(SECONDS)
    assert await it.texts(run) == ["Answer to: Ping?"]
    await it.beta.threads.messages.create(run.thread_id, role="user", content="next")


async def test_a_thread_has_one_active_run(it: Stage) -> None:
    run = await it.run()
    with pytest.raises(openai.BadRequestError) as refused:
        await it.beta.threads.runs.create(run.thread_id, assistant_id=run.assistant_id)
    body: Any = refused.value.body
    assert body["message"] == f"Thread {run.thread_id} already has an active run {run.id}."
    assert (body["type"], body["code"], body["param"]) == ("invalid_request_error", None, None)
    await it.after(run)
    again = await it.beta.threads.runs.create(run.thread_id, assistant_id=run.assistant_id)
    assert again.id != run.id


async def test_no_message_can_be_added_while_a_run_is_active(it: Stage) -> None:
    run = await it.run()
    with pytest.raises(openai.BadRequestError) as refused:
        await it.beta.threads.messages.create(run.thread_id, role="user", content="too soon")
    body: Any = refused.value.body
    assert body["message"] == f"Can't add messages to {run.thread_id} while a run {run.id} is active."


async def test_runs_are_listed_with_their_metadata(it: Stage) -> None:
    first = await it.run(metadata={"job": "1"})
    await it.after(first)
    second = await it.beta.threads.runs.create(first.thread_id, assistant_id=first.assistant_id, metadata={"job": "2"})
    listed = await it.beta.threads.runs.list(first.thread_id)
    assert [(run.id, run.metadata) for run in listed.data] == [
        (second.id, {"job": "2"}),
        (first.id, {"job": "1"}),
    ]
    assert [run.id async for run in it.beta.threads.runs.list(first.thread_id, limit=1, order="asc")] == [
        first.id,
        second.id,
    ]


async def test_a_runs_metadata_can_be_changed_and_nothing_else(it: Stage) -> None:
    run = await it.run(metadata={"job": "1"})
    changed = await it.beta.threads.runs.update(run.id, thread_id=run.thread_id, metadata={"job": "2"})
    assert changed.metadata == {"job": "2"}
    with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'model'"):
        await it.beta.threads.runs.update(run.id, thread_id=run.thread_id, extra_body={"model": "other"})


async def test_create_and_run_makes_thread_and_run(it: Stage) -> None:
    run = await it.beta.threads.create_and_run(
        assistant_id=await it.assistant(),
        thread={"messages": [{"role": "user", "content": "Both?"}], "metadata": {"t": "1"}},
        tool_resources={"code_interpreter": {"file_ids": []}},
        metadata={"r": "2"},
    )
    thread = await it.beta.threads.retrieve(run.thread_id)
    assert (thread.metadata, run.metadata) == ({"t": "1"}, {"r": "2"})
    await it.after(run)
    assert await it.texts(run) == ["Answer to: Both?"]


async def test_a_run_overrides_and_adds_to_its_assistant(it: Stage) -> None:
    assistant_id = await it.assistant(instructions="Base.", temperature=0.3)
    thread_id = await it.thread("one")
    run = await it.beta.threads.runs.create(
        thread_id,
        assistant_id=assistant_id,
        model="other",
        additional_instructions="More.",
        additional_messages=[{"role": "user", "content": "two"}],
        tools=[{"type": "code_interpreter"}],
        max_completion_tokens=500,
    )
    assert (run.model, run.instructions, run.temperature) == ("other", "Base.\n\nMore.", 0.3)
    assert (run.tools[0].type, run.max_completion_tokens) == ("code_interpreter", 500)
    await it.after(run)
    assert await it.texts(run) == ["Answer to: two"]


async def test_a_refused_run_adds_no_message_and_no_ledger_entry(it: Stage) -> None:
    run = await it.run()
    with pytest.raises(openai.BadRequestError):
        await it.beta.threads.runs.create(
            run.thread_id,
            assistant_id=run.assistant_id,
            additional_messages=[{"role": "user", "content": "lost"}],
        )
    with pytest.raises(openai.NotFoundError, match="No assistant found with id 'asst_none'"):
        await it.beta.threads.runs.create(await it.thread(), assistant_id="asst_none")
    with pytest.raises(openai.NotFoundError, match="No thread found"):
        await it.beta.threads.runs.create("thread_none", assistant_id=run.assistant_id)
    assert len((await it.beta.threads.messages.list(run.thread_id)).data) == 1
    assert len(await it.server.api.storage.ledger(0, 10)) == 1


async def test_a_run_belongs_to_its_thread(it: Stage) -> None:
    run = await it.run()
    with pytest.raises(openai.NotFoundError, match=f"No run found with id '{run.id}'"):
        await it.beta.threads.runs.retrieve(run.id, thread_id=await it.thread())


async def test_cancel_goes_through_cancelling(it: Stage) -> None:
    run = await it.run()
    cancelling = await it.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)
    assert cancelling.status == "cancelling"
    cancelled = await it.after(run, 1)
    assert cancelled.status == "cancelled"
    assert cancelled.cancelled_at is not None
    assert await it.texts(run) == []
    with pytest.raises(openai.BadRequestError, match="Cannot cancel run with status 'cancelled'"):
        await it.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)


async def test_a_cancel_can_lose_the_race() -> None:
    async with stage(default={"cancel_takes": SECONDS * 2}) as it:
        run = await it.run()
        await it.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)
        assert (await it.after(run, SECONDS / 2)).status == "cancelling"
        assert (await it.after(run, SECONDS / 2)).status == "completed"


async def test_a_stuck_run_expires_after_ten_minutes() -> None:
    async with stage({"contains": "for ever", "status": "stuck"}) as it:
        run = await it.run("for ever?")
        assert (await it.after(run, 599)).status == "in_progress"
        assert (await it.after(run, 1)).status == "expired"
        await it.beta.threads.messages.create(run.thread_id, role="user", content="the thread is free again")


async def test_run_lifetime_is_an_option() -> None:
    async with stage({"status": "stuck"}, run_lifetime_s=5) as it:
        run = await it.run()
        assert run.expires_at == run.created_at + 5
        assert (await it.after(run, 5)).status == "expired"


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded", "invalid_prompt"])
async def test_a_failed_run_says_why(code: str) -> None:
    async with stage({"status": "failed", "error": {"code": code, "message": "Broken."}}) as it:
        failed = await it.after(await it.run())
        assert (failed.status, failed.failed_at) == ("failed", int(it.clock.now))
        assert failed.last_error is not None
        assert (failed.last_error.code, failed.last_error.message) == (code, "Broken.")
        response = await it.response_after(await it.respond())
        assert response.error is not None
        assert (response.status, response.error.code, response.error.message) == ("failed", code, "Broken.")


async def test_an_incomplete_run_keeps_its_partial_text() -> None:
    async with stage({"status": "incomplete", "reason": "max_output_tokens", "partial": "Half an"}) as it:
        run = await it.after(await it.run())
        assert run.status == "incomplete"
        assert run.incomplete_details is not None
        assert run.incomplete_details.reason == "max_completion_tokens"
        [message] = (await it.beta.threads.messages.list(run.thread_id, run_id=run.id)).data
        assert (message.status, message.incomplete_details.reason) == ("incomplete", "max_tokens")
        assert await it.texts(run) == ["Half an"]

        conversation = await it.client.conversations.create()
        response = await it.response_after(await it.respond(conversation=conversation.id))
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == "Half an"
        assert (await it.client.conversations.items.list(conversation.id)).data == []


async def test_raw_statuses_and_poll_hints_follow_the_retrieves() -> None:
    rule = {
        "statuses": ["queued", "dreaming", "cancelling"],
        "advance": "poll",
        "poll_after_ms": [100, 250],
    }
    async with stage(rule) as it:
        run = await it.run()
        seen = []
        for _ in range(4):
            raw = await it.beta.threads.runs.with_raw_response.retrieve(run.id, thread_id=run.thread_id)
            seen.append((raw.parse().status, raw.headers.get("openai-poll-after-ms")))
        assert seen == [("queued", "100"), ("dreaming", "250"), ("cancelling", "250"), ("completed", None)]


async def test_one_run_may_make_two_messages_and_annotations() -> None:
    annotation = {
        "type": "file_citation",
        "text": "【4:0†source】",
        "start_index": 0,
        "end_index": 12,
        "file_citation": {"file_id": "file-1"},
    }
    async with stage({"answer": ["First.", "Second."], "annotations": [annotation]}) as it:
        run = await it.after(await it.run())
        assert await it.texts(run) == ["First.", "Second."]
        newest = (await it.beta.threads.messages.list(run.thread_id)).data[0]
        assert newest.content[0].text.annotations[0].file_citation.file_id == "file-1"


async def test_code_is_reported_as_run_steps_and_as_output_items() -> None:
    async with stage({"code": [{"input": "print(1)", "logs": "1\n"}], "answer": "One."}) as it:
        run = await it.after(await it.run())
        steps = (await it.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data
        assert [step.type for step in steps] == ["tool_calls", "message_creation"]
        interpreter = steps[0].step_details.tool_calls[0].code_interpreter
        assert (interpreter.input, interpreter.outputs[0].logs) == ("print(1)", "1\n")
        step = await it.beta.threads.runs.steps.retrieve(steps[1].id, thread_id=run.thread_id, run_id=run.id)
        assert step == steps[1]
        [message] = (await it.beta.threads.messages.list(run.thread_id, run_id=run.id)).data
        assert step.step_details.message_creation.message_id == message.id
        with pytest.raises(openai.NotFoundError, match="No run step found with id 'step_none'"):
            await it.beta.threads.runs.steps.retrieve("step_none", thread_id=run.thread_id, run_id=run.id)

        response = await it.respond()
        bare = await it.response_after(response)
        assert bare.output[0].type == "code_interpreter_call"
        assert (bare.output[0].code, bare.output[0].outputs) == ("print(1)", None)
        full = await it.response_after(response, 0, include=["code_interpreter_call.outputs"])
        assert full.output[0].type == "code_interpreter_call"
        assert full.output[0].outputs is not None
        assert full.output[0].outputs[0].type == "logs"
        assert full.output[0].outputs[0].logs == "1\n"
        assert full.output_text == "One."


async def test_a_run_asks_for_tools_twice_and_then_answers() -> None:
    async with stage(TWO_ROUNDS) as it:
        run = await it.after(await it.run())
        assert run.status == "requires_action"
        assert run.usage is None
        assert run.required_action is not None
        calls = run.required_action.submit_tool_outputs.tool_calls
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("add", '{"a": 1}'),
            ("sub", "not json"),
        ]
        submit = it.beta.threads.runs.submit_tool_outputs
        with pytest.raises(openai.BadRequestError, match="Expected tool outputs for call_ids"):
            await submit(run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": calls[0].id, "output": "3"}])
        outputs = [{"tool_call_id": call.id, "output": "3"} for call in calls]
        queued = await submit(run.id, thread_id=run.thread_id, tool_outputs=outputs)
        assert (queued.id, queued.status) == (run.id, "queued")
        with pytest.raises(openai.BadRequestError, match='Runs in status "queued" do not accept tool outputs'):
            await submit(run.id, thread_id=run.thread_id, tool_outputs=outputs)

        again = await it.after(run)
        assert again.status == "requires_action"
        [call] = again.required_action.submit_tool_outputs.tool_calls  # type: ignore[union-attr]
        assert call.id not in ids(calls)
        await submit(run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "6"}])
        done = await it.after(run)
        assert done.status == "completed"
        assert await it.texts(done) == ["Six."]
        steps = (await it.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data
        assert [step.status for step in steps] == ["completed"] * 3
        assert [call.function.output for call in steps[0].step_details.tool_calls] == ["3", "3"]
        assert len(await it.server.api.storage.ledger(0, 10)) == 1


async def test_a_run_that_waits_for_tools_can_be_cancelled_or_expires() -> None:
    async with stage(TWO_ROUNDS) as it:
        run = await it.after(await it.run())
        assert (await it.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)).status == "cancelled"
        other = await it.after(await it.run())
        assert (await it.after(other, 600)).status == "expired"
        [step] = (await it.beta.threads.runs.steps.list(other.id, thread_id=other.thread_id)).data
        assert step.status == "expired"
