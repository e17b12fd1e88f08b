"""RabbitMQ as the broker: Celery's hints go through it, and nothing else changes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import State
from tests.acceptance.stack import running_stack
from tests.parts import eventually, free_port

# Debian's command of this name changes the user, who may not write where tests do; it calls this one.
SERVER = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin") or shutil.which("rabbitmq-server")
EPMD = shutil.which("epmd")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(SERVER is None or EPMD is None, reason="rabbitmq-server is not installed"),
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """The address of a RabbitMQ of this test alone."""
    assert SERVER is not None
    assert EPMD is not None
    port, peers, names = free_port(), free_port(), free_port()
    home = tmp_path / "rabbit"
    home.mkdir()
    mine = {
        "HOME": str(home),
        # The daemon that maps names of nodes to ports is started here, in the foreground: Erlang's would outlive us.
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"askq{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(peers),
        "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(home),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
    }
    log = tmp_path / "rabbit.log"
    children = []
    try:
        with log.open("wb") as out:
            for argv in ([EPMD, "-port", str(names), "-address", "127.0.0.1"], [SERVER]):
                children.append(
                    subprocess.Popen(argv, env=dict(os.environ) | mine, stdout=out, stderr=out, start_new_session=True)
                )
        eventually(lambda: _speaks(port, children[1], log), seconds=120, what="RabbitMQ answers", every=0.5)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        for child in reversed(children):
            # The script may have ended before the server it started.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _speaks(port: int, server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, log.read_text("utf-8", "replace")[-3000:]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(b"AMQP\0\0\x09\x01")
            return bool(client.recv(7))
    except OSError:
        return False


def test_a_list_is_answered_with_rabbitmq_as_the_broker(tmp_path: Path, broker: str) -> None:
    script = {"default": {"answer": "Answer to: {question}", "duration": [0.3, 1.0]}}
    with running_stack(tmp_path, script=script) as stack:
        worker = stack.worker(CELERY_BROKER_URL=broker)
        tutor = Assistant(name="tutor", protocol="responses", model="gpt-test", timeout_s=120)
        batch = stack.submit(tutor, [f"What is {number} + 1?" for number in range(60)])
        jobs = stack.wait(batch, seconds=120)
        assert {job.state for job in jobs} == {State.COMPLETED}
        assert len(stack.ledger()) == 60
        with stack.client() as raw:
            assert not raw.exists("askq.start", "askq.poll", "unacked"), "no message went through Redis"
        assert worker.alive
