"""What processes used: CPU and memory of workers with their pools, of Redis, and of a command that was waited for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.acceptance.stack import ROOT, Process, Stack

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that was run to its end."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Largest resident memory; never less than what this process had when it started the command."""
    stdout: str


def run(argv: Sequence[str], env: Mapping[str, str], *, out: Path) -> Ended:
    """Run a command to its end; fail loudly when it does."""
    began = time.monotonic()
    with out.open("wb") as file:
        child = subprocess.Popen(argv, env=dict(env), cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, f"{' '.join(argv)} ended with {child.returncode}"
    return Ended(
        wall_s=time.monotonic() - began,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
        stdout=out.read_text("utf-8").strip(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was used until a moment."""

    at: float
    workers_s: float
    redis_s: float
    redis_commands: int
    """Those that scripts call included."""
    redis_reads: int
    """Packets of clients: about one for each round trip."""

    def since(self, before: Reading, *, questions: int, client_s: float) -> dict[str, Any]:
        """What was used since an earlier reading, per question. `client_s`: CPU of the program that submitted."""
        parts = {
            "client": client_s,
            "workers": self.workers_s - before.workers_s,
            "redis": self.redis_s - before.redis_s,
        }
        each = {name: round(1000 * part / questions, 2) for name, part in parts.items()}
        return {
            "cpu_ms_per_question": {**each, "all": round(1000 * sum(parts.values()) / questions, 2)},
            "redis_commands_per_question": round((self.redis_commands - before.redis_commands) / questions, 1),
            "redis_reads_per_question": round((self.redis_reads - before.redis_reads) / questions, 2),
        }


class Meter:
    """Reads what the workers and the Redis of a stack have used. Needs /proc."""

    def __init__(self, stack: Stack, workers: Sequence[Process]) -> None:
        self._workers = workers
        self._redis = redis.Redis.from_url(stack.redis_url)

    def read(self) -> Reading:
        """Everything until now."""
        info: Any = self._redis.info("everything")
        return Reading(
            at=time.monotonic(),
            workers_s=sum(_cpu_s(pid) for worker in self._workers for pid in pids_of(worker)),
            redis_s=info["used_cpu_user"] + info["used_cpu_sys"],
            redis_commands=info["total_commands_processed"],
            redis_reads=info["total_reads_processed"],
        )

    def resident_mb(self) -> float:
        """Resident memory of workers and their pools; pages they share are counted for each."""
        return sum(_resident(pid) for worker in self._workers for pid in pids_of(worker)) / 2**20

    def redis_memory(self) -> int:
        """Bytes the data in Redis takes."""
        info: Any = self._redis.info("memory")
        return int(info["used_memory"])

    def length(self, key: str) -> int:
        """Bytes of a text."""
        return int(self._redis.strlen(key))

    def close(self) -> None:
        self._redis.close()


def pids_of(worker: Process) -> list[int]:
    """A worker and its pool processes."""
    assert worker.child is not None
    pid = worker.child.pid
    try:
        pool = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except FileNotFoundError:
        pool = []
    return [pid, *map(int, pool)]


def _cpu_s(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _resident(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * _PAGE
    return 0
