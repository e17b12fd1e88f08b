"""The Celery tasks. Each says: work for a slice, then schedule yourself again."""

from __future__ import annotations

import logging

from celery import Celery, Task
from kombu.exceptions import OperationalError

from askq.errors import StoreError
from askq.failpoints import hit
from askq.jobs.model import Lane
from askq.jobs.store import Store
from askq.names import POLL, QUEUE_POLL, QUEUE_START, START
from worker import chain
from worker.process import current_engine

log = logging.getLogger(__name__)

_HINT_S = 2.0
TASK_OF = {Lane.START: (START, QUEUE_START), Lane.POLL: (POLL, QUEUE_POLL)}


class ChainTask(Task[..., None]):
    """What both chains have in common."""

    abstract = True
    ignore_result = True
    # Flower's table is for jobs; a chain shows among a worker's active tasks, by its name.
    send_events = False


def register(app: Celery, *, slice_s: float) -> None:
    """Add the tasks to an application."""

    @app.task(name=START, base=ChainTask)
    def start() -> None:
        """Prepare threads, add the messages and create runs, for a slice of time."""
        _run(app, Lane.START, slice_s)

    @app.task(name=POLL, base=ChainTask)
    def poll() -> None:
        """Poll runs and collect answers, for a slice of time."""
        _run(app, Lane.POLL, slice_s)


def _run(app: Celery, lane: Lane, slice_s: float) -> None:
    engine = current_engine()
    try:
        report = engine.call(chain.work(engine, lane, slice_s=slice_s))
        if report.again:
            hit("reschedule.before")
            schedule(app, lane)
            hit("reschedule.after")
    except (StoreError, OperationalError) as error:
        # The chain ends here; a worker's timer revives it as soon as Redis answers.
        log.warning("the %s chain stops for now: %s", lane, error)


def revive(app: Celery, store: Store, lane: Lane) -> None:
    """Start a chain unless as many are alive, or on their way, as should be. Raises StoreError, OperationalError."""
    if store.running(lane) < chain.wanted_executions(store) and store.hint(lane, ttl_s=_HINT_S):
        schedule(app, lane)


def schedule(app: Celery, lane: Lane) -> None:
    """Send the message that starts a chain. It carries nothing, so losing or repeating it is harmless."""
    name, queue = TASK_OF[lane]
    app.send_task(name, queue=queue, ignore_result=True, expires=30.0, retry=False)
