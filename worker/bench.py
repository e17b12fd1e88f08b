"""What the steps of a job share: the parts of a process's engine, and what is done with the outcome of every call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from askq.errors import StoreError
from askq.files.folder import Folder
from askq.ids import job_id, split_job_id
from askq.jobs.calls import KeptCall
from askq.jobs.codec import with_brought
from askq.jobs.forgetting import keeps_files_of
from askq.jobs.model import LANE_OF, MOVES, TERMINAL, Answer, Claim, Lane, Move, Outcome, State
from askq.jobs.objects import OF_RECORD, Kind, RemoteObject, assistant_thing
from askq.jobs.store import Store
from worker import steps
from worker.account import Account
from worker.budgets import Budgets
from worker.cleaner import Cleaner
from worker.commits import Commits
from worker.conversations import files_before
from worker.downloads import Downloads, objects_made
from worker.downloads import Limits as Output
from worker.leases import Leases
from worker.library import Library
from worker.limits.durations import Durations
from worker.limits.permits import Permits
from worker.live import Desk
from worker.materials import Materials
from worker.monitor import Monitor
from worker.outputs import correction, judged
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ask,
    Blocked,
    CallError,
    Given,
    Limited,
    Live,
    Protocol,
    ToolOutput,
)
from worker.protocols.filing import Filing
from worker.schedule import Pace, crowd_s
from worker.shared import Shared
from worker.surplus import Surplus

log = logging.getLogger(__name__)

_UNSENT = 16
"""Calls at once of which it is on record that they leave, and which may not have left: as many questions may end in
doubt when a process is killed, where the service can neither list runs nor be asked again safely."""
_NOTED = 10_000
_OUTPUT = Output(files=20, file_bytes=100 << 20, total_bytes=500 << 20)


class Bench:
    """The parts of an engine, and how its steps ask and commit. Belongs to one event loop."""

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
        self._surplus = Surplus(store)
        self._permits = Permits(store, account, host)
        self._durations = Durations(store)
        self._waiting_functions, self._look_at_functions = 0, 0.0
        self._desk = Desk(store)
        self._shows_runs = False
        """Whether the service has shown a run to whoever asked for it."""
        self._cleaner = Cleaner(store, account, self._any_protocol)
        self._called = 0
        """Creates that have their permit."""
        self._assistants: dict[str, Assistant] = {}
        self._definitions: Shared[Assistant | None] = Shared()
        self._filing = filing or _no_filing
        files = folder or Folder(Path("askq-files"))
        self.library = Library(store, account, files, self._filing, lease_s=lease_s)
        self._materials = Materials(store, account, self.library)
        self._folder = files
        self._downloads = Downloads(files, output)
        self._noted: set[str] = set()
        """Batches of which it is on record that files of them are in this folder."""
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
        move = _without_final(claim, _waking(claim, move))
        if (claim.rounds or claim.brought is not None) and MOVES[move.name].target in TERMINAL:
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

    async def _nudge(self) -> None:
        """Tell whoever runs functions that there are some; their own timer would notice a little later."""
        if self._nudge_tools is not None:
            await asyncio.to_thread(self._nudge_tools)

    async def _with_calls(self, claim: Claim, move: Move) -> Move:
        """An end, with the function calls that led to it, and what the runs have brought that asked for them."""
        while True:
            try:
                kept = await self._calls(claim)
                break
            except StoreError as error:
                # As its commit would wait: what is in hand may be paid for.
                log.warning("%s: its end waits for the store: %s", claim.id, error.message)
                await asyncio.sleep(0.5)
        if claim.brought is not None:
            move = dataclasses.replace(move, answer=with_brought(move.answer or Answer(text=None), claim.brought))
        if not kept:
            return move
        shown = tuple(call.shown() for call in kept)
        return dataclasses.replace(move, answer=dataclasses.replace(move.answer or Answer(text=None), tool_calls=shown))

    async def _calls(self, claim: Claim) -> Sequence[KeptCall]:
        """The function calls of a job, where it has any."""
        return await asyncio.to_thread(self.store.calls().look, claim.id) if claim.rounds else ()

    async def _discard(self, claim: Claim, **made: str) -> None:
        """Have deleted what was made (field of the record = id) for a job that was forgotten meanwhile: this process
        was stopped for long, and nobody else knows of it. A record that is lost otherwise may come back."""
        batch, _ = split_job_id(claim.id)
        for what in (batch, claim.id):
            if await asyncio.to_thread(self.store.receipt, what) is not None:
                break
        else:
            return
        kinds, account = OF_RECORD[claim.protocol], self._account.name
        # Where there are no conversations the id of one is empty.
        named = {name: id_ for name, id_ in made.items() if id_ and name in kinds}
        objects = [RemoteObject(kind=kinds[name], id=id_, account=account) for name, id_ in named.items()]
        await asyncio.to_thread(self.store.remember, claim.id, objects)
        await asyncio.to_thread(self.store.bury, claim.id, objects)

    def _protocol(self, name: str) -> Protocol:
        assert self._protocols is not None, "claims are taken up by an engine that was opened"
        return self._protocols[name]

    def _any_protocol(self) -> Protocol:
        """One to delete with: they all can."""
        assert self._protocols is not None, "who cleans up was opened"
        return next(iter(self._protocols.values()))

    async def _assistant(self, digest: str) -> Assistant | None:
        if digest not in self._assistants:
            # The first claims of a list all want the same.
            return await self._definitions.get(digest, partial(self._read_assistant, digest))
        return self._assistants[digest]

    async def _read_assistant(self, digest: str) -> Assistant | None:
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
            corrects=mends is not None,
            outputs=outputs,
            stream=question.stream,
            joined=claim.joined,
            previous=claim.acted_run if outputs else claim.previous,
            history=claim.history or 0,
            given=given,
        )

    async def _pace(self, claim: Claim) -> Pace:
        """What is known of when this job's run may end, and of all others that are to be polled."""
        runs = self._durations.of(claim.assistant_digest)
        try:
            gets = await self._permits.gets_per_s(claim.protocol)
        except StoreError:
            # Nothing may come between the reply to a paid call and the commit of its id: that waits until it is stored.
            gets = None
        return Pace(runs, crowd_s(self._durations.runs_waiting, gets))

    def _watch(
        self, claim: Claim, thread: str, run: str, live: Live | None, protocol: Protocol, *, attempt: int
    ) -> None:
        """Tell a run live from a stream that is open, or look for one; the chains go on meanwhile."""

        async def resume(before: Live | None) -> Live | None:
            if not protocol.resumes:
                return None
            async with self._permits.getting(claim.protocol):
                return await protocol.resume_live(thread, run, before)

        if live is not None:
            self._desk.take(claim.id, run, live, resume, attempt=attempt)
        elif protocol.resumes and self._desk.wanted(run):
            self._desk.begin(claim.id, run, resume, attempt=attempt)

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
            others = (
                await files_before(self.store, claim) if any(call.get("container_id") for call in answer.code) else ()
            )
            await asyncio.to_thread(self._note_folder, split_job_id(claim.id)[0])
            return await self._downloads.fetch(claim, answer, self._filing(), others=others)
        finally:
            self._fetching.discard(task)

    def _note_folder(self, batch: str) -> None:
        """Whoever forgets the batch is to know in which folder its files are."""
        if batch in self._noted:
            return
        # Where the folder cannot be written nothing is kept either: the download says so.
        with contextlib.suppress(OSError):
            keeps_files_of(self.store, self._folder, batch)
            if len(self._noted) >= _NOTED:
                self._noted.clear()
            self._noted.add(batch)

    async def _of_refusal(self, ask: Ask, error: CallError) -> CallError:
        """The error, or what follows where it was for a file that is gone."""
        try:
            return await self._materials.of_refusal(ask, error)
        except CallError:
            return error


def _remote_digest(assistant: Assistant, given: Given) -> str:
    more = given.of_assistant
    return f"{assistant.digest}-{more}" if more else assistant.digest


def _no_filing() -> Filing:
    raise AssertionError("an engine that works with files is told how to speak of them")


def _may_have_been_followed(claim: Claim, move: Move) -> bool:
    """Whether a question of a conversation has ended at its first claim, or its second, without one that waits for it.
    Whoever polls a run knows by then."""
    in_conversation = claim.question is not None and claim.question.thread is not None
    return in_conversation and MOVES[move.name].target in TERMINAL


def _without_final(claim: Claim, move: Move) -> Move:
    """The move; where it leaves the run behind, without what its stream has said of its end. That may have come since
    the claim."""
    if not claim.live or MOVES[move.name].target not in TERMINAL | {State.ACTION, State.QUEUED}:
        return move
    return dataclasses.replace(move, fields={**move.fields, "final": None})


def _waking(claim: Claim, move: Move) -> Move:
    """The move, and whose turn it is when it ends a question of a conversation."""
    if claim.next is None or MOVES[move.name].target not in TERMINAL:
        return move
    return dataclasses.replace(move, wakes=job_id(split_job_id(claim.id)[0], claim.next))


def jitter() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311  nothing is secret about a jitter
