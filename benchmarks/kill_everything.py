"""`kill-everything`: at half of a list every process is SIGKILLed at once, and the same command is given again.

Everything means `askq run`, its worker and pool processes, Flower beside it, the embedded Redis and local API, and
their keepers. What must come out: exit code 0, every question with its own answer, one run per question in the ledger.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from askq.jobs.model import BatchStatus, State
from askq.jobs.redis_store import RedisStore
from benchmarks.environment import embedding
from benchmarks.house import kill_all
from benchmarks.ledger import read_ledger
from benchmarks.questions import right_answer, script, texts, write_list
from tests.parts import eventually, free_port

_READY_S = 60.0
_HALF_S = 120.0
_RUN_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to do it."""

    protocol: Literal["assistants", "responses"]
    keyed: bool = True
    """Whether the server honours idempotency keys, as the embedded local API does. One that does not, like OpenAI,
    is started beside askq and killed and started again with everything else."""
    half: Literal["answered", "created"] = "answered"
    """Half of what is reached when the kill comes."""


CASES = {
    "assistants": Case(protocol="assistants"),
    "responses": Case(protocol="responses"),
    "responses, no keys": Case(protocol="responses", keyed=False),
    "responses, no keys, while creating": Case(protocol="responses", keyed=False, half="created"),
}


def run(*, tiny: bool) -> dict[str, Any]:
    """All cases, one after the other; the tiny run has those that need nothing beside askq, at the same time."""
    cases = {name: case for name, case in CASES.items() if case.keyed} if tiny else CASES
    questions, run_seconds = (40, (1.0, 6.0)) if tiny else (400, (2.0, 6.0))

    def one(name: str) -> dict[str, Any]:
        found = demonstrate(cases[name], questions=questions, run_seconds=run_seconds)
        print(f"kill-everything, {name}: {found}", file=sys.stderr, flush=True)
        return found

    if not tiny:
        return {name: one(name) for name in cases}
    with ThreadPoolExecutor(len(cases)) as pool:
        return dict(zip(cases, pool.map(one, cases), strict=True))


def demonstrate(case: Case, *, questions: int, run_seconds: tuple[float, float]) -> dict[str, Any]:
    """Ask, kill, ask again, count."""
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        stage = _Stage(Path(name), case, texts(questions), run_seconds)
        try:
            return stage.play()
        finally:
            kill_all(stage.mark)


class _Stage:
    """A project folder, and the programs a person starts in it."""

    def __init__(self, folder: Path, case: Case, questions: list[str], run_seconds: tuple[float, float]) -> None:
        self._folder = folder
        self._case = case
        self._questions = questions
        self._started: list[subprocess.Popen[bytes]] = []
        scripted = folder / "script.json"
        scripted.write_text(json.dumps(script(run_seconds)), "utf-8")
        write_list(folder / "questions.csv", questions)
        self._env = embedding(folder, scripted)
        # Every process that is started here inherits it, whoever starts it: that is how each is found.
        self.mark = f"ASKQ_HOME={self._env['ASKQ_HOME']}"
        self._data = folder / "home" / "localapi" / "data"
        self._api: list[str] | None = None
        if not case.keyed:
            self._data = folder / "api"
            port = free_port()
            self._api = ["askq.localapi", "--port", str(port), "--data", str(self._data), "--engine", "script"]
            self._api += ["--script", str(scripted)]
            self._env |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "sk-test"}
            assistants = folder / "assistants"
            assistants.mkdir()
            # Where a lost reply can neither be listed nor repeated, this deadline decides when it is given up.
            (assistants / "plain.toml").write_text('model = "gpt-test"\n[run]\ntimeout = 30\n', "utf-8")

    def play(self) -> dict[str, Any]:
        self._start_api()
        flower_port = free_port()
        self._start("flower", "producer.cli", "flower", "--port", str(flower_port))
        eventually(lambda: _listens(flower_port), seconds=_READY_S, what="Flower listens")
        self._ask()
        at_kill = self._wait_for_half()
        killed = Counter(_role(line) for line in kill_all(self.mark).values())
        self._bury()

        self._start_api()
        began = time.monotonic()
        code = self._ask().wait(_RUN_S)
        wall = time.monotonic() - began
        kill_all(self.mark)
        self._bury()

        answers = (self._folder / "answers.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in answers.splitlines()]
        ledger = Counter(entry["question"] for entry in read_ledger(self._data))
        return {
            "command": " ".join(["askq", *self._words]),
            "questions": len(self._questions),
            "answered_at_the_kill": at_kill.counts[State.COMPLETED],
            "running_at_the_kill": at_kill.counts[State.RUNNING],
            "killed": dict(sorted(killed.items())),
            "exit_code_of_the_second": code,
            "seconds_of_the_second": round(wall, 1),
            "answered": sum(line["status"] == "completed" for line in lines),
            "other_ends": dict(Counter(line["status"] for line in lines if line["status"] != "completed")),
            "wrong_answers": sum(line["answer"] not in (None, right_answer(line["question"])) for line in lines),
            "ledger_runs": ledger.total(),
            "questions_with_one_run": sum(count == 1 for count in ledger.values()),
            "paid_twice": sum(count - 1 for count in ledger.values()),
        }

    def _bury(self) -> None:
        while self._started:
            self._started.pop().wait(30)

    @property
    def _words(self) -> list[str]:
        protocol = self._case.protocol
        return ["run", "questions.csv", "--assistant", "plain", "--protocol", protocol, "-o", "answers.jsonl"]

    def _ask(self) -> subprocess.Popen[bytes]:
        return self._start("run", "producer.cli", *self._words)

    def _start_api(self) -> None:
        if self._api is not None:
            self._start("api", *self._api)
            port = int(self._api[self._api.index("--port") + 1])
            eventually(lambda: _listens(port), seconds=_READY_S, what="the local API listens")

    def _start(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def _wait_for_half(self) -> BatchStatus:
        url = json.loads((self._folder / "home" / "redis" / "endpoint.json").read_text("utf-8"))["url"]
        half = len(self._questions) // 2
        reached: Callable[[BatchStatus], int] = _answered if self._case.half == "answered" else _created
        with closing(RedisStore(url)) as store:

            def there() -> BatchStatus | None:
                newest = store.batches(limit=1)
                return newest[0] if newest and reached(newest[0]) >= half else None

            what = f"half of the questions are {self._case.half}"
            status = eventually(there, seconds=_HALF_S, what=what, every=0.01)
            assert status is not None
            return status


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _answered(status: BatchStatus) -> int:
    return status.counts[State.COMPLETED]


def _created(status: BatchStatus) -> int:
    return _answered(status) + status.counts[State.RUNNING]


_ROLES = {
    "askq.embedded.keeper": "keepers",
    "askq.localapi": "local API",
    "-server 127.0.0.1:": "Redis",
    "-m worker --no-color flower": "Flower",
    "-m worker --no-color worker": "worker and pool processes",
    "producer.cli": "askq run and askq flower",
}


def _role(line: str) -> str:
    return next((role for part, role in _ROLES.items() if part in line), f"others: {line}")
