"""`python -m askq.embedded.tether SIGNAL PARENT -- COMMAND …`: run a command that ends with its parent.

On Linux the kernel sends SIGNAL when the parent dies, however it dies, and the command takes this process's place.
Elsewhere this process stays, watches its parent and passes signals on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_LINUX = sys.platform.startswith("linux")
_WATCH_EVERY_S = 0.5


def module(name: str) -> list[str]:
    """The command line of one of our modules, run without looking for modules in the current folder: what lies beside
    somebody's list, a `queue.py` say, is not ours to import."""
    return [sys.executable, "-P", "-m", name]


def tethered(command: Sequence[str], *, how: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `command` tied to this process. Start it from the main thread: to the kernel the
    parent is the thread."""
    return [*module("askq.embedded.tether"), str(int(how)), str(os.getpid()), "--", *command]


def main(argv: Sequence[str]) -> int:
    how, parent, _, *command = argv
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != int(parent):
            return 1  # it died before the kernel knew
        os.execvp(command[0], command)  # noqa: S606  replacing this process is the point
    return _watch(command, signal.Signals(int(how)), int(parent))


def _watch(command: Sequence[str], how: signal.Signals, parent: int) -> int:
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.send_signal(how)
        time.sleep(_WATCH_EVERY_S)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
