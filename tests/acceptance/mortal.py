"""One life of a process that asks and answers: it submits a story's questions, as `askq submit` does, and works on them
as a worker does, until they have ended or it dies at a failpoint. Whoever lives next goes on from Redis alone.

Run in a process of its own. Waits that exist for slow networks and slow services are short here; nothing else differs.
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

from askq import failpoints
from askq.assistants.model import Assistant
from askq.files.folder import Folder
from askq.jobs import forgetting
from askq.jobs.calls import CallClaim, CallResult
from askq.jobs.failing_store import FailingStore
from askq.jobs.model import Lane, Node, State
from producer.questions import open_items
from producer.submit import Submission, submit
from worker import chain, cleaner
from worker.engine import Engine
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Protocol
from worker.protocols.client import open_client
from worker.protocols.failing import FailingFiling, FailingProtocol
from worker.protocols.responses import ResponsesProtocol
from worker.steps import searching
from worker.tools import chain as tools_chain
from worker.tools.host import Host

KEY = "story"
LEASE_S = 1.0
_PATIENCE_S = 120.0
_SOON_S = 40.0
"""Tombstones that are due later are nobody's business here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Questions, who answers them, and what comes of them when nobody dies."""

    name: str
    assistant: Assistant
    rows: tuple[dict[str, str], ...]
    ends: State = State.COMPLETED
    runs: int = 1
    """Paid creates of each question."""
    deaths: tuple[str, ...] = ()
    """Where others have died before the life that is told."""
    cancels: bool = False
    """Whether somebody wants it to end as soon as its run is there."""
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
    notes: Path | None = None
    """Where it writes down which points it has come to."""

    @property
    def diary(self) -> Path:
        """Where functions note that they were begun."""
        return self.folder / "diary"


class Notes:
    """Stands in for failpoints that are armed: it only notes them."""

    def __init__(self) -> None:
        self.points: dict[str, None] = {}

    def hit(self, name: str) -> None:
        self.points[name] = None


class Functions(Host):
    """Functions that need no process of their own: what is tried here is who runs them how often."""

    def __init__(self, diary: Path) -> None:
        super().__init__([], timeout_s=5.0, memory_mb=0)
        self._diary = diary

    def run(self, claim: CallClaim, assistant: Assistant, wanted: Callable[[], bool]) -> CallResult:
        with self._diary.open("a", encoding="utf-8") as diary:
            diary.write(f"{claim.job} {claim.wanted.key}\n")
        return CallResult(output=f"{claim.wanted.name} done", seconds=0.01)


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
        failpoints.arm(None if order.dies_at is None else f"{order.dies_at}=kill")
    store = FailingStore(order.redis_url)
    told = order.folder / "forget"
    # A person who has had a list forgotten does not submit it again.
    batch = told.read_text("utf-8") if told.exists() else _submit(store, order)
    store.beat(Node(name="w", processes=2, pid=os.getpid(), host=socket.gethostname(), started_at=0, tools=1), ttl_s=90)
    engine = _engine(store, order)
    functions = tools_chain.Slice(store, Functions(order.diary), lease_s=LEASE_S)
    until = time.monotonic() + _PATIENCE_S
    rounds = 0
    while not _over(store, batch, order):
        if time.monotonic() > until:
            raise TimeoutError(f"it does not end: {list(store.jobs(batch))}")
        rounds += 1
        for lane in Lane:
            engine.call(chain.work(engine, lane, slice_s=0.15))
        # Now and then, so that there are jobs that wait for outputs.
        if order.story.assistant.functions and rounds % 8 == 0:
            functions.work(slice_s=0.1)
        time.sleep(0.01)
    engine.call(engine.drain(5.0, paid_s=5.0))
    engine.close()
    if order.notes is not None:
        order.notes.write_text("\n".join(notes.points), "utf-8")
    return 0


def _hasten() -> None:
    """Whatever a dead process held is free after a second: the leases on shards and turns as well as on jobs."""
    chain._TTL_S = tools_chain._TTL_S = cleaner._LEASE_S = LEASE_S
    chain._SHARE_EVERY_S = 0.2
    cleaner._LOOK_EVERY_S = 0.1
    # The local API has either carried a request out or will never do so.
    searching.SETTLE_S = 0.2


def _submit(store: FailingStore, order: Order) -> str:
    """The same command in every life, under the same key."""
    story = order.story
    tools = {str(tool["type"]) for tool in story.assistant.tools}
    for name in ("attached.csv", "attached.txt"):
        (order.folder / name).write_text("row,value\n1,1\n", "utf-8")
    rows = [row | {"file": str(order.folder / row["file"])} if "file" in row else dict(row) for row in story.rows]
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
        account="account",
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
        return _is_forgotten(store, batch, order) and store.next_tombstone() is None
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
