"""`celery -A benchmarks.baselines.best_practice.tasks worker`: the tutorial's pipeline, made robust by the book.

Answers and run ids are stored under the question's id, so that a task that is delivered twice finds what the first
delivery did (Celery's user guide, "Tasks": a task that is acknowledged late must be idempotent). What is not done is to
note an intent before the paid call and to look for its run after a crash: who adds that is writing askq's engine.
"""

from __future__ import annotations

import os
from typing import Any, cast

import redis
from celery import Celery, Task
from kombu.exceptions import OperationalError
from openai import APIConnectionError, InternalServerError, OpenAI, RateLimitError
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from benchmarks.baselines.best_practice.keys import ANSWERS, FAILED, RUNS, VISIBILITY_S
from benchmarks.baselines.runs import PENDING, look, start

app = Celery("best_practice", broker=os.environ["REDIS_URL"])
app.conf.update(
    # Answers are stored by the tasks themselves; Celery's user guide, "Tasks": ignore results you do not want.
    task_ignore_result=True,
    # Celery's user guide, "Optimizing" (reserve one task at a time) and FAQ ("Should I use retry or acks_late?"): a
    # task whose worker dies is run again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_S,
        # kombu 5.7, transport options of Redis: look for such work more often than every 100 seconds.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        # The same page: a broken connection must be noticed.
        "socket_timeout": 10,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    # Celery's user guide, "Configuration": keep trying to reach the broker, also at the start.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)

# OpenAI's Python library, "Timeouts": its default of ten minutes is far beyond what a create or a poll takes. Its two
# retries stay on, as its "Retries" section has them: with Retry-After, for lost connections, 429 and 5xx.
client = OpenAI(timeout=15)
# redis-py, "Retry helpers": survive a restart of the server.
store = redis.Redis.from_url(
    os.environ["REDIS_URL"],
    decode_responses=True,
    retry=Retry(ExponentialBackoff(cap=1, base=0.05), 8),
    retry_on_error=[redis.ConnectionError, redis.TimeoutError],
)


class Robust(Task):  # type: ignore[type-arg]
    """Celery's user guide, "Automatic retry for known exceptions", with backoff and jitter; only what may pass by."""

    autoretry_for = (APIConnectionError, RateLimitError, InternalServerError, redis.RedisError, OperationalError)
    retry_backoff = True
    retry_backoff_max = 10
    retry_jitter = True
    max_retries = 10

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """A dead-letter list: what failed for good is on record."""
        store.hset(FAILED, args[0], repr(exc))


@app.task(base=Robust)
def ask(row: str, question: str) -> None:
    """Add the message and create the run, unless this question has one."""
    if store.hexists(ANSWERS, row):
        return
    known = cast("str | None", store.hget(RUNS, row))
    if known is None:
        made = start(client, question)
        store.hset(RUNS, row, " ".join(made))
    else:
        thread_id, run_id = known.split(" ")
        made = thread_id, run_id
    fetch.apply_async((row, *made), countdown=2)


@app.task(base=Robust)
def fetch(row: str, thread_id: str, run_id: str) -> None:
    """Poll: schedule the next look until the run has left `queued` and `in_progress`."""
    if store.hexists(ANSWERS, row):
        return
    status, text = look(client, thread_id, run_id)
    if status in PENDING:
        fetch.apply_async((row, thread_id, run_id), countdown=2)
    elif status == "completed":
        store.hset(ANSWERS, row, text or "")
    else:
        # The next submit asks anew.
        store.hdel(RUNS, row)
        store.hset(FAILED, row, f"the run ended as {status}")
