"""Local models that call functions, from the list to the answers: behind a chat-completions server, and in llama.cpp.

`ASKQ_TEST_GGUF` names a model file to try llama.cpp itself with; with a small one, too: it is forced to call.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance.chat_server import Handler
from tests.acceptance.stack import ROOT
from tests.acceptance.test_commands import Folder, folder, read_lines

__all__ = ["folder"]

pytestmark = pytest.mark.timeout(300)

# Tests are run without our variables: read it before they are taken away.
REAL_MODEL = os.environ.get("ASKQ_TEST_GGUF")
CALL = {"name": "equipment_control", "arguments": {"device": "fan", "action": "on"}}
FORCED = """
instructions = "You look after a room."
tools = ["home:equipment_control"]
tool_choice = { type = "function", name = "equipment_control" }
parallel_tool_calls = false
temperature = 0
max_output_tokens = 256

[run]
max_rounds = 3
"""


class Model(Handler):
    """Calls when it is forced to, however often; otherwise it says what it was told by the function."""

    def message(self, asked: dict[str, Any]) -> dict[str, Any]:
        server: Any = self.server
        server.asked.append(asked)
        if "response_format" in asked:
            return {"role": "assistant", "content": json.dumps(CALL)}
        if asked.get("tool_choice") == "required" and server.keeps_to_it:
            function = {**CALL, "arguments": json.dumps(CALL["arguments"])}
            return {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
        return {"role": "assistant", "content": f"Said: {asked['messages'][-1]['content']}"}


@pytest.fixture
def upstream(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server that keeps to the choice of a function, or one that knows nothing of it."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.keeps_to_it, server.asked = request.param, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def forced(folder: Folder, protocol: str, **environment: str) -> dict[str, Any]:
    """The record of a question that has to call the function of the example."""
    shutil.copy(ROOT / "examples" / "equipment-control" / "home.py", folder.path)
    (folder.path / "forced.toml").write_text(FORCED, "utf-8")
    (folder.path / "list.csv").write_text("id,question\nhot,It is hot\n", "utf-8")
    asked = ["run", "list.csv", "--assistant", "forced.toml", "-o", "answers.jsonl", "--protocol", protocol]
    done = folder.askq(*asked, seconds=200, **environment)
    assert (folder.path / "answers.jsonl").exists(), done.stderr
    [record] = read_lines(folder.path / "answers.jsonl")
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize(
    ("protocol", "upstream"), [("responses", True), ("assistants", True), ("responses", False)], indirect=["upstream"]
)
def test_a_question_is_forced_to_call_once_and_then_answered(folder: Folder, protocol: str, upstream: Any) -> None:
    """Were it forced in every round, the model would call until there were too many."""
    url = f"http://127.0.0.1:{upstream.server_address[1]}/v1"
    record = forced(folder, protocol, ASKQ_LOCAL_ENGINE="chat", ASKQ_CHAT_URL=url, ASKQ_CHAT_MODEL="m")
    assert (record["status"], record["answer"]) == ("completed", "Said: the fan is on"), record
    [call] = record["tool_calls"]
    assert (json.loads(call["arguments"]), call["output"]) == (CALL["arguments"], "the fan is on")
    assert record["attempts"] == (2 if protocol == "responses" else 1)
    as_forms = [] if upstream.keeps_to_it else [(None, True)]
    told = [(asked.get("tool_choice"), "response_format" in asked) for asked in upstream.asked]
    assert told == [("required", False), *as_forms, (None, False)]
    assert upstream.asked[0]["parallel_tool_calls"] is False


@pytest.mark.skipif(
    REAL_MODEL is None or importlib.util.find_spec("xllamacpp") is None,
    reason="needs the extra `llama`, and a model named by ASKQ_TEST_GGUF",
)
@pytest.mark.parametrize("protocol", ["responses", "assistants"])
def test_a_real_model_calls_a_function(folder: Folder, protocol: str) -> None:
    assert REAL_MODEL is not None
    record = forced(folder, protocol, ASKQ_LOCAL_ENGINE="llama", ASKQ_LLAMA_MODEL=REAL_MODEL)
    assert record["tool_calls"], record
    given = json.loads(record["tool_calls"][0]["arguments"])
    assert record["tool_calls"][0]["output"] == f"the {given['device']} is {given['action']}"
    # What it makes of that is its own affair: the smallest say nothing, or call until there are too many rounds.
    assert record["status"] == "completed" or record["error"]["code"] in ("no_answer", "too_many_rounds", "incomplete")
