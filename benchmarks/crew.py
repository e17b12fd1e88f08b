"""Worker processes and the simplest supervisor there is: what has ended is started again at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.stack import Process

_LOOK_EVERY_S = 0.1
_BOOT_S = 120.0


class Crew:
    """The workers of one contender."""

    def __init__(self, workers: Sequence[Process]) -> None:
        self._workers = list(workers)
        self.restarts = 0

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def revive(self) -> None:
        """Start again whoever has ended."""
        for worker in self._workers:
            if not worker.alive:
                worker.start()
                self.restarts += 1

    def watch(self, seconds: float) -> None:
        """Be the supervisor for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.revive()
            time.sleep(min(left, _LOOK_EVERY_S))

    def kill_worker(self, pick: random.Random) -> None:
        """SIGKILL a worker and its pool, as the kernel does that is out of memory."""
        victim = pick.choice(self._workers)
        self.revive()
        victim.kill(signal.SIGKILL)

    def kill_pool_process(self, pick: random.Random) -> None:
        """SIGKILL one pool process of a worker, as soon as there is one. Needs /proc."""
        victim, place = pick.choice(self._workers), pick.random()
        until = time.monotonic() + _BOOT_S
        while not (pool := _pool_of(victim)):
            assert time.monotonic() < until, f"{victim.name} has no pool after {_BOOT_S:g} s:\n{victim.tail()}"
            self.watch(_LOOK_EVERY_S)
        os.kill(pool[int(place * len(pool))], signal.SIGKILL)

    def redeploy(self) -> None:
        """Stop every worker politely, and not so after half a minute, and start it again."""
        for worker in self._workers:
            try:
                worker.kill(signal.SIGTERM, group=False)
            except subprocess.TimeoutExpired:
                worker.kill(signal.SIGKILL)
        self.revive()

    def dismiss(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.kill(signal.SIGKILL)


def _pool_of(worker: Process) -> list[int]:
    assert worker.child is not None
    try:
        listed = Path(f"/proc/{worker.child.pid}/task/{worker.child.pid}/children").read_text("utf-8")
    except FileNotFoundError:
        return []
    return [int(pid) for pid in listed.split()]
