"""Streams of both protocols, consumed with the real OpenAI SDK and its own stream helpers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai
import pytest
from openai import AsyncAssistantEventHandler, AsyncOpenAI

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import Server, running

ANSWER = "The answer is forty-two, 정말로."
CALLS: dict[str, Any] = {
    "calls": [[{"name": "add", "arguments": {"a": 1, "b": 22222222}}, {"name": "sub", "arguments": "{broken"}]],
    "answer": "They are {outputs}.",
}
CODE: dict[str, Any] = {
    "code": [{"input": "total = 1 + 1\nprint(total)", "logs": "2\n"}],
    "answer": ["Let me see.", "Two."],
}


class Stage:
    def __init__(self, server: Server, client: AsyncOpenAI) -> None:
        self.server = server
        self.client = client

    @property
    def beta(self) -> Any:
        return self.client.beta

    async def thread(self, question: str = "Why?") -> dict[str, Any]:
        assistant = await self.beta.assistants.create(model="gpt-test")
        thread = await self.beta.threads.create(messages=[{"role": "user", "content": question}])
        return {"thread_id": thread.id, "assistant_id": assistant.id}

    async def fault(self, **rule: Any) -> None:
        self.server.api.faults.add(rule)

    def respond(self, **fields: Any) -> Any:
        return self.client.responses.create(**{"model": "gpt-test", "input": "Why?", "stream": True, **fields})


@contextlib.asynccontextmanager
async def stage(*rules: dict[str, Any], **options: Any) -> AsyncIterator[Stage]:
    script = parse_script({"default": {"duration": 0.05, "answer": ANSWER}, "rule": list(rules)})
    async with (
        asyncio.timeout(120),
        running(Options(engine="script", **options), script=script) as server,
        AsyncOpenAI(api_key="any-key", base_url=server.base_url, max_retries=0) as client,
    ):
        yield Stage(server, client)


async def broken(stream: Any) -> list[Any]:
    """The events of a stream that breaks off."""
    seen = []
    try:
        async for event in stream:
            seen.append(event)
    except openai.APIConnectionError:
        return seen
    pytest.fail("the stream did not break")


async def ended(retrieve: Callable[[], Awaitable[Any]], status: str) -> Any:
    """The run or response once it has this status."""
    got = await retrieve()
    while got.status != status:
        assert got.status in ("queued", "in_progress", "requires_action"), got
        await asyncio.sleep(0.02)
        got = await retrieve()
    return got


def kinds(events: list[Any]) -> list[str]:
    """Names of the events, runs of the same one shortened to one."""
    names = [event.event if hasattr(event, "event") else event.type for event in events]
    return [name for name, _ in itertools.groupby(names)]


# Responses


@pytest.mark.parametrize("background", [False, True])
async def test_a_text_is_streamed_in_the_documented_order(
    background: bool,  # noqa: FBT001
) -> None:
    async with (
        stage() as it,
        it.client.responses.stream(model="gpt-test", input="Why?", background=background) as stream,
    ):
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert kinds(events) == [
        "response.created",
        *(["response.queued"] if background else []),
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) == 5
    assert "".join(deltas) == final.output_text == ANSWER
    assert [event for event in events if event.type == "response.output_text.delta"][-1].snapshot == ANSWER
    assert final.usage is not None
    assert final.usage.output_tokens > 0
    assert events[0].response.output == []  # type: ignore[union-attr]
    assert events[0].response.status == ("queued" if background else "in_progress")  # type: ignore[union-attr]


async def test_calls_are_streamed_with_their_arguments_and_a_second_response_answers() -> None:
    async with stage(CALLS) as it:
        async with it.client.responses.stream(model="gpt-test", input="Why?") as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        once = [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        assert kinds(events) == ["response.created", "response.in_progress", *once, *once, "response.completed"]
        calls = [item for item in final.output if item.type == "function_call"]
        assert [(call.name, call.arguments) for call in calls] == [
            ("add", '{"a": 1, "b": 22222222}'),
            ("sub", "{broken"),
        ]
        outputs: Any = [
            {"type": "function_call_output", "call_id": call.call_id, "output": call.name} for call in calls
        ]
        async with it.client.responses.stream(model="gpt-test", input=outputs, previous_response_id=final.id) as stream:
            assert (await stream.get_final_response()).output_text == "They are add, sub."


async def test_code_is_streamed_and_its_outputs_come_when_asked_for() -> None:
    async with stage(CODE) as it:
        for include in (None, ["code_interpreter_call.outputs"]):
            events = [event async for event in await it.respond(include=include)]
            assert kinds(events)[2:9] == [
                "response.output_item.added",
                "response.code_interpreter_call.in_progress",
                "response.code_interpreter_call_code.delta",
                "response.code_interpreter_call_code.done",
                "response.code_interpreter_call.interpreting",
                "response.code_interpreter_call.completed",
                "response.output_item.done",
            ]
            code = "".join(event.delta for event in events if event.type == "response.code_interpreter_call_code.delta")
            assert code == CODE["code"][0]["input"]
            [done] = [e for e in events if e.type == "response.output_item.done" and e.output_index == 0]
            assert (done.item.outputs is None) == (include is None)
            assert [event.response.output_text for event in events[-1:]] == ["Let me see.Two."]


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "Broken."}}, "response.failed"),
        ({"status": "incomplete", "partial": "Half an"}, "response.incomplete"),
    ],
)
async def test_other_ends_are_told(rule: dict[str, Any], end: str) -> None:
    async with stage(rule) as it:
        events = [event async for event in await it.respond()]
        assert events[-1].type == end
        if end == "response.failed":
            assert events[-1].response.error.message == "Broken."
        else:
            assert events[-1].response.output_text == "Half an"
            assert "response.output_text.delta" in kinds(events)


async def test_annotations_are_told_before_the_text_is_done() -> None:
    annotation = {"type": "url_citation", "url": "https://example.org", "title": "t", "start_index": 0, "end_index": 1}
    async with stage({"annotations": [annotation]}) as it:
        events = [event async for event in await it.respond()]
        names = kinds(events)
        assert names.index("response.output_text.annotation.added") == names.index("response.output_text.done") - 1
        assert events[-1].response.output[0].content[0].annotations[0].url == "https://example.org"


async def test_words_come_at_the_pace_that_is_prescribed() -> None:
    async with stage({"pace": 20, "duration": 0}) as it:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        moments = []
        async for event in await it.respond():
            if event.type == "response.output_text.delta":
                moments.append(loop.time() - begin)
        assert loop.time() - begin >= 0.2, "four words at twenty a second (the fifth piece is an ending)"
        assert moments == sorted(moments)
        assert moments[0] < moments[-1]


async def test_a_background_stream_is_resumed_where_it_broke() -> None:
    async with stage({"duration": 0.3}) as it:
        await it.fault(kind="cut_stream", events=6, times=1)
        seen = await broken(await it.respond(background=True))
        assert len(seen) == 6
        response_id = seen[0].response.id
        rest = [
            event
            async for event in await it.client.responses.retrieve(
                response_id, stream=True, starting_after=seen[-1].sequence_number
            )
        ]
        assert [event.sequence_number for event in (*seen, *rest)] == list(range(len(seen) + len(rest)))
        text = "".join(e.delta for e in (*seen, *rest) if e.type == "response.output_text.delta")
        assert text == ANSWER
        # After its end it can still be told, and always alike.
        again = [event async for event in await it.client.responses.retrieve(response_id, stream=True)]
        assert kinds(again) == kinds([*seen, *rest])
        assert len(again) == len(seen) + len(rest)
        assert len(await it.server.api.storage.ledger(0, 10)) == 1
        async with it.client.responses.stream(response_id=response_id, starting_after=4) as stream:
            assert (await stream.get_final_response()).output_text == ANSWER


async def test_closing_the_connection_does_not_cancel_a_background_response() -> None:
    async with stage({"duration": 0.3}) as it:
        stream = await it.respond(background=True)
        async for event in stream:
            response_id = event.response.id
            break
        await stream.close()
        got = await ended(lambda: it.client.responses.retrieve(response_id), "completed")
        assert got.output_text == ANSWER


async def test_closing_the_connection_cancels_a_synchronous_response() -> None:
    async with stage({"duration": 20}) as it:
        stream = await it.respond()
        async for event in stream:
            response_id = event.response.id
            break
        await stream.close()
        await ended(lambda: it.client.responses.retrieve(response_id), "cancelled")


async def test_a_cancelled_or_deleted_response_ends_its_stream() -> None:
    async with stage({"duration": 20}) as it:
        for stop, last in ((it.client.responses.cancel, "response.in_progress"), (it.client.responses.delete, "error")):
            events = []
            stream = await it.client.responses.create(model="m", input="x", stream=True, background=True)
            async for event in stream:
                events.append(event)
                if event.type == "response.queued":
                    await stop(event.response.id)
            assert kinds(events)[-1] in (last, "response.queued")


async def test_a_stream_can_stall_and_can_contain_garbage() -> None:
    async with stage({"duration": 0}) as it:
        await it.fault(kind="stall_stream", events=4, seconds=0.3, times=1)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        events = [event async for event in await it.respond()]
        assert events[-1].type == "response.completed"
        assert loop.time() - begin >= 0.3
        await it.fault(kind="garbage_line", events=4, times=1)
        with contextlib.suppress(ValueError):
            async for event in await it.respond(background=True):
                events.append(event)
        [one, other] = await it.server.api.storage.ledger(0, 10)
        assert one.id != other.id
        await it.fault(kind="drop_after", path="/responses$", times=1)
        with pytest.raises(openai.APIConnectionError):
            await it.respond()
        assert len(await it.server.api.storage.ledger(0, 10)) == 3


async def test_what_cannot_be_streamed_is_refused() -> None:
    async with stage({"duration": 0}) as it:
        plain = await it.client.responses.create(model="m", input="x", background=True)
        with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
            await it.client.responses.retrieve(plain.id, stream=True)
        events = [event async for event in await it.respond(background=True)]
        made = events[0].response.id
        with pytest.raises(openai.BadRequestError, match="Invalid type for 'starting_after'"):
            await it.client.responses.retrieve(made, stream=True, extra_query={"starting_after": "x"})
        with pytest.raises(openai.BadRequestError, match="completion window '8h' cannot be streamed"):
            await it.respond(background=True, background_options={"completion_window": "8h"})


async def test_a_stream_survives_a_restart_of_the_server(tmp_path: Any) -> None:
    async with stage({"duration": 0.5}, data=str(tmp_path)) as it:
        seen: list[Any] = []
        async for event in await it.respond(background=True):
            seen.append(event)
            if len(seen) == 5:
                break
    async with stage({"duration": 0.5}, data=str(tmp_path)) as it:
        rest = [
            event
            async for event in await it.client.responses.retrieve(
                seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
            )
        ]
    text = "".join(e.delta for e in (*seen, *rest) if e.type == "response.output_text.delta")
    assert text == ANSWER


async def test_a_stream_that_is_asked_for_again_under_its_key_is_the_same_one() -> None:
    async with stage({"duration": 0.2}, idempotency=True) as it:
        headers = {"Idempotency-Key": "k1"}
        await it.fault(kind="cut_stream", events=2, times=1)
        seen = await broken(await it.respond(background=True, extra_headers=headers))
        again = [event async for event in await it.respond(background=True, extra_headers=headers)]
        assert again[0].response.id == seen[0].response.id
        assert again[-1].response.output_text == ANSWER
        headers = {"Idempotency-Key": "k2"}
        where = await it.thread()
        await it.fault(kind="drop_after", path="/runs$", times=1)
        with pytest.raises(openai.APIConnectionError):
            await it.beta.threads.runs.create(**where, stream=True, extra_headers=headers)
        stream = await it.beta.threads.runs.create(**where, stream=True, extra_headers=headers)
        events = [event async for event in stream]
        assert (events[0].event, events[-1].event) == ("thread.run.created", "thread.run.completed")
        assert len(await it.server.api.storage.ledger(0, 10)) == 2


# Assistants


MESSAGE = ["thread.run.step.created", "thread.run.step.in_progress", "thread.message.created"]
MESSAGE += ["thread.message.in_progress", "thread.message.delta", "thread.message.completed"]
MESSAGE += ["thread.run.step.completed"]
OPENING = ["thread.run.created", "thread.run.queued", "thread.run.in_progress"]


async def test_a_run_is_streamed_in_the_documented_order() -> None:
    async with stage() as it:
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            events = [event async for event in stream]
            run = await stream.get_final_run()
            [message] = await stream.get_final_messages()
        assert kinds(events) == [*OPENING, *MESSAGE, "thread.run.completed"]
        assert (run.status, message.content[0].text.value, message.status) == ("completed", ANSWER, "completed")
        deltas = [event.data for event in events if event.event == "thread.message.delta"]
        assert "".join(delta.delta.content[0].text.value for delta in deltas) == ANSWER
        assert len(deltas) == 5
        stored = await it.beta.threads.messages.retrieve(message.id, thread_id=run.thread_id)
        assert stored == message
        assert events[-1].data.usage.total_tokens > 0
        assert events[2].data.status == "in_progress"


async def test_a_handler_hears_texts_and_calls() -> None:
    heard: list[str] = []

    class Handler(AsyncAssistantEventHandler):
        async def on_text_delta(self, delta: Any, snapshot: Any) -> None:
            heard.append(f"text {snapshot.value}")

        async def on_tool_call_done(self, tool_call: Any) -> None:
            heard.append(f"done {tool_call.type}")

        async def on_text_done(self, text: Any) -> None:
            heard.append(f"whole {text.value}")

    async with (
        stage(CODE) as it,
        it.beta.threads.runs.stream(**await it.thread(), event_handler=Handler()) as stream,
    ):
        await stream.until_done()
        steps = await stream.get_final_run_steps()
    assert heard.index("done code_interpreter") < heard.index("text Two.") < heard.index("whole Two.")
    interpreter = steps[0].step_details.tool_calls[0].code_interpreter
    assert (interpreter.input, interpreter.outputs[0].logs) == (CODE["code"][0]["input"], "2\n")


async def test_calls_are_streamed_and_the_outputs_are_submitted_in_a_stream() -> None:
    async with stage(CALLS) as it:
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            events = [event async for event in stream]
            run = await stream.get_final_run()
            [step] = await stream.get_final_run_steps()
        assert kinds(events) == [
            *OPENING,
            "thread.run.step.created",
            "thread.run.step.in_progress",
            "thread.run.step.delta",
            "thread.run.requires_action",
        ]
        asked = run.required_action.submit_tool_outputs.tool_calls
        streamed = step.step_details.tool_calls
        assert [(call.id, call.function.name, call.function.arguments) for call in streamed] == [
            (call.id, call.function.name, call.function.arguments) for call in asked
        ]
        outputs: Any = [{"tool_call_id": call.id, "output": call.function.name} for call in asked]
        async with it.beta.threads.runs.submit_tool_outputs_stream(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs
        ) as stream:
            events = [event async for event in stream]
            [message] = await stream.get_final_messages()
        assert kinds(events) == [
            "thread.run.step.completed",
            "thread.run.queued",
            "thread.run.in_progress",
            *MESSAGE,
            "thread.run.completed",
        ]
        assert message.content[0].text.value == "They are add, sub."
        assert [call.function.output for call in events[0].data.step_details.tool_calls] == ["add", "sub"]
        assert len(await it.server.api.storage.ledger(0, 10)) == 1


async def test_a_new_thread_is_told_of_and_a_stream_that_breaks_stops_nothing() -> None:
    async with stage({"duration": 0.2}) as it:
        await it.fault(kind="cut_stream", events=5, times=1)
        assistant = await it.beta.assistants.create(model="gpt-test")
        stream = await it.beta.threads.create_and_run(
            assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": "Why?"}]}, stream=True
        )
        seen = await broken(stream)
        assert kinds(seen)[:2] == ["thread.created", "thread.run.created"]
        run = seen[1].data
        got = await ended(lambda: it.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id), "completed")
        assert got.thread_id == seen[0].data.id


@pytest.mark.parametrize(
    ("rule", "end"),
    [
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "Slow."}}, "thread.run.failed"),
        ({"status": "incomplete", "partial": "Half"}, "thread.run.incomplete"),
        ({"status": "stuck"}, "thread.run.expired"),
    ],
)
async def test_other_ends_of_runs_are_told(rule: dict[str, Any], end: str) -> None:
    async with stage(rule, run_lifetime_s=1 if rule["status"] == "stuck" else 600) as it:
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            events = [event async for event in stream]
        assert events[-1].event == end
        assert ("thread.message.incomplete" in kinds(events)) == ("partial" in rule)


async def test_cancelling_is_told() -> None:
    async with stage({"duration": 20, "cancel_takes": 0.2}) as it:
        events = []
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            async for event in stream:
                events.append(event)
                if event.event == "thread.run.queued":
                    await it.beta.threads.runs.cancel(event.data.id, thread_id=event.data.thread_id)
        assert kinds(events)[-2:] == ["thread.run.cancelling", "thread.run.cancelled"]


async def test_a_run_that_waits_can_expire_in_the_poll_after_its_stream() -> None:
    async with stage(CALLS, run_lifetime_s=2.0) as it:
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            run = await stream.get_final_run()
        assert run.status == "requires_action"
        got = await ended(lambda: it.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id), "expired")
        assert got.status == "expired"


PICTURE: dict[str, Any] = {
    "code": [{"input": "plot()", "images": ["chart.png"], "files": [{"name": "t.csv", "text": "a,b"}]}],
    "search": [{"queries": ["t"], "results": []}],
    "answer": "See sandbox:/mnt/data/t.csv",
}


async def test_what_code_makes_is_told_as_it_is_kept_in_the_end() -> None:
    async with stage(PICTURE) as it:
        async with it.beta.threads.runs.stream(**await it.thread()) as stream:
            events = [event async for event in stream]
            run = await stream.get_final_run()
            [message] = await stream.get_final_messages()
            steps = await stream.get_final_run_steps()
        assert events[-1].event == "thread.run.completed"
        assert await it.beta.threads.messages.retrieve(message.id, thread_id=run.thread_id) == message
        assert [part.type for part in message.content] == ["image_file", "text"]
        await it.client.files.content(message.content[0].image_file.file_id)
        assert [step.step_details.type for step in steps] == ["tool_calls", "tool_calls", "message_creation"]

        include: Any = ["code_interpreter_call.outputs", "file_search_call.results"]
        told = [event async for event in await it.respond(background=True, include=include)]
        again = [
            event
            async for event in await it.client.responses.retrieve(told[0].response.id, stream=True, include=include)
        ]
        assert [event.type for event in again] == [event.type for event in told]
        items = [[event.item for event in e if event.type == "response.output_item.done"] for e in (told, again)]
        assert items[0] == items[1] == told[-1].response.output
        assert "response.file_search_call.searching" in kinds(told)
        assert "response.output_text.annotation.added" in kinds(told)
