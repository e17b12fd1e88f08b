"""What every worker does twice a second besides its tasks: say that it is alive, and revive chains that died.

Now and then it tidies up, and one of all workers audits the store.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from kombu.exceptions import OperationalError

from askq.errors import StoreError
from askq.failpoints import hit
from askq.files.folder import Folder
from askq.jobs import forgetting
from askq.jobs.model import Lane, Node
from askq.jobs.store import Store
from askq.names import QUEUE_TOOLS
from worker.audit import EVERY_S, BackgroundAudit
from worker.clock import ClockWatch
from worker.tasks import HINT_S, revive, schedule_tools
from worker.tools.chain import wanted_executions as wanted_for_tools

log = logging.getLogger(__name__)

_ALIVE_S = 5.0
_TIDY_EVERY_S = 60.0
_FORGET_EVERY_S = 3.0
_FORGET_AT_ONCE = 500
_COMPLAIN_EVERY_S = 30.0
_SWEEP_EVERY_S = 86_400.0


class Timer:
    """One per worker, in its main process."""

    def __init__(
        self,
        app: Celery,
        store: Store,
        node: Node,
        *,
        tick_s: float,
        keep_s: float,
        audit: BackgroundAudit,
        heartbeat: Path | None,
        account: str | None = None,
        files: Folder | None = None,
    ) -> None:
        self._app = app
        self._store = store
        self._node = node
        self._tick_s = tick_s
        self._keep_s = keep_s
        self._heartbeat = heartbeat
        self._account = account
        self._files = files
        self._clock = ClockWatch(store)
        self._audit = audit
        self._tidied = self._swept = self._forgot = time.monotonic()
        self._complained = -_COMPLAIN_EVERY_S

    def tick(self) -> None:
        """One round. What fails now is tried again at the next."""
        hit("timer.tick")
        try:
            self._store.beat(self._node, ttl_s=_ALIVE_S)
            self._clock.look()
            if self._node.tools:
                self._revive_tools()
            if not self._node.processes:
                # A worker that only runs functions leaves the rest to those that call the service.
                self._touch()
                return
            for lane in Lane:
                self._revive(lane)
            self._revive_library()
            if time.monotonic() - self._tidied > _TIDY_EVERY_S:
                self._tidied = time.monotonic()
                self._store.tidy(keep_s=self._keep_s)
                self._sweep()
            if time.monotonic() - self._forgot > _FORGET_EVERY_S:
                # Whoever asked for it goes on with it, too, and faster, as long as they are there.
                self._forgot = time.monotonic()
                forgetting.go_on(self._store, self._files, most=_FORGET_AT_ONCE)
            self._touch()
            # Last, because it takes the longest.
            self._audit.tick()
        except (StoreError, OperationalError, OSError) as error:
            if time.monotonic() - self._complained > _COMPLAIN_EVERY_S:
                self._complained = time.monotonic()
                log.warning("the worker's timer could not do its round: %s", error)

    def _touch(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.touch()

    def _revive_tools(self) -> None:
        calls = self._store.calls()
        due = calls.next_due()
        if due is None or due > self._tick_s:
            return
        if calls.running() < wanted_for_tools(self._store) and calls.hint(ttl_s=HINT_S):
            schedule_tools(self._app)

    def _revive(self, lane: Lane) -> None:
        due = self._store.next_due(lane)
        if lane is Lane.POLL and (due is None or due > self._tick_s):
            # Nothing to poll, but perhaps something to delete: the same chain does it.
            due = self._store.next_tombstone()
        if due is None or due > self._tick_s:
            return
        revive(self._app, self._store, lane)

    def _revive_library(self) -> None:
        """Files and stores are worked on beside the start chain: without a job, too, somebody may wait for them."""
        due = None if self._account is None else self._store.next_item(self._account)
        if due is not None and due <= self._tick_s:
            revive(self._app, self._store, Lane.START)

    def _sweep(self) -> None:
        """Delete what nobody needs in the folder of files: now and then, because it looks at every file."""
        if self._files is None or time.monotonic() - self._swept < _SWEEP_EVERY_S:
            return
        self._swept = time.monotonic()
        try:
            # Results and their files go together.
            gone = sum(self._files.forget(batch) for batch in self._files.batches() if self._store.batch(batch) is None)
            gone += self._files.sweep(keep_s=max(self._keep_s, _SWEEP_EVERY_S))
        except OSError as error:
            log.warning("the folder of files could not be swept: %s", error)
        else:
            log.info("%d files that nobody needs any more were deleted", gone)


def this_node(name: str, processes: int, queues: Collection[str] = ()) -> Node:
    """The entry of this worker in the register of workers: what its pool processes are there for."""
    return Node(
        name=name,
        processes=0 if set(queues) == {QUEUE_TOOLS} else processes,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=time.time(),
        tools=processes if QUEUE_TOOLS in queues else 0,
    )


class TimerStep(bootsteps.StartStopStep):
    """Runs the timer in the worker's event loop for as long as it is connected to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    audit_every_s = EVERY_S
    """Tests have less patience."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        settings, store = parent.app.askq_settings, parent.app.askq_store()
        queues = parent.app.amqp.queues.consume_from
        node = this_node(parent.hostname, parent.controller.concurrency, queues)
        timer = Timer(
            parent.app,
            store,
            node,
            tick_s=settings.tick_s,
            keep_s=settings.results_days * 86_400,
            audit=BackgroundAudit(
                store, node.name, every_s=self.audit_every_s, allow_unsafe=settings.allow_unsafe_redis
            ),
            heartbeat=settings.heartbeat_file,
            account=parent.app.askq_account(),
            files=Folder(settings.files_dir),
        )
        timer.tick()
        self._entry = parent.timer.call_repeatedly(settings.tick_s, timer.tick)

    def stop(self, parent: Any) -> None:
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
