"""The users of Redis that `docs/do/redis-users.md` makes can do all that askq does, and little else."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from askq.jobs.model import State
from tests.acceptance.stack import ROOT, Stack, running_stack
from tests.parts import contents, eventually, free_port

pytestmark = pytest.mark.timeout(300)
PAGE = (ROOT / "docs/do/redis-users.md").read_text("utf-8")
USERS = {
    name: rules.replace("PASSWORD", f"pw-{name}").split()
    for name, rules in re.findall(r"^user (askq-\w+) (.*)$", PAGE, re.MULTILINE)
}
TOLERATED = {"config|get", "config"}
"""What askq asks for and does without."""
SCRIPT = {
    "default": {
        "answer": "About {question} {files}",
        "duration": 0.2,
        "code": [{"input": "1", "files": [{"name": "made.csv", "text": "a\n1"}]}],
    }
}


def address(stack: Stack, user: str) -> str:
    return f"redis://{user}:pw-{user}@127.0.0.1:{stack.redis_port}/0"


@contextmanager
def as_user(stack: Stack, user: str) -> Iterator[redis.Redis]:
    with redis.Redis(port=stack.redis_port, username=user, password=f"pw-{user}") as client:
        yield client


def refused(stack: Stack) -> list[dict[str, Any]]:
    """What Redis has refused anybody, but for what askq does without."""
    with stack.client() as admin:
        entries = admin.execute_command("ACL", "LOG", 100)
    told = [{str(key): value for key, value in _texts(entry).items()} for entry in entries]
    return [entry for entry in told if entry["object"] not in TOLERATED]


def _texts(entry: Any) -> dict[str, str]:
    pairs = entry.items() if isinstance(entry, dict) else zip(entry[::2], entry[1::2], strict=True)
    return {_text(key): _text(value) for key, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_users_with_few_rights_suffice(tmp_path: Path) -> None:
    """A list with files is submitted, answered, watched in Flower, audited and forgotten, and nothing was refused; the
    key of the service is nowhere afterwards, however much the libraries log."""
    with running_stack(tmp_path, script=SCRIPT) as stack:
        with stack.client() as admin:
            for name, rules in USERS.items():
                admin.execute_command("ACL", "SETUSER", name, *rules)
        stack.worker(settings={"REDIS_URL": address(stack, "askq-worker"), "OPENAI_LOG": "debug"})
        port = free_port()
        flower = [sys.executable, "-m", "celery", "-A", "worker.celery", "flower", "--address=127.0.0.1"]
        more = {"REDIS_URL": address(stack, "askq-flower"), "FLOWER_BASIC_AUTH": "u:p", "FLOWER_READ_ONLY": "true"}
        watching = stack._process("flower", [*flower, f"--port={port}"], stack.environment(**more))
        watching.start()
        eventually(lambda: _rows(port) is not None, seconds=120, what="Flower answers", every=0.2)
        # What is told before it listens nobody tells again.
        eventually(lambda: _listens(stack, "askq-flower"), what="Flower hears events", every=0.2)

        def askq(*argv: str, code: int = 0) -> str:
            done = stack.askq(*argv, settings={"REDIS_URL": address(stack, "askq-producer")})
            assert done.returncode == code, (argv, done.stdout, done.stderr)
            return done.stdout

        (tmp_path / "a.txt").write_text("one", "utf-8")
        rows = [f"{row},What of {row}?,a.txt" for row in range(3)]
        (tmp_path / "list.csv").write_text("\n".join(["id,question,file", *rows, ""]), "utf-8")
        (tmp_path / "t.toml").write_text('model = "gpt-test"\ntools = ["code_interpreter"]\n', "utf-8")
        told = askq("submit", str(tmp_path / "list.csv"), "--assistant", str(tmp_path / "t.toml"), "--wait", "--json")
        batch = json.JSONDecoder().raw_decode(told)[0]["batch"]
        assert {job.state for job in stack.wait(batch, seconds=120)} == {State.COMPLETED}
        eventually(lambda: len(_rows(port) or ()) == 3, what="Flower shows a row per job", every=0.2)
        assert len(askq("results", batch).splitlines()) == 3
        assert json.loads(askq("sweep", "--json"))["findings"] == []
        askq("doctor")
        assert json.loads(askq("forget", batch, "--yes", "--json"))["complete"]
        assert refused(stack) == []
        _may_do_no_harm(stack)
        key = stack.environment()["OPENAI_API_KEY"].encode()
        found = [path.name for path, content in contents(tmp_path) if key in content]
        assert found == [], "the key is in no log, in no file of Redis and of no folder"


def _listens(stack: Stack, user: str) -> bool:
    with stack.client() as admin:
        clients = [client for client in admin.client_list() if client["user"] == user]
    return any(int(client["sub"]) + int(client["psub"]) > 0 for client in clients)


def _rows(port: int) -> dict[str, Any] | None:
    token = base64.b64encode(b"u:p").decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/tasks", headers={"Authorization": f"Basic {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
            return found
    except OSError:
        return None


def _may_do_no_harm(stack: Stack) -> None:
    """Nobody of them may empty or reconfigure the server, look at others' keys, or change who may do what."""
    harm: list[tuple[Any, ...]] = [
        *(("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "SET", "appendonly", "no")),
        *(("ACL", "LIST"), ("SHUTDOWN", "NOSAVE"), ("CLIENT", "LIST"), ("MONITOR",), ("REPLICAOF", "NO", "ONE")),
        *(("CLIENT", "KILL", "ID", "1"), ("MODULE", "LIST"), ("GET", "others"), ("SET", "others", "1")),
        *(("EVAL", "return redis.call('GET', KEYS[1])", 1, "others"), ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST")),
        ("RESTORE", "askq:x", 0, b"x"),
    ]
    for user in USERS:
        with as_user(stack, user) as client:
            assert client.ping()
            for command in harm:
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command)
    with as_user(stack, "askq-flower") as client:
        for command in (
            ("CONFIG", "GET", "requirepass"),
            ("HGETALL", "askq:nodes"),
            ("SMEMBERS", "askq:forgetting"),
            ("EVAL", "return 1", 0),
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
