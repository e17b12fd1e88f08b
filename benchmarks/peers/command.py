"""A contender's command: started, waited for or killed with everything it started, and what it cost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.house import kill_all

MARK = "PEERS_CELL"
"""Not a name of askq's, which refuses settings it does not know."""
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended by itself."""

    code: int | None
    """None: it had not at the deadline, and was killed."""
    wall_s: float
    cpu_s: float
    """Of itself and all processes it waited for; 0 if it was killed."""


class Command:
    """`argv` in a folder; it and all it starts carry a mark by which they are found. Needs /proc."""

    def __init__(self, argv: Sequence[str], *, folder: Path, env: Mapping[str, str], log: Path) -> None:
        self._argv = list(argv)
        self._folder = folder
        self._env = {**env, MARK: str(folder)}
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self) -> None:
        self._began = time.monotonic()
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv, env=self._env, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ended(self) -> Ended | None:
        """How it ended, if it has."""
        assert self._child is not None
        if self._child.returncode is not None:
            raise RuntimeError("its end has been told already")
        pid, status, used = os.wait4(self._child.pid, os.WNOHANG)
        if pid == 0:
            return None
        self._child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - self._began
        return Ended(code=self._child.returncode, wall_s=wall, cpu_s=used.ru_utime + used.ru_stime)

    def wait(self, seconds: float) -> Ended:
        """Until it has ended; kills it after `seconds`."""
        until = time.monotonic() + seconds
        while (ended := self.ended()) is None:
            if time.monotonic() > until:
                self.kill()
                return Ended(code=None, wall_s=time.monotonic() - self._began, cpu_s=0.0)
            time.sleep(_LOOK_EVERY_S)
        return ended

    def kill(self) -> int:
        """SIGKILL it and all it started; how many processes that were."""
        killed = kill_all(f"{MARK}={self._folder}")
        if self._child is not None and self._child.returncode is None:
            self._child.wait(30)
        return len(killed)

    def tail(self) -> str:
        """The last it said."""
        return self._log.read_text("utf-8", "replace")[-2000:]


def cpu_of(pid: int) -> float:
    """Seconds of processor a running process has used. Needs /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
