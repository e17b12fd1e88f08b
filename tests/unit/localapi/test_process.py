"""`python -m askq.localapi` as a process: start, stop, SIGKILL and start again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from askq.localapi.__main__ import main

from .stage import HEADERS

DEADLINE_S = 60.0


class Running:
    """One process and an HTTP session for it."""

    def __init__(self, process: Process, base_url: str, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.base_url = base_url
        self.http = http

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        root = self.base_url.removesuffix("/v1") if path.startswith("/_askq") else self.base_url
        async with self.http.request(method, root + path, json=body) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer

    async def end(self, number: signal.Signals) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def process(*arguments: str | Path) -> AsyncIterator[Running]:
    command = [sys.executable, "-m", "askq.localapi", "--engine", "script", *map(str, arguments)]
    started = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert started.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        line = await started.stdout.readline()
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        it = Running(started, json.loads(line)["base_url"], http)
        try:
            yield it
        finally:
            await it.end(signal.SIGKILL)
            if started.stdin is not None:
                started.stdin.close()


async def test_the_endpoint_file_is_there_while_the_server_is(tmp_path: Path) -> None:
    file = tmp_path / "run" / "endpoint.json"
    async with process("--endpoint-file", file) as it:
        assert json.loads(file.read_text()) == {"base_url": it.base_url}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (await it.ask("GET", "/_askq/health"))["status"] == "ok"
        assert await it.end(signal.SIGTERM) == 0
    assert list(file.parent.iterdir()) == []


async def test_an_endpoint_file_of_a_later_server_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.json"
    async with process("--endpoint-file", file) as it:
        file.write_text("of somebody else")
        assert await it.end(signal.SIGINT) == 0
    assert file.read_text() == "of somebody else"


async def test_the_end_of_standard_input_can_end_it() -> None:
    async with process("--exit-with-stdin") as it:
        assert it.process.stdin is not None
        it.process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await it.process.wait() == 0


async def test_a_graceful_end_keeps_everything(tmp_path: Path) -> None:
    async with process("--data", tmp_path) as it:
        made = await it.ask("POST", "/responses", {"model": "m", "input": "Keep?", "background": True})
        await it.end(signal.SIGTERM)
    async with process("--data", tmp_path) as it:
        assert (await it.ask("GET", f"/responses/{made['id']}"))["id"] == made["id"]
        assert [entry["id"] for entry in (await it.ask("GET", "/_askq/ledger"))["data"]] == [made["id"]]


async def test_sigkill_loses_no_run_that_was_answered_and_makes_none_twice(tmp_path: Path) -> None:
    """Given clients that create runs without pause, when the server is killed again and again, then every run that
    was answered is in the ledger once and ends with its own answer."""
    answered: dict[str, tuple[str, str]] = {}  # run id -> its thread, its question
    dice = random.Random(1)
    for life in range(4):
        async with process("--data", tmp_path) as it:
            assistant = await it.ask("POST", "/assistants", {"model": "m"})

            async def client(number: int, it: Running = it, life: int = life, assistant: Any = assistant) -> None:
                for count in range(10_000):
                    question = f"Question {life}.{number}.{count}?"
                    try:
                        message = {"role": "user", "content": question}
                        thread = await it.ask("POST", "/threads", {"messages": [message]})
                        path = f"/threads/{thread['id']}/runs"
                        run = await it.ask("POST", path, {"assistant_id": assistant["id"]})
                    except (aiohttp.ClientError, ValueError):
                        return
                    answered[run["id"]] = (thread["id"], question)

            before = len(answered)
            clients = [asyncio.create_task(client(number)) for number in range(4)]
            async with asyncio.timeout(DEADLINE_S):
                while len(answered) < before + 6:  # noqa: ASYNC110  # in mid-work, however slow the machine
                    await asyncio.sleep(0.01)
            await asyncio.sleep(dice.uniform(0.0, 0.2))
            await it.end(signal.SIGKILL)
            await asyncio.gather(*clients)
    assert len(answered) > 20

    async with process("--data", tmp_path) as it:
        entries = (await it.ask("GET", "/_askq/ledger?limit=10000"))["data"]
        assert [entry["n"] for entry in entries] == list(range(1, len(entries) + 1))
        ledger = {entry["id"]: (entry["thread_id"], entry["question"]) for entry in entries}
        assert len(ledger) == len(entries)
        assert len(entries) - len(answered) <= 4 * 4, "at most one unanswered create for each client and life"
        for run_id, (thread_id, question) in answered.items():
            assert ledger[run_id] == (thread_id, question)
        async with asyncio.timeout(DEADLINE_S):
            while (await it.ask("GET", "/_askq/stats"))["in_flight"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for run_id, (thread_id, question) in answered.items():
            messages = await it.ask("GET", f"/threads/{thread_id}/messages?run_id={run_id}")
            assert [each["content"][0]["text"]["value"] for each in messages["data"]] == [f"Answer to: {question}"]


async def test_settled_objects_are_the_same_after_a_kill(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text('[default]\nduration = 0\nanswer = ["one", "two"]\n')
    data = tmp_path / "data"
    async with process("--data", data, "--script", script) as it:
        conversation = await it.ask("POST", "/conversations", {})
        body = {"model": "m", "input": "x", "background": True, "conversation": conversation["id"]}
        made = await it.ask("POST", "/responses", body)
        paths = [f"/responses/{made['id']}", f"/conversations/{conversation['id']}/items"]
        seen = [await it.ask("GET", path) for path in paths]
        await it.end(signal.SIGKILL)
    script.write_text('[default]\nduration = 9\nanswer = "changed"\n')
    async with process("--data", data, "--script", script) as it:
        assert [await it.ask("GET", path) for path in paths] == seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "Refusing to listen on 0.0.0.0: other machines could use it, and it accepts any key."),
        (["--host", "0.0.0.0", "--key", "k"], "it accepts one key, sent unencrypted"),
        (["--engine", "chat"], "The chat engine needs to know where to ask. Give --chat-url"),
        (["--script", "x.toml"], "--script is for the script engine, but the engine is tutor."),
        (["--engine", "script", "--script", "none.toml"], "The script file none.toml cannot be read"),
        (["--port", "99999"], "cannot listen on 127.0.0.1 port 99999"),
        (["--data", "{file}"], "cannot be opened"),
        (["--endpoint-file", "{file}/x"], "The endpoint file {file}/x cannot be written"),
    ],
)
def test_what_cannot_be_started_says_why_in_a_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main([argument.replace("{file}", str(file)) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words.replace("{file}", str(file)) in err
    assert err.count("\n") == 1


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 1
    assert "Choose another port, or 0 for any free one." in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")
async def test_ipv6_loopback_is_no_remote_address() -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
    async with process("--host", "::1") as it:
        assert it.base_url.startswith("http://[::1]:")
        await it.ask("GET", "/models")


def test_the_key_of_the_chat_server_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ASKQ_CHAT_API_KEY" not in os.environ
    seen: list[Any] = []

    async def serve(options: Any, **_: Any) -> None:
        seen.append(options)

    monkeypatch.setattr("askq.localapi.__main__.serve", serve)
    monkeypatch.setenv("ASKQ_CHAT_API_KEY", "secret")
    assert main(["--engine", "chat", "--chat-url", "http://127.0.0.1:1/v1", "--chat-model", "llama"]) == 0
    assert (seen[0].chat_key, seen[0].chat_model) == ("secret", "llama")
    assert "secret" not in repr(seen[0])
