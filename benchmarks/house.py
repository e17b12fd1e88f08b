"""Every process of a house, found by a variable all of them inherited, and killed at once. Needs /proc."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.acceptance.processes import alive
from tests.parts import eventually


def command_lines(mark: str) -> dict[int, str]:
    """The processes that were started with `NAME=value` in their environment, and their descendants, by id."""
    lines: dict[int, str] = {}
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # Processes come and go while this looks; those of other people cannot be read.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            lines[pid] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(pid)
    # Redis writes its title over its environment: it is found as the child of its keeper.
    while more := {pid for pid, parent in parents.items() if parent in found and pid in lines} - found:
        found |= more
    return {pid: lines[pid] for pid in found if lines[pid]}


def kill_all(mark: str) -> dict[int, str]:
    """SIGKILL all of them; what they were. Stopped first, so that none sees another die and acts on it."""
    stopped: dict[int, str] = {}
    while new := {pid: line for pid, line in command_lines(mark).items() if pid not in stopped}:
        for pid in new:
            _send(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        _send(pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in stopped), seconds=30, what=f"nothing with {mark} is left")
    return stopped


def _send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)
