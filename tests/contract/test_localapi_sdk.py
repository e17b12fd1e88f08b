"""The local API as the real OpenAI SDK sees it, over a real socket: every endpoint, every rule."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import AsyncIterator, Iterable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.beta import assistant_create_params, thread_create_and_run_params, thread_create_params
from openai.types.beta.threads import Run, message_create_params, run_create_params
from openai.types.responses import Response, response_create_params

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.routes import assistants as assistant_routes
from askq.localapi.routes import responses as response_routes
from askq.localapi.routes import runs as run_routes
from askq.localapi.server import Server, running
from tests.parts import Clock

SECONDS = 10.0
"""Duration of every scripted run; the clock is the test's."""


class Stage:
    """A server, a client of it, and the server's clock."""

    def __init__(self, server: Server, client: AsyncOpenAI, clock: Clock) -> None:
        self.server = server
        self.client = client
        self.clock = clock

    @property
    def beta(self) -> Any:
        return self.client.beta

    async def assistant(self, **fields: Any) -> str:
        made = await self.client.beta.assistants.create(model="gpt-test", **fields)
        return made.id

    async def thread(self, *questions: str) -> str:
        messages: Any = [{"role": "user", "content": question} for question in questions]
        return (await self.client.beta.threads.create(messages=messages)).id

    async def run(self, question: str = "Why?", **fields: Any) -> Run:
        thread_id = await self.thread(question)
        made: Run = await self.beta.threads.runs.create(thread_id, assistant_id=await self.assistant(), **fields)
        return made

    async def poll(self, run: Run) -> Run:
        got: Run = await self.client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        return got

    async def after(self, run: Run, seconds: float = SECONDS) -> Run:
        self.clock.advance(seconds)
        return await self.poll(run)

    async def texts(self, run: Run) -> list[str]:
        page = await self.client.beta.threads.messages.list(run.thread_id, run_id=run.id, order="asc")
        return [part.text.value for message in page.data for part in message.content if part.type == "text"]

    async def respond(self, question: Any = "Why?", **fields: Any) -> Response:
        asked: dict[str, Any] = {"model": "gpt-test", "input": question, "background": True}
        asked.update(fields)
        made = await self.client.responses.create(**asked)
        assert isinstance(made, Response)
        return made

    async def response_after(self, response: Response, seconds: float = SECONDS, **fields: Any) -> Response:
        self.clock.advance(seconds)
        got = await self.client.responses.retrieve(response.id, **fields)
        assert isinstance(got, Response)
        return got


@contextlib.asynccontextmanager
async def stage(*rules: dict[str, Any], default: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    prescribed: dict[str, Any] = {"duration": SECONDS}
    prescribed.update(default or {})
    script = parse_script({"default": prescribed, "rule": list(rules)})
    async with (
        running(Options(engine="script", clock=clock, **options), script=script) as server,
        AsyncOpenAI(api_key="any-key", base_url=server.base_url, max_retries=0) as client,
    ):
        yield Stage(server, client, clock)


@pytest.fixture
async def it() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


def ids(objects: Iterable[Any]) -> list[str]:
    return [thing.id for thing in objects]


# Assistants


async def test_an_assistant_lives_from_create_to_delete(it: Stage) -> None:
    made = await it.beta.assistants.create(
        model="gpt-test",
        name="Math Tutor",
        description="Teaches.",
        instructions="Be kind.",
        tools=[{"type": "code_interpreter"}],
        metadata={"a": "1"},
        temperature=0.5,
    )
    assert made.id.startswith("asst_")
    assert (made.name, made.model, made.instructions, made.temperature) == (
        "Math Tutor",
        "gpt-test",
        "Be kind.",
        0.5,
    )
    assert made.tools[0].type == "code_interpreter"
    assert made.created_at == int(it.clock.now)

    changed = await it.beta.assistants.update(made.id, name="Algebra Tutor", metadata={"b": "2"})
    assert (changed.name, changed.metadata, changed.instructions) == ("Algebra Tutor", {"b": "2"}, "Be kind.")
    assert await it.beta.assistants.retrieve(made.id) == changed

    gone = await it.beta.assistants.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "assistant.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No assistant found with id '{made.id}'"):
        await it.beta.assistants.retrieve(made.id)


async def test_assistants_are_listed_in_pages_newest_first(it: Stage) -> None:
    made = [await it.assistant() for _ in range(5)]
    first = await it.beta.assistants.list(limit=2)
    assert ids(first.data) == [made[4], made[3]]
    assert first.has_more
    assert [each.id async for each in it.beta.assistants.list(limit=2)] == made[::-1]
    assert [each.id async for each in it.beta.assistants.list(limit=2, order="asc")] == made
    assert ids((await it.beta.assistants.list(before=made[2], limit=1)).data) == [made[3]]


async def test_a_list_refuses_wrong_paging(it: Stage) -> None:
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="from 1 to 100"):
            await it.beta.assistants.list(limit=limit)
    with pytest.raises(openai.BadRequestError, match="'asc' and 'desc'"):
        await it.beta.assistants.list(order="sideways")
    with pytest.raises(openai.NotFoundError, match="No item found with id 'asst_none'"):
        await it.beta.assistants.list(after="asst_none")


async def test_an_assistant_needs_a_model_and_keeps_to_the_limits(it: Stage) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'model'") as refused:
        await it.client.post("/assistants", body={}, cast_to=object, options={"headers": BETA})
    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", "model")
    for fields, words in (
        ({"name": "n" * 257}, "maximum length 256"),
        ({"description": "d" * 513}, "maximum length 512"),
        ({"instructions": "i" * 256_001}, "maximum length 256000"),
        ({"tools": [{"type": "code_interpreter"}] * 129}, "array too long"),
        ({"temperature": 2.5}, "decimal above maximum value"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            await it.assistant(**fields)


BETA = {"OpenAI-Beta": "assistants=v2"}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({f"key {n}": "v" for n in range(17)}, "at most 16 properties, but got an object with 17"),
        ({"k" * 65: "v"}, "maximum length 64"),
        ({"k": "v" * 513}, "maximum length 512"),
        ({"k": 1}, "Invalid type for 'metadata.k': expected a string, but got an integer"),
    ],
)
async def test_metadata_has_limits(it: Stage, metadata: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.beta.threads.create(metadata=metadata)
    with pytest.raises(openai.BadRequestError, match=words):
        await it.client.conversations.create(metadata=metadata)


async def test_metadata_at_the_limits_is_kept(it: Stage) -> None:
    metadata = {f"{n:>064}": "v" * 512 for n in range(16)}
    assert (await it.beta.threads.create(metadata=metadata)).metadata == metadata


# Threads and messages


async def test_a_thread_lives_from_create_to_delete(it: Stage) -> None:
    made = await it.beta.threads.create(metadata={"job": "1"}, tool_resources={"code_interpreter": {"file_ids": []}})
    assert made.id.startswith("thread_")
    assert await it.beta.threads.retrieve(made.id) == made
    changed = await it.beta.threads.update(made.id, metadata={"job": "2"})
    assert changed.metadata == {"job": "2"}
    assert changed.tool_resources == made.tool_resources
    gone = await it.beta.threads.delete(made.id)
    assert (gone.deleted, gone.object) == (True, "thread.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No thread found with id '{made.id}'"):
        await it.beta.threads.retrieve(made.id)


async def test_deleting_a_thread_deletes_its_messages_and_runs(it: Stage) -> None:
    run = await it.run()
    await it.beta.threads.delete(run.thread_id)
    with pytest.raises(openai.NotFoundError):
        await it.poll(run)
    counts = {**it.server.api.store.counts(), **it.server.api.works.counts()}
    assert (counts["thread"], counts["message"], counts["run"]) == (0, 0, 0)


async def test_threads_conversations_and_responses_cannot_be_listed(it: Stage) -> None:
    for path, headers in (("/threads", BETA), ("/responses", {}), ("/conversations", {})):
        with pytest.raises(openai.APIStatusError) as refused:
            await it.client.get(path, cast_to=object, options={"headers": headers})
        assert refused.value.status_code in (404, 405)
        assert refused.value.type == "invalid_request_error"


async def test_messages_live_from_create_to_delete(it: Stage) -> None:
    thread_id = await it.thread("first")
    second = await it.beta.threads.messages.create(
        thread_id,
        role="user",
        content=[
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}},
        ],
        metadata={"a": "b"},
    )
    assert second.id.startswith("msg_")
    assert (second.role, second.status, second.run_id) == ("user", "completed", None)
    assert [part.type for part in second.content] == ["text", "image_url"]
    assert await it.beta.threads.messages.retrieve(second.id, thread_id=thread_id) == second
    changed = await it.beta.threads.messages.update(second.id, thread_id=thread_id, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}

    newest_first = await it.beta.threads.messages.list(thread_id)
    assert newest_first.data[0].id == second.id
    oldest_first = await it.beta.threads.messages.list(thread_id, order="asc")
    assert oldest_first.data[0].content[0].text.value == "first"

    gone = await it.beta.threads.messages.delete(second.id, thread_id=thread_id)
    assert (gone.deleted, gone.object) == (True, "thread.message.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No message found with id '{second.id}'"):
        await it.beta.threads.messages.retrieve(second.id, thread_id=thread_id)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": ""}, "empty string"),
        ({"role": "user", "content": []}, "empty array"),
        ({"role": "user", "content": "x" * 256_001}, "maximum length 256000"),
        ({"role": "robot", "content": "x"}, "Supported values are: 'user', 'assistant'"),
        ({"role": "user", "content": [{"type": "smell"}]}, "Invalid value: 'smell'"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "with the field it names"),
        ({"role": "user"}, "Missing required parameter: 'content'"),
        ({"role": "user", "content": "x", "colour": "red"}, "Unknown parameter: 'colour'"),
    ],
)
async def test_a_wrong_message_is_refused_and_no_thread_is_left(it: Stage, message: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.beta.threads.create(messages=[message])
    assert it.server.api.store.counts()["thread"] == 0


# Runs


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


TWO_ROUNDS = {
    "calls": [
        [{"name": "add", "arguments": {"a": 1}}, {"name": "sub", "arguments": "not json"}],
        [{"name": "mul", "arguments": {}}],
    ],
    "answer": "Six.",
}


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


# Models


async def test_models_are_listed_and_any_name_is_accepted(it: Stage) -> None:
    assert [model.id async for model in it.client.models.list()] == ["askq-script"]
    assert (await it.client.models.retrieve("anything/at-all")).id == "anything/at-all"


async def test_with_a_list_of_models_others_do_not_exist() -> None:
    async with stage(models=("gpt-test",)) as it:
        assert [model.id async for model in it.client.models.list()] == ["gpt-test"]
        with pytest.raises(openai.NotFoundError, match="'gpt-none' does not exist") as refused:
            await it.client.models.retrieve("gpt-none")
        assert refused.value.code == "model_not_found"
        await it.assistant()
        with pytest.raises(openai.BadRequestError, match="'gpt-none' does not exist"):
            await it.respond(model="gpt-none")
        with pytest.raises(openai.BadRequestError, match="'gpt-none' does not exist"):
            await it.beta.assistants.create(model="gpt-none")


# Conversations


async def test_a_conversation_lives_from_create_to_delete(it: Stage) -> None:
    items: Any = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    made = await it.client.conversations.create(items=items, metadata={"job": "1"})
    assert made.id.startswith("conv_")
    assert await it.client.conversations.retrieve(made.id) == made
    changed = await it.client.conversations.update(made.id, metadata={"job": "2"})
    assert changed.metadata == {"job": "2"}
    added = await it.client.conversations.items.create(made.id, items=[{"role": "user", "content": "More"}])
    assert len(added.data) == 1
    listed = [item async for item in it.client.conversations.items.list(made.id, order="asc", limit=2)]
    assert [item.content[0].text for item in listed if item.type == "message"] == ["Hello", "Hi", "More"]  # type: ignore[union-attr]
    assert (await it.client.conversations.items.list(made.id)).data[0].id == listed[-1].id
    one = await it.client.conversations.items.retrieve(str(listed[0].id), conversation_id=made.id)
    assert one == listed[0]
    left = await it.client.conversations.items.delete(str(listed[0].id), conversation_id=made.id)
    assert left.id == made.id
    with pytest.raises(openai.NotFoundError, match="not found in conversation"):
        await it.client.conversations.items.retrieve(str(listed[0].id), conversation_id=made.id)

    gone = await it.client.conversations.delete(made.id)
    assert (gone.deleted, gone.object) == (True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
        await it.client.conversations.retrieve(made.id)
    assert it.server.api.store.counts()["item"] == 2, "items outlive their conversation, as at OpenAI"


async def test_at_most_twenty_items_at_once(it: Stage) -> None:
    items: Any = [{"role": "user", "content": "x"}] * 21
    with pytest.raises(openai.BadRequestError, match="maximum length 20"):
        await it.client.conversations.create(items=items)
    made = await it.client.conversations.create(items=items[:20])
    with pytest.raises(openai.BadRequestError, match="maximum length 20"):
        await it.client.conversations.items.create(made.id, items=items)
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'items'"):
        await it.client.conversations.items.create(made.id, items=[])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "does not support references to items"),
        ({"role": "robot", "content": "x"}, "Invalid value: 'robot'"),
        ({"content": "x"}, "Missing required parameter: 'input\\[0\\].type'"),
        ({"type": "function_call_output", "output": "x"}, "Missing required parameter: 'call_id'"),
        ({"type": "function_call_output", "call_id": "c" * 65, "output": "x"}, "maximum length 64"),
        ({"type": "function_call", "call_id": "c"}, "Missing required parameter: 'name'"),
    ],
)
async def test_a_wrong_item_is_refused(it: Stage, item: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.respond([item])


# Responses


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


# What holds for all


async def test_a_wrong_key_is_refused_with_the_envelope() -> None:
    async with stage(key="right-key") as it:
        with pytest.raises(openai.AuthenticationError) as refused:
            await it.client.models.list()
        assert refused.value.code == "invalid_api_key"
        assert "right-key" not in str(refused.value)
        assert (await it.client.with_options(api_key="right-key").models.list()).data


async def test_assistants_need_the_beta_header(it: Stage) -> None:
    with pytest.raises(openai.BadRequestError, match="You must provide the 'OpenAI-Beta' header"):
        await it.beta.threads.create(extra_headers={"OpenAI-Beta": "assistants=v1"})
    with pytest.raises(openai.BadRequestError, match="You must provide the 'OpenAI-Beta' header"):
        await it.beta.assistants.list(extra_headers={"OpenAI-Beta": openai.Omit()})


async def test_every_reply_has_a_request_id(it: Stage) -> None:
    raw = await it.client.models.with_raw_response.list()
    assert raw.headers["x-request-id"].startswith("req_")
    with pytest.raises(openai.NotFoundError) as refused:
        await it.client.responses.retrieve("resp_none")
    assert str(refused.value.request_id).startswith("req_")


async def test_other_endpoints_do_not_exist(it: Stage) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/batches\)"):
        await it.client.batches.list()


def test_the_parameters_are_those_of_the_sdk() -> None:
    def names(params: type) -> set[str]:
        return set(typing.get_type_hints(params))

    assert names(assistant_create_params.AssistantCreateParams) == assistant_routes.PARAMETERS
    assert names(run_create_params.RunCreateParamsNonStreaming) - {"include"} == run_routes.RUN_PARAMETERS
    assert (
        names(thread_create_and_run_params.ThreadCreateAndRunParamsNonStreaming) == run_routes.THREAD_AND_RUN_PARAMETERS
    )
    assert names(response_create_params.ResponseCreateParamsNonStreaming) <= response_routes.PARAMETERS
    assert names(thread_create_params.ThreadCreateParams) == {"messages", "metadata", "tool_resources"}
    assert names(message_create_params.MessageCreateParams) == {"role", "content", "attachments", "metadata"}


async def test_idempotency_keys_are_ignored_unless_asked_for(it: Stage) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await it.respond(extra_headers=headers)
    assert (await it.respond(extra_headers=headers)).id != first.id


async def test_idempotency_keys_are_honoured_on_request() -> None:
    async with stage(idempotency=True) as it:
        headers = {"Idempotency-Key": "once"}
        first = await it.respond(extra_headers=headers)
        assert (await it.respond(extra_headers=headers)).id == first.id
        assert (await it.respond(extra_headers={"Idempotency-Key": "twice"})).id != first.id
        with pytest.raises(openai.BadRequestError, match="same parameters") as refused:
            await it.respond("Something else", extra_headers=headers)
        assert refused.value.code == "idempotency_key_reused"
        assert len(await it.server.api.storage.ledger(0, 10)) == 2


async def test_the_ledger_names_every_run_and_response(it: Stage) -> None:
    run = await it.run("First?", metadata={"job": "1"})
    response = await it.respond("Second?", metadata={"job": "2"})
    entries = await it.server.api.storage.ledger(0, 10)
    assert [(e.n, e.id, e.protocol, e.scope, e.metadata, e.question) for e in entries] == [
        (1, run.id, "assistants", run.thread_id, {"job": "1"}, "First?"),
        (2, response.id, "responses", None, {"job": "2"}, "Second?"),
    ]
    assert entries[0].digest != entries[1].digest
