"""What happens to Redis: killed, paused, frozen, starved, full, and with a full disk.

Each blow says whether it had effect.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from askq.jobs import keys
from tests.acceptance.stack import Stack
from tests.chaos.recovery import Outage
from tests.parts import answers_redis, eventually

_STEP_S = 0.05


class Server:
    """The experiment's Redis. `meanwhile` is called while it is away, so that workers are kept running."""

    def __init__(self, stack: Stack, meanwhile: Callable[[], None]) -> None:
        # Asked again by whoever waits: the client need not try again by itself.
        once = Retry(NoBackoff(), 0)
        self.client = redis.Redis(port=stack.redis_port, socket_timeout=30, socket_connect_timeout=30, retry=once)
        self.outages: list[Outage] = []
        self.done: Counter[str] = Counter()
        self._stack = stack
        self._meanwhile = meanwhile

    def kill(self, away_s: float) -> bool:
        """SIGKILL it, and start it again after a while."""
        down_at = time.time()
        self._stack.redis.kill()
        self._wait(away_s)
        self.start(down_at)
        return self._count("SIGKILL of Redis")

    def start(self, down_at: float) -> None:
        """Start it again, and note which jobs were in somebody's hands."""
        self._stack.redis.start()
        eventually(lambda: answers_redis(self._stack.redis_port), seconds=60, what="Redis answers", every=0.005)
        self.outages.append(Outage(down_at, time.time(), self.held()))

    def held(self) -> tuple[str, ...]:
        """Jobs that somebody has claimed and not given back."""
        names = list(self.client.scan_iter(match=f"{keys.PREFIX}*:job:*", count=1000))
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hexists(name, "claims")
        found = zip(names, pipe.execute(), strict=True)
        return tuple(name.decode().partition(":job:")[2] for name, claimed in found if claimed)

    def pause(self, seconds: float) -> bool:
        """CLIENT PAUSE: connections stay, answers do not come."""
        self.client.client_pause(int(seconds * 1000))
        self._wait(seconds)
        return self._count("CLIENT PAUSE")

    def freeze(self, seconds: float) -> bool:
        """SIGSTOP: longer than a client's timeout, if so wished."""
        self._stopped(seconds)
        return self._count("freeze of Redis")

    def starve(self, seconds: float) -> bool:
        """A server that gets a third of the time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._stopped(0.1)
            self._wait(0.05)
        return self._count("slow Redis")

    def _stopped(self, seconds: float) -> None:
        child = self._stack.redis.child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        try:
            self._wait(seconds)
        finally:
            os.kill(child.pid, signal.SIGCONT)

    def fill_memory(self, seconds: float) -> bool:
        """No memory for anything new: writes are refused, what is there stays."""
        # Half of what is in use: what clients and buffers give back while it lasts makes no room.
        self.client.config_set("maxmemory", self.client.info("memory")["used_memory"] // 2)
        try:
            self._wait(seconds)
            refused = self._refuses(redis.OutOfMemoryError)
        finally:
            self.client.config_set("maxmemory", 0)
        return refused and self._count("out of memory")

    def fill_disk(self, seconds: float) -> bool:
        """No room for the append-only file: the kernel refuses to let it grow, as a full disk does.

        With `appendfsync everysec` Redis stays alive and refuses writes (MISCONF) until there is room.
        """
        child = self._stack.redis.child
        assert child is not None
        _, most = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        written = max(file.stat().st_size for file in (self._stack.folder / "redis" / "appendonlydir").iterdir())
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (written, most))
        try:
            self._wait(seconds)
            until = time.monotonic() + 30
            # A write is taken, and the next one refused, once the file could not grow: nobody may have written yet.
            while not (refused := self._refuses(redis.ResponseError)) and time.monotonic() < until:
                self._wait(0.1)
        finally:
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: not self._refuses(redis.ResponseError), seconds=60, what="Redis writes again")
        return refused and self._count("disk full")

    def _refuses(self, how: type[redis.RedisError]) -> bool:
        try:
            self.client.set("chaos:probe", "x" * 64)
        except how:
            return True
        return False

    def _count(self, what: str) -> bool:
        self.done[what] += 1
        return True

    def _wait(self, seconds: float) -> None:
        """Let time pass without asking Redis for anything."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._meanwhile()
            time.sleep(min(_STEP_S, max(0.0, until - time.monotonic())))
