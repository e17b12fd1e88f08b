"""`celery -A benchmarks.baselines.blocking.tasks worker`: a task that holds its place in the pool until it is answered.

Broker, backend and client as in Celery's "First Steps" and OpenAI's quickstart; everything else is the default.
"""

from __future__ import annotations

import os

from celery import Celery
from openai import OpenAI

app = Celery("blocking", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
client = OpenAI()


@app.task
def ask(question: str) -> str:
    """Ask and wait."""
    return client.responses.create(model=os.environ["BASELINE_MODEL"], input=question).output_text
