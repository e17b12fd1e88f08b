"""One life of a process that asks and answers: it submits a story's questions, as `askq submit` does, and works on them
as a worker does, until they have ended or it dies at a failpoint. Whoever lives next goes on from Redis alone.

Run in a process of its own. Waits that exist for slow networks and slow services are short here; nothing else differs.
One that is *stopped* (SIGSTOP) at a failpoint goes on when another has taken over what it had in hand.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from askq import failpoints
from askq.assistants.model import Assistant
from askq.files.folder import Folder
from askq.jobs import forgetting
from askq.jobs.calls import CallClaim, CallResult
from askq.jobs.failing_store import FailingStore
from askq.jobs.model import Lane, Node, State
from producer.questions import open_items
from producer.submit import Submission, submit
from worker import chain, cleaner, process, tasks, timer
from worker.audit import BackgroundAudit
from worker.engine import Engine
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Protocol
from worker.protocols.client import open_client
from worker.protocols.failing import FailingFiling, FailingProtocol
from worker.protocols.responses import ResponsesProtocol
from worker.steps import searching
from worker.tools import chain as tools_chain
from worker.tools.host import Crashed, Host

KEY = "story"
ACCOUNT = "account"
LEASE_S = 1.0
_PATIENCE_S = 120.0
_SOON_S = 40.0
"""Tombstones that are due later are nobody's business here."""
_SLICE_S = 0.15
_TICK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Questions, who answers them, and what comes of them when nobody dies."""

    name: str
    assistant: Assistant
    rows: tuple[dict[str, str], ...]
    ends: State = State.COMPLETED
    code: str | None = None
    """Why it ends so, where that is part of the story."""
    runs: int = 1
    """Paid creates of each question."""
    deaths: tuple[str, ...] = ()
    """Where others have died before the life that is told."""
    shows: tuple[str, ...] = ()
    """The only places it is told for: somebody dies at each of them, and surely comes there. None = all it comes to."""
    keyless: bool = False
    """Whether the service neither lists runs nor honours keys: nothing can tell whether there is one."""
    stopped: str | None = None
    """Where the one who dies was stopped before, until another had taken over."""
    chains: bool = False
    """Whether all work is begun by messages and by a worker's timer."""
    crashes: bool = False
    """Whether the process of its function dies the first time."""
    cancels: bool = False
    """Whether somebody wants it to end as soon as its run is there."""
    retries: int = 0
    """How often somebody asks again when it has ended."""
    forgets: bool = False
    streams: bool = False
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one life is given."""

    story: Story
    redis_url: str
    base_url: str
    folder: Path
    dies_at: str | None = None
    stops_at: str | None = None
    notes: Path | None = None
    """Where it writes down which points it has come to."""

    @property
    def diary(self) -> Path:
        """Where functions note that they were begun."""
        return self.folder / "diary"

    def attached(self, name: str) -> Path:
        """A file that goes with its questions."""
        return self.folder / f"{self.folder.name} {name}"


class Notes:
    """Stands in for failpoints that are armed: it only notes them."""

    def __init__(self) -> None:
        self.points: dict[str, None] = {}

    def hit(self, name: str) -> None:
        self.points[name] = None


class Functions(Host):
    """Functions that need no process of their own: what is tried here is who runs them how often."""

    def __init__(self, diary: Path, *, crashes: bool) -> None:
        super().__init__([], timeout_s=5.0, memory_mb=0)
        self._diary = diary
        self._crashes = crashes

    def run(self, claim: CallClaim, assistant: Assistant, wanted: Callable[[], bool]) -> CallResult | Crashed:
        crashes = self._crashes and not self._diary.exists()
        with self._diary.open("a", encoding="utf-8") as diary:
            diary.write(f"{claim.job} {claim.wanted.key}\n")
        if crashes:
            return Crashed(by="SIGSEGV", printed="")
        return CallResult(output=f"{claim.wanted.name} done", seconds=0.01)


class Post(Celery):
    """Carries messages as the broker does: in Redis, where they outlive who has sent them, and not who has taken them
    out."""

    def __init__(self, store: FailingStore) -> None:
        super().__init__("mortal", set_as_current=False)
        self._redis = store._redis

    def send_task(self, name: str, *_: Any, **__: Any) -> None:  # type: ignore[override]  nobody asks for a result
        self._redis.rpush("messages", name)

    def take(self) -> str | None:
        """The next message."""
        found = self._redis.lpop("messages")
        return found.decode() if isinstance(found, bytes) else None


def live(order: Order) -> None:
    """Live; ends the process, with 0 when everything has come to its end."""
    try:
        code = _live(order)
    except BaseException:
        (order.folder / "died.log").write_text(traceback.format_exc(), "utf-8")
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _live(order: Order) -> int:
    _hasten()
    notes = Notes()
    if order.notes is not None:
        failpoints._armed = notes  # type: ignore[assignment]  it has all that is used
    else:
        rules = [f"{order.stops_at}=stop"] if order.stops_at else []
        failpoints.arm(",".join([*rules, f"{order.dies_at}=kill"] if order.dies_at else rules))
    store = FailingStore(order.redis_url)
    told = order.folder / "forget"
    # A person who has had a list forgotten does not submit it again.
    batch = told.read_text("utf-8") if told.exists() else _submit(store, order)
    node = Node(name="w", processes=2, pid=os.getpid(), host=socket.gethostname(), started_at=0, tools=1)
    store.beat(node, ttl_s=90)
    engine = _engine(store, order)
    functions = tools_chain.Slice(store, Functions(order.diary, crashes=order.story.crashes), lease_s=LEASE_S)
    frame = _Frame(store, node, engine, order) if order.story.chains else None
    until = time.monotonic() + _PATIENCE_S
    rounds = 0
    while not _over(store, batch, order):
        if time.monotonic() > until:
            raise TimeoutError(f"it does not end: {list(store.jobs(batch))}")
        rounds += 1
        if frame is not None:
            frame.turn()
        for lane in () if frame is not None else Lane:
            engine.call(chain.work(engine, lane, slice_s=_SLICE_S))
        # Now and then, so that there are jobs that wait for outputs.
        if order.story.assistant.functions and rounds % 8 == 0:
            functions.work(slice_s=0.1)
        time.sleep(0.01)
    engine.call(engine.drain(5.0, paid_s=5.0))
    engine.close()
    if order.notes is not None:
        order.notes.write_text("\n".join(notes.points), "utf-8")
    return 0


class _Frame:
    """What Celery does around the chains: it runs them when there is a message, and the worker's timer now and then."""

    def __init__(self, store: FailingStore, node: Node, engine: Engine, order: Order) -> None:
        process.build_with(lambda: engine)
        self._post = Post(store)
        self._next = 0.0
        self._timer = timer.Timer(
            self._post,
            store,
            node,
            tick_s=_TICK_S,
            keep_s=86_400.0,
            audit=BackgroundAudit(store, node.name, allow_unsafe=True),
            heartbeat=None,
            account=ACCOUNT,
            files=Folder(order.folder / "files"),
        )

    def turn(self) -> None:
        """A tick, if it is time for one, and the chains there are messages for."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TICK_S
            self._timer.tick()
        while (name := self._post.take()) is not None:
            (lane,) = (lane for lane, (task, _) in tasks.TASK_OF.items() if task == name)
            tasks._run(self._post, lane, _SLICE_S)


def _hasten() -> None:
    """Whatever a dead process held is free after a second: the leases on shards and turns as well as on jobs."""
    chain._TTL_S = tools_chain._TTL_S = cleaner._LEASE_S = tasks.HINT_S = LEASE_S
    chain._SHARE_EVERY_S = 0.2
    cleaner._LOOK_EVERY_S = 0.1
    # The local API has either carried a request out or will never do so.
    searching.SETTLE_S = 0.2


def _submit(store: FailingStore, order: Order) -> str:
    """The same command in every life, under the same key."""
    story = order.story
    tools = {str(tool["type"]) for tool in story.assistant.tools}
    # Contents of its own: what others have made of the same at the service would be taken for its own.
    for name in ("attached.csv", "attached.txt"):
        order.attached(name).write_text(f"row,value\n1,{order.folder.name}\n", "utf-8")
    rows = [row | {"file": str(order.attached(row["file"]))} if "file" in row else dict(row) for row in story.rows]
    with open_items(rows) as listed:
        summary = listed.attach(folder=Folder(order.folder / "files"), tools_of=lambda _: tools).check()
        wanted = Submission(
            questions=listed,
            summary=summary,
            assistant=story.assistant,
            others={},
            idempotency_key=KEY,
            stream=story.streams,
            max_cost_usd=story.max_cost_usd,
        )
        batch = submit(store, wanted, folder=Folder(order.folder / "files")).batch
    (order.folder / "batch").write_text(batch, "utf-8")
    return batch


def _engine(store: FailingStore, order: Order) -> Engine:
    filing: list[FailingFiling] = []

    def protocols() -> dict[str, Protocol]:
        client = open_client(
            api_key="sk-test-mortal-0123456789",
            base_url=order.base_url,
            organization=None,
            project=None,
            timeout_s=10.0,
            in_flight=10,
        )
        filing.append(FailingFiling(client))
        spoken = (AssistantsProtocol(client, home=store.home()), ResponsesProtocol(client))
        return {protocol.name: FailingProtocol(protocol) for protocol in spoken}

    engine = Engine(
        store,
        protocols,
        None,
        account=ACCOUNT,
        host="127.0.0.1",
        lease_s=LEASE_S,
        in_flight=10,
        probe_s=0.5,
        filing=lambda: filing[-1],
        folder=Folder(order.folder / "files"),
    )
    engine.call(engine.open())
    return engine


def _over(store: FailingStore, batch: str, order: Order) -> bool:
    """Whether everything has come to its end. Meanwhile, what a person does."""
    story = order.story
    status = store.batch(batch)
    if story.cancels:
        store.cancel([job.id for job in store.jobs(batch, states=[State.RUNNING])])
    if story.forgets:
        forgotten = _is_forgotten(store, batch, order) and store.next_tombstone() is None
        return forgotten and not store.items(ACCOUNT)
    if status is not None and status.done:
        # A person who looks whether it is asked once more by now, and says so if not.
        again = [job.id for job in store.jobs(batch) if job.retries < story.retries]
        if again:
            store.retry(again, {State.FAILED})
            return False
    due = store.next_tombstone()
    return status is not None and status.done and (due is None or due > _SOON_S)


def _is_forgotten(store: FailingStore, batch: str, order: Order) -> bool:
    """What `askq forget` does once a list is done, and whether that is over."""
    told = order.folder / "forget"
    status = store.batch(batch)
    if not told.exists():
        if status is None or not status.done:
            return False
        told.write_text(batch, "utf-8")
    receipt = store.receipt(batch)
    if receipt is None:
        forgetting.begin(store, batch)
    elif receipt.pending:
        forgetting.advance(store, batch, Folder(order.folder / "files"))
    else:
        return True
    return False
