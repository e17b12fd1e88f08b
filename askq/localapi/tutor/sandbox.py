"""Runs Python programs in a confined process of their own (`confined.py` says how confined), where SymPy is loaded."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

Ended = Literal["ok", "error", "time", "memory", "output", "refused", "crashed", "unavailable"]

_CONFINED = Path(__file__).with_name("confined.py")
_NEEDED = ("sympy", "mpmath")
_WELCOME = ("PIL", "pypdf")
"""Packages that programs with files use; one without files does without them."""
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Some interpreters do not start without them. The programs see none at all."""

_START_SECONDS = 60.0
"""For an interpreter to start and import SymPy: well under a second, or many on a slow disk without byte code."""

_GRACE_SECONDS = 5.0
"""Beyond the program's own time, before its keeper is given up."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended and what it printed (standard output and error together, up to the limit).

    `ok`: it ran to its end. `error`: it raised something or exited with a code; the last line says what.
    `time`, `memory`, `output`: it met that limit. `refused`: it tried what is not allowed (network, files,
    processes). `crashed`: a signal ended it. `unavailable`: no sandbox could be started here.
    """

    output: str
    ended: Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program with files may use."""

    seconds: float
    cpu_seconds: int
    memory_bytes: int
    output_bytes: int
    file_bytes: int
    """The largest file it may write."""
    folder_bytes: int
    """What all the files in its folder may have together."""
    files: int
    """How many there may be."""


class _Lost(Exception):
    """The process that should have taken the program is gone."""


class Sandbox:
    """A place to run programs in. Starts its process at the first program; that one ends with its owner or `close()`.

    Any number of programs may run at once; the caller bounds it. Not tied to an event loop.
    """

    def __init__(
        self,
        *,
        seconds: float = 10.0,
        cpu_seconds: int = 6,
        memory_bytes: int = 1 << 30,
        output_bytes: int = 64 << 10,
    ) -> None:
        self._limits = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "memory_bytes": memory_bytes,
            "output_bytes": output_bytes,
        }
        self._lock = threading.Lock()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    async def run(
        self, program: str, *, folder: Path | None = None, readable: Sequence[str] = (), limits: Limits | None = None
    ) -> Run:
        """Run `program` and tell how it ended; never raises for what the program does. Cancelling ends the program.

        `folder` is where it works: there, and nowhere else, it may read and write files. `readable` are further files
        that it may read. `limits` take the place of the sandbox's own.
        """
        request: dict[str, object] = {"program": program, **self._limits, **({} if limits is None else asdict(limits))}
        if folder is not None:
            request.update(_opened(folder, readable))
        # A server that died is replaced once; then the program gets a process of its own.
        for mode in ("serve", "serve", "once"):
            with suppress(_Lost):
                return await self._run(request, mode)
        return Run("", "unavailable")

    def close(self) -> None:
        """End the process. Programs still running end when their callers are cancelled, or in time."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            process, control = server
            control.close()
            process.kill()
            process.wait()

    async def _run(self, request: Mapping[str, object], mode: str) -> Run:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            process = _start("once", theirs) if mode == "once" else await self._hand_over(theirs)
            try:
                await _taken(ours, process)
                # Not earlier: macOS may drop a socket that is closed here while it is still on its way.
                theirs.close()
                return await self._converse(ours, request)
            finally:
                if mode == "once":
                    process.kill()
                    process.wait()

    async def _hand_over(self, connection: socket.socket) -> subprocess.Popen[bytes]:
        while True:
            process, control = self._serving()
            try:
                socket.send_fds(control, [b"r"], [connection.fileno()])
            except BlockingIOError:
                await asyncio.sleep(0.02)
            except OSError as exc:
                raise _Lost from exc
            else:
                return process

    def _serving(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        with self._lock:
            if self._server is not None and self._server[0].poll() is not None:
                self._server[1].close()
                self._server = None
            if self._server is None:
                control, far = socket.socketpair()
                control.setblocking(False)
                with far:
                    try:
                        self._server = (_start("serve", far), control)
                    except _Lost:
                        control.close()
                        raise
            return self._server

    async def _converse(self, connection: socket.socket, asked: Mapping[str, object]) -> Run:
        loop = asyncio.get_running_loop()
        request = json.dumps(asked).encode()
        seconds = asked["seconds"]
        assert isinstance(seconds, (int, float))
        reply = b""
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                await loop.sock_sendall(connection, len(request).to_bytes(4, "big") + request)
                while part := await loop.sock_recv(connection, 65536):
                    reply += part
        except TimeoutError:
            return Run("", "time")
        except OSError:
            return Run("", "crashed")
        if not reply:
            return Run("", "crashed")  # The keeper itself died, as under the kernel's memory killer.
        said = json.loads(reply)
        ended: Ended = said["ended"]
        return Run(str(said["output"]), ended if ended in get_args(Ended) else "crashed")


def _opened(folder: Path, readable: Sequence[str]) -> dict[str, object]:
    """What a request says of files; the fence compares with real paths."""
    return {"folder": str(folder.resolve()), "readable": [os.path.realpath(path) for path in readable]}


_shared: Sandbox | None = None


def shared() -> Sandbox:
    """The sandbox of this process. It ends with the interpreter; `close_shared` ends it sooner."""
    global _shared
    if _shared is None:
        _shared = Sandbox()
        atexit.register(_shared.close)
    return _shared


def close_shared() -> None:
    """End the shared sandbox's process, if there is one. It starts again at need."""
    if _shared is not None:
        _shared.close()


def _start(mode: str, connection: socket.socket) -> subprocess.Popen[bytes]:
    """An isolated interpreter: no environment, no site, no user's packages, but the folders SymPy is in."""
    folders = []
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise _Lost(f"{name} is not installed")
        folders.append(str(Path(spec.origin).parent.parent))
    folders += [
        str(Path(spec.origin).parent.parent)
        for spec in map(importlib.util.find_spec, _WELCOME)
        if spec is not None and spec.origin is not None
    ]
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CONFINED), mode, str(os.getpid()), *dict.fromkeys(folders)],
            stdin=connection.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            start_new_session=True,  # Ctrl-C in the owner's terminal is the owner's business.
        )
    except OSError as exc:
        raise _Lost from exc


async def _taken(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Wait until a keeper has the connection. Its far end is still open here: no end of file would tell of a death."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    first = asyncio.ensure_future(loop.sock_recv(connection, 1))
    try:
        while not first.done():
            await asyncio.wait({first}, timeout=0.1)
            if not first.done() and (process.poll() is not None or loop.time() > deadline):
                raise _Lost
    finally:
        first.cancel()
    if first.exception() is not None or not first.result():
        raise _Lost
