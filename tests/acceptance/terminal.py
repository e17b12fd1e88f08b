"""A program on a terminal of its own, as a person has one in front of them."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from tests.acceptance.stack import ROOT

_READ_S = 5.0
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


class Terminal:
    """Types, and reads what is shown. Close it."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        name = shlex.quote(os.ttyname(slave))
        # Whoever leads a session, and opens a terminal, has it: Ctrl-C reaches the program as it does a person's.
        command = f"exec {shlex.join(argv)} <{name} >{name} 2>&1"
        told = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "LANG": "C.UTF-8"}
        self.child = subprocess.Popen(
            ["/bin/sh", "-c", command], env={**env, **told}, cwd=ROOT, start_new_session=True, close_fds=True
        )
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._slave = slave

    def _read(self) -> None:
        while True:
            try:
                found = os.read(self._master, 65_536)
            except OSError:
                return
            if not found:
                return
            self._shown += found

    @property
    def shown(self) -> str:
        """Everything that was written so far, without what moves and colours."""
        return _SEQUENCE.sub("", self._shown.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str, *, after: int = 0, seconds: float = 120.0) -> int:
        """Wait until a text is shown after a place; the place behind it."""
        until = time.monotonic() + seconds
        while (at := self.shown.find(text, after)) < 0:
            assert time.monotonic() < until, f"{text!r} is not shown within {seconds:g} s:\n{self.shown}"
            if self.child.poll() is not None:
                # The last it has written is read a moment later.
                until = min(until, time.monotonic() + _READ_S)
            time.sleep(0.02)
        return at + len(text)

    def ends(self, *, seconds: float = 60.0) -> int:
        """Wait for its end; the exit code."""
        return self.child.wait(seconds)

    def close(self) -> None:
        """Kill it with all that belongs to it."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(30)
        os.close(self._slave)
        self._reader.join(10)
        os.close(self._master)
