"""The `chat` engine against a server that streams: pieces, calls, images, and streams that go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from askq.localapi.engines.base import Call, GivenFile, Request, Text, Turn
from askq.localapi.engines.chat_wire import Reader, chat_body
from askq.localapi.engines.live import Live
from askq.localapi.options import Options

from .stage import Stage, stage

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

DATA_URL = "data:image/png;base64,eA=="
WEB_URL = "https://example.com/x.png"


def delta(finish: str | None = None, **fields: Any) -> Any:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(index: int, arguments: str, **first: Any) -> Any:
    name = first.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return delta(tool_calls=[{"index": index, **first, "function": function}])


USAGE: Any = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}
HELLO: list[Any] = [delta(role="assistant", content=""), *(delta(content=piece) for piece in ("Hel", "lo ", "there."))]
CALLS: list[Any] = [
    delta(content="Let me add."),
    call(0, "", id="call_a", name="add"),
    call(0, '{"a":'),
    call(0, " 1}"),
    call(1, "{}", id="call_b", name="add"),
]


class Upstream:
    """Streams what it is told to. Each `None` among the chunks waits until the test lets it go on."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.chunks: list[Any] = []
        self.then: list[Any] | None = None
        """What it streams from the second time on, if that is something else."""
        self.go_on = asyncio.Event()
        self.cut = False
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for chunk in self.chunks if self.then is None or len(self.asked) == 1 else self.then:
            if chunk is None:
                await self.go_on.wait()
            else:
                text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                await reply.write(f"data: {text}\n\n".encode())
        if self.cut:
            assert request.transport is not None
            request.transport.close()
        else:
            await reply.write(b": comment\n\ndata: [DONE]\n\n")
        return reply


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    it = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", it.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield it
    await runner.cleanup()


async def told(it: Stage, path: str, body: Any) -> AsyncIterator[tuple[str, Any]]:
    """The events of a stream; the last one has no data."""
    async with it.http.post(it.server.base_url + path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        name = ""
        async for line in reply.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, None if value == "[DONE]" else json.loads(value)


def respond(**fields: Any) -> Any:
    return {"model": "m", "input": "Hello?", "stream": True, "background": True, **fields}


async def test_what_the_upstream_says_is_told_while_it_speaks(upstream: Upstream) -> None:
    upstream.chunks = [*HELLO[:3], None, *HELLO[3:], delta("stop"), USAGE]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        pieces: list[str] = []
        ended: Any = None
        response_id = ""
        async for name, data in told(it, "/responses", respond()):
            if name == "response.output_text.delta":
                pieces.append(data["delta"])
                if len(pieces) == 2:
                    got = await it.good("GET", f"/responses/{response_id}")
                    assert got["status"] == "in_progress"
                    upstream.go_on.set()
            elif name == "response.created":
                response_id = data["response"]["id"]
            ended = name, data
        assert pieces == ["Hel", "lo ", "there."]
        assert ended is not None
        assert ended[0] == "response.completed"
        final = ended[1]["response"]
        assert final["output"][0]["content"][0]["text"] == "Hello there."
        assert (final["usage"]["input_tokens"], final["usage"]["output_tokens"]) == (11, 7)
        again = [(name, data["sequence_number"]) async for name, data in _resumed(it, response_id, 5)]
        assert [number for _, number in again] == list(range(6, ended[1]["sequence_number"] + 1))
    assert upstream.asked[0]["stream"] is True
    assert upstream.asked[0]["stream_options"] == {"include_usage": True}


async def _resumed(it: Stage, response_id: str, after: int) -> AsyncIterator[tuple[str, Any]]:
    url = f"{it.server.base_url}/responses/{response_id}?stream=true&starting_after={after}"
    async with it.http.get(url) as reply:
        for block in (await reply.text()).strip().split("\n\n"):
            name, data = block.split("\n")
            yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_calls_are_told_piece_by_piece_on_both_protocols(upstream: Upstream) -> None:
    upstream.chunks = [*CALLS, delta("tool_calls"), USAGE]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        tools = [{"type": "function", **TOOL["function"]}]  # type: ignore[dict-item]
        events = [event async for event in told(it, "/responses", respond(tools=tools, tool_choice="required"))]
        deltas = [(d["output_index"], d["delta"]) for n, d in events if n == "response.function_call_arguments.delta"]
        assert deltas == [(1, '{"a":'), (1, " 1}"), (2, "{}")]
        assert [item["type"] for item in events[-1][1]["response"]["output"]] == [
            "message",
            "function_call",
            "function_call",
        ]

        assistant = await it.good("POST", "/assistants", {"model": "m", "tools": [TOOL]})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": "1 + 2?"}]})
        path = f"/threads/{thread['id']}/runs"
        body = {"assistant_id": assistant["id"], "stream": True, "parallel_tool_calls": False}
        events = [event async for event in told(it, path, body)]
        names = [name for name, _ in events]
        assert names[-2:] == ["thread.run.requires_action", "done"]
        assert names.count("thread.run.step.created") == 2
        steps = [data["delta"]["step_details"]["tool_calls"][0] for n, data in events if n == "thread.run.step.delta"]
        assert [(step["index"], step["function"]["arguments"]) for step in steps] == [
            (0, ""), (0, '{"a":'), (0, " 1}"), (1, ""), (1, "{}"),
        ]  # fmt: skip
        run = events[-2][1]
        asked = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        assert [(each["id"], each["function"]["arguments"]) for each in asked] == [
            ("call_a", '{"a": 1}'), ("call_b", "{}"),
        ]  # fmt: skip
        upstream.chunks = [*HELLO, delta("stop")]
        outputs = [{"tool_call_id": each["id"], "output": "3"} for each in asked]
        submit = {"tool_outputs": outputs, "stream": True}
        events = [event async for event in told(it, f"{path}/{run['id']}/submit_tool_outputs", submit)]
        assert [name for name, _ in events][-2:] == ["thread.run.completed", "done"]
        said = [data["delta"]["content"][0]["text"]["value"] for n, data in events if n == "thread.message.delta"]
        assert said == ["Hel", "lo ", "there."]
    assert upstream.asked[0]["tool_choice"] == "required"
    assert upstream.asked[1]["parallel_tool_calls"] is False
    assert [message["role"] for message in upstream.asked[2]["messages"]] == ["user", "assistant", "tool", "tool"]
    assert upstream.asked[2]["messages"][1]["content"] == "Let me add."
    calls = upstream.asked[2]["messages"][1]["tool_calls"]
    assert [each["id"] for each in calls] == ["call_a", "call_b"]


@pytest.mark.parametrize(
    ("chunks", "cut", "words"),
    [
        ([*HELLO], False, "broke off before the end of its answer"),
        ([*HELLO], True, "broke off"),
        ([*HELLO, {"error": {"message": "out of memory"}}], False, "broke off: out of memory"),
        ([*HELLO, "{not json"], False, "sent a chunk that is none: {not json"),
    ],
)
async def test_a_stream_that_goes_wrong_fails_the_run_and_keeps_what_was_said(
    upstream: Upstream,
    chunks: list[Any],
    cut: bool,  # noqa: FBT001
    words: str,
) -> None:
    upstream.chunks, upstream.cut = chunks, cut
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        events = [event async for event in told(it, "/responses", respond())]
    name, data = events[-1]
    assert name == "response.failed"
    assert words in data["response"]["error"]["message"]
    assert data["response"]["output"][0]["content"][0]["text"] == "Hello there."


async def test_an_upstream_that_answers_whole_is_taken_as_it_is(upstream: Upstream) -> None:
    async def whole(request: web.Request) -> web.Response:
        message = {"role": "assistant", "content": "Hello there."}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", whole)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=url)) as it:
        events = [event async for event in told(it, "/responses", respond(background=False))]
    await runner.cleanup()
    assert [data["delta"] for name, data in events if name == "response.output_text.delta"] == ["Hello ", "there."]


def request(*turns: Turn, **fields: Any) -> Request:
    return Request(work_id="r", protocol="responses", model="m", instructions="", turns=turns, **fields)


def test_images_are_passed_on_as_urls_and_files_as_data(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"png")
    images = ({"url": "https://example.org/a.png", "detail": "low"}, {"file_id": "file-1"}, {"file_id": "file-gone"})
    given = GivenFile(file_id="file-1", name="b.jpg", size=3, path=path, use="input")
    body = chat_body(request(Turn(role="user", text="Look", images=images), files=(given,)), None)
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,cG5n"}},
        {"type": "text", "text": "(The image file-gone is not there any more.)"},
    ]


async def test_images_of_both_protocols_reach_the_upstream(upstream: Upstream) -> None:
    upstream.chunks = [*HELLO, delta("stop")]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        content: Any = [
            {"type": "input_text", "text": "Look"},
            {"type": "input_image", "image_url": DATA_URL},
        ]
        body = respond(input=[{"role": "user", "content": content}])
        assert [event async for event in told(it, "/responses", body)]
        content = [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": WEB_URL}},
        ]
        assistant = await it.good("POST", "/assistants", {"model": "m"})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": content}]})
        body = {"assistant_id": assistant["id"], "stream": True}
        assert [event async for event in told(it, f"/threads/{thread['id']}/runs", body)]
    expected = [
        [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": url}}]
        for url in (DATA_URL, WEB_URL)
    ]
    assert [asked["messages"][0]["content"] for asked in upstream.asked] == expected


async def test_pictures_that_were_uploaded_reach_the_upstream_as_data(upstream: Upstream) -> None:
    upstream.chunks = [*HELLO, delta("stop")]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        form = aiohttp.FormData({"purpose": "vision"})
        form.add_field("file", b"png", filename="a.png")
        async with it.http.post(f"{it.server.base_url}/files", data=form) as reply:
            file_id = (await reply.json())["id"]
        body = respond(input=[{"role": "user", "content": [{"type": "input_image", "file_id": file_id}]}])
        assert [event async for event in told(it, "/responses", body)]
        content = [{"type": "image_file", "image_file": {"file_id": file_id}}]
        assistant = await it.good("POST", "/assistants", {"model": "m"})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": content}]})
        body = {"assistant_id": assistant["id"], "stream": True}
        assert [event async for event in told(it, f"/threads/{thread['id']}/runs", body)]
    expected = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}}]
    assert [asked["messages"][0]["content"] for asked in upstream.asked] == [expected, expected]


def test_the_choice_of_a_function_is_spelt_as_chat_completions_do() -> None:
    """A function by its name is what many of them do not know; that alone, and required, is the same."""
    other = {"type": "function", "function": {"name": "sub"}}
    body = chat_body(request(tools=(other, TOOL), options={"tool_choice": "add"}), None)
    assert (body["tool_choice"], body["tools"]) == ("required", [TOOL])
    assert chat_body(request(tools=(other, TOOL), options={"tool_choice": "none"}), None)["tool_choice"] == "none"
    assert "tool_choice" not in chat_body(request(options={"tool_choice": "none"}), None)


ADD = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
SUB = {"type": "function", "name": "sub"}


async def test_a_run_is_forced_to_call_once(upstream: Upstream) -> None:
    """The choice is the run's, and cannot be changed with the outputs: forced again, it would never answer."""
    upstream.chunks = [*CALLS, delta("tool_calls")]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        assistant = await it.good("POST", "/assistants", {"model": "m", "tools": [TOOL]})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": "1 + 2?"}]})
        path = f"/threads/{thread['id']}/runs"
        body = {"assistant_id": assistant["id"], "stream": True, "tool_choice": "required"}
        run = [data async for _, data in told(it, path, body)][-2]
        upstream.chunks = [*HELLO, delta("stop")]
        outputs = [
            {"tool_call_id": each["id"], "output": "3"}
            for each in run["required_action"]["submit_tool_outputs"]["tool_calls"]
        ]
        submit = {"tool_outputs": outputs, "stream": True}
        names = [name async for name, _ in told(it, f"{path}/{run['id']}/submit_tool_outputs", submit)]
        assert names[-2:] == ["thread.run.completed", "done"]
    assert [asked.get("tool_choice") for asked in upstream.asked] == ["required", None]
    assert [asked["tools"] for asked in upstream.asked] == [[TOOL], [TOOL]]


async def test_a_choice_among_some_tools_leaves_the_others_out(upstream: Upstream) -> None:
    upstream.chunks = [*HELLO, delta("stop")]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        for mode in ("required", "auto"):
            choice = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "sub"}]}
            assert [event async for event in told(it, "/responses", respond(tools=[ADD, SUB], tool_choice=choice))]
        for wrong, words in (
            ({**choice, "mode": "none"}, "Supported values are: 'auto' and 'required'"),
            ({**choice, "tools": [{"type": "function", "name": "mul"}]}, "Tool choice 'mul' not found"),
        ):
            status, said = await it.ask("POST", "/responses", respond(tools=[ADD], tool_choice=wrong))
            assert (status, words in said["error"]["message"]) == (400, True), said
    required, as_a_form, free = upstream.asked
    assert (required.get("tool_choice"), free.get("tool_choice")) == ("required", None)
    for asked in (required, free):
        assert [tool["function"]["name"] for tool in asked["tools"]] == ["sub"]
    assert as_a_form["response_format"]["json_schema"]["schema"]["properties"]["name"] == {"const": "sub"}


def said_in_pieces(text: str) -> list[Any]:
    return [*(delta(content=text[at : at + 7]) for at in range(0, len(text), 7)), delta("stop"), USAGE]


async def test_a_call_in_the_text_is_a_call_and_other_json_is_an_answer(upstream: Upstream) -> None:
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        upstream.chunks = said_in_pieces('{"name": "add", "arguments": {"a": 1}}')
        events = [event async for event in told(it, "/responses", respond(tools=[ADD, SUB]))]
        [item] = events[-1][1]["response"]["output"]
        assert (item["type"], item["name"], item["arguments"]) == ("function_call", "add", '{"a": 1}')
        assert not [name for name, _ in events if name == "response.output_text.delta"]
        first = item["call_id"]
        upstream.chunks = said_in_pieces('{"name": "add", "arguments": {"a": 2}}')
        more = respond(
            tools=[ADD, SUB],
            previous_response_id=events[-1][1]["response"]["id"],
            input=[{"type": "function_call_output", "call_id": first, "output": "2"}],
        )
        events = [event async for event in told(it, "/responses", more)]
        assert events[-1][1]["response"]["output"][0]["call_id"] != first
        upstream.chunks = said_in_pieces('{"name": "mul", "arguments": {}} is no function.')
        for fields in ({"tools": [ADD]}, {"tools": [ADD], "tool_choice": "none"}, {}):
            events = [event async for event in told(it, "/responses", respond(**fields))]
            pieces = [data["delta"] for name, data in events if name == "response.output_text.delta"]
            assert "".join(pieces) == '{"name": "mul", "arguments": {}} is no function.'


async def test_text_that_cannot_be_a_call_is_told_as_it_comes(upstream: Upstream) -> None:
    upstream.chunks = [delta(content="`"), delta(content="a"), None, delta(content="` it is."), delta("stop")]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        pieces = []
        async for name, data in told(it, "/responses", respond(tools=[ADD])):
            if name == "response.output_text.delta":
                pieces.append(data["delta"])
                upstream.go_on.set()  # only now does the upstream say the rest
        assert pieces == ["`a", "` it is."]


async def test_a_call_that_is_required_and_does_not_come_is_asked_for_as_a_form(upstream: Upstream) -> None:
    """Ollama does not know the choice, and llama.cpp does not keep to it."""
    upstream.chunks = said_in_pieces("It is hot indeed.")
    upstream.then = said_in_pieces('{"name": "add", "arguments": {"a": 1}}')
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        asked = respond(tools=[ADD, SUB], tool_choice="required", instructions="Be brief.")
        events = [event async for event in told(it, "/responses", asked)]
    [item] = events[-1][1]["response"]["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "add", '{"a": 1}')
    assert events[-1][1]["response"]["usage"]["input_tokens"] == 22, "both were used"
    first, second = upstream.asked
    assert first["tool_choice"] == "required"
    assert {"tools", "tool_choice"}.isdisjoint(second)
    names = [call["properties"]["name"] for call in second["response_format"]["json_schema"]["schema"]["anyOf"]]
    assert names == [{"const": "add"}, {"const": "sub"}]
    assert second["messages"][0]["content"].startswith("Be brief.\n\nCall one of these functions")
    assert [message["role"] for message in second["messages"]] == ["system", "user"]


async def test_what_brings_no_call_even_so_is_the_answer(upstream: Upstream) -> None:
    upstream.chunks = said_in_pieces("It is hot indeed.")
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        events = [event async for event in told(it, "/responses", respond(tools=[ADD], tool_choice="required"))]
    assert events[-1][1]["response"]["output"][0]["content"][0]["text"] == "It is hot indeed."
    assert len(upstream.asked) == 2


def test_servers_that_give_no_ids_and_tables_for_arguments_are_understood() -> None:
    reader = Reader("url", "run_1", None)
    reader.chunk(delta(tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}]))
    reader.chunk(delta("tool_calls", tool_calls=[{"function": {"name": "g", "arguments": None}}]))
    calls = reader.outcome().calls
    assert [(each.name, each.arguments) for each in calls] == [("f", '{"a": 1}'), ("g", "")]
    assert len({each.call_id for each in calls}) == 2


def test_what_is_out_of_order_is_left_to_the_outcome() -> None:
    rung: list[bool] = []
    live = Live(lambda: rung.append(True))
    live.text("a")
    live.call("c1", "f", "{")
    live.text("late")
    live.call("c2", "g", "")
    live.call("c1", "f", "}")
    assert [output.output() for output in live.outputs] == [
        Text(value="a"),
        Call(call_id="c1", name="f", arguments="{"),
        Call(call_id="c2", name="g", arguments=""),
    ]
    assert len(rung) == 3


async def test_a_sign_that_is_cut_in_two_is_one_sign(upstream: Upstream) -> None:
    """Servers that think in UTF-16 may end a piece in the middle of a surrogate pair."""
    upstream.chunks = [delta(content=piece) for piece in ("Fox: ", "\ud83e", "\udd8a", "! And \ud83e")]
    upstream.chunks.append(delta("stop"))
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=upstream.url)) as it:
        events = [event async for event in told(it, "/responses", respond())]
        said = [data["delta"] for name, data in events if name == "response.output_text.delta"]
        assert "".join(said).startswith("Fox: \U0001f98a! And ")
        final = events[-1][1]["response"]["output"][0]["content"][0]["text"]
        assert final == "Fox: \U0001f98a! And \ufffd"
        assert (await it.respond("Still there?"))["status"] in ("queued", "in_progress")


async def test_the_password_of_the_upstream_is_in_no_message(upstream: Upstream) -> None:
    address = upstream.url.replace("http://", "http://user:canary@")
    upstream.chunks = [*HELLO, "{not json"]
    async with asyncio.timeout(60), stage(Options(engine="chat", chat_url=address)) as it:
        events = [event async for event in told(it, "/responses", respond())]
        message = events[-1][1]["response"]["error"]["message"]
        assert "sent a chunk that is none" in message
        assert "canary" not in message
