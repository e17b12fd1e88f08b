"""The `llama` engine: a GGUF file of the user's choice, served by llama.cpp on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import secrets
import sys
from collections import deque
from pathlib import Path

from askq.localapi.engines.base import Outcome, Plan, Request
from askq.localapi.engines.chat import ChatEngine
from askq.localapi.engines.chat_wire import failed
from askq.localapi.errors import LocalApiError

_LOAD_S = 600.0
"""A large model from a slow disk takes minutes."""
_END_S = 1.0
_LAST_LINES = 5


class LlamaEngine:
    """Runs the model in a process of its own, from the first question on, and again should that process end.

    Everything else is the `chat` engine's: functions, images, forms, streams.
    """

    name = "llama"

    def __init__(self, file: Path, *, context: int, threads: int, concurrency: int, timeout_s: float) -> None:
        """Raises LocalApiError when the wheel is missing, or the file is none that llama.cpp could read."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalApiError(
                "The llama engine needs the package xllamacpp, which is not installed. Install it with "
                "`pip install 'askq[llama]'` (or `uv sync --extra llama`), or choose another engine with --engine."
            )
        check_model_file(file)
        self.concurrency = concurrency
        self.models: tuple[str, ...] = (file.stem,)
        self._command = [
            *(sys.executable, "-m", "askq.localapi.engines.llama_server", str(file)),
            *("--context", str(context), "--threads", str(threads), "--parallel", str(concurrency)),
        ]
        self._file = file
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._chat: ChatEngine | None = None
        self._listening: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=_LAST_LINES)

    def plan(self, request: Request) -> Plan | None:
        """Nothing is planned: the model decides."""
        return None

    async def answer(self, request: Request) -> Outcome:
        """Ask the model."""
        try:
            process, chat = await self._ready()
            outcome = await chat.answer(request)
            if outcome.status == "failed" and not outcome.outputs and await _ended(process):
                # llama.cpp has crashed, perhaps on another's question. Nobody pays for asking again.
                _, chat = await self._ready()
                outcome = await chat.answer(request)
            return outcome
        except LocalApiError as exc:
            return failed(str(exc))

    async def _ready(self) -> tuple[asyncio.subprocess.Process, ChatEngine]:
        async with self._lock:
            if self._process is None or self._process.returncode is not None:
                await self._stop()
                try:
                    await self._start()
                except LocalApiError:
                    await self._stop()
                    raise
            assert self._process is not None
            assert self._chat is not None
            return self._process, self._chat

    async def _start(self) -> None:
        key = secrets.token_hex(16)
        self._said.clear()
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._listening = asyncio.create_task(self._listen(process.stderr))
        with contextlib.suppress(ConnectionError):
            process.stdin.write(f"{key}\n".encode())
            await process.stdin.drain()
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _LOAD_S)
            url = json.loads(line)["base_url"]
        except TimeoutError as exc:
            raise LocalApiError(f"{self._file} was not loaded within {_LOAD_S:g} s.") from exc
        except (ValueError, KeyError, TypeError) as exc:
            await asyncio.wait({self._listening}, timeout=1)
            said = " ".join(self._said) or "it said nothing"
            raise LocalApiError(f"llama.cpp cannot load {self._file}: {said}") from exc
        self._chat = ChatEngine(
            url,
            model=self._file.stem,
            key=key,
            timeout_s=self._timeout_s,
            concurrency=self.concurrency,
            by_form=True,  # llama.cpp takes `required`, and lets a model write on for ever instead
        )

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Keep the last lines, for a message; and keep the pipe from filling up."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the buffer
                continue
            if not line:
                return
            if text := line.decode("utf-8", "replace").strip():
                self._said.append(text[:300])

    async def _stop(self) -> None:
        chat, process, listening = self._chat, self._process, self._listening
        self._chat = self._process = self._listening = None
        if chat is not None:
            await chat.close()
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()  # it ends by that, unless it is loading still
            if not await _ended(process):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if listening is not None:
            listening.cancel()

    async def close(self) -> None:
        """End the process."""
        await self._stop()


async def _ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it has ended, or does so within a moment."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _END_S)
    return process.returncode is not None


def check_model_file(file: Path) -> None:
    """Raise LocalApiError unless this begins like a GGUF file."""
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as exc:
        raise LocalApiError(f"The model file {file} cannot be read: {exc.strerror}. Check --model-file.") from exc
    if magic != b"GGUF":
        raise LocalApiError(
            f"{file} is no GGUF file. Give --model-file a model in llama.cpp's format; safetensors and others have to "
            "be converted first."
        )
