"""`celery -A benchmarks.baselines.tutorial.tasks worker`: make the run, then retry until it has ended.

Broker, backend and client are set up as in Celery's "First Steps" and OpenAI's quickstart: everything else is the
default, which means acknowledgement before the task runs, a visibility timeout of an hour, and two retries by the SDK.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from openai import OpenAI

from benchmarks.baselines.runs import PENDING, look, start

app = Celery("tutorial", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
client = OpenAI()


@app.task
def ask(question: str) -> tuple[str, str]:
    """Add the message and create the run."""
    return start(client, question)


@app.task(bind=True, max_retries=None)
def fetch(self: Any, made: tuple[str, str]) -> str | None:
    """Poll: come back in two seconds until the run has left `queued` and `in_progress`."""
    status, text = look(client, *made)
    if status in PENDING:
        raise self.retry(countdown=2)
    if status != "completed":
        raise RuntimeError(f"the run ended as {status}")
    return text
