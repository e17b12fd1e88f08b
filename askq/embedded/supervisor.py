"""Keeps the child processes of a foreground program running: workers, Flower.

Single-threaded on purpose: the caller's loop calls `tick`. Children are started from the thread that ticks, which
must be the main one, because the kernel ties them to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from askq.embedded.files import tail
from askq.embedded.tether import tethered
from askq.errors import EmbeddedError

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 30.0
_QUICK_S = 10.0
_HOPELESS = 3
"""Errors in a row so quickly after the start that show a mistake no restart can mend."""


@dataclass(slots=True)
class _Child:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE_S
    again_at: float = 0.0
    quick_ends: int = 0
    failed: str | None = None


class Supervisor:
    """Starts children, starts them again when they end, and ends them."""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def add(self, name: str, argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        """A child to keep running; its output goes to the end of the log."""
        self._children.append(_Child(name, argv, env, log_path))

    def start(self) -> None:
        """Start every child. Raises EmbeddedError when a log cannot be written."""
        for child in self._children:
            self._spawn(child)

    def tick(self) -> list[str]:
        """Start again what has ended, after a growing pause; what happened, for people."""
        told = []
        now = time.monotonic()
        for child in self._children:
            if child.failed is not None:
                continue
            if child.process is not None and (code := child.process.poll()) is not None:
                told.append(self._ended(child, code, now))
            elif child.process is None and now >= child.again_at:
                self._spawn(child)
        return told

    @property
    def failed(self) -> str | None:
        """What is given up, with the end of its log; None while everything is kept running."""
        return next((child.failed for child in self._children if child.failed is not None), None)

    @property
    def alive(self) -> int:
        """Children that run."""
        return sum(child.process is not None and child.process.poll() is None for child in self._children)

    def stop(self, grace_s: float) -> None:
        """End all children: SIGTERM, and after `grace_s` SIGKILL to whatever is left of their groups."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            _signal(process, signal.SIGTERM, group=False)
        until = time.monotonic() + grace_s
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            _signal(process, signal.SIGKILL, group=True)
            process.wait()
        for child in self._children:
            child.process = None
            child.again_at = float("inf")

    def _spawn(self, child: _Child) -> None:
        with _opened(child.log) as log:
            child.process = subprocess.Popen(
                tethered(child.argv),
                env=dict(child.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own group: Ctrl-C reaches the foreground program, which ends its children in order.
                start_new_session=True,
            )
        child.started = time.monotonic()

    def _ended(self, child: _Child, code: int, now: float) -> str:
        assert child.process is not None
        _signal(child.process, signal.SIGKILL, group=True)
        child.process = None
        lived = now - child.started
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if lived > _HEALTHY_S:
            child.pause = _FIRST_PAUSE_S
        # Somebody's kill and an orderly end show no mistake of the child's own.
        child.quick_ends = child.quick_ends + 1 if lived < _QUICK_S and code > 0 else 0
        if child.quick_ends >= _HOPELESS:
            child.failed = f"{child.name} ended {_HOPELESS} times at its start ({reason}):\n{tail(child.log)}"
            return f"{child.name} ended ({reason}) and is given up"
        child.again_at = now + child.pause
        child.pause = min(2 * child.pause, _LONGEST_PAUSE_S)
        return f"{child.name} ended ({reason}); starting it again"


def _opened(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise EmbeddedError(
            f"the log {log} cannot be written: {error.strerror or error}",
            remedy="Run askq in a folder that can be written, or set ASKQ_HOME.",
        ) from error


def _signal(process: subprocess.Popen[bytes], how: signal.Signals, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
