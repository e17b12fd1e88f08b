"""The `llama` engine: its process and its messages, with a stand-in for the wheel; with the real one where it is.

The stand-in answers as llama.cpp's server does, so that the extra need not be installed. `ASKQ_TEST_GGUF` names a model
file to try the real one with.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from askq.localapi.__main__ import main
from askq.localapi.engines.llama import LlamaEngine
from askq.localapi.options import Options

from .stage import Stage, stage

STAND_IN = """
import http.server, json, os, threading, types
class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = (types.SimpleNamespace() for _ in range(3))
class Server:
    def __init__(self, params):
        if open(params.model.path, "rb").read() == b"GGUF broken":
            raise RuntimeError("this model is broken")
        outer = self
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = asked["messages"][-1]["content"]
                if question == "crash":
                    os._exit(9)
                good = self.headers["Authorization"] == "Bearer " + params.api_keys[0]
                said = {"pid": os.getpid(), "threads": params.cpuparams.n_threads, "context": params.n_ctx, "key": good}
                choice = {"message": {"content": json.dumps(said)}, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
        server = http.server.ThreadingHTTPServer((params.hostnames[0], params.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{server.server_port}"
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file for the stand-in, which is installed in the wheel's place."""
    (tmp_path / "xllamacpp.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3]))))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and more")
    return file


async def answer(it: Stage, question: str) -> Any:
    return await it.good("POST", "/responses", {"model": "m", "input": question})


def text(response: Any) -> str:
    said: str = response["output"][0]["content"][0]["text"]
    return said


async def test_the_model_is_loaded_once_and_asked_with_a_key_of_its_own(model: Path) -> None:
    options = Options(engine="llama", model_file=model, llama_threads=3, llama_context=500)
    async with asyncio.timeout(60), stage(options) as it:
        assert (await it.good("GET", "/models"))["data"][0]["id"] == "tiny"
        first = text(await answer(it, "Hello?"))
        assert text(await answer(it, "Again?")) == first
    assert '"threads": 3, "context": 500, "key": true' in first


async def test_a_crash_costs_its_question_at_most_and_the_process_is_started_again(model: Path) -> None:
    async with asyncio.timeout(60), stage(Options(engine="llama", model_file=model)) as it:
        first = text(await answer(it, "Hello?"))
        crashed = await answer(it, "crash")
        assert crashed["status"] == "failed"
        assert "broke off" in crashed["error"]["message"]
        second = text(await answer(it, "Hello?"))
        assert second != first
        engine = it.server.api.engine
        assert isinstance(engine, LlamaEngine)
        assert engine._process is not None
        os.kill(engine._process.pid, signal.SIGKILL)
        assert text(await answer(it, "Hello?")) != second


@pytest.fixture
def broken(model: Path) -> Path:
    """A model that the stand-in cannot load."""
    model.write_bytes(b"GGUF broken")
    return model


async def test_a_model_that_cannot_be_loaded_fails_the_run_with_llamas_words(broken: Path) -> None:
    async with asyncio.timeout(60), stage(Options(engine="llama", model_file=broken)) as it:
        got = await answer(it, "Hello?")
    assert got["status"] == "failed"
    assert f"llama.cpp cannot load {broken}: this model is broken" in got["error"]["message"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"PK\x03\x04", "is no GGUF file"), (None, "cannot be read: No such file")]
)
def test_a_wrong_file_is_refused_at_the_start(
    model: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        model.unlink()
    else:
        model.write_bytes(content)
    assert main(["--engine", "llama", "--model-file", str(model)]) == 1
    assert words in capsys.readouterr().err


def test_the_engine_needs_its_extra_and_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))
    assert main(["--engine", "llama", "--model-file", str(tmp_path / "m.gguf")]) == 1
    assert "pip install 'askq[llama]'" in capsys.readouterr().err
    assert main(["--engine", "llama"]) == 1
    assert "Give --model-file FILE.gguf" in capsys.readouterr().err
    assert main(["--model-file", "m.gguf"]) == 1
    assert "--model-file is for the llama engine" in capsys.readouterr().err
    assert "xllamacpp" not in sys.modules


@pytest.mark.skipif(
    REAL_MODEL is None or importlib.util.find_spec("xllamacpp") is None,
    reason="needs the extra `llama`, and a model named by ASKQ_TEST_GGUF",
)
async def test_a_real_model_answers_in_a_form_and_in_a_stream() -> None:
    assert REAL_MODEL is not None
    file = Path(REAL_MODEL)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    async with asyncio.timeout(100), stage(Options(engine="llama", model_file=file, llama_context=2048)) as it:
        asked = {"model": "m", "input": "A number as JSON", "max_output_tokens": 64, "text": form, "temperature": 0}
        got = await it.good("POST", "/responses", asked)
        assert got["status"] in ("completed", "incomplete")
        assert text(got).lstrip().startswith("{")
        async with it.http.post(f"{it.server.base_url}/responses", json={**asked, "stream": True}) as reply:
            events = await reply.text()
        assert events.count("event: response.output_text.delta") > 3
