"""The workers of an experiment: kept running as a supervisor would, and struck as the experiment wants.

Every blow says whether there was somebody to be struck.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

from tests.acceptance.processes import is_runner, stopped
from tests.acceptance.stack import Process
from worker.process import STUCK_EXIT

_PAUSE_S = 0.3
"""Between the end of a worker and its next start."""
_LEAVING_S = 75.0
"""A worker that was asked to end takes no longer, or something is wrong: it ends itself after a minute."""


class Crew:
    """Not a thread: whoever waits calls `tick`."""

    def __init__(self, workers: list[Process], pick: random.Random, *, sleep_s: float) -> None:
        self.workers = workers
        self.sleep_s = sleep_s
        """How long a stopped process stays so: longer than a lease."""
        self.kills: list[float] = []
        """Unix time of each SIGKILL."""
        self.done: Counter[str] = Counter()
        self.overstayed: list[str] = []
        """Workers that went on although they were asked to end, with the end of their logs."""
        self.by_itself = 0
        """Ends nobody asked for (Celery may end a worker when Redis goes away)."""
        self._pick = pick
        self._began = time.monotonic()
        self._ended: dict[str, float] = {}
        self._leaving: dict[str, tuple[float, str]] = {}
        self._started: dict[str, float] = {}
        self._asleep: dict[int, float] = {}

    def tick(self) -> None:
        """Start again what has ended; wake up what has been stopped for long enough."""
        now = time.monotonic()
        for worker in self.workers:
            name = worker.name
            if worker.alive:
                self._wake(worker, after_s=self.sleep_s)
                if name in self._leaving and now - self._leaving[name][0] > _LEAVING_S:
                    self.overstayed.append(f"{self._leaving[name][1]} was sent {_LEAVING_S:.0f} s ago: {worker.tail()}")
                    worker.kill()
                continue
            if name not in self._ended:
                self._ended[name] = now
                asked = self._leaving.pop(name, None) is not None
                if worker.child is not None and worker.child.returncode == STUCK_EXIT:
                    self.done["worker that did not end when it was told, and ended itself"] += 1
                # At a failpoint it has killed itself, as it was told.
                if not asked and worker.child is not None and worker.child.returncode != -signal.SIGKILL:
                    self.by_itself += 1
            elif now - self._ended[name] >= _PAUSE_S:
                del self._ended[name]
                self._started[name] = now
                worker.start()

    def _running(self) -> list[Process]:
        return [worker for worker in self.workers if worker.alive and worker.name not in self._leaving]

    def _victim(self) -> Process | None:
        awake = [worker for worker in self._running() if worker.child is not None and not stopped(worker.child.pid)]
        return self._pick.choice(awake) if awake else None

    def _count(self, what: str) -> bool:
        self.done[what] += 1
        return True

    def kill_group(self) -> bool:
        """SIGKILL a worker and its pool at once."""
        if (worker := self._victim()) is None:
            return False
        self._kill(worker, group=True)
        return self._count("kill of a group")

    def kill_main(self) -> bool:
        """SIGKILL a worker's main process alone: the kernel ends its pool."""
        if (worker := self._victim()) is None:
            return False
        self._kill(worker, group=False)
        return self._count("kill of a main process")

    def kill_child(self) -> bool:
        """SIGKILL one pool process: its worker replaces it."""
        if (worker := self._victim()) is None or not (pool := worker.pids()[1:]):
            return False
        self.kills.append(time.time())
        try:
            os.kill(self._pick.choice(pool), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return self._count("kill of a pool process")

    def kill_runner(self, at_work: Sequence[int]) -> bool:
        """SIGKILL one of these processes, in which functions are at work: it costs the call."""
        runners = [pid for pid in at_work if is_runner(pid)]
        if not runners:
            return False
        self.kills.append(time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pick.choice(runners), signal.SIGKILL)
        return self._count("kill of a function's process")

    def kill_all(self) -> bool:
        """SIGKILL every worker at the same moment."""
        running = self._running()
        for worker in running:
            self._kill(worker, group=True)
            self._count("kill of a group")
        return bool(running)

    def _kill(self, worker: Process, *, group: bool) -> None:
        self._mark(worker, "SIGKILL")
        self.kills.append(time.time())
        worker.kill(signal.SIGKILL, group=group)

    def _mark(self, worker: Process, signal_name: str) -> None:
        """Its end will not be its own doing."""
        now = time.monotonic()
        age = now - self._started.get(worker.name, self._began)
        self._leaving.setdefault(worker.name, (now, f"{signal_name} to {worker.name}, {age:.1f} s after its start,"))

    def ask_to_end(self, how: signal.Signals) -> bool:
        """SIGTERM is a deploy (warm shutdown); SIGQUIT a cold one, which askq makes a soft one."""
        if (worker := self._victim()) is None or worker.child is None:
            return False
        self._mark(worker, how.name)
        worker.child.send_signal(how)
        return self._count(f"{how.name} to a worker")

    def stop(self) -> bool:
        """SIGSTOP a worker and its pool for `sleep_s`: it will not know that time has passed."""
        if (worker := self._victim()) is None or worker.child is None:
            return False
        os.killpg(worker.child.pid, signal.SIGSTOP)
        return self._count("stop of a worker")

    def _wake(self, worker: Process, *, after_s: float) -> None:
        """SIGCONT to every process that has been stopped for so long, whoever stopped it."""
        now = time.monotonic()
        for pid in worker.pids():
            if not stopped(pid):
                self._asleep.pop(pid, None)
            elif now - self._asleep.setdefault(pid, now) >= after_s:
                del self._asleep[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def wake_all(self) -> None:
        """SIGCONT to everything that is stopped."""
        for worker in self.workers:
            self._wake(worker, after_s=0.0)
