"""What a request handler gets and gives. Handlers are plain functions on memory, so each is one atomic step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from askq.localapi.engines.base import Engine
from askq.localapi.faults import Faults
from askq.localapi.files.blobs import Place
from askq.localapi.files.containers import Containers
from askq.localapi.files.filing import Files
from askq.localapi.files.stores import Stores
from askq.localapi.limits import Limits
from askq.localapi.options import Options
from askq.localapi.stats import Stats
from askq.localapi.storage import Storage
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject
from askq.localapi.work import Work
from askq.localapi.works import Works


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The parts of one running server."""

    options: Options
    storage: Storage
    store: Store
    works: Works
    engine: Engine
    place: Place
    files: Files
    containers: Containers
    stores: Stores
    faults: Faults
    limits: Limits
    stats: Stats
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is about to stop: nothing may wait any longer."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.options.clock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, parsed."""

    params: Mapping[str, str]
    """Placeholders of the route."""
    query: Mapping[str, str]
    include: frozenset[str] = frozenset()
    body: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes to answer with, and what the client may call them."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The events of a work (of a run: of its current leg)."""

    work: Work
    first: tuple[tuple[str, JsonObject], ...] = ()
    """Events before those of the leg itself (runs)."""
    before: int = 0
    """How many steps there were before the leg (runs)."""
    after: int = -1
    """The number of the last event that the client knows (responses)."""
    include: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer. With `wait_for`, the reply is that response's object once it has ended."""

    body: JsonObject = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_for: Work | None = None
    stream: Stream | None = None
    """The reply is a stream of events."""
    work: Work | None = None
    """The run or response this call created."""
    include: frozenset[str] = frozenset()
    """For the object of `wait_for`."""
    later: Callable[[], Awaitable[JsonObject]] | None = None
    """Gives the body, once everything noted so far is durable: for what takes more than a step of the loop."""
    download: Download | None = None
    """Takes the place of `body`."""


Handler = Callable[[Api, Call], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path below `/v1`, and who answers it."""

    method: str
    path: str
    handler: Handler
