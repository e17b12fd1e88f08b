"""One worker process's engine: an event loop, a client, and every job in hand.

Built after the fork and kept for the life of the process. Chains lend it time to claim jobs; the calls it has open
go on by themselves, their leases renewed, so that a slow reply never holds up a chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from askq.assistants.model import Assistant
from askq.errors import StoreError
from askq.files.folder import Folder
from askq.ids import job_id, split_job_id
from askq.jobs.calls import KeptCall
from askq.jobs.codec import with_brought
from askq.jobs.model import CANCELLED_IN_TIME, LANE_OF, MOVES, TERMINAL, Answer, Claim, Lane, Move, Outcome, State
from askq.jobs.objects import Kind, RemoteObject, assistant_thing, keep_letters
from askq.jobs.store import Store
from worker import rounds, steps
from worker.account import Account
from worker.budgets import Budgets, Verdict
from worker.cleaner import Cleaner
from worker.commits import Commits
from worker.conversations import Joins, Stopped, Waits, turn
from worker.downloads import Downloads, NotNow, objects_made
from worker.downloads import Limits as Output
from worker.leases import Leases
from worker.library import Library
from worker.limits.durations import Durations
from worker.limits.gate import Gate, Grant
from worker.limits.permits import Permits
from worker.limits.tokens import estimated
from worker.live import Desk
from worker.materials import Materials
from worker.monitor import Monitor
from worker.outputs import correction, judged
from worker.priced import priced_answer, priced_status
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ambiguous,
    Ask,
    Before,
    Blocked,
    CallError,
    Found,
    Given,
    Limited,
    Live,
    Protocol,
    RunState,
    Search,
    Status,
    ToolOutput,
)
from worker.protocols.filing import Filing
from worker.protocols.hints import NO_LIMITS
from worker.schedule import Pace, crowd_s

log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 0.5
_UNSENT = 16
"""Intents on record at once whose calls may not have been sent: as many questions may end in doubt when a process is
killed, where the service can neither list runs nor be asked again safely."""
_SENT_S = 0.05
"""After so long a request has left, or is so far that waiting for it would cost more than it saves."""
_FETCHING = 20
"""Answers whose files one process fetches at once."""
_OUTPUT = Output(files=20, file_bytes=100 << 20, total_bytes=500 << 20)
_CALLS_PER_PROCESS = 50
"""Function calls that may wait for each process that runs some, before runs that could ask for more are put off."""
_LOOK_AT_FUNCTIONS_S = 0.5
T = TypeVar("T")


class Engine:
    """Advances claimed jobs, each by one step.

    `protocols` is called once, inside the loop, because the clients it makes belong to it: `open` does that.
    `start_chain` sees to it that somebody serves the start lane; it is called from another thread and may block.
    """

    def __init__(
        self,
        store: Store,
        protocols: Callable[[], Mapping[str, Protocol]],
        monitor: Monitor | None,
        *,
        account: str,
        host: str,
        lease_s: float,
        in_flight: int,
        probe_s: float,
        nudge_tools: Callable[[], None] | None = None,
        start_chain: Callable[[], None] = lambda: None,
        filing: Callable[[], Filing] | None = None,
        folder: Folder | None = None,
        output: Output = _OUTPUT,
    ) -> None:
        self.store = store
        self.lease_s = lease_s
        self.loop = asyncio.new_event_loop()
        self._open_protocols = protocols
        self._protocols: Mapping[str, Protocol] | None = None
        self._monitor = monitor
        self._nudge_tools = nudge_tools
        self._most = in_flight
        self._commits = Commits(store)
        self._leases = Leases(store, lease_s=lease_s)
        self._account = Account(store, account, in_flight=in_flight, probe_s=probe_s)
        self._budgets = Budgets(store, host)
        self._permits = Permits(store, account, host)
        self._durations = Durations(store)
        self._waiting_functions, self._look_at_functions = 0, 0.0
        self._desk = Desk(store)
        self._cleaner = Cleaner(store, account, self._any_protocol)
        self._called = 0
        """Creates that have their permit."""
        self._assistants: dict[str, Assistant] = {}
        self._filing = filing or _no_filing
        files = folder or Folder(Path("askq-files"))
        self.library = Library(store, account, files, self._filing, lease_s=lease_s)
        self._materials = Materials(store, account, self.library)
        self._downloads = Downloads(files, output)
        self._fetching: set[asyncio.Task[Any]] = set()
        """Jobs whose files are fetched: they hold up no poll, however long it takes."""
        self._remote: dict[str, asyncio.Future[str | None]] = {}
        self._intended: dict[str, asyncio.Task[Any] | None] = {}
        """Jobs whose intent this process has on record, and who works on them."""
        self._alone: str | None = None
        """The job that must be in hand alone."""
        self._unsent = asyncio.Semaphore(_UNSENT)
        self._open: dict[Lane, set[asyncio.Task[None]]] = {lane: set() for lane in Lane}
        self._flusher: asyncio.Task[None] | None = None
        self._start_chain = start_chain
        self._starter: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run_loop, name="askq-engine", daemon=True)
        self._thread.start()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def open(self) -> None:
        """Make the clients: their imports and certificates take up to a second, in which no lease could be renewed."""
        if self._protocols is None:
            self._protocols = self._open_protocols()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop from another thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def open_calls(self, lane: Lane) -> int:
        """Jobs of a lane in hand."""
        return len(self._open[lane])

    async def room(self, lane: Lane, *, executions: int = 1) -> int:
        """How many jobs of a lane may be claimed now, by one of so many executions."""
        if self._alone is not None:
            return 0
        calls = self.open_calls(lane)
        room = min(self._most - calls, await self._account.room(lane, calls))
        if room <= 0:
            return room
        if lane is Lane.START:
            # As many as there will be permits for when they are ready: those that have theirs need no other.
            permits = await self._permits.room(executions) - (calls - self._called)
        else:
            permits = await self._permits.get_room(executions)
        if permits < 1:
            # If it was to be the probe of a paused account, that is still to be made.
            await self._account.unused(lane)
            return 0
        return int(min(room, permits))

    def idle_s(self, lane: Lane) -> float:
        """How long nothing of a lane can be called, whoever asks."""
        return self._permits.wait_s() if lane is Lane.START else 0.0

    async def nothing_to_take(self, lane: Lane) -> None:
        """There was room, and nothing to claim."""
        await self._account.unused(lane)

    def take(self, lane: Lane, claim: Claim, *, asked_at: float) -> None:
        """Begin the next step of a claimed job."""
        self._leases.take(claim, asked_at=asked_at)
        if self._alone is not None:
            work = self._give_back(claim)
        elif steps.suspect(claim):
            self._alone = claim.id
            work = self._advance_alone(claim)
        else:
            work = self._advance(claim)
        task = asyncio.create_task(work)
        self._open[lane].add(task)
        task.add_done_callback(self._open[lane].discard)
        if self._monitor is not None:
            self._monitor.claimed(claim)
            if self._flusher is None or self._flusher.done():
                self._flusher = asyncio.create_task(self._flush(self._monitor))

    async def drain(self, timeout_s: float, *, paid_s: float) -> int:
        """Wait until no call is open; how many still were when the time was up.

        Paid calls get `paid_s` seconds: their replies are worth more than a quick end.
        """
        tasks = {task for tasks in self._open.values() for task in tasks} | self._fetching
        tasks |= self.library.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        if paid := {task for task in self._intended.values() if task is not None}:
            await asyncio.wait(paid, timeout=paid_s - timeout_s)
        if self._monitor is not None:
            await asyncio.to_thread(self._monitor.flush)
        return sum(len(tasks) for tasks in self._open.values())

    async def clean(self) -> None:
        """Go on deleting what is no longer kept, beside everything else, if there is anything and nobody is at it."""
        await self._cleaner.look()

    def close(self) -> None:
        """End the loop; what is still open is abandoned and found again by the next claim."""

        async def stop() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.call(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _flush(self, monitor: Monitor) -> None:
        while monitor.waiting or any(self._open.values()):
            await asyncio.sleep(_FLUSH_EVERY_S)
            await asyncio.to_thread(monitor.flush)

    async def _advance_alone(self, claim: Claim) -> None:
        """Work on a job that may kill this process when nothing else is in hand."""
        try:
            others = {task for tasks in self._open.values() for task in tasks} - {asyncio.current_task()}
            if others:
                await asyncio.wait(others)
            async with self.library.held():
                await self._advance(claim)
        finally:
            self._alone = None

    async def _give_back(self, claim: Claim) -> None:
        """Somebody else may have it, or this process later: now a suspect is in hand, and nothing else may be."""
        delay_s = random.uniform(0.2, 1.0)  # noqa: S311  nothing is secret about a jitter
        try:
            await asyncio.to_thread(self.store.give_back, [(claim.id, claim.fence)], delay_s=delay_s)
        except StoreError as error:
            log.warning("%s: left until its lease ends: %s", claim.id, error.message)
        finally:
            self._leases.drop(claim)

    # -- one step --------------------------------------------------------------------------------------

    async def _advance(self, claim: Claim) -> None:
        try:
            await self._step(claim)
            await self._account.unused(LANE_OF[claim.state])
        except StoreError as error:
            # The claim runs out by itself, and the next one goes on from what is stored.
            log.warning("%s: left for the next claim: %s", claim.id, error.message)
        except Exception as error:  # the outermost frame of a job: it becomes a recorded end
            log.exception("%s: a defect in state %s", claim.id, claim.state)
            # Where a run may exist, the next claim looks for it; nothing is ended over its head.
            may_run = claim.state is State.STARTING or claim.id in self._intended
            if not may_run and self._leases.fresh(claim):
                await self._commit(claim, steps.end(claim, "internal", f"{type(error).__name__}: {error}"))
        finally:
            self._intended.pop(claim.id, None)
            self._leases.drop(claim)

    async def _step(self, claim: Claim) -> None:
        if steps.poisoned(claim):
            await self._commit(claim, steps.give_up_poison(claim))
            return
        assistant = await self._assistant(claim.assistant_digest)
        if assistant is None:
            await self._commit(claim, steps.without_assistant(claim))
            return
        if claim.state is State.QUEUED and claim.cancel is not None:
            told = CANCELLED_IN_TIME if claim.spent is None else "cancelled before the answer was asked for again"
            await self._commit(claim, steps.end(claim, "cancelled", told))
            return
        if (pause := await self._account.stopped(claim.protocol)) is not None:
            await self._commit(claim, steps.paused(claim, pause))
            return
        protocol = self._protocol(claim.protocol)
        match claim.state:
            case State.QUEUED:
                if claim.thread_id is None:
                    await self._begin_or_join(claim, assistant, protocol)
                elif claim.refers is not None:
                    await self._join_again(claim, claim.thread_id, assistant, protocol)
                else:
                    await self._create(claim, claim.thread_id, assistant, protocol)
            case State.STARTING:
                await self._search(claim, assistant, protocol)
            case State.RUNNING:
                await self._poll(claim, assistant, protocol)
            case State.ACTION:
                await self._answer_calls(claim, assistant, protocol)
            case State.COLLECTING:
                await self._collect(claim, assistant, protocol)

    async def _begin_or_join(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        """Prepare the thread, or find out whether the question's turn in its conversation has come."""
        match await turn(self.store, claim, assistant):
            case None:
                await self._prepare(claim, assistant, protocol)
            case Waits() as waiting:
                await self._commit(claim, steps.waits(claim, waiting, _jitter()))
            case Stopped(code=code, message=message):
                await self._commit(claim, steps.end(claim, code, message))
            case Joins() as joins:
                await self._join(claim, joins, assistant, protocol)

    async def _join(self, claim: Claim, joins: Joins, assistant: Assistant, protocol: Protocol) -> None:
        begun = time.monotonic()
        earlier = joins.held
        given = await self._materials.given(claim, assistant, earlier=earlier)
        if isinstance(given, steps.Decision):
            await self._commit(claim, given)
            return
        ask = self._ask(claim, assistant, claim.attempts + 1, given=given)
        try:
            # Without a conversation at the service there is nothing to be joined: the run goes on from the last one.
            mark = await protocol.join(ask, joins.before) if joins.before.thread_id else ""
        except CallError as refused:
            error = await self._of_refusal(ask, refused)
            if error.limits is not None:
                self._permits.refused(ask, error)
            await self._settle(claim, steps.not_joined(claim, error, assistant, _jitter()), error)
        else:
            await self._account.answered(claim.protocol, begun=begun)
            held = self._materials.held(claim, earlier)
            keep, account = keep_letters(assistant.keep), self._account.name
            await self._commit(claim, steps.joined(claim, joins, mark, held=held, account=account, keep=keep))

    async def _join_again(self, claim: Claim, thread: str, assistant: Assistant, protocol: Protocol) -> None:
        """Put the request to mend an answer into the thread that has it. Free, and done once whoever dies."""
        begun = time.monotonic()
        run = claim.refers or ""
        before = Before(thread_id=thread, run_id=run, joined=claim.joined or "", answered=True)
        try:
            mark = await protocol.join(self._ask(claim, assistant, claim.attempts + 1), before) if thread else ""
        except CallError as error:
            await self._settle(claim, steps.not_joined(claim, error, assistant, _jitter()), error)
        else:
            await self._account.answered(claim.protocol, begun=begun)
            await self._commit(claim, steps.joined_again(claim, mark))

    async def _prepare(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        begun = time.monotonic()
        given = await self._materials.given(claim, assistant)
        if isinstance(given, steps.Decision):
            await self._commit(claim, given)
            return
        ask = self._ask(claim, assistant, claim.attempts + 1, given=given)
        try:
            remote = await self._remote_assistant(assistant, protocol, given)
            thread = await protocol.prepare(ask, remote)
        except CallError as refused:
            error = await self._of_refusal(ask, refused)
            if error.limits is not None:
                # A thread for each run: where threads are limited, runs are made no faster.
                self._permits.refused(self._ask(claim, assistant), error)
            await self._settle(claim, steps.not_prepared(claim, error, _jitter()), error)
        else:
            if thread:
                await self._account.answered(claim.protocol, begun=begun)
            made = steps.prepared(
                claim,
                thread,
                held=self._materials.held(claim),
                account=self._account.name,
                keep=keep_letters(assistant.keep),
            )
            await self._commit(claim, made)

    async def _create(
        self, claim: Claim, thread: str, assistant: Assistant, protocol: Protocol, outputs: tuple[ToolOutput, ...] = ()
    ) -> None:
        given = await self._materials.given(claim, assistant, earlier=claim.held)
        if isinstance(given, steps.Decision):
            await self._commit(claim, given)
            return
        ask = self._ask(claim, assistant, claim.attempts + 1, outputs, given=given)
        try:
            remote = await self._remote_assistant(assistant, protocol, given)
            waits = await self._materials.unread(claim, assistant, ask, thread, protocol)
        except CallError as refused:
            error = await self._of_refusal(ask, refused)
            await self._settle(claim, steps.not_prepared(claim, error, _jitter()), error)
            return
        if waits is not None:
            await self._commit(claim, waits)
            return
        gate = self._permits.create_gate(ask)
        if (wait := self._permits.hopeless(gate)) is not None:
            await self._commit(claim, steps.not_yet(claim, wait))
            return
        if assistant.functions and not outputs and (waiting := await self._functions_waiting()):
            await self._commit(claim, rounds.too_many_wait(claim, waiting, _jitter()))
            return
        verdict = await self._budgets.reserve(claim, ask)
        if verdict is not Verdict.GRANTED:
            decide = steps.over_budget if verdict is Verdict.REFUSED else steps.unbounded
            await self._commit(claim, decide(claim))
            return
        begun = time.monotonic()
        try:
            call = await self._begin(claim, ask, gate, thread, remote, protocol)
            if call is None:
                return
            status, tokens, live = await call
        except CallError as refused:
            error = await self._of_refusal(ask, refused)
            if error.code == "assistant_not_found" and assistant.assistant_id is None and remote is not None:
                # Ours, and somebody deleted it: it is made again, and the job asks once more.
                await self._forget_remote(assistant, protocol, remote, given)
                error = Limited(error.code, error.message, retry_after=0.5)
            await self._settle(claim, steps.not_created(claim, error, _jitter()), error)
            return
        decision = await self._created(claim, status, assistant, protocol, tokens, attempts=ask.attempt)
        outcome = await self._commit(claim, decision)
        if live is not None:
            await self._watch(claim, thread, status.run_id, live, protocol)
        if outcome is Outcome.NOT_YOURS:
            # Too late to commit, never too late to tell: whoever looks for this run now finds its id.
            await asyncio.to_thread(self.store.witness, claim.id, ask.attempt, status.run_id)
        await self._account.worked(claim.protocol, begun=begun)

    async def _created(
        self, claim: Claim, status: Status, assistant: Assistant, protocol: Protocol, tokens: float, *, attempts: int
    ) -> steps.Decision:
        pace = await self._pace(claim)
        decision = steps.created(claim, status, assistant, _jitter(), pace, estimated=tokens)
        if status.state is not RunState.ACTION or decision.move.name != "start":
            return decision
        # A server without background mode asks for functions at once.
        return rounds.asked(
            claim,
            status.tool_calls,
            (),
            assistant,
            {**decision.move.fields, "started": claim.now},
            run_id=status.run_id,
            usage=status.usage,
            answer=status.answer,
            new_runs=protocol.outputs_start_runs,
            attempts=attempts,
        )

    async def _begin(
        self, claim: Claim, ask: Ask, gate: Gate, thread: str, remote: str | None, protocol: Protocol
    ) -> asyncio.Future[tuple[Status, float, Live | None]] | None:
        """Write the intent, and send the call as soon as there is a permit for it; None when it must not be sent."""
        wanted = time.monotonic()
        # Where runs can be listed a kill costs nothing; elsewhere each intent whose call was not sent ends in doubt.
        async with contextlib.AsyncExitStack() as few:
            with gate.on_the_way():
                if not protocol.lists_runs:
                    await few.enter_async_context(self._unsent)
                if not await self._intend(claim):
                    return None
            self._permits.ready(time.monotonic() - wanted)
            # Last of all: a permit that is used late comes to the service in a heap with others.
            grant = await gate.take(estimated(ask))
            if not self._leases.fresh(claim):
                gate.give_back(grant)
                await self._commit(claim, steps.not_sent(claim))
                return None
            call = asyncio.ensure_future(self._start(ask, gate, grant, thread, remote, protocol))
            await asyncio.wait({call}, timeout=_SENT_S)
            return call

    async def _intend(self, claim: Claim) -> bool:
        """Write the intent; whether the call may be made now."""
        if not self._leases.fresh(claim):
            return False
        # "Already" is our own commit, made before its reply was lost: nobody else has this fence.
        if await self._commits.commit(steps.intent(claim, self.lease_s)) not in (Outcome.MOVED, Outcome.ALREADY):
            return False
        if not self._leases.fresh(claim):
            # Nobody need wait for the run of a call that was not made; whoever holds the job by now is not disturbed.
            await self._commit(claim, steps.not_sent(claim))
            return False
        self._intended[claim.id] = asyncio.current_task()
        return True

    async def _start(
        self, ask: Ask, gate: Gate, grant: Grant, thread: str, remote: str | None, protocol: Protocol
    ) -> tuple[Status, float, Live | None]:
        """Make the paid call under a permit; the run, the tokens put aside for it and its stream, if it is watched."""
        # A job of the start lane: those that submit outputs are claimed as the polls are.
        counted = not ask.outputs
        self._called += counted
        live: Live | None = None
        try:
            if ask.stream:
                status, live = await protocol.start_live(ask, thread, remote)
            else:
                status = await protocol.start(ask, thread, remote)
        except CallError as error:
            _tell(gate, grant, error)
            raise
        except BaseException:
            gate.lost(grant)
            raise
        finally:
            self._called -= counted
        gate.accepted(grant, status.limits)
        if status.state is not RunState.PENDING and status.usage is not None:
            gate.used(grant.tokens, status.usage.total_tokens)
        return priced_status(status, ask.assistant), grant.tokens, live

    async def _search(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        if claim.witness is not None:
            await self._commit(claim, steps.adopted(claim, claim.witness, assistant))
            return
        outputs = rounds.outputs_of(claim, await self._calls(claim))
        thread, ask = claim.thread_id or "", self._ask(claim, assistant, claim.attempts, outputs)
        try:
            if claim.rounds and not outputs:
                found = Found(search=Search.UNKNOWN)  # without them its run cannot be told from the one before
            else:
                found = await protocol.find_started(ask, thread)
            if found.search is Search.UNKNOWN and await protocol.repeats_safely():
                await self._repeat(claim, ask, thread, assistant, protocol)
                return
            for surplus in found.run_ids[1:]:
                await protocol.cancel(thread, surplus)
            if found.answer is not None and steps.makes_files(found.answer):
                found = dataclasses.replace(found, answer=await self._fetched(claim, found.answer))
        except NotNow as error:
            await self._commit(claim, steps.not_fetched(claim, str(error), _jitter()))
        except CallError as error:
            await self._settle(claim, steps.not_searched(claim, error, assistant, _jitter()), error)
        else:
            if found.search is Search.ASKED:
                await self._commit(claim, self._found_asking(claim, found, assistant, protocol))
                return
            worst = self._budgets.at_worst(ask)
            await self._commit(claim, steps.searched(claim, found, assistant, self.lease_s, _jitter(), at_worst=worst))

    def _found_asking(self, claim: Claim, found: Found, assistant: Assistant, protocol: Protocol) -> steps.Decision:
        """The conversation shows the calls of a run whose id nobody has seen."""
        fields: steps.Fields = {
            **steps._CLEAN,
            "run": None,
            "runs": claim.runs + 1,
            "deadline": (claim.intent_at or claim.now) + assistant.timeout_s,
            "started": claim.intent_at,
            "witness": None,
        }
        new = protocol.outputs_start_runs
        return rounds.asked(
            claim, found.tool_calls, (), assistant, fields, run_id=None, usage=None, answer=found.answer, new_runs=new
        )

    async def _repeat(self, claim: Claim, ask: Ask, thread: str, assistant: Assistant, protocol: Protocol) -> None:
        """Make the call of the intent once more, under its key: the server gives back the run there is, or makes it."""
        given = await self._materials.given(claim, assistant, earlier=claim.held)
        if isinstance(given, steps.Decision):
            await self._commit(claim, given)
            return
        remote = await self._remote_assistant(assistant, protocol, given)
        ask = dataclasses.replace(ask, given=given)
        gate = self._permits.create_gate(ask)
        grant = await gate.take(estimated(ask))
        if not self._leases.fresh(claim):
            gate.give_back(grant)
            return
        self._intended[claim.id] = asyncio.current_task()
        status, tokens, live = await self._start(ask, gate, grant, thread, remote, protocol)
        attempts = claim.attempts
        await self._commit(claim, await self._created(claim, status, assistant, protocol, tokens, attempts=attempts))
        if live is not None:
            await self._watch(claim, thread, status.run_id, live, protocol)

    async def _poll(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        thread, run = claim.thread_id or "", claim.run_id or ""
        begun = time.monotonic()
        grants: list[Grant] = []
        try:
            grants = await self._permits.get(claim.protocol)
            if steps.to_cancel(claim):
                await protocol.cancel(thread, run)
            status = priced_status(await protocol.poll(thread, run), assistant)
        except CallError as error:
            self._permits.got(claim.protocol, grants, error)
            await self._settle(claim, steps.not_polled(claim, error, _jitter()), error)
        else:
            self._permits.got(claim.protocol, grants, None)
            self._learn(claim, status)
            await self._account.answered(claim.protocol, begun=begun)
            await self._commit(claim, await self._polled(claim, status, assistant, protocol))
            if claim.live and claim.cancel is None and status.state is RunState.PENDING:
                # Whoever read its stream may be gone.
                await self._watch(claim, thread, run, None, protocol)

    async def _polled(self, claim: Claim, status: Status, assistant: Assistant, protocol: Protocol) -> steps.Decision:
        if status.state is not RunState.ACTION or claim.cancel_sent or steps.to_cancel(claim):
            return steps.polled(claim, status, assistant, _jitter(), await self._pace(claim))
        decision = rounds.asked(
            claim,
            status.tool_calls,
            await self._calls(claim),
            assistant,
            {"polls": claim.polls + 1, "remote": status.raw, **steps._CLEAN},
            run_id=claim.run_id,
            usage=status.usage,
            answer=status.answer,
            new_runs=protocol.outputs_start_runs,
        )
        await self._cancel_if_over(claim, decision, protocol)
        return decision

    async def _watch(self, claim: Claim, thread: str, run: str, live: Live | None, protocol: Protocol) -> None:
        """Tell a run live from a stream that is open, or look for one; the chains go on meanwhile."""

        async def resume(before: Live | None) -> Live | None:
            grants: list[Grant] = []
            try:
                grants = await self._permits.get(claim.protocol)
                stream = await protocol.resume_live(thread, run, before)
            except CallError as error:
                self._permits.got(claim.protocol, grants, error)
                raise
            self._permits.got(claim.protocol, grants, None)
            return stream

        if self._desk.wanted(run) and (live is not None or protocol.resumes):
            self._desk.begin(claim.id, run, live, resume)
        elif live is not None:
            await live.close()

    def _learn(self, claim: Claim, status: Status) -> None:
        """What a run that has ended teaches of the next ones."""
        if (seconds := steps.took(claim, status, random.random())) is not None:  # noqa: S311  no secret
            self._durations.note(claim.assistant_digest, seconds)
        if status.state is not RunState.PENDING and status.usage is not None and claim.estimated:
            assistant = self._assistants[claim.assistant_digest]
            gate = self._permits.creates(claim.protocol, claim.asked_of or assistant.model)
            gate.used(claim.estimated, status.usage.total_tokens)

    async def _pace(self, claim: Claim) -> Pace:
        """What is known of when this job's run may end, and of all others that are to be polled."""
        weights = self._durations.weights(claim.assistant_digest)
        gets = await self._permits.gets_per_s(claim.protocol)
        return Pace(weights, crowd_s(self._durations.runs_waiting, gets))

    async def _collect(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        grants: list[Grant] = []
        if len(self._fetching) >= _FETCHING and _may_fetch(assistant):
            await self._commit(claim, steps.waits_to_fetch(claim))
            return
        try:
            grants = await self._permits.get(claim.protocol, 2 if _may_fetch(assistant) else 1)
            answer = await protocol.answer(claim.thread_id or "", claim.run_id or "", assistant)
            answer = priced_answer(answer, assistant)
        except CallError as error:
            self._permits.got(claim.protocol, grants, error)
            await self._settle(claim, steps.not_polled(claim, error, _jitter()), error)
            return
        self._permits.got(claim.protocol, grants, None)
        grants = []
        try:
            if steps.makes_files(answer):
                # The container's list, and each file's description and content.
                grants = await self._permits.get(claim.protocol, 1 + 2 * len(answer.files))
                answer = await self._fetched(claim, answer)
        except NotNow as why:
            self._permits.got(claim.protocol, grants, None)
            await self._commit(claim, steps.not_fetched(claim, str(why), _jitter()))
        except CallError as error:
            self._permits.got(claim.protocol, grants, error)
            await self._settle(claim, steps.not_polled(claim, error, _jitter()), error)
        else:
            self._permits.got(claim.protocol, grants, None)
            await self._commit(claim, steps.answered(claim, answer, {}, usage=claim.usage))

    async def _fetched(self, claim: Claim, answer: Answer) -> Answer:
        """The answer with its files here. Meanwhile the job has no place among the calls that are open."""
        task = asyncio.current_task()
        assert task is not None, "steps run in tasks"
        for tasks in self._open.values():
            tasks.discard(task)
        self._fetching.add(task)
        try:
            if made := objects_made(answer, self._account.name):
                await asyncio.to_thread(self.store.remember, claim.id, made)
            return await self._downloads.fetch(claim, answer, self._filing())
        finally:
            self._fetching.discard(task)

    async def _of_refusal(self, ask: Ask, error: CallError) -> CallError:
        """The error, or what follows where it was for a file that is gone."""
        try:
            return await self._materials.of_refusal(ask, error)
        except CallError:
            return error

    # -- functions -------------------------------------------------------------------------------------

    async def _answer_calls(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        """Wait for the outputs of functions, which others run, and submit them."""
        if claim.cancel_sent or steps.to_cancel(claim):
            await self._cancel_run(claim, protocol)
            await self._commit(claim, rounds.stopped(claim, new_runs=protocol.outputs_start_runs))
            return
        kept = await self._calls(claim)
        decision = rounds.undecided(claim, kept, nobody=await self._nobody_runs(claim))
        if decision is not None:
            await self._cancel_if_over(claim, decision, protocol)
            await self._commit(claim, decision)
            if decision.move.name == "wait":
                await self._nudge()
            return
        outputs = rounds.outputs_of(claim, kept)
        if protocol.outputs_start_runs:
            if (pause := await self._account.stopped_creating()) is not None:
                await self._commit(claim, steps.paused(claim, pause))
                return
            await self._create(claim, claim.thread_id or "", assistant, protocol, outputs)
            return
        grants: list[Grant] = []
        begun = time.monotonic()
        try:
            grants = await self._permits.get(claim.protocol)
            if not self._leases.fresh(claim):
                return
            status = await protocol.submit_tool_outputs(claim.thread_id or "", claim.run_id or "", outputs)
        except CallError as error:
            self._permits.got(claim.protocol, grants, error)
            await self._settle(claim, rounds.not_submitted(claim, error, _jitter()), error)
        else:
            self._permits.got(claim.protocol, grants, None)
            await self._account.answered(claim.protocol, begun=begun)
            pace = await self._pace(claim)
            await self._commit(claim, rounds.submitted(claim, status, assistant, _jitter(), pace))

    async def _functions_waiting(self) -> int:
        """How many function calls wait, where that is more than those who run them should have before them; else 0.
        Runs that ask for functions wait for minutes at most, and then they have cost for nothing."""
        now = time.monotonic()
        if now >= self._look_at_functions:
            self._look_at_functions = now + _LOOK_AT_FUNCTIONS_S
            nodes = await asyncio.to_thread(self.store.nodes)
            most = _CALLS_PER_PROCESS * max(1, sum(node.tools for node in nodes))
            waiting = await asyncio.to_thread(self.store.calls().waiting)
            self._waiting_functions = waiting if waiting > most else 0
        return self._waiting_functions

    async def _nobody_runs(self, claim: Claim) -> bool:
        """Whether no worker is there that runs functions; asked for jobs that have waited for a while."""
        if not claim.looks:
            return False
        return not any(node.tools for node in await asyncio.to_thread(self.store.nodes))

    async def _calls(self, claim: Claim) -> Sequence[KeptCall]:
        """The function calls of a job, where it has any."""
        return await asyncio.to_thread(self.store.calls().look, claim.id) if claim.rounds else ()

    async def _cancel_if_over(self, claim: Claim, decision: steps.Decision, protocol: Protocol) -> None:
        if rounds.ends_over_a_run(decision, claim):
            await self._cancel_run(claim, protocol)

    async def _cancel_run(self, claim: Claim, protocol: Protocol) -> None:
        """Best effort: a run that waits for outputs expires by itself; one that has ended needs nothing."""
        if protocol.outputs_start_runs or claim.run_id is None:
            return
        try:
            await protocol.cancel(claim.thread_id or "", claim.run_id)
        except CallError as error:
            log.info("%s: the run that asked for a function could not be cancelled: %s", claim.id, error)

    async def _nudge(self) -> None:
        """Tell whoever runs functions that there are some; their own timer would notice a little later."""
        if self._nudge_tools is not None:
            await asyncio.to_thread(self._nudge_tools)

    async def _with_calls(self, claim: Claim, move: Move) -> Move:
        """An end, with the function calls that led to it, and what the runs have brought that asked for them."""
        kept = await self._calls(claim)
        if claim.brought is not None:
            move = dataclasses.replace(move, answer=with_brought(move.answer or Answer(text=None), claim.brought))
        if not kept:
            return move
        shown = tuple(call.shown() for call in kept)
        return dataclasses.replace(move, answer=dataclasses.replace(move.answer or Answer(text=None), tool_calls=shown))

    # -- what the steps share --------------------------------------------------------------------------

    async def _settle(self, claim: Claim, decision: steps.Decision, error: CallError) -> None:
        if error.code != steps.OWN_LIMIT:
            self._account.tried(LANE_OF[claim.state])
        if isinstance(error, Limited) and error.limits is None and error.code != steps.OWN_LIMIT:
            # No connection: nobody's limit, and nothing the others need to know.
            self._account.limited(decision.move.delay)
        if isinstance(decision.pause, Blocked):
            await self._account.blocked(decision.pause, claim.protocol)
        await self._commit(claim, decision)

    async def _commit(self, claim: Claim, decision: steps.Decision) -> Outcome:
        move = decision.move
        if MOVES[move.name].target in TERMINAL and (assistant := self._assistants.get(claim.assistant_digest)):
            move = judged(claim, move, assistant)
        move = _waking(claim, move)
        if claim.rounds and MOVES[move.name].target in TERMINAL:
            move = await self._with_calls(claim, move)
        outcome = await self._commits.commit(move)
        if outcome in (Outcome.MOVED, Outcome.ALREADY):
            if self._monitor is not None:
                self._monitor.moved(claim, move)
            if move.wakes is not None and (self._starter is None or self._starter.done()):
                # Nobody may be serving that lane: its next job was not due for long.
                self._starter = asyncio.create_task(asyncio.to_thread(self._start_chain))
            if move.wakes is None and _may_have_been_followed(claim, move):
                await self._wake_next(claim)
            await self._budgets.ended(claim, move)
            if move.name == "act" and move.calls:
                await self._nudge()
        elif outcome is Outcome.NOT_YOURS:
            log.warning("%s: %s under fence %d came too late", claim.id, move.name, claim.fence)
        return outcome

    async def _wake_next(self, claim: Claim) -> None:
        """A list is worked on while it is stored: the next question may have come since the claim."""
        try:
            job = await asyncio.to_thread(self.store.job, claim.id)
            if job is not None and job.next is not None:
                await asyncio.to_thread(self.store.wake, [job_id(split_job_id(claim.id)[0], job.next)])
        except StoreError as error:
            log.info("%s: the next question finds out by itself: %s", claim.id, error.message)

    def _protocol(self, name: str) -> Protocol:
        assert self._protocols is not None, "claims are taken up by an engine that was opened"
        return self._protocols[name]

    def _any_protocol(self) -> Protocol:
        """One to delete with: they all can."""
        assert self._protocols is not None, "who cleans up was opened"
        return next(iter(self._protocols.values()))

    async def _assistant(self, digest: str) -> Assistant | None:
        if digest not in self._assistants:
            definition = await asyncio.to_thread(self.store.assistant, digest)
            if definition is None:
                return None
            self._assistants[digest] = Assistant.from_json(definition)
        return self._assistants[digest]

    async def _remote_assistant(self, assistant: Assistant, protocol: Protocol, given: Given) -> str | None:
        """The remote assistant object: made once per content hash, by whoever is first. With other ids of its files it
        is another."""
        key = f"{protocol.name}/{_remote_digest(assistant, given)}"
        known = self._remote.get(key)
        if known is not None and not (known.done() and known.exception() is not None):
            return await asyncio.shield(known)
        future = self._remote[key] = asyncio.ensure_future(self._make_remote(assistant, protocol, given))
        return await asyncio.shield(future)

    async def _make_remote(self, assistant: Assistant, protocol: Protocol, given: Given) -> str | None:
        account, digest = self._account.name, _remote_digest(assistant, given)
        known = await asyncio.to_thread(self.store.remote_assistant, account, digest)
        if known is not None:
            return known
        made = await protocol.ensure_assistant(assistant, given)
        if made is None or assistant.assistant_id is not None:
            return made
        return await asyncio.to_thread(self._register_assistant, assistant.digest, digest, made)

    def _register_assistant(self, definition: str, digest: str, made: str) -> str:
        """Put an assistant object on record; the one to use. One that somebody else was faster with is not needed."""
        thing = assistant_thing(definition)
        mine = RemoteObject(kind=Kind.ASSISTANT, id=made, account=self._account.name)
        self.store.remember(thing, [mine])
        used = self.store.save_remote_assistant(self._account.name, digest, made)
        if used != made:
            self.store.bury(thing, [mine])
        return used

    async def _forget_remote(self, assistant: Assistant, protocol: Protocol, remote: str, given: Given) -> None:
        digest = _remote_digest(assistant, given)
        self._remote.pop(f"{protocol.name}/{digest}", None)
        await asyncio.to_thread(self.store.drop_remote_assistant, self._account.name, digest, remote)

    def _ask(
        self,
        claim: Claim,
        assistant: Assistant,
        attempt: int = 1,
        outputs: tuple[ToolOutput, ...] = (),
        *,
        given: Given = NOTHING_GIVEN,
    ) -> Ask:
        question = claim.question
        assert question is not None, "the start lane claims jobs with their questions"
        # In a thread that was made anew there is nothing to be mended: the question is asked once more.
        mends = claim.wrong if claim.thread_id is not None else None
        return Ask(
            job_id=claim.id,
            text=question.text if mends is None else correction(mends),
            assistant=assistant,
            attempt=attempt,
            model=question.model,
            instructions=question.instructions,
            resets=claim.resets,
            metadata=dict(assistant.metadata),
            outputs=outputs,
            stream=question.stream,
            joined=claim.joined,
            previous=claim.acted_run if outputs else claim.previous,
            history=claim.history or 0,
            given=given,
        )


def _remote_digest(assistant: Assistant, given: Given) -> str:
    more = given.of_assistant
    return f"{assistant.digest}-{more}" if more else assistant.digest


def _may_fetch(assistant: Assistant) -> bool:
    return assistant.uses("code_interpreter") or assistant.uses("image_generation")


def _no_filing() -> Filing:
    raise AssertionError("an engine that works with files is told how to speak of them")


def _may_have_been_followed(claim: Claim, move: Move) -> bool:
    """Whether a question of a conversation has ended at its first claim, or its second, without one that waits for it.
    Whoever polls a run knows by then."""
    in_conversation = claim.question is not None and claim.question.thread is not None
    return in_conversation and MOVES[move.name].target in TERMINAL


def _waking(claim: Claim, move: Move) -> Move:
    """The move, and whose turn it is when it ends a question of a conversation."""
    if claim.next is None or MOVES[move.name].target not in TERMINAL:
        return move
    return dataclasses.replace(move, wakes=job_id(split_job_id(claim.id)[0], claim.next))


def _tell(gate: Gate, grant: Grant, error: CallError) -> None:
    """What a failed call says of the account's limits."""
    if isinstance(error, Limited) and error.limits is not None:
        gate.refused(grant, error.limits, error.retry_after)
    elif isinstance(error, Limited):
        gate.give_back(grant)
    elif isinstance(error, Ambiguous):
        gate.lost(grant)
    else:
        # Refused for another reason: the service has counted it all the same.
        gate.accepted(grant, NO_LIMITS)


def _jitter() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311  nothing is secret about a jitter
