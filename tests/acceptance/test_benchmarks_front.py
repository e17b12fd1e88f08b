"""The front of the benchmarks: the same server for everybody, with a limit and chat completions."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from benchmarks.questions import script
from tests.acceptance.stack import READY_S, Process
from tests.parts import eventually


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A front before a local API; three creates at once, and practically none after that."""
    folder = tmp_path_factory.mktemp("front")
    scripted = folder / "script.json"
    scripted.write_text(json.dumps(script((0.05, 0.1))), "utf-8")
    api_file, front_file = folder / "api.json", folder / "front.json"
    argv = [sys.executable, "-m", "askq.localapi", "--engine", "script", "--script", str(scripted)]
    api = Process("api", [*argv, "--endpoint-file", str(api_file)], folder / "api.log", dict(os.environ))
    api.start()
    processes = [api]
    try:
        eventually(api_file.exists, seconds=READY_S, what="the local API is ready")
        base = json.loads(api_file.read_text("utf-8"))["base_url"].removesuffix("/v1")
        argv = [sys.executable, "-m", "benchmarks.peers.front", "--api", base, "--endpoint-file", str(front_file)]
        argv += ["--rate", "0.001", "--burst", "3"]
        processes.append(Process("front", argv, folder / "front.log", dict(os.environ)))
        processes[1].start()
        eventually(front_file.exists, seconds=READY_S, what="the front is ready")
        yield str(json.loads(front_file.read_text("utf-8"))["url"])
    finally:
        for process in reversed(processes):
            process.kill()


def test_three_ways_to_ask_one_ledger_and_the_limit(url: str) -> None:
    """Given three creates left, when a chat completion, a synchronous and a background response are asked for, then all
    are answered alike and in the local API's ledger; the fourth create is refused, polls are not.
    """
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0, timeout=30) as client:
        with pytest.raises(openai.BadRequestError) as empty:
            client.chat.completions.create(model="any", messages=[])
        assert empty.value.response.headers["x-ratelimit-limit-requests"] == "0"
        chat = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "What is 1?"}])
        assert chat.choices[0].message.content == "Answer to: What is 1?"
        assert chat.choices[0].finish_reason == "stop"
        assert chat.usage is not None
        assert chat.usage.total_tokens > 0
        reply = client.responses.create(model="any", input="What is 2?")
        assert reply.output_text == "Answer to: What is 2?"
        begun = client.responses.create(model="any", input="What is 3?", background=True)
        eventually(lambda: client.responses.retrieve(begun.id).status == "completed", what="the response has ended")
        with pytest.raises(openai.RateLimitError) as refused:
            client.responses.create(model="any", input="What is 4?")
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    ledger = _get(f"{url}/_askq/ledger")["data"]
    assert [entry["question"] for entry in ledger] == ["What is 1?", "What is 2?", "What is 3?"]
    seen = _get(f"{url}/_front/stats")
    assert seen["requests"]["creates"] == 4
    assert seen["requests"]["refused"] == 1
    assert seen["requests"]["others"] >= 1
    assert seen["first_create"] < seen["last_answer"]


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)
