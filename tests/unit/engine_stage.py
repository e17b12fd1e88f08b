"""Engines on a stage: a store in memory, and a service that can be told to misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Job, Lane, NewBatch, NewJob, Question
from askq.jobs.objects import Kind
from askq.jobs.store import Store
from worker import chain
from worker.engine import Engine
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ask,
    Before,
    Found,
    Given,
    Listing,
    Protocol,
    RunState,
    Search,
    Status,
    Unread,
)

TUTOR = Assistant(name="tutor", protocol="assistants", model="m")
LEASE_S = 0.4
PROBE_S = 0.2


class Service:
    """A remote service with a ledger. `before` and `after` a create may raise, or wait."""

    name = "assistants"
    lists_runs = True

    def __init__(self) -> None:
        self.ledger: list[tuple[str, int]] = []
        self.assistants = 0
        self.threads = 0
        self.joined: list[tuple[str, str]] = []
        self.polls: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.before: Callable[[Ask], None] = lambda ask: None
        self.after: Callable[[Ask], None] = lambda ask: None
        self.keyed = False
        self.hold = asyncio.Event()
        self.hold.set()

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        await asyncio.sleep(0.01)
        self.assistants += 1
        return f"asst_{self.assistants}"

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        self.threads += 1
        return f"thread/{ask.job_id}"

    async def join(self, ask: Ask, before: Before) -> str:
        self.joined.append((ask.job_id, before.thread_id))
        return before.run_id

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        self.before(ask)
        if not (self.keyed and (ask.job_id, ask.attempt) in self.ledger):
            self.ledger.append((ask.job_id, ask.attempt))
        await self.hold.wait()
        self.after(ask)
        return Status(state=RunState.PENDING, raw="queued", run_id=f"run/{ask.job_id}", poll_after=0.05)

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        runs = tuple(f"run/{job}" for job, _ in self.ledger if job == ask.job_id)
        return Found(search=Search.FOUND if runs else Search.NOT_STARTED, run_ids=runs)

    async def repeats_safely(self) -> bool:
        return self.keyed

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        return None

    async def poll(self, thread_id: str, run_id: str) -> Status:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        if self.polls[run_id] < 2:
            return Status(state=RunState.PENDING, raw="in_progress", run_id=run_id, poll_after=0.05)
        return Status(state=RunState.DONE, raw="completed", run_id=run_id)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        return Answer(text=f"answer to {run_id.removeprefix('run/')}")

    async def cancel(self, thread_id: str, run_id: str) -> None:
        self.cancelled.append(run_id)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return True

    async def listed(self, kind: Kind) -> list[Listing]:
        return []

    async def check(self) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def service() -> Service:
    return Service()


def opened(
    store: Store, spoken: Mapping[ProtocolName, Protocol], *, nudge_tools: Callable[[], None] | None = None
) -> Engine:
    """An engine at work, with leases and probes that a test can wait for."""
    engine = Engine(
        store,
        lambda: spoken,
        None,
        account="acc",
        host="service.test",
        lease_s=LEASE_S,
        in_flight=50,
        probe_s=PROBE_S,
        nudge_tools=nudge_tools,
    )
    engine.call(engine.open())
    return engine


class Engines:
    """Makes engines as worker processes do, and ends them."""

    def __init__(self, store: MemoryStore, service: Service) -> None:
        self._made: list[Engine] = []
        self._store = store
        self._service = service

    def __call__(self, store: MemoryStore | None = None, *, name: ProtocolName = "assistants") -> Engine:
        engine = opened(store or self._store, {name: self._service})
        self._made.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._made:
            engine.close()


@pytest.fixture
def engines(store: MemoryStore, service: Service) -> Iterator[Engines]:
    made = Engines(store, service)
    yield made
    made.close()


def submit(store: MemoryStore, rows: int, *, assistant: Assistant = TUTOR, model: str | None = None) -> str:
    store.save_assistant(assistant.digest, assistant.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol=assistant.protocol))
    store.add(
        batch,
        [
            NewJob(
                question=Question(row_id=f"q{row}", index=row, text=f"question {row}", model=model),
                assistant="tutor",
                assistant_digest=assistant.digest,
                protocol=assistant.protocol,
            )
            for row in range(rows)
        ],
    )
    store.seal(batch, rows)
    return batch


def drive(engine: Engine, done: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Run both chains, slice by slice, until a condition holds."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "the condition did not come true in time"
        for lane in Lane:
            engine.call(chain.work(engine, lane, slice_s=0.1))
        time.sleep(0.01)


def finished(store: MemoryStore, batch: str) -> Callable[[], bool]:
    def done() -> bool:
        status = store.batch(batch)
        return status is not None and status.done

    return done


def only(store: MemoryStore, batch: str) -> Job:
    (job,) = store.jobs(batch)
    return job
