"""One contender on parts of its own: a Redis, a local API, the front, a list, its command."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks import questions
from benchmarks.peers.command import Command, cpu_of
from benchmarks.peers.environments import python_of
from benchmarks.peers.manifest import Peer
from tests.acceptance.stack import READY_S, ROOT, Process, Stack, running_stack
from tests.parts import eventually

# Nothing of a peer may leave this machine.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TELEMETRY_ENABLED": "False",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a scenario gives every contender."""

    questions: int
    run_seconds: tuple[float, float]
    concurrency: int | None = None
    """Calls at a time, where a peer lets one choose; None: its default."""
    rate: float | None = None
    burst: float = 1.0
    hints: bool = True
    """Whether replies carry the limit in headers."""
    deadline_s: float = 300.0
    run_s: int = 60
    """What a killed create waits for, where nothing tells whether it arrived."""


class Cell:
    """The parts, and what can be read off them."""

    def __init__(self, folder: Path, stack: Stack, setting: Setting, peer: Peer | None) -> None:
        """`peer` None: askq."""
        self.asked = questions.texts(setting.questions)
        self._folder = folder
        self._stack = stack
        self._answers = folder / "answers.jsonl"
        self._by_messages = peer is not None and peer.name.startswith("celery-")
        listed = folder / "questions.csv"
        questions.write_list(listed, self.asked)
        home = folder / "person"
        home.mkdir()
        env = stack.environment(HOME=str(home), PYTHONPATH=str(ROOT), **_QUIET)
        if setting.concurrency is not None:
            env["PEER_CONCURRENCY"] = str(setting.concurrency)
        if peer is None:
            assistants = folder / "assistants"
            assistants.mkdir()
            # The default is for real models.
            text = f'model = "gpt-test"\n[run]\ntimeout = {setting.run_s}\n'
            (assistants / "plain.toml").write_text(text, "utf-8")
            argv = [sys.executable, "-m", "producer.cli", "run", str(listed), "--assistant", "plain"]
            argv += ["--protocol", "responses", "-o", str(self._answers)]
        else:
            argv = [python_of(peer), str(peer.script), str(listed), str(self._answers), *peer.arguments]
            if peer.requirements:
                # Its environment is its own.
                env["PYTHONPATH"] = ""
        self.command = Command(argv, folder=folder, env=env, log=folder / "command.log")

    def front(self) -> dict[str, Any]:
        """What the front saw."""
        url = self._stack.base_url.removesuffix("/v1") + "/_front/stats"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return dict(json.load(reply))

    def finished(self) -> int:
        """Runs that have ended on the server."""
        stats = self._stack.admin("stats")
        return int(stats["ledger"]) - int(stats["in_flight"])

    def redis_cpu_s(self) -> float:
        assert self._stack.redis.child is not None
        return cpu_of(self._stack.redis.child.pid)

    def held(self) -> int:
        """Celery's messages in the hands of a dead worker, if its pipeline depends on them (askq's jobs do not)."""
        if not self._by_messages:
            return 0
        with closing(redis.Redis.from_url(self._stack.redis_url)) as store:
            return store.hlen("unacked")

    def verdict(self) -> dict[str, int]:
        """Answers, by the file the command wrote; runs, by the server's ledger."""
        answers: dict[str, str | None] = {}
        if self._answers.exists():
            lines = self._answers.read_text("utf-8").splitlines()
            answers = {one["question"]: one["answer"] for one in map(json.loads, lines)}
        runs = Counter(entry["question"] for entry in self._stack.ledger())
        right = sum(answers.get(one) == questions.right_answer(one) for one in self.asked)
        return {
            "answered": right,
            "wrong": sum(text is not None for text in answers.values()) - right,
            "unanswered_and_told": sum(text is None for text in answers.values()),
            "runs": runs.total(),
            "paid_twice": runs.total() - len(runs),
        }


@contextmanager
def running_cell(setting: Setting, peer: Peer | None) -> Iterator[Cell]:
    """A cell whose command is not started; everything is ended afterwards. Raises NotInstallable."""
    if peer is not None:
        python_of(peer)
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        folder = Path(name)
        with running_stack(folder, script=questions.script(setting.run_seconds)) as stack:
            front = _front(folder, stack, setting)
            try:
                cell = Cell(folder, stack, setting, peer)
                try:
                    yield cell
                finally:
                    cell.command.kill()
            finally:
                front.kill()


def _front(folder: Path, stack: Stack, setting: Setting) -> Process:
    """Put the front before the local API: whatever asks the stack for its URL from now on gets the front's."""
    endpoint = folder / "front.json"
    argv = [sys.executable, "-m", "benchmarks.peers.front", "--api", stack.base_url.removesuffix("/v1")]
    argv += ["--endpoint-file", str(endpoint)]
    if setting.rate is not None:
        argv += ["--rate", str(setting.rate), "--burst", str(setting.burst)]
        argv += [] if setting.hints else ["--no-hints"]
    process = Process("front", argv, folder / "front.log", dict(os.environ))
    process.start()
    try:
        eventually(endpoint.exists, seconds=READY_S, what="the front is ready")
    except AssertionError:
        process.kill()
        raise
    stack.base_url = json.loads(endpoint.read_text("utf-8"))["url"] + "/v1"
    return process
