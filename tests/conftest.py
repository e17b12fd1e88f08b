"""What several test folders share: a clean environment and real Redis servers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.parts import RedisServer, redis_binaries, redis_binary
from tests.servers import ClusterOfServers, running

OURS = ("OPENAI_", "REDIS_", "CELERY_", "ASKQ_", "FLOWER_")
"""What a developer's own variables begin with that would change what the programs do."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what runs in the background so, and programs that are started from here would take no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


ONE_STACK = ("test_chat.py", "test_chat_tools.py", "test_conversations.py", "test_files.py", "test_functions.py")
"""Modules whose tests share real parts: run by one process they start a Redis, a local API and workers once, not four
times."""
ONE_STACK_EACH = {"test_rounds.py": re.compile(r"\[(responses|assistants)\b")}
"""Those with one stack for every parameter of this kind."""


class ByStack(LoadScopeScheduling):
    """Sends tests that share real parts to one process, and all others to whichever has time.

    xdist's marks would do that, but of pytest 9.2's tests they reach none.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        name = file.rpartition("/")[2]
        if "/acceptance/" in file and name in ONE_STACK:
            return file
        if name in ONE_STACK_EACH and (found := ONE_STACK_EACH[name].search(nodeid)):
            return f"{file}[{found[1]}]"
        return nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByStack:
    return ByStack(config, log)


# The same examples each time, however long one takes: a machine that is held up for a moment has shown nothing.
settings.register_profile(
    "same", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)


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


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfServers]:
    """The session's cluster of three masters."""
    with running(ClusterOfServers(redis_binary(), tmp_path_factory.mktemp("cluster"))) as servers:
        servers.be_patient()
        yield servers


@pytest.fixture
def redis_server(redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """The session's server, empty."""
    server = redis_servers(next(iter(redis_binaries())))
    server.flush()
    return server


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts a server of the test's own, with options, for tests that stop it or change how it is set up."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(started)}"
        folder.mkdir()
        server = RedisServer(redis_binary(), folder, *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
