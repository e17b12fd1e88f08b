"""The child processes of a foreground program: how workers and Flower are started and looked after."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from askq.embedded.supervisor import Supervisor
from askq.embedded.tether import module
from askq.errors import EmbeddedError
from askq.names import QUEUE_POLL, QUEUE_START
from config.settings import Settings
from producer.parts import Parts

GRACE_S = 12.0
"""How long children may take to finish the calls they have open."""

_FLOWER_USER = "askq"
FLOWER_OPTIONS = {
    "FLOWER_TASKS_COLUMNS": "uuid,state,runtime,kwargs,result,received,worker",
    # About 5 kB each; the default of 100,000 takes half a gigabyte.
    "FLOWER_MAX_TASKS": "20000",
    "FLOWER_PURGE_OFFLINE_WORKERS": "600",
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


def _celery(command: str) -> list[str]:
    return [*module("worker"), "--no-color", command]


def _ours() -> str:
    """How the names of this program's workers begin."""
    return f"askq-{os.getpid()}-"


def working(parts: Parts) -> int:
    """How many workers of this program are at work. Raises StoreUnreachable."""
    store = parts.store()
    try:
        return sum(node.name.startswith(_ours()) for node in store.nodes())
    finally:
        store.close()


def add_workers(supervisor: Supervisor, parts: Parts) -> None:
    """As many workers as the settings say. Their output goes to the log folder."""
    environment = os.environ | parts.environment()
    for number in range(1, parts.settings.workers + 1):
        name = f"worker-{number}"
        command = worker_command(parts.settings, number)
        supervisor.add(name, command, environment, parts.log_folder() / f"{name}.log")


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
