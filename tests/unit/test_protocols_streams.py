"""Streams of both protocols, read as pieces of one vocabulary; and what comes of streams that break."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from askq.jobs.live import Kind, Piece, joined
from tests.unit.protocols_stage import HTML, Service, ask, assistant
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Ambiguous, Broken, Gone, Limited, Live, Refused, RunState, ToolOutput
from worker.protocols.responses import ResponsesProtocol

QUEUED = {"id": "resp_1", "object": "response", "status": "queued"}
DONE = {**QUEUED, "status": "completed", "output": []}
RUN = {"id": "run_1", "object": "thread.run", "status": "queued"}


def numbered(*events: dict[str, Any], start: int = 0) -> list[dict[str, Any]]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events, start)]


def text(delta: str, item: str = "msg_1") -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": item, "delta": delta}


def said(delta: str, *annotations: dict[str, Any], index: int = 0) -> tuple[str, dict[str, Any]]:
    part = {"index": index, "type": "text", "text": {"value": delta, "annotations": list(annotations)}}
    return "thread.message.delta", {"id": "msg_1", "delta": {"content": [part]}}


async def all_of(live: Live | None) -> list[Piece]:
    assert live is not None
    return joined([piece async for piece in live.pieces()])


async def test_a_watched_response_is_seen_as_it_is_written() -> None:
    service = Service()
    code = {"type": "code_interpreter_call", "id": "ci_1", "code": "print(1)"}
    service.streams(
        *numbered(
            {"type": "response.created", "response": QUEUED},
            {"type": "response.in_progress", "response": {**QUEUED, "status": "in_progress"}},
            {"type": "response.output_item.added", "item": {"type": "message", "id": "m0", "phase": "commentary"}},
            text("I compute.", "m0"),
            {"type": "response.output_item.added", "item": code | {"code": ""}},
            {"type": "response.code_interpreter_call_code.delta", "item_id": "ci_1", "delta": "print("},
            {"type": "response.code_interpreter_call_code.delta", "item_id": "ci_1", "delta": "1)"},
            {
                "type": "response.output_item.done",
                "item": code | {"outputs": [{"type": "logs", "logs": "1\n"}, {"type": "image", "url": "u1"}]},
            },
            {"type": "response.output_item.added", "item": {"type": "function_call", "id": "fc_1", "name": "light"}},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"on":'},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "true}"},
            {"type": "response.output_item.added", "item": {"type": "file_search_call", "id": "fs_1"}},
            {"type": "response.nobody_knows", "item_id": "x"},
            text("세계"),
            text("!"),
            {
                "type": "response.output_text.annotation.added",
                "annotation": {"type": "container_file_citation", "file_id": "cfile_1", "filename": "a.csv"},
            },
            {"type": "response.completed", "response": DONE},
        )
    )
    async with service.client() as client:
        status, live = await ResponsesProtocol(client).start_live(ask(stream=True), "conv_1", None)
        assert (status.state, status.run_id) == (RunState.PENDING, "resp_1")
        pieces = await all_of(live)
        assert live is not None
        assert live.ended
    body = service.body()
    assert (body["stream"], body["background"], body["conversation"]) == (True, True, "conv_1")
    assert service.requests[0].headers["idempotency-key"] == ask().idempotency_key
    assert pieces == [
        Piece(kind=Kind.STATUS, text="queued"),
        Piece(kind=Kind.STATUS, text="in_progress"),
        Piece(kind=Kind.ASIDE, key="m0", text="I compute."),
        Piece(kind=Kind.CODE, key="ci_1", text="print(1)"),
        Piece(kind=Kind.OUTPUT, key="ci_1/0", text="1\n"),
        Piece(kind=Kind.IMAGE, key="u1"),
        Piece(kind=Kind.CALL, key="fc_1", name="light", text='{"on":true}'),
        Piece(kind=Kind.SEARCH, key="fs_1", name="files"),
        Piece(kind=Kind.TEXT, key="msg_1", text="세계!"),
        Piece(kind=Kind.FILE, key="cfile_1", name="a.csv"),
    ]


def message(said: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": said, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "light", "arguments": "{}"}
USED = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize(
    ("response", "items", "state", "said", "calls"),
    [
        ({"status": "completed", "output": [message("It is 4.")]}, [], RunState.DONE, "It is 4.", 0),
        ({"status": "completed", "output": []}, [message("It is 4.")], RunState.DONE, "It is 4.", 0),
        ({"status": "completed"}, [message("It is 4."), CALL], RunState.ACTION, "It is 4.", 1),
        ({"status": "incomplete", "output": [message("It")]}, [], RunState.INCOMPLETE, "It", 0),
        ({"status": "failed", "error": {"code": "server_error"}}, [], RunState.FAILED, None, 0),
    ],
    ids=["whole", "not repeated", "calls", "cut", "failed"],
)
async def test_the_last_event_of_a_response_says_all_that_a_poll_would(
    response: dict[str, Any], items: list[dict[str, Any]], state: RunState, said: str | None, calls: int
) -> None:
    service = Service()
    events = [{"type": "response.created", "response": QUEUED}, text("It")]
    events += [{"type": "response.output_item.done", "item": item} for item in items]
    last = {"type": "response.ended", "response": {**QUEUED, "usage": USED, **response}}
    service.streams(*numbered(*events, last))
    service.streams(*numbered(*events, last))
    service.says({**QUEUED, "usage": USED, **response, "output": items or response.get("output", [])})
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        _, live = await protocol.start_live(ask(stream=True), "conv_1", None)
        assert live is not None
        assert (live.brings_end, live.final) == (True, None)
        await all_of(live)
        resumed = await protocol.resume_live("conv_1", "resp_1", None)
        await all_of(resumed)
        polled = await protocol.poll("conv_1", "resp_1")
    final = live.final
    assert final is not None
    assert resumed is not None
    assert final == resumed.final == polled
    assert (final.state, final.run_id, len(final.tool_calls)) == (state, "resp_1", calls)
    assert final.usage is not None
    assert final.usage.total_tokens == 7
    assert final.answer is not None
    assert final.answer.text == said


async def test_a_stream_that_says_nothing_of_an_end_brings_none() -> None:
    service = Service()
    service.streams(*numbered({"type": "response.created", "response": QUEUED}, text("Hel")))
    service.streams(("thread.run.created", RUN), ("thread.run.completed", {**RUN, "status": "completed"}))
    async with service.client() as client:
        _, live = await ResponsesProtocol(client).start_live(ask(stream=True), "conv_1", None)
        await all_of(live)
        _, other = await AssistantsProtocol(client).start_live(ask(stream=True), "thread_1", "asst_1")
        await all_of(other)
    assert live is not None
    assert (live.ended, live.final) == (False, None)
    assert other is not None
    assert (other.ended, other.brings_end, other.final) == (True, False, None)


async def test_a_watched_run_of_a_thread_is_seen_as_it_is_written() -> None:
    service = Service()
    interpreter = {"index": 0, "type": "code_interpreter"}
    call = {"index": 1, "type": "function"}
    image = {"index": 1, "type": "image", "image": {"file_id": "i"}}

    def step(call: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        details = {"type": "tool_calls", "tool_calls": [call]}
        return "thread.run.step.delta", {"id": "step_1", "delta": {"step_details": details}}

    service.streams(
        ("thread.run.created", RUN),
        ("thread.run.queued", RUN),
        ("thread.run.in_progress", {**RUN, "status": "in_progress"}),
        ("thread.run.step.created", {"id": "step_1", "status": "in_progress"}),
        step({**interpreter, "id": "call_1", "code_interpreter": {"input": "1 +"}}),
        step({**interpreter, "code_interpreter": {"input": " 1"}}),
        step({**interpreter, "code_interpreter": {"outputs": [{"index": 0, "type": "logs", "logs": "2"}]}}),
        step({**interpreter, "code_interpreter": {"outputs": [image]}}),
        step({**call, "id": "call_2", "function": {"name": "light", "arguments": ""}}),
        step({**call, "function": {"arguments": "{}"}}),
        said("It is two【4:0†sou"),
        said("rce】, or 【2】 【"),
        said("", {"type": "file_path", "text": "sandbox:/mnt/data/a.csv", "file_path": {"file_id": "f"}}),
        ("thread.message.completed", {"id": "msg_1"}),
        ("thread.run.completed", {**RUN, "status": "completed"}),
        ("done", "[DONE]"),
    )
    async with service.client() as client:
        status, live = await AssistantsProtocol(client).start_live(ask(stream=True), "thread_1", "asst_1")
        assert (status.state, status.run_id) == (RunState.PENDING, "run_1")
        pieces = await all_of(live)
        assert live is not None
        assert live.ended
    assert service.calls == ["POST /threads/thread_1/runs"]
    assert service.requests[0].headers["openai-beta"] == "assistants=v2"
    assert service.body() == {
        "assistant_id": "asst_1",
        "stream": True,
        "metadata": {"askq_job": "b_1.r1", "askq_attempt": "1"},
    }
    assert pieces == [
        Piece(kind=Kind.STATUS, text="queued"),
        Piece(kind=Kind.STATUS, text="in_progress"),
        Piece(kind=Kind.CODE, key="step_1/0", text="1 + 1"),
        Piece(kind=Kind.OUTPUT, key="step_1/0/0", text="2"),
        Piece(kind=Kind.IMAGE, key="i"),
        Piece(kind=Kind.CALL, key="step_1/1", name="light", text="{}"),
        Piece(kind=Kind.TEXT, key="msg_1/0", text="It is two, or 【2】"),
        Piece(kind=Kind.FILE, key="f", name="a.csv"),
        Piece(kind=Kind.TEXT, key="msg_1/0", at=17, text=" 【"),
    ]


async def test_after_the_outputs_a_run_of_a_thread_goes_on_in_a_stream() -> None:
    service = Service()
    service.streams(
        ("thread.run.step.completed", {"id": "step_1", "status": "completed"}),
        ("thread.run.queued", RUN),
        said("It is on."),
        ("thread.run.completed", {**RUN, "status": "completed"}),
    )
    service.streams(("thread.run.requires_action", {**RUN, "status": "requires_action"}))
    service.streams(("thread.run.step.completed", {"id": "step_1", "status": "completed"}))
    service.refuses(400, "Unknown parameter: 'stream'.")
    outputs = (ToolOutput(call_id="call_1", output="on"),)
    async with service.client() as client:
        protocol = AssistantsProtocol(client)
        status, live = await protocol.submit_tool_outputs_live("thread_1", "run_1", outputs)
        assert (status.state, status.run_id) == (RunState.PENDING, "run_1")
        assert (await all_of(live))[-1] == Piece(kind=Kind.TEXT, key="msg_1/0", text="It is on.")
        status, live = await protocol.submit_tool_outputs_live("thread_1", "run_1", outputs)
        assert (status.state, live) == (RunState.ACTION, None)
        for meaning in (Ambiguous, Refused):
            with pytest.raises(meaning):
                await protocol.submit_tool_outputs_live("thread_1", "run_1", outputs)
    assert set(service.calls) == {"POST /threads/thread_1/runs/run_1/submit_tool_outputs"}
    assert service.body(0) == {"tool_outputs": [{"tool_call_id": "call_1", "output": "on"}], "stream": True}
    assert service.requests[0].headers["openai-beta"] == "assistants=v2"


async def test_a_status_that_nobody_knows_ends_no_stream() -> None:
    service = Service()
    service.streams(
        *numbered(
            {"type": "response.created", "response": QUEUED},
            {"type": "response.warming_up", "response": {**QUEUED, "status": "warming_up"}},
            text("Hi"),
        )
    )
    service.streams(("thread.run.created", RUN), ("thread.run.warming_up", {**RUN, "status": "warming_up"}), said("Hi"))
    async with service.client() as client:
        for protocol in (ResponsesProtocol(client), AssistantsProtocol(client)):
            _, live = await protocol.start_live(ask(stream=True), "thread_1", "asst_1")
            pieces = await all_of(live)
            assert [piece.text for piece in pieces][-2:] == ["warming_up", "Hi"]


@pytest.mark.parametrize(
    ("error", "raw"),
    [
        (httpx2.ReadError("reset"), b""),
        (httpx2.ReadTimeout("stalled"), b""),
        (None, b"data: {garbage\n\n"),
        (None, b"data: \xff\xfe\n\n"),
        (None, b'event: error\ndata: {"error": {"message": "overloaded"}}\n\n'),
    ],
    ids=["reset", "stall", "no json", "no text", "error event"],
)
async def test_a_stream_that_breaks_says_so_after_what_it_brought(error: Exception | None, raw: bytes) -> None:
    service = Service()
    service.streams(*numbered({"type": "response.created", "response": QUEUED}, text("Hel")), error=error, raw=raw)
    async with service.client() as client:
        _, live = await ResponsesProtocol(client).start_live(ask(stream=True), "conv_1", None)
        assert live is not None
        seen: list[Piece] = []

        async def read() -> None:
            async for piece in live.pieces():
                seen.append(piece)

        with pytest.raises(Broken) as told:
            await read()
    assert seen[-1] == Piece(kind=Kind.TEXT, key="msg_1", text="Hel")
    assert not live.ended
    assert "secret" not in str(told.value)


async def test_a_stream_that_is_cut_between_two_events_has_not_ended_its_run() -> None:
    service = Service()
    service.streams(("thread.run.created", RUN), said("Hel"))
    async with service.client() as client:
        protocol = AssistantsProtocol(client)
        _, live = await protocol.start_live(ask(stream=True), "thread_1", "asst_1")
        assert [piece.text for piece in await all_of(live)] == ["Hel"]
        assert live is not None
        assert not live.ended
        assert await protocol.resume_live("thread_1", "run_1", live) is None


async def test_a_response_is_resumed_after_its_last_event() -> None:
    service = Service()
    service.streams(
        *numbered({"type": "response.created", "response": QUEUED}, text("Hel")), error=httpx2.ReadError("reset")
    )
    service.streams(*numbered(text("lo"), {"type": "response.completed", "response": DONE}, start=2))
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        _, live = await protocol.start_live(ask(stream=True), "conv_1", None)
        with pytest.raises(Broken):
            await all_of(live)
        again = await protocol.resume_live("conv_1", "resp_1", live)
        assert await all_of(again) == [Piece(kind=Kind.TEXT, key="msg_1", at=3, text="lo")]
    url = service.requests[1].url
    assert (url.path, url.params["stream"], url.params["starting_after"]) == ("/v1/responses/resp_1", "true", "1")


async def test_whoever_has_seen_nothing_of_a_response_sees_it_from_its_beginning() -> None:
    service = Service()
    service.streams(*numbered({"type": "response.created", "response": QUEUED}, text("Hi")))
    async with service.client() as client:
        found = await all_of(await ResponsesProtocol(client).resume_live("conv_1", "resp_1", None))
    assert found[-1] == Piece(kind=Kind.TEXT, key="msg_1", text="Hi")
    assert "starting_after" not in service.requests[0].url.params


@pytest.mark.parametrize(
    ("status", "message", "meaning"),
    [(404, "no such response", Gone), (400, "not created with stream", Refused), (429, "slow", Limited)],
)
async def test_a_stream_that_cannot_be_resumed(status: int, message: str, meaning: type[Exception]) -> None:
    service = Service()
    service.refuses(status, message)
    async with service.client() as client:
        with pytest.raises(meaning):
            await ResponsesProtocol(client).resume_live("conv_1", "resp_1", None)


async def test_a_server_without_streams_answers_as_to_any_create() -> None:
    service = Service()
    service.says(QUEUED)
    service.says(QUEUED)
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        status, live = await protocol.start_live(ask(stream=True), "conv_1", None)
        assert (status.state, status.run_id, live) == (RunState.PENDING, "resp_1", None)
        with pytest.raises(Ambiguous):
            await protocol.resume_live("conv_1", "resp_1", None)


async def test_a_run_that_ended_at_once_needs_no_stream() -> None:
    service = Service()
    service.streams({"type": "response.completed", "response": {**DONE, "status": "failed"}})
    async with service.client() as client:
        status, live = await ResponsesProtocol(client).start_live(ask(stream=True), "conv_1", None)
    assert (status.state, live) == (RunState.FAILED, None)


@pytest.mark.parametrize("protocol", [AssistantsProtocol, ResponsesProtocol])
async def test_until_the_run_is_named_a_run_may_exist(protocol: type[AssistantsProtocol | ResponsesProtocol]) -> None:
    service = Service()
    service.streams(("thread.created", {"id": "thread_1"}))
    service.streams(error=httpx2.ReadError("reset"))
    service.says(status=200, text=HTML)
    service.refuses(400, "bad")
    service.fails(httpx2.ReadTimeout("late"))
    # A server without streams, and a refusal, that are cut in the middle.
    service.streams(raw=b'{"id": "re', error=httpx2.ReadError("cut"), kind_of_content="application/json")
    service.streams(raw=b'{"error": {', error=httpx2.ReadError("cut"), status=400, kind_of_content="application/json")
    async with service.client() as client:
        spoken = protocol(client)
        for meaning in (Ambiguous, Ambiguous, Ambiguous, Refused, Ambiguous, Ambiguous, Ambiguous):
            with pytest.raises(meaning):
                await spoken.start_live(ask(stream=True), "t_1", "asst_1")


async def test_discounted_runs_have_no_streams() -> None:
    service = Service()
    service.says(QUEUED)
    async with service.client() as client:
        windowed = assistant(protocol="responses", completion_window="2h")
        _, live = await ResponsesProtocol(client).start_live(ask(stream=True, assistant=windowed), "conv_1", None)
    assert live is None
    assert "stream" not in service.body()
