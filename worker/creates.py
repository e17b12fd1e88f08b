"""The steps that lead to a run: thread or place in a conversation, intent, the paid call, and the search after it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

from askq.assistants.model import Assistant
from askq.ids import split_job_id
from askq.jobs.model import Claim, Move, Outcome
from askq.jobs.objects import keep_letters
from worker import rounds, steps
from worker.bench import Bench, jitter
from worker.budgets import Verdict
from worker.conversations import Joins, Stopped, Waits, turn
from worker.downloads import NotNow
from worker.limits.gate import Gate, Grant
from worker.limits.tokens import estimated
from worker.priced import priced_status
from worker.protocols.base import (
    Ambiguous,
    Ask,
    Before,
    CallError,
    Found,
    Limited,
    Live,
    Protocol,
    RunState,
    Search,
    Status,
    ToolOutput,
)
from worker.protocols.hints import NO_LIMITS

_SENT_S = 0.05
"""After so long a request has left, or is so far that waiting for it would cost more than it saves."""
_CALLS_PER_PROCESS = 50
"""Function calls that may wait for each process that runs some, before runs that could ask for more are put off."""
_LOOK_AT_FUNCTIONS_S = 0.5


class Creates(Bench):
    """Steps of jobs that are `queued` or `starting`."""

    async def _begin_or_join(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        """Prepare the thread, or find out whether the question's turn in its conversation has come."""
        match await turn(self.store, claim, assistant):
            case None:
                await self._prepare(claim, assistant, protocol)
            case Waits() as waiting:
                await self._commit(claim, steps.waits(claim, waiting, jitter()))
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
            await self._settle(claim, steps.not_joined(claim, error, assistant, jitter()), error)
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
            await self._settle(claim, steps.not_joined(claim, error, assistant, jitter()), error)
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
            await self._settle(claim, steps.not_prepared(claim, error, jitter()), error)
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
            if await self._commit(claim, made) is Outcome.MISSING and thread:
                await self._discard(claim, thread=thread)

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
            await self._settle(claim, steps.not_prepared(claim, error, jitter()), error)
            return
        if waits is not None:
            await self._commit(claim, waits)
            return
        gate = self._permits.create_gate(ask)
        if (wait := self._permits.hopeless(gate)) is not None:
            await self._commit(claim, steps.not_yet(claim, wait))
            return
        if assistant.functions and not outputs and (waiting := await self._functions_waiting()):
            await self._commit(claim, rounds.too_many_wait(claim, waiting, jitter()))
            return
        pause = self._account.stopped_batch(split_job_id(claim.id)[0]) or await self._surplus.pause(claim)
        if pause is not None:
            await self._commit(claim, steps.paused(claim, pause))
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
            await self._settle(claim, steps.not_created(claim, error, jitter()), error)
            return
        decision = await self._created(claim, status, assistant, protocol, tokens, attempts=ask.attempt)
        outcome = await self._commit(claim, decision)
        if outcome is Outcome.NOT_YOURS:
            # Too late to commit, never too late to tell: whoever looks for this run now finds its id.
            await asyncio.to_thread(self.store.witness, claim.id, ask.attempt, status.run_id)
        elif outcome is Outcome.MISSING:
            await self._discard(claim, thread=thread, run=status.run_id)
        if live is not None:
            self._watch(claim, thread, status.run_id, live, protocol, attempt=ask.attempt)
        await self._account.worked(claim.protocol, begun=begun)

    async def _created(
        self, claim: Claim, status: Status, assistant: Assistant, protocol: Protocol, tokens: float, *, attempts: int
    ) -> steps.Decision:
        pace = await self._pace(claim)
        decision = steps.created(claim, status, assistant, jitter(), pace, estimated=tokens)
        if status.state is not RunState.ACTION or decision.move.name != "start":
            return decision
        if status.answer is not None and steps.makes_files(status.answer):
            return decision  # the id of the run first: the next poll has the files fetched
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
        # Where runs can be listed a kill costs nothing; elsewhere each call that may have left ends in doubt.
        doubtful = not protocol.lists_runs
        with gate.on_the_way():
            if not await self._go_on(claim, steps.intent(claim, self.lease_s, told=doubtful)):
                return None
        self._permits.ready(time.monotonic() - wanted)
        # Last of all: a permit that is used late comes to the service in a heap with others.
        grant = await gate.take(estimated(ask))
        async with self._unsent if doubtful else contextlib.nullcontext():
            if not self._leases.fresh(claim):
                gate.give_back(grant)
                await self._commit(claim, steps.not_sent(claim))
                return None
            if doubtful and not await self._go_on(claim, steps.send(claim, self.lease_s)):
                gate.give_back(grant)
                return None
            call = asyncio.ensure_future(self._start(ask, gate, grant, thread, remote, protocol))
            await asyncio.wait({call}, timeout=_SENT_S)
            return call

    async def _go_on(self, claim: Claim, move: Move) -> bool:
        """Put on record what comes before the call, the intent or that it leaves; whether it may be made."""
        if not self._leases.fresh(claim):
            return False
        # "Already" is our own commit, made before its reply was lost: nobody else has this fence.
        if await self._commits.commit(move) not in (Outcome.MOVED, Outcome.ALREADY):
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
            if ask.stream and self._desk.room:
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
        if claim.never_sent:
            await self._commit(claim, steps.never_sent(claim, jitter()))
            return
        outputs = rounds.outputs_of(claim, await self._calls(claim))
        thread, ask = claim.thread_id or "", self._ask(claim, assistant, claim.attempts, outputs)
        try:
            if claim.open_rounds and not outputs:
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
            await self._commit(claim, steps.not_fetched(claim, str(error), jitter()))
        except CallError as error:
            await self._settle(claim, steps.not_searched(claim, error, assistant, jitter()), error)
        else:
            if found.search is Search.ASKED:
                await self._commit(claim, self._found_asking(claim, found, assistant, protocol))
                return
            worst = self._budgets.at_worst(ask)
            await self._commit(claim, steps.searched(claim, found, assistant, self.lease_s, jitter(), at_worst=worst))

    def _found_asking(self, claim: Claim, found: Found, assistant: Assistant, protocol: Protocol) -> steps.Decision:
        """The conversation shows the calls of a run whose id nobody has seen."""
        fields: steps.Fields = {
            **steps.CLEAN,
            **steps.run_made(claim),
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
            self._watch(claim, thread, status.run_id, live, protocol, attempt=attempts)

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
