"""The Celery tasks. Each says: work for a slice, then schedule yourself again."""

from __future__ import annotations

import logging

from celery import Celery, Task
from kombu.exceptions import OperationalError

from askq.errors import StoreError
from askq.failpoints import hit
from askq.jobs.model import Lane
from askq.jobs.store import Store
from askq.names import POLL, QUEUE_POLL, QUEUE_START, QUEUE_TOOLS, START, TOOLS
from worker import chain
from worker.process import current_engine, tools_host
from worker.tools.chain import Slice

log = logging.getLogger(__name__)

TASK_OF = {Lane.START: (START, QUEUE_START), Lane.POLL: (POLL, QUEUE_POLL)}


class ChainTask(Task[..., None]):
    """What both chains have in common."""

    abstract = True
    ignore_result = True
    # Flower's table is for jobs; a chain shows among a worker's active tasks, by its name.
    send_events = False


HINT_S = 2.0
"""How long a message that starts a chain may be on its way before another is sent."""


def register(app: Celery, *, slice_s: float, lease_s: float) -> None:
    """Add the tasks to an application."""

    @app.task(name=START, base=ChainTask)
    def start() -> None:
        """Prepare threads, add the messages and create runs, for a slice of time."""
        _run(app, Lane.START, slice_s)

    @app.task(name=POLL, base=ChainTask)
    def poll() -> None:
        """Poll runs and collect answers, for a slice of time."""
        _run(app, Lane.POLL, slice_s)

    @app.task(name=TOOLS, base=ChainTask)
    def tools() -> None:
        """Run functions that runs have asked for, for a slice of time."""
        _run_tools(app, slice_s=slice_s, lease_s=lease_s)


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
    if store.running(lane) < chain.wanted_executions(store) and store.hint(lane, ttl_s=HINT_S):
        schedule(app, lane)


def schedule(app: Celery, lane: Lane) -> None:
    """Send the message that starts a chain. It carries nothing, so losing or repeating it is harmless."""
    name, queue = TASK_OF[lane]
    app.send_task(name, queue=queue, ignore_result=True, expires=30.0, retry=False)


def _run_tools(app: Celery, *, slice_s: float, lease_s: float) -> None:
    store, host = tools_host()
    try:
        if Slice(store, host, lease_s=lease_s).work(slice_s=slice_s):
            hit("reschedule.before")
            schedule_tools(app)
            hit("reschedule.after")
    except (StoreError, OperationalError) as error:
        log.warning("the tools chain stops for now: %s", error)


def schedule_tools(app: Celery) -> None:
    """Send the message that starts a chain that runs functions. It carries nothing either: which functions are to be
    run with which arguments is on record, where no message can forge it."""
    app.send_task(TOOLS, queue=QUEUE_TOOLS, ignore_result=True, expires=30.0, retry=False)


def nudge_tools(app: Celery, store: Store) -> None:
    """Send that message, unless one is on its way. What goes wrong costs a tick of the timer."""
    try:
        if store.calls().hint(ttl_s=HINT_S):
            schedule_tools(app)
    except (StoreError, OperationalError) as error:
        log.info("functions wait for the timer: %s", error)
