"""The Celery application, assembled from settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from celery import Celery, signals
from kombu.exceptions import OperationalError

from askq import failpoints
from askq.accounts import alias
from askq.errors import AskqError, ConfigError, StoreError
from askq.files.folder import Folder
from askq.jobs.failing_store import FailingStore
from askq.jobs.model import Lane
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from askq.names import QUEUE_TOOLS
from config.celery import options
from config.settings import Secret, Settings, SettingsError
from worker import process, tasks
from worker.downloads import Limits
from worker.engine import Engine
from worker.monitor import Monitor
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Protocol
from worker.protocols.client import open_client
from worker.protocols.failing import FailingFiling, FailingProtocol
from worker.protocols.filing import Filing
from worker.protocols.responses import ResponsesProtocol
from worker.timer import TimerStep
from worker.tools.host import Host

log = logging.getLogger(__name__)


class Application(Celery):
    """A Celery application that knows askq's settings."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        super().__init__("askq", set_as_current=True, autofinalize=True)
        self.askq_settings = settings
        self._redis_url = redis_url
        self.conf.update(options(settings.broker_url or redis_url))

    def askq_account(self) -> str | None:
        """The alias of the account its workers speak to; None without a key."""
        key = self.askq_settings.api_key
        return None if key is None else alias(self.askq_settings.base_url, key.reveal())

    def askq_store(self) -> RedisStore:
        """A store of its own for the caller."""
        settings = self.askq_settings
        kind = RedisStore if settings.failpoints is None else FailingStore
        return kind(self._redis_url, keep_days=settings.results_days, replicas=settings.redis_replicas)


def create_app(settings: Settings) -> Application:
    """The application a worker and Flower run. Opens nothing: connections are made when they are first used."""
    if settings.redis_url is None:
        raise ConfigError(
            "a worker needs the address of Redis",
            remedy="Set REDIS_URL, or start the worker with `askq worker`, which brings its own.",
        )
    try:
        failpoints.arm(settings.failpoints, seed=settings.failpoints_seed, log=settings.failpoints_log)
    except ValueError as error:
        raise ConfigError(f"ASKQ_FAILPOINTS: {error}", remedy="Unset it: it is for tests of askq itself.") from error
    app = Application(settings, settings.redis_url)
    tasks.register(app, slice_s=settings.slice_s, lease_s=settings.lease_s)
    app.steps["consumer"].add(TimerStep)
    process.build_with(partial(_engine, app))
    process.build_tools_with(partial(_tools, app))
    # The handlers are kept by the signals weakly, unless told otherwise.
    signals.worker_init.connect(partial(_check_store, app), weak=False)
    signals.worker_shutting_down.connect(lambda **_: process.leave_in_time(), weak=False)
    signals.worker_process_init.connect(partial(_after_fork, app), weak=False)
    signals.worker_process_shutdown.connect(_before_exit, weak=False)
    return app


def create_or_end(load: Callable[[], Settings]) -> Application:
    """The application of a program that is nothing without one: what is wrong with its settings ends it, and is told
    without a traceback."""
    try:
        return create_app(load())
    except SettingsError as error:
        _end(ConfigError(str(error), remedy="Correct the environment or .env."))
    except AskqError as error:
        _end(error)


def _end(error: AskqError) -> NoReturn:
    print(f"askq: {error}", file=sys.stderr)  # noqa: T201  there is no logging yet
    sys.exit(error.exit_code)


def _key(settings: Settings) -> Secret:
    if settings.api_key is None:
        raise ConfigError("a worker needs an API key", remedy="Set OPENAI_API_KEY or OPENAI_API_KEY_FILE.")
    return settings.api_key


def _engine(app: Application) -> Engine:
    settings = app.askq_settings
    key = _key(settings)
    store = app.askq_store()
    home = store.home()
    filing: list[Filing] = []

    def protocols() -> Mapping[str, Protocol]:
        client = open_client(
            api_key=key.reveal(),
            base_url=settings.base_url,
            organization=settings.organization,
            project=settings.project,
            timeout_s=settings.call_timeout_s,
            in_flight=settings.in_flight,
        )
        spoken: list[Protocol] = [AssistantsProtocol(client, home=home), ResponsesProtocol(client)]
        filing.append(Filing(client) if settings.failpoints is None else FailingFiling(client))
        if settings.failpoints is not None:
            spoken = [FailingProtocol(protocol) for protocol in spoken]
        return {protocol.name: protocol for protocol in spoken}

    def start_chain() -> None:
        try:
            tasks.revive(app, store, Lane.START)
        except (StoreError, OperationalError) as error:
            log.debug("left to the timer: %s", error)

    return Engine(
        store,
        protocols,
        Monitor(app, process.node_name(), show_text=settings.show_text),
        account=alias(settings.base_url, key.reveal()),
        host=urlsplit(settings.base_url or "https://api.openai.com").hostname or "",
        lease_s=settings.lease_s,
        in_flight=settings.in_flight,
        probe_s=settings.probe_s,
        nudge_tools=partial(tasks.nudge_tools, app, store),
        start_chain=start_chain,
        filing=lambda: filing[-1],
        folder=Folder(settings.files_dir),
        output=Limits(
            files=settings.max_output_files,
            file_bytes=settings.max_output_file_bytes,
            total_bytes=settings.max_output_bytes,
        ),
    )


def _tools(app: Application) -> tuple[Store, Host]:
    settings = app.askq_settings
    folders = [Path(), settings.assistants_dir]
    if settings.tools_dir is not None:
        folders.insert(0, settings.tools_dir)
    host = Host(folders, timeout_s=settings.tool_timeout_s, memory_mb=settings.tool_memory_mb)
    return app.askq_store(), host


def serves_chains(queues: frozenset[str]) -> bool:
    """Whether a worker of these queues calls the service; one that only runs functions needs no key."""
    return queues != {QUEUE_TOOLS}


def queues_of(app: Celery) -> frozenset[str]:
    """The queues a worker of this application serves."""
    return frozenset(app.amqp.queues.consume_from)


def _look_who_runs(allowed: str) -> None:
    """Whoever gets a worker of root's to run a function acts as root. Raises ConfigError."""
    if os.geteuid() != 0 or allowed == "allow":
        return
    if allowed == "refuse":
        raise ConfigError(
            "this worker was started by root, and ASKQ_ROOT is refuse",
            remedy="Start it as a user of its own, or set ASKQ_ROOT=allow.",
        )
    log.warning("this worker runs as root, and so do the functions it calls; ASKQ_ROOT=refuse or =allow decides that")


def _check_store(app: Application, *, sender: Any, **_: Any) -> None:
    """Refuse to work without a key, on a Redis that would lose jobs, or as root where that is not wanted. Runs before
    the pool is made."""
    process.name_node(str(sender.hostname))
    store = app.askq_store()
    try:
        _look_who_runs(app.askq_settings.root)
        if serves_chains(queues_of(app)):
            _key(app.askq_settings)
        if not app.askq_settings.allow_unsafe_redis:
            store.health().require_safe()
    except AskqError as error:
        _end(error)
    finally:
        store.close()


def _after_fork(app: Application, **_: Any) -> None:
    # A line per request, on every poll, is for finding faults and not for keeping.
    for name in ("httpx2", "openai"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    process.tie_to_parent()
    if serves_chains(queues_of(app)):
        process.warm_up()


def _before_exit(**_: Any) -> None:
    process.drain()
