"""The engines that work: `tutor` and `chat`, behind the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

import askq.localapi.engines.tutor
from askq.localapi.engines.base import Request, Turn, estimate_tokens
from askq.localapi.engines.chat_wire import chat_body
from askq.localapi.options import Options

from .stage import Stage, stage


async def ended(it: Stage, response_id: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            got = await it.good("GET", f"/responses/{response_id}?include[]=code_interpreter_call.outputs")
            if got["status"] not in ("queued", "in_progress"):
                return got
            await asyncio.sleep(0.01)


# tutor


@dataclass(frozen=True)
class Solution:
    text: str
    code: str | None
    logs: str | None
    failed: bool = False


Solve = Callable[[str, Sequence[str]], Awaitable[Solution]]


@pytest.fixture
def closed() -> list[bool]:
    """Grows when the tutor is closed."""
    return []


@pytest.fixture
def solve(monkeypatch: pytest.MonkeyPatch, closed: list[bool]) -> Callable[[Solve], None]:
    """Put a function in the tutor's place."""

    def put(function: Solve) -> None:
        module = ModuleType("askq.localapi.tutor")
        # What the engine asks before it solves anything (which functions fit) is the real one's.
        module.__path__ = [str(Path(askq.localapi.engines.tutor.__file__).parents[1] / "tutor")]
        module.solve = lambda asked, before, _replies: function(asked, before)  # type: ignore[attr-defined]
        module.close = lambda: closed.append(True)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "askq.localapi.tutor", module)

    return put


async def test_the_tutor_reports_its_code_and_what_it_printed(
    solve: Callable[[Solve], None], closed: list[bool]
) -> None:
    async def one(question: str, history: Sequence[str]) -> Solution:
        return Solution(f"{question} {list(history)}: x = 1", "print(1)", "1\n")

    solve(one)
    async with stage(Options(engine="tutor")) as it:
        first = await ended(it, (await it.respond("3x = 3"))["id"])
        assert [item["type"] for item in first["output"]] == ["code_interpreter_call", "message"]
        assert first["output"][0]["outputs"] == [{"type": "logs", "logs": "1\n"}]
        second = await it.respond("And now?", previous_response_id=first["id"])
        answer = (await ended(it, second["id"]))["output"][1]["content"][0]["text"]
        assert answer == "And now? ['3x = 3', '3x = 3 []: x = 1']: x = 1"
        assert closed == []
    assert closed == [True]


async def test_a_tutor_that_was_never_asked_is_not_even_imported(
    solve: Callable[[Solve], None], closed: list[bool]
) -> None:
    async with stage(Options(engine="tutor")) as it:
        assert (await it.good("GET", "/models"))["data"][0]["id"] == "askq-tutor"
    assert closed == []


async def test_the_real_tutor_computes() -> None:
    async with stage(Options(engine="tutor")) as it:
        got = await ended(it, (await it.respond("Solve the equation 3x + 11 = 14"))["id"])
    code, message = got["output"]
    assert "x = 1" in code["outputs"][0]["logs"]
    assert "x = 1" in message["content"][0]["text"]


async def test_the_tutor_without_code_just_answers(solve: Callable[[Solve], None]) -> None:
    async def no(_question: str, _history: Sequence[str]) -> Solution:
        return Solution("I only do mathematics.", None, None, failed=True)

    solve(no)
    async with stage(Options(engine="tutor")) as it:
        got = await ended(it, (await it.respond("A poem?"))["id"])
        assert (got["status"], [item["type"] for item in got["output"]]) == ("completed", ["message"])


async def test_what_the_tutor_raises_fails_the_run(
    solve: Callable[[Solve], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_question: str, _history: Sequence[str]) -> Solution:
        raise RuntimeError("out of chalk")

    solve(broken)
    async with stage(Options(engine="tutor")) as it:
        got = await ended(it, (await it.respond())["id"])
    assert (got["status"], got["error"]) == (
        "failed",
        {"code": "server_error", "message": "RuntimeError: out of chalk"},
    )
    assert "the tutor engine failed on resp_" in caplog.text


async def test_work_beyond_the_concurrency_is_queued_and_can_be_cancelled(solve: Callable[[Solve], None]) -> None:
    go = asyncio.Event()

    async def slow(question: str, _history: Sequence[str]) -> Solution:
        await go.wait()
        return Solution(question, None, None)

    solve(slow)
    async with stage(Options(engine="tutor", tutor_concurrency=1)) as it:
        first, second, third = [(await it.respond(f"q{n}"))["id"] for n in range(3)]
        statuses = [(await it.good("GET", f"/responses/{each}"))["status"] for each in (first, second, third)]
        assert statuses == ["in_progress", "queued", "queued"]
        assert (await it.good("GET", "/_askq/stats"))["in_flight"] == 3
        assert (await it.good("POST", f"/responses/{first}/cancel"))["status"] == "cancelled"
        await it.good("DELETE", f"/responses/{second}")
        go.set()
        assert (await ended(it, third))["status"] == "completed"
        assert (await it.good("GET", f"/responses/{first}"))["status"] == "cancelled"
        assert (await it.good("GET", "/_askq/stats"))["in_flight"] == 0


async def test_a_synchronous_response_waits_for_the_engine_and_a_client_that_leaves_cancels_it(
    solve: Callable[[Solve], None],
) -> None:
    go = asyncio.Event()

    async def slow(question: str, _history: Sequence[str]) -> Solution:
        await go.wait()
        return Solution(question, None, None)

    solve(slow)
    async with stage(Options(engine="tutor")) as it:
        leaving = asyncio.create_task(it.respond("leaves", background=False))
        async with asyncio.timeout(60):
            while not (ledger := await it.ledger()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        assert (await ended(it, ledger[0]["id"]))["status"] == "cancelled"
        go.set()
        assert (await it.respond("stays", background=False))["status"] == "completed"


async def test_unfinished_work_is_resumed_by_the_next_start_without_a_new_ledger_entry(
    solve: Callable[[Solve], None], tmp_path: Path
) -> None:
    async def never(_question: str, _history: Sequence[str]) -> Solution:
        await asyncio.Event().wait()
        raise AssertionError

    async def quick(question: str, _history: Sequence[str]) -> Solution:
        return Solution(f"{question} done", None, None)

    solve(never)
    options = Options(engine="tutor", data=str(tmp_path))
    async with stage(options) as it:
        made = await it.respond("Resume?")
        assert (await it.good("GET", f"/responses/{made['id']}"))["status"] == "in_progress"
    solve(quick)
    async with stage(options) as it:
        got = await ended(it, made["id"])
        assert got["output"][0]["content"][0]["text"] == "Resume? done"
        assert [entry["id"] for entry in await it.ledger()] == [made["id"]]


CONTROL = {
    "name": "equipment_control",
    "description": "When it is hot, switch on the fan and the AC.",
    "parameters": {
        "type": "object",
        "properties": {
            "equipment": {"type": "string", "enum": ["light", "fan", "TV", "AC"]},
            "state": {"type": "string", "enum": ["on", "off"]},
        },
        "required": ["equipment", "state"],
    },
}


async def test_the_tutor_calls_functions_that_fit_and_reports_their_outputs() -> None:
    async with stage(Options(engine="tutor")) as it:
        tools = [{"type": "function", **CONTROL}]
        first = await ended(it, (await it.respond("It is hot", tools=tools))["id"])
        assert [(item["name"], json.loads(item["arguments"])) for item in first["output"]] == [
            ("equipment_control", {"equipment": "fan", "state": "on"}),
            ("equipment_control", {"equipment": "AC", "state": "on"}),
        ]
        outputs = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": f"done {number}"}
            for number, item in enumerate(first["output"])
        ]
        again = {"tools": tools, "previous_response_id": first["id"]}
        second = await ended(it, (await it.respond(outputs, **again))["id"])
        assert second["output"][0]["content"][0]["text"].splitlines() == [
            'equipment_control(equipment="fan", state="on"): done 0',
            'equipment_control(equipment="AC", state="on"): done 1',
        ]
        single = await ended(it, (await it.respond("It is hot", tools=tools, parallel_tool_calls=False))["id"])
        assert len(single["output"]) == 1
        none = await ended(it, (await it.respond("It is hot", tools=tools, tool_choice="none"))["id"])
        assert "I cannot answer this" in none["output"][0]["content"][0]["text"]


# chat


class Upstream:
    """A chat-completions server that answers what it is told to and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.headers: list[Any] = []
        self.status = 200
        self.reply: Any = completion("Hello there.")
        self.url = ""
        self.delay = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay)
        text = self.reply if isinstance(self.reply, str) else json.dumps(self.reply)
        return web.Response(text=text, status=self.status, content_type="application/json")


def completion(content: str | None, *, finish: str = "stop", **message: Any) -> Any:
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    }


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    it = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", it.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/"
    yield it
    await runner.cleanup()


async def test_chat_forwards_history_and_settings(upstream: Upstream) -> None:
    options = Options(engine="chat", chat_url=upstream.url, chat_model="llama", chat_key="upstream-key")
    async with stage(options) as it:
        assert (await it.good("GET", "/models"))["data"][0]["id"] == "llama"
        schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": False}
        made = await it.respond(
            "Hello?",
            instructions="Be kind.",
            temperature=0.5,
            max_output_tokens=100,
            reasoning={"effort": "low"},
            text={"format": schema},
            tools=[{"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "function", "name": "f"}],
        )
        got = await ended(it, made["id"])
    assert upstream.asked == [
        {
            "model": "llama",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "temperature": 0.5,
            "top_p": 1.0,
            "reasoning_effort": "low",
            "max_tokens": 100,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": False},
            },
        }
    ]
    assert upstream.headers[0]["Authorization"] == "Bearer upstream-key"
    assert got["output"][0]["content"][0]["text"] == "Hello there."
    assert (got["usage"]["input_tokens"], got["usage"]["output_tokens"]) == (11, 7)


async def test_chat_tool_calls_become_a_run_that_requires_action(upstream: Upstream) -> None:
    call = {"id": "call_9", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    upstream.reply = completion(None, finish="tool_calls", tool_calls=[call])
    async with stage(Options(engine="chat", chat_url=upstream.url)) as it:
        tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
        assistant = await it.good("POST", "/assistants", {"model": "m", "tools": [tool]})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": "1 + 2?"}]})
        root = f"/threads/{thread['id']}/runs"
        run = await it.good("POST", root, {"assistant_id": assistant["id"]})
        run = await run_status(it, root, run, "requires_action")
        assert run["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"] == "call_9"
        upstream.reply = completion("Three.")
        outputs = {"tool_outputs": [{"tool_call_id": "call_9", "output": "3"}]}
        await it.good("POST", f"{root}/{run['id']}/submit_tool_outputs", outputs)
        run = await run_status(it, root, run, "completed")
    assert run["usage"] == {"prompt_tokens": 22, "completion_tokens": 14, "total_tokens": 36}
    assert upstream.asked[0]["tools"] == [tool]
    assert upstream.asked[1]["messages"] == [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_9", "content": "3"},
    ]


async def run_status(it: Stage, root: str, run: Any, status: str) -> Any:
    async with asyncio.timeout(60):
        while run["status"] != status:
            await asyncio.sleep(0.01)
            run = await it.good("GET", f"{root}/{run['id']}")
    return run


@pytest.mark.parametrize(
    ("status", "reply", "code", "words"),
    [
        (429, {"error": {"message": "Too fast."}}, "rate_limit_exceeded", "answered 429: Too fast."),
        (500, {"error": "model crashed"}, "server_error", "answered 500: model crashed"),
        (502, "<html>Bad gateway</html>", "server_error", "answered 502: <html>Bad gateway</html>"),
        (503, "", "server_error", "answered 503: (an empty body)"),
        (200, "<html>", "server_error", "did not answer with a chat completion: <html>"),
        (200, {"choices": []}, "server_error", "did not answer with a chat completion"),
    ],
)
async def test_what_the_upstream_refuses_fails_the_run(
    upstream: Upstream, status: int, reply: Any, code: str, words: str
) -> None:
    upstream.status, upstream.reply = status, reply
    async with stage(Options(engine="chat", chat_url=upstream.url)) as it:
        got = await ended(it, (await it.respond())["id"])
    assert (got["status"], got["error"]["code"]) == ("failed", code)
    assert words in got["error"]["message"]


async def test_an_upstream_that_is_not_there_fails_the_run(unused_tcp_port: int) -> None:
    options = Options(engine="chat", chat_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    async with stage(options) as it:
        got = await ended(it, (await it.respond())["id"])
    assert "cannot be reached" in got["error"]["message"]
    assert "Is the server behind --chat-url running?" in got["error"]["message"]


async def test_an_upstream_that_hangs_fails_the_run(upstream: Upstream) -> None:
    upstream.delay = 5.0
    async with stage(Options(engine="chat", chat_url=upstream.url, chat_timeout_s=0.1)) as it:
        got = await ended(it, (await it.respond())["id"])
    assert "did not answer within 0.1 s" in got["error"]["message"]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_was_cut_is_incomplete(upstream: Upstream, finish: str, reason: str) -> None:
    upstream.reply = completion("Half", finish=finish)
    async with stage(Options(engine="chat", chat_url=upstream.url)) as it:
        got = await ended(it, (await it.respond())["id"])
    assert (got["status"], got["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert got["output"][0]["content"][0]["text"] == "Half"


def test_chat_without_a_model_of_its_own_asks_for_the_clients() -> None:
    request = Request(
        work_id="r",
        protocol="responses",
        model="named",
        instructions="",
        turns=(
            Turn(role="developer", text="d"),
            Turn(role="call", text="{}", call_id="1", name="f"),
            Turn(role="call", text="{}", call_id="2", name="g"),
        ),
    )
    body = chat_body(request, None)
    assert body["model"] == "named"
    assert body["messages"][0] == {"role": "system", "content": "d"}
    assert [call["id"] for call in body["messages"][1]["tool_calls"]] == ["1", "2"]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("ää", 1), ("€€", 2)])
def test_tokens_are_a_quarter_of_the_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
