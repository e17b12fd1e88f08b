"""Who takes part in `survival`: two Celery pipelines and askq, each driven through its own programs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import redis

from askq.jobs.model import State
from benchmarks.baselines.best_practice.keys import ANSWERS, FAILED, VISIBILITY_S
from benchmarks.baselines.results import results
from tests.acceptance.stack import ROOT, Process, Stack

ProtocolName = Literal["assistants", "responses"]

_MODEL = "gpt-test"
_SUBMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Pending:
    """What may still bring an answer."""

    ready: int
    """Messages somebody will take at once, or unfinished jobs."""
    held: int
    """Messages in the hands of a worker, which may be dead."""

    @property
    def nothing(self) -> bool:
        return self.ready == self.held == 0


class Contender(ABC):
    """One pipeline on one stack. `timeout_s` is the deadline of a run, where it knows one."""

    name: str
    resubmits = False
    """Whether its producer is made to be run again for what has no answer."""

    def __init__(
        self, stack: Stack, listed: Path, protocol: ProtocolName, *, concurrency: int, timeout_s: int = 60
    ) -> None:
        self._stack = stack
        self._listed = listed
        self._protocol = protocol
        self._concurrency = concurrency

    @abstractmethod
    def worker(self, number: int) -> Process:
        """A worker, not started."""

    @abstractmethod
    def submit(self) -> None:
        """Run its producer."""

    @abstractmethod
    def answers(self) -> dict[str, str]:
        """Answers by question."""

    @abstractmethod
    def reported(self) -> set[str]:
        """Questions with a recorded failure."""

    @abstractmethod
    def pending(self) -> Pending: ...

    @abstractmethod
    def age_held_messages(self) -> None:
        """Make messages in the hands of the dead as old as the visibility timeout, instead of waiting for it."""

    @abstractmethod
    def close(self) -> None:
        """Close connections."""

    def _environment(self) -> dict[str, str]:
        return self._stack.environment()

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *argv],
            env=self._environment(),
            cwd=ROOT,
            timeout=_SUBMIT_S,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        return done.stdout

    def _process(self, name: str, *argv: str) -> Process:
        return Process(name, [sys.executable, "-m", *argv], self._stack.folder / f"{name}.log", self._environment())


class Pipeline(Contender):
    """What both Celery pipelines have in common."""

    visibility_s: int
    """Its visibility timeout: how long a message stays in the hands of a dead worker."""

    def __init__(
        self, stack: Stack, listed: Path, protocol: ProtocolName, *, concurrency: int, timeout_s: int = 60
    ) -> None:
        super().__init__(stack, listed, protocol, concurrency=concurrency, timeout_s=timeout_s)
        self._redis = redis.Redis.from_url(stack.redis_url, decode_responses=True)
        self._assistant = _make_assistant(stack) if protocol == "assistants" else ""

    def worker(self, number: int) -> Process:
        name = f"{self.name}-{number}"
        argv = ["celery", "-A", f"benchmarks.baselines.{self.name}.tasks", "worker", "--loglevel", "INFO"]
        return self._process(name, *argv, "--concurrency", str(self._concurrency), "--hostname", f"{name}@%h")

    def pending(self) -> Pending:
        return Pending(self._redis.llen("celery"), self._redis.hlen("unacked"))

    def age_held_messages(self) -> None:
        for tag in cast("list[str]", self._redis.zrange("unacked_index", 0, -1)):
            self._redis.zincrby("unacked_index", -self.visibility_s, tag)
        # A worker that was killed while it looked for such messages left its lock, which is over by then as well.
        self._redis.delete("unacked_mutex")

    def close(self) -> None:
        self._redis.close()

    def _environment(self) -> dict[str, str]:
        return self._stack.environment(
            BASELINE_PROTOCOL=self._protocol, BASELINE_MODEL=_MODEL, BASELINE_ASSISTANT_ID=self._assistant
        )


class Tutorial(Pipeline):
    """The pipeline of a tutorial."""

    name = "tutorial"
    visibility_s = 3600

    def submit(self) -> None:
        self._run("benchmarks.baselines.tutorial.submit", str(self._listed), str(self._tickets))

    def answers(self) -> dict[str, str]:
        return {question: found["result"] for question, found in results(self._redis, self._tickets, "SUCCESS").items()}

    def reported(self) -> set[str]:
        return set(results(self._redis, self._tickets, "FAILURE"))

    @property
    def _tickets(self) -> Path:
        return self._stack.folder / "tickets.json"


class BestPractice(Pipeline):
    """The pipeline of a production guide."""

    name = "best_practice"
    visibility_s = VISIBILITY_S
    resubmits = True

    def submit(self) -> None:
        self._run("benchmarks.baselines.best_practice.submit", str(self._listed))

    def answers(self) -> dict[str, str]:
        questions = self._questions()
        return {questions[row]: text for row, text in cast("dict[str, str]", self._redis.hgetall(ANSWERS)).items()}

    def reported(self) -> set[str]:
        questions = self._questions()
        return {questions[row] for row in cast("list[str]", self._redis.hkeys(FAILED))}

    def _questions(self) -> dict[str, str]:
        with self._listed.open(newline="", encoding="utf-8") as file:
            return {row["id"]: row["question"] for row in csv.DictReader(file)}


class Askq(Contender):
    """The product, with its default settings."""

    name = "askq"

    def __init__(
        self, stack: Stack, listed: Path, protocol: ProtocolName, *, concurrency: int, timeout_s: int = 60
    ) -> None:
        super().__init__(stack, listed, protocol, concurrency=concurrency, timeout_s=timeout_s)
        self._batch = ""
        assistants = stack.folder / "assistants"
        assistants.mkdir()
        # Its own deadline for a run is what a lost reply waits for where the server can neither list nor repeat.
        text = f'model = "{_MODEL}"\n[run]\ntimeout = {timeout_s}\n'
        (assistants / "survivor.toml").write_text(text, "utf-8")

    def worker(self, number: int) -> Process:
        name = f"askq-{number}"
        argv = ["celery", "-A", "worker.celery", "worker", "--queues", "askq.start,askq.poll", "--loglevel", "INFO"]
        argv += ["--concurrency", str(self._concurrency), "--hostname", f"{name}@%h"]
        return self._process(name, *argv, "--without-gossip", "--without-mingle")

    def submit(self) -> None:
        argv = ["submit", str(self._listed), "--assistant", "survivor", "--protocol", self._protocol]
        self._batch = self._run("producer.cli", *argv).strip()

    def answers(self) -> dict[str, str]:
        jobs = self._stack.store.jobs(self._batch, states=[State.COMPLETED])
        return {job.question.text: job.answer.text or "" for job in jobs if job.answer is not None}

    def reported(self) -> set[str]:
        ended = [state for state in State if state.terminal and state is not State.COMPLETED]
        return {job.question.text for job in self._stack.store.jobs(self._batch, states=ended)}

    def pending(self) -> Pending:
        return Pending(self._stack.status(self._batch).pending, 0)

    def age_held_messages(self) -> None:
        raise AssertionError("no job of askq waits for a message")

    def close(self) -> None:
        """The stack closes its store."""

    def _environment(self) -> dict[str, str]:
        return self._stack.environment(ASKQ_ASSISTANTS_DIR=str(self._stack.folder / "assistants"))


CONTENDERS: tuple[type[Contender], ...] = (Tutorial, BestPractice, Askq)


def _make_assistant(stack: Stack) -> str:
    """What a person does once, on the dashboard or with curl."""
    request = urllib.request.Request(
        f"{stack.base_url}/assistants",
        data=json.dumps({"model": _MODEL}).encode(),
        headers={
            "content-type": "application/json",
            "authorization": "Bearer sk-test",
            "openai-beta": "assistants=v2",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(json.load(reply)["id"])
