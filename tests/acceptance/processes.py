"""What can be seen of a process from outside."""

from __future__ import annotations

import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return _state(pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # Gone since, perhaps while its file was read; or a system without such files.
        return not Path("/proc/self").exists()


def stopped(pid: int) -> bool:
    """Whether a process was sent SIGSTOP and waits for SIGCONT; False where the system does not show it."""
    try:
        return _state(pid) == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """The children of a process; none where the system does not show them."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_runner(pid: int) -> bool:
    """Whether a process is one in which functions run."""
    try:
        return b"askq.tools.runner" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
