"""`python -P -m askq.tools.runner CHANNEL MEMORY_MB FOLDER…`: the process in which a user's functions run.

It answers one request after the other on its channel, an inherited socket: describe functions, or call one. It trusts
its requests, holds no secret of askq, and may die of what it runs: whoever started it sees that and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import inspect
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from askq.tools import Tool
from askq.tools.frames import pack, receive
from askq.tools.modules import LoadError, line_of, load, make_importable
from askq.tools.outcomes import MOST_OUTPUT_BYTES, error_output
from askq.tools.signature import ArgumentsError, Signature, SignatureError, is_strict

_PR_SET_PDEATHSIG = 1


class Runner:
    """Knows the functions of some folders, those first that come first."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._known: dict[tuple[str, str], tuple[Tool, Signature]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        if "describe" in request:
            return {"described": [self._describe(*wanted) for wanted in request["describe"]]}
        if "load" in request:
            try:
                self._load(*request["load"])
            except LoadError as error:
                return {"error": "unavailable", "output": str(error), "seconds": 0.0}
            return {}
        return self._call(request)

    def _load(self, module: str, function: str) -> tuple[Tool, Signature]:
        key = (module, function)
        if key not in self._known:
            made = load(module, function, self._folders)
            try:
                self._known[key] = made, Signature(made)
            except SignatureError as error:
                code = getattr(made.function, "__code__", None)
                file = None if code is None else code.co_filename
                raise LoadError(f"{function!r}: {error}", file=file, line=line_of(made.function)) from error
        return self._known[key]

    def _describe(self, module: str, function: str) -> dict[str, Any]:
        try:
            made, signature = self._load(module, function)
        except LoadError as error:
            return {"problem": {"file": error.file, "line": error.line, "message": error.message}}
        described = {
            "name": signature.name,
            "description": signature.description,
            "parameters": signature.parameters,
            "strict": is_strict(signature.parameters),
        }
        how = {"timeout_s": made.timeout_s, "memory_mb": made.memory_mb, "once": made.once or None}
        return {"tool": described, "how": {name: value for name, value in how.items() if value is not None}}

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        made, signature = self._known[request["module"], request["function"]]
        try:
            arguments = signature.arguments(request["arguments"], request["schema"])
        except ArgumentsError as error:
            return _failed("bad_arguments", str(error), began)
        try:
            value = made.function(**arguments)
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
        except MemoryError:
            return _failed("memory", "the function ran out of memory", began)
        except BaseException as error:  # a function may raise anything, and end this process with `sys.exit`
            with contextlib.suppress(Exception):
                traceback.print_exception(error)
            return _failed("exception", f"{type(error).__name__}: {error}"[:500], began)
        try:
            output = _written(value)
        except MemoryError:
            return _failed("memory", "what the function returned is too large", began)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            told = f"a {type(value).__name__} cannot be written as JSON: {error}"
            return _failed("unserializable", told[:500], began)
        size = len(output.encode())
        if size > MOST_OUTPUT_BYTES:
            return _failed("too_large", f"the result has {size} bytes; at most {MOST_OUTPUT_BYTES} are taken", began)
        return {"output": output, "seconds": round(time.monotonic() - began, 4)}


async def _awaited(value: Any) -> Any:
    return await value


def _written(value: Any) -> str:
    """A result as text: a text as it is, anything else as JSON."""
    return _sendable(value) if isinstance(value, str) else to_json(value, inf_nan_mode="null").decode()


def _sendable(text: str) -> str:
    """A text without halves of characters, as names of files that are no UTF-8 have them: no service takes those."""
    return text.encode("utf-8", "replace").decode()


def _failed(code: str, message: str, began: float) -> dict[str, Any]:
    told = error_output(code, _sendable(message))
    return {"error": code, "output": told, "seconds": round(time.monotonic() - began, 4)}


def _limit(memory_mb: int) -> None:
    """Bound the memory of this process, where the system can, and tie its life to its parent's."""
    if memory_mb:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    channel = socket.socket(fileno=int(argv[0]))
    _limit(int(argv[1]))
    faulthandler.enable()
    folders = [Path(folder) for folder in argv[2:]]
    make_importable(folders)
    runner = Runner(folders)
    own = os.getpid()
    while (request := receive(channel)) is not None:
        reply = runner.answer(request)
        if os.getpid() != own:
            # A function has forked and came back from it twice: one of them would answer the next call.
            os._exit(0)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        channel.sendall(pack(reply))
    return 0


if __name__ == "__main__":
    # Threads and handlers that a function leaves behind must not keep this process.
    os._exit(main(sys.argv[1:]))
