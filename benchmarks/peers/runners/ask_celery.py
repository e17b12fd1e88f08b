"""One of the Celery pipelines of benchmarks/baselines as one command: a worker, the submit script, the answers.

Run again after it was killed it starts the worker again. Only the pipeline whose submit script is made to be repeated
submits again; the others wait for what is in the queue, and give up when nothing has come for a while: what a dead
worker held comes back after Celery's visibility timeout, an hour.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import redis
from asked import MODEL, at_a_time, read_list, write_answers

from benchmarks.baselines.best_practice.keys import ANSWERS, VISIBILITY_S
from benchmarks.baselines.results import results

_RESUBMITS = 2
_STOP_S = 30.0


class Pipeline:
    """What the runner asks of it."""

    def __init__(self, name: str, listed: Path, folder: Path) -> None:
        self.name = name
        self.questions = read_list(listed)
        self._listed = listed
        self._tickets = folder / "tickets.json"
        self._redis = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
        self.repeatable = name == "best_practice"
        # Longer than the longest run and, where one can wait for it, than the visibility timeout.
        self.patience_s = VISIBILITY_S + 15.0 if self.repeatable else 30.0

    def submit(self) -> None:
        argv = [sys.executable, "-m", f"benchmarks.baselines.{self.name}.submit", str(self._listed)]
        if not self.repeatable:
            if self._tickets.exists():
                return
            argv.append(str(self._tickets))
        subprocess.run(argv, check=True, timeout=120)

    def worker(self) -> list[str]:
        argv = [sys.executable, "-m", "celery", "-A", f"benchmarks.baselines.{self.name}.tasks", "worker"]
        if self.name == "blocking" and (most := at_a_time()) is not None:
            # Celery's user guide, "Concurrency": threads for tasks that wait for the network.
            argv += ["--pool", "threads", "--concurrency", str(most)]
        return argv

    def answers(self) -> dict[str, str]:
        if self.repeatable:
            by_row = cast("dict[str, str]", self._redis.hgetall(ANSWERS))
            return {self.questions[int(row.removeprefix("q"))]: text for row, text in by_row.items()}
        found = results(self._redis, self._tickets, "SUCCESS")
        return {question: result["result"] for question, result in found.items()}

    def failed(self) -> int:
        return 0 if self.repeatable else len(results(self._redis, self._tickets, "FAILURE"))


def settle(pipeline: Pipeline) -> None:
    """Wait until everything has ended, or nothing has for long; submit again what may be submitted again."""
    resubmits = 0
    seen, since = -1, time.monotonic()
    while (ended := len(pipeline.answers()) + pipeline.failed()) < len(pipeline.questions):
        if ended > seen:
            seen, since = ended, time.monotonic()
        elif time.monotonic() - since > pipeline.patience_s:
            if not pipeline.repeatable or resubmits == _RESUBMITS:
                return
            pipeline.submit()
            resubmits += 1
            since = time.monotonic()
        time.sleep(0.1)


def main(listed: Path, answers: Path, name: str) -> None:
    pipeline = Pipeline(name, listed, answers.parent)
    environment = {**os.environ, "BASELINE_PROTOCOL": "responses", "BASELINE_MODEL": MODEL}
    os.environ.update(environment)
    worker = subprocess.Popen(pipeline.worker())
    try:
        pipeline.submit()
        settle(pipeline)
        write_answers(answers, pipeline.answers().items())
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # Tasks it waits for will not end in time; their pool goes with it.
            worker.send_signal(signal.SIGQUIT)
            worker.wait(_STOP_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
