"""The works in hand: begun, looked at, cancelled, given tool outputs, and settled when their time has come."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from askq.localapi.engines.base import Desk, Engine, Outcome, Plan, ProtocolName, Request, Usage, estimate_usage
from askq.localapi.engines.live import Live
from askq.localapi.errors import LocalApiError
from askq.localapi.files.products import Products, stripped
from askq.localapi.given import last_round
from askq.localapi.storage import LedgerEntry, Storage, StoredObject
from askq.localapi.store import Store
from askq.localapi.work import Work

_log = logging.getLogger(__name__)

WORK_KINDS: dict[str, ProtocolName] = {"run": "assistants", "response": "responses"}
_DISK_RETRY_S = 1.0
_KIND_OF: dict[ProtocolName, str] = {"assistants": "run", "responses": "response"}


class Scribe(Protocol):
    """How a protocol words a request and writes down what came of it."""

    def request(self, work: Work) -> Request:
        """Everything the engine is to be given for the current leg."""

    def write(self, work: Work, outcome: Outcome, at: float) -> bool:
        """Note messages, steps or items. False: the work is not over but waits for tool outputs."""


class Works:
    """All runs and responses. Nothing here waits except `finished`; a planned work costs no timer."""

    def __init__(
        self, storage: Storage, store: Store, engine: Engine, clock: Callable[[], float], products: Products
    ) -> None:
        self._products = products
        self._storage = storage
        self._store = store
        self._engine = engine
        self._clock = clock
        self._scribes: dict[ProtocolName, Scribe] = {}
        self._works: dict[str, Work] = {}
        self._seq: dict[str, int] = {}
        self._in_scope: dict[str, dict[str, Work]] = {}
        self._open: dict[str, Work] = {}
        self._labours: dict[str, asyncio.Task[None]] = {}
        self._bells: dict[str, asyncio.Event] = {}
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._live: dict[str, Live] = {}
        self._slots = asyncio.Semaphore(engine.concurrency)
        self.desk: Callable[[Request], Desk | None] = lambda request: None
        """Makes the place where an engine that works does it."""

    @property
    def products(self) -> Products:
        """Keeps what code has made."""
        return self._products

    def register(self, protocol: ProtocolName, scribe: Scribe) -> None:
        """Say who writes for a protocol."""
        self._scribes[protocol] = scribe

    def load(self, stored: StoredObject) -> None:
        """Take in a work read from the data folder."""
        work = Work.from_json(stored.body)
        self._keep(work, stored.seq)
        self._products.hold(_holder(work))
        self._store.seen(stored.seq)

    def resume(self) -> None:
        """After loading: go on with what had no outcome. This is no new run and makes no ledger entry."""
        for work in list(self._open.values()):
            if work.plan is None and work.outcome is None and not work.waiting:
                self._begin_leg(work)

    def _keep(self, work: Work, seq: int) -> None:
        self._works[work.id] = work
        self._seq[work.id] = seq
        if work.scope is not None:
            self._in_scope.setdefault(work.scope, {})[work.id] = work
        if work.ended is None:
            self._open[work.id] = work

    def save(self, work: Work) -> None:
        """Note the work's present state in the storage."""
        self._storage.put(
            StoredObject(work.id, _KIND_OF[work.protocol], work.scope, self._seq[work.id], work.to_json())
        )

    def begin(self, work: Work) -> None:
        """A new run: into the ledger, and on its way."""
        self._keep(work, self._store.next_seq())
        request = self._scribes[work.protocol].request(work)
        self._storage.append_ledger(
            LedgerEntry(
                n=work.number,
                id=work.id,
                protocol=work.protocol,
                created_at=work.created,
                scope=work.scope,
                model=request.model,
                metadata=dict(request.metadata),
                round=request.round,
                digest=_digest(request),
                question=request.question,
            )
        )
        self._note_outputs(request)
        self._begin_leg(work, request)
        if work.plan is not None and work.plan.at_once:
            self._settle(work, work.created, work.plan.outcome)

    def go_on(self, work: Work) -> None:
        """The client has given the tool outputs: the next leg begins."""
        work.waiting = False
        work.started = self._clock()
        work.begun = work.plan = work.outcome = work.outcome_at = None
        work.polls = 0
        request = self._scribes[work.protocol].request(work)
        self._note_outputs(request)
        self._begin_leg(work, request)

    def _note_outputs(self, request: Request) -> None:
        for output in last_round(request, self._clock()):
            self._storage.append_given(output)

    def _begin_leg(self, work: Work, request: Request | None = None) -> None:
        request = request or self._scribes[work.protocol].request(work)
        if work.streamed:
            live = self._live[work.id] = Live(partial(self._ring, work.id))
            request = dataclasses.replace(request, live=live)
        try:
            work.plan = _impossible(request) if request.flaw else self._engine.plan(request)
        except Exception as exc:  # whatever the engine raises is the run's failure, not the server's
            _log.exception("the %s engine failed on %s", self._engine.name, work.id)
            work.plan = Plan(outcome=_failure(exc), seconds=0.0)
        if work.plan is not None:
            work.plan = dataclasses.replace(work.plan, outcome=self._products.stow(work.plan.outcome))
        self.save(work)
        if work.plan is None:
            labour = self._labour(work, dataclasses.replace(request, desk=self.desk(request)))
            self._labours[work.id] = asyncio.create_task(labour, name=f"labour-{work.id}")

    async def _labour(self, work: Work, request: Request) -> None:
        async with self._slots:
            work.begun = self._clock()
            self._ring(work.id)
            try:
                outcome = self._products.stow(await self._engine.answer(request))
            except Exception as exc:  # whatever the engine raises is the run's failure, not the server's
                _log.exception("the %s engine failed on %s", self._engine.name, work.id)
                outcome = _failure(exc)
        at = self._clock()
        # Durable before anybody can see it: otherwise a restart could take back an answer that was shown.
        # A work that ends or is deleted meanwhile cancels this task, and its own, later note wins.
        try:
            self.save(dataclasses.replace(work, outcome=outcome, outcome_at=at))
            await self._commit_at_last()
        except asyncio.CancelledError:
            if work.ended is not None or not self.exists(work):  # else the server ends, and the next one goes on
                self._products.release(outcome)
            raise
        work.outcome, work.outcome_at = outcome, at
        self._labours.pop(work.id, None)
        self.look(work)

    async def _commit_at_last(self) -> None:
        while True:
            try:
                return await self._storage.commit()
            except LocalApiError as exc:
                _log.error("an answer waits for the disk: %s", exc)
                await asyncio.sleep(_DISK_RETRY_S)

    def get(self, protocol: ProtocolName, work_id: str) -> Work | None:
        """The work of this id as of now."""
        work = self._works.get(work_id)
        if work is None or work.protocol != protocol:
            return None
        self.look(work)
        return work

    def poll(self, work: Work) -> None:
        """Count a retrieve: prescribed courses may advance by it."""
        work.polls += 1
        self.look(work)

    def look(self, work: Work) -> None:
        """Settle the work if its time has come."""
        if work.ended is None:
            due = work.due(self._clock())
            if due is not None:
                self._settle(work, *due)

    def _settle(self, work: Work, at: float, outcome: Outcome) -> None:
        request = self._scribes[work.protocol].request(work)
        usage = outcome.usage or estimate_usage(request, outcome)
        work.spent = Usage(
            input_tokens=work.spent.input_tokens + usage.input_tokens,
            output_tokens=work.spent.output_tokens + usage.output_tokens,
        )
        held, work.outcome = _holder(work), outcome
        over = self._scribes[work.protocol].write(work, outcome, at)
        # What they held is filed now, or will never be needed.
        self._products.release(held)
        _strip(work)
        if over:
            work.waiting = False
            work.ended = at
            del self._open[work.id]
            self._stop(work)
            bell = self._bells.pop(work.id, None)
            if bell is not None:
                bell.set()
        else:
            work.waiting = True
            work.outcome_at = None
        self._ring(work.id)
        self.save(work)

    def cancel(self, work: Work) -> None:
        """Ask for the end of a work that has none; it comes after the plan's `cancel_seconds`."""
        if work.ended is not None or work.cancel_at is not None:
            return
        takes = 0.0 if work.waiting or work.protocol == "responses" else 0.2
        if work.plan is not None and not work.waiting and work.protocol == "assistants":
            takes = work.plan.cancel_seconds
        work.cancel_at = self._clock() + takes
        self._ring(work.id)
        self.save(work)
        self.look(work)

    def forget(self, work: Work, *, asked: bool = True) -> None:
        """Delete a work, in hand or over. Unless nobody `asked` for that (it was not to be stored), what was said goes
        from the ledger too."""
        self._products.release(_holder(work))
        self._stop(work)
        bell = self._bells.pop(work.id, None)
        if bell is not None:
            bell.set()
        del self._works[work.id], self._seq[work.id]
        self._open.pop(work.id, None)
        self._live.pop(work.id, None)
        self._ring(work.id)
        if work.scope is not None:
            siblings = self._in_scope[work.scope]
            del siblings[work.id]
            if not siblings:
                del self._in_scope[work.scope]
        self._storage.delete(work.id)
        if asked:
            self._storage.erase(work.id)

    def _stop(self, work: Work) -> None:
        labour = self._labours.pop(work.id, None)
        if labour is not None:
            labour.cancel()

    def exists(self, work: Work) -> bool:
        """Whether it has not been deleted meanwhile."""
        return work.id in self._works

    def in_scope(self, scope: str) -> list[Work]:
        """The works of a thread or conversation, oldest first, settled."""
        works = list(self._in_scope.get(scope, {}).values())
        for work in works:
            self.look(work)
        return works

    def active_in(self, scope: str) -> Work | None:
        """The work that occupies a thread or conversation. Only the youngest can: no other begins before its end."""
        works = self._in_scope.get(scope)
        if not works:
            return None
        youngest = next(reversed(works.values()))
        self.look(youngest)
        return youngest if youngest.ended is None else None

    def in_flight(self) -> int:
        """How many works have no end yet."""
        for work in list(self._open.values()):
            self.look(work)
        return len(self._open)

    def counts(self) -> dict[str, int]:
        """How many runs and responses are stored."""
        counts = dict.fromkeys(WORK_KINDS, 0)
        for work in self._works.values():
            counts[_KIND_OF[work.protocol]] += 1
        return counts

    def listen(self, work: Work) -> asyncio.Event:
        """A bell that rings whenever something about the work changes, by itself or by a request."""
        if work.plan is not None and work.plan.by_poll:
            work.polls = len(work.plan.statuses) + 1  # as in `finished`: nobody retrieves what is listened to
        bell = asyncio.Event()
        self._listeners.setdefault(work.id, set()).add(bell)
        return bell

    def unlisten(self, work: Work, bell: asyncio.Event) -> None:
        """Give the bell back."""
        bells = self._listeners.get(work.id)
        if bells is not None:
            bells.discard(bell)
            if not bells:
                del self._listeners[work.id]

    def _ring(self, work_id: str) -> None:
        for bell in self._listeners.get(work_id, ()):
            bell.set()

    def live(self, work: Work) -> Live | None:
        """What the engine has said of the current leg so far, if it was created as a stream."""
        return self._live.get(work.id)

    async def finished(self, work: Work, *, at_most: float) -> bool:
        """Wait up to `at_most` seconds for the end; whether it has come (or the work was deleted)."""
        if work.plan is not None and work.plan.by_poll:
            # Nobody retrieves what is waited for, so there is nothing for its statuses to advance by.
            work.polls = len(work.plan.statuses) + 1
        self.look(work)
        if work.ended is not None or not self.exists(work):
            return True
        bell = self._bells.setdefault(work.id, asyncio.Event())
        if work.plan is not None and work.plan.seconds is not None:
            at_most = min(at_most, max(work.started + work.plan.seconds - self._clock(), 0.001))
        try:
            await asyncio.wait_for(bell.wait(), at_most)
        except TimeoutError:
            self.look(work)
        return work.ended is not None or not self.exists(work)

    async def close(self) -> None:
        """Stop working; what is unfinished is resumed by the next start."""
        labours = list(self._labours.values())
        for labour in labours:
            labour.cancel()
        await asyncio.gather(*labours, return_exceptions=True)


def _holder(work: Work) -> Outcome | None:
    """The one that holds what the current leg has made."""
    return work.outcome if work.plan is None else work.plan.outcome


def _strip(work: Work) -> None:
    if work.outcome is not None:
        work.outcome = stripped(work.outcome)
    if work.plan is not None:
        work.plan = dataclasses.replace(work.plan, outcome=stripped(work.plan.outcome))


def _impossible(request: Request) -> Plan:
    return Plan(outcome=Outcome(status="failed", error_message=request.flaw), seconds=0.0)


def _failure(exc: Exception) -> Outcome:
    return Outcome(status="failed", error_message=f"{type(exc).__name__}: {exc}")


def _digest(request: Request) -> str:
    asked = [
        request.model,
        request.instructions,
        [[turn.role, turn.text, turn.call_id, turn.name, *turn.images] for turn in request.turns],
        list(request.tools),
    ]
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
