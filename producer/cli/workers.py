"""The child processes of a foreground program: how workers and Flower are started and looked after."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askq.embedded.supervisor import Supervisor
from askq.embedded.tether import module
from askq.errors import EmbeddedError, StoreError
from askq.names import QUEUE_POLL, QUEUE_START, QUEUE_TOOLS
from config.settings import Settings
from producer.parts import Parts

if TYPE_CHECKING:
    from askq.jobs.redis_store import RedisStore
    from askq.jobs.store import Store

_LOOK_EVERY_S = 1.0
GRACE_S = 12.0
"""How long children may take to finish the calls they have open."""

_FLOWER_USER = "askq"
FLOWER_OPTIONS = {
    "FLOWER_TASKS_COLUMNS": "uuid,state,runtime,kwargs,result,received,worker",
    # About 5 kB each; the default of 100,000 takes half a gigabyte.
    "FLOWER_MAX_TASKS": "20000",
    "FLOWER_PURGE_OFFLINE_WORKERS": "600",
    # It is there to look: from its pages workers could be shut down, and tasks revoked.
    "FLOWER_READ_ONLY": "true",
    # Flower's own end at 10 seconds; runs take minutes.
    "FLOWER_TASK_RUNTIME_METRIC_BUCKETS": "0.1,0.5,1,2,5,10,30,60,120,300,600,inf",
}


@dataclass(frozen=True, slots=True)
class Flower:
    """Where Flower is, and who may see it."""

    port: int
    password: str
    user: str = _FLOWER_USER

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether it serves its pages yet."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def worker_command(settings: Settings, number: int) -> list[str]:
    """The command line of one worker."""
    return [
        *_celery("worker"),
        "--queues",
        f"{QUEUE_START},{QUEUE_POLL}",
        "--pool",
        "prefork",
        "--concurrency",
        str(settings.concurrency),
        "--hostname",
        f"{_ours()}{number}@%h",
        "--loglevel",
        settings.log_level,
        "--without-gossip",
        "--without-mingle",
    ]


def tools_command(settings: Settings) -> list[str]:
    """The command line of the worker that runs functions: a pool of its own, because a function may hang."""
    command = worker_command(settings, 1)
    for option, value in (
        ("--queues", QUEUE_TOOLS),
        ("--concurrency", str(settings.tool_processes)),
        ("--hostname", f"{_ours()}tools@%h"),
    ):
        command[command.index(option) + 1] = value
    return command


def _celery(command: str) -> list[str]:
    return [*module("worker"), "--no-color", command]


def _ours() -> str:
    """How the names of this program's workers begin."""
    return f"askq-{os.getpid()}-"


def working(parts: Parts) -> int:
    """How many workers of this program are at work. Raises StoreUnreachable."""
    store = parts.store()
    try:
        return sum(node.name.startswith(_ours()) and node.processes > 0 for node in store.nodes())
    finally:
        store.close()


def add_workers(supervisor: Supervisor, parts: Parts) -> None:
    """As many workers as the settings say. Their output goes to the log folder."""
    environment = os.environ | parts.environment()
    for number in range(1, parts.settings.workers + 1):
        name = f"worker-{number}"
        command = worker_command(parts.settings, number)
        supervisor.add(name, command, environment, parts.log_folder() / f"{name}.log")


def add_workers_unless_there(supervisor: Supervisor, parts: Parts, store: Store) -> None:
    """Workers for a command that needs some, unless others are at work; those that only run functions do not help."""
    # With an embedded Redis a worker that is still on the register may just have ended.
    if parts.settings.redis_url is None or not any(node.processes for node in store.nodes()):
        parts.check_api()
        add_workers(supervisor, parts)


class ToolsWorker:
    """The worker that runs functions: it costs about as much memory as any other, so it starts with the first call."""

    def __init__(self, supervisor: Supervisor, parts: Parts) -> None:
        self._supervisor = supervisor
        self._parts = parts
        self._started = parts.settings.tool_processes == 0
        self._next = 0.0
        self._store: RedisStore | None = None

    def start(self) -> None:
        """Start it now."""
        if self._started:
            return
        self._started = True
        environment = os.environ | self._parts.environment()
        # It calls nobody, and runs code that need not see them.
        for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "ASKQ_CHAT_API_KEY"):
            environment.pop(name, None)
        log = self._parts.log_folder() / "tools.log"
        self._supervisor.add("tools", tools_command(self._parts.settings), environment, log)

    def look(self) -> None:
        """Start it if functions are to be run and nobody else runs them. Called often, it looks once a second."""
        now = time.monotonic()
        if self._started or now < self._next:
            return
        self._next = now + _LOOK_EVERY_S
        try:
            self._store = self._store or self._parts.store()
            if self._store.calls().next_due() is not None and not any(node.tools for node in self._store.nodes()):
                self.start()
        except StoreError:
            return  # somebody else tells of it

    def close(self) -> None:
        """Close its connection."""
        if self._store is not None:
            self._store.close()


def add_flower(supervisor: Supervisor, parts: Parts, port: int) -> Flower:
    """Flower on the loopback interface; where. Raises EmbeddedError when the port is taken."""
    require_free(port, "Flower", "Choose another with --port or ASKQ_FLOWER_PORT.")
    kept = parts.settings.flower_password
    password = secrets.token_urlsafe(12) if kept is None else kept.reveal()
    environment = (
        os.environ | parts.environment() | FLOWER_OPTIONS | {"FLOWER_BASIC_AUTH": f"{_FLOWER_USER}:{password}"}
    )
    # With this variable set, Flower would let any web page start tasks.
    environment.pop("FLOWER_UNAUTHENTICATED_API", None)
    command = [*_celery("flower"), "--address=127.0.0.1", f"--port={port}"]
    supervisor.add("flower", command, environment, parts.log_folder() / "flower.log")
    return Flower(port, password)


def require_free(port: int, what: str, remedy: str) -> None:
    """Raise EmbeddedError when somebody listens on a port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedError(f"{what} cannot listen on port {port}: it is taken", remedy=remedy) from error


@contextmanager
def foreground() -> Iterator[None]:
    """SIGTERM and SIGHUP end a foreground program the way Ctrl-C does: in order."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def kept_running(supervisor: Supervisor) -> Iterator[None]:
    """Start the children, and end them however this ends; a second Ctrl-C ends them at once."""
    try:
        supervisor.start()
        yield
    finally:
        try:
            supervisor.stop(GRACE_S)
        except KeyboardInterrupt:
            supervisor.stop(0)
            raise


def require_hope(supervisor: Supervisor) -> None:
    """Raise EmbeddedError when a child is given up."""
    if supervisor.failed is not None:
        raise EmbeddedError(supervisor.failed)
