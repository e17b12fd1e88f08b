"""A runner as the process sees it that starts it: asked one thing at a time, and killed when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from askq.tools.frames import MOST_BYTES, pack
from askq.tools.outcomes import MOST_PRINTED

SECRETS = (
    "OPENAI_API_KEY",
    "OPENAI_API_KEY_FILE",
    "REDIS_URL",
    "CELERY_BROKER_URL",
    "ASKQ_CHAT_API_KEY",
    "ASKQ_FLOWER_PASSWORD",
    "FLOWER_BASIC_AUTH",
)
"""Variables a function does not see: what it needs itself gets another name."""

START_S = 60.0
"""For the interpreter, and the imports of a module on a busy machine."""
_LAST_BREATH_S = 1.0
"""How long a runner whose connection is closed may take to end."""


class RunnerEnded(Exception):
    """The runner is gone before it has answered. `by` says how it ended, `printed` what it had printed."""

    def __init__(self, by: str, printed: str) -> None:
        super().__init__(by)
        self.by = by
        self.printed = printed


class RunnerTimeout(RunnerEnded):
    """It took too long, and was killed."""


class RunnerAborted(RunnerEnded):
    """Whoever asked does not want to know any more; it was killed."""


class Child:
    """A runner for some folders. Started when it is first asked, and again after it has ended."""

    def __init__(self, folders: Sequence[Path], *, memory_mb: int = 0) -> None:
        self._folders = folders
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._loaded: set[tuple[str, str]] = set()
        self.asked = 0
        """Requests this process has answered."""

    def ask(self, request: dict[str, Any], *, timeout_s: float, wanted: Any = None) -> tuple[dict[str, Any], str]:
        """The reply to a request, and what was printed meanwhile. Raises RunnerEnded.

        `wanted`, if given, is asked a few times a second whether anybody still wants to know.
        """
        if not self.alive:
            self._start()
        assert self._channel is not None
        assert self._process is not None
        printed = _Printed()
        until = time.monotonic() + timeout_s
        try:
            reply = self._exchange(pack(request), printed, until, wanted)
        except (OSError, ValueError):
            # It has ended, or a function has written on the connection: what comes next might answer another call.
            reply = None
        if reply is None:
            how = self._end()
            self.stop()
            raise RunnerEnded(how, printed.text)
        self.asked += 1
        return reply, printed.text

    @property
    def alive(self) -> bool:
        """Whether the process is there that was asked last."""
        return self._process is not None and self._process.poll() is None

    def load(self, module: str, function: str, wanted: Any = None) -> dict[str, Any] | None:
        """Import a function, unless this process has: the time for that is not the call's. What is wrong with it, as a
        call would tell; None if nothing is. Raises RunnerEnded."""
        if self.alive and (module, function) in self._loaded:
            return None
        reply, _ = self.ask({"load": [module, function]}, timeout_s=START_S, wanted=wanted)
        if "error" in reply:
            return reply
        self._loaded.add((module, function))
        return None

    def _start(self) -> None:
        self.stop()
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-P", "-u", "-m", "askq.tools.runner", str(theirs.fileno()), str(self._memory_mb)]
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        try:
            self._process = subprocess.Popen(
                [*argv, *(str(folder.resolve()) for folder in self._folders)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                # A group of its own: what a function has started is killed with it.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        ours.setblocking(False)
        self._channel = ours
        self.asked = 0
        self._loaded.clear()

    def _exchange(self, request: bytes, printed: _Printed, until: float, wanted: Any) -> dict[str, Any] | None:
        """The reply to a request, or None when the runner has ended. Whatever it prints is read all the time, and
        mostly dropped. A long request goes piece by piece, as the runner takes it."""
        assert self._channel is not None
        assert self._process is not None
        assert self._process.stdout is not None
        data = b""
        with selectors.DefaultSelector() as watch:
            watch.register(self._channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
            watch.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                left = until - time.monotonic()
                if left <= 0 or (wanted is not None and not wanted()):
                    self.stop()
                    raise (RunnerTimeout if left <= 0 else RunnerAborted)("killed", printed.text)
                for key, ready in watch.select(min(left, 0.2)):
                    if key.fileobj is self._process.stdout:
                        if not printed.read(self._process.stdout.fileno()):
                            watch.unregister(self._process.stdout)
                        continue
                    if ready & selectors.EVENT_WRITE:
                        request = request[self._channel.send(request[:65536]) :]
                        if not request:
                            watch.modify(self._channel, selectors.EVENT_READ)
                    if not ready & selectors.EVENT_READ:
                        continue
                    part = self._channel.recv(65536)
                    data += part
                    size = int.from_bytes(data[:4], "big") + 4 if len(data) >= 4 else MOST_BYTES
                    if not part or size > MOST_BYTES:
                        printed.read(self._process.stdout.fileno())
                        if part:
                            self._kill()
                        return None
                    if len(data) >= size:
                        printed.read(self._process.stdout.fileno())
                        return _reply(data[4:size])

    def _end(self) -> str:
        """How the runner has ended. One that is still there, and cannot be spoken to any more, is killed: functions may
        close all files."""
        assert self._process is not None
        try:
            return _how(self._process.wait(_LAST_BREATH_S))
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
            return "it broke off the connection to its worker, and was killed"

    def stop(self) -> None:
        """Kill the runner and everything it has started."""
        if self._process is not None:
            self._kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class _Printed:
    """The beginning of what was printed."""

    def __init__(self) -> None:
        self._kept = b""
        self._more = False

    def read(self, descriptor: int) -> bool:
        """Take what is there, a megabyte at most; False at the end."""
        for _ in range(16):
            try:
                part = os.read(descriptor, 65536)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not part:
                return False
            room = 4 * MOST_PRINTED - len(self._kept)
            self._kept += part[:room]
            self._more = self._more or len(part) > room
        return True

    @property
    def text(self) -> str:
        text = self._kept.decode("utf-8", "replace")
        return text if len(text) <= MOST_PRINTED and not self._more else text[: MOST_PRINTED - 1] + "…"


def _reply(data: bytes) -> dict[str, Any]:
    reply = json.loads(data)
    return reply if isinstance(reply, dict) else {}


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with exit status {code}"
    try:
        return f"it was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was killed by signal {-code}"
