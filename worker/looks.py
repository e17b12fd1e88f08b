"""The steps of a job whose run exists: polls, functions that it asks for, and its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time

from askq.assistants.model import Assistant
from askq.jobs import live
from askq.jobs.model import LANE_OF, Answer, Claim
from worker import rounds, steps
from worker.bench import jitter
from worker.creates import Creates
from worker.downloads import NotNow
from worker.final import final_of
from worker.priced import priced_answer, priced_status
from worker.protocols.base import (
    Ambiguous,
    Blocked,
    CallError,
    Gone,
    Limited,
    Protocol,
    Refused,
    RunState,
    Status,
)

log = logging.getLogger(__name__)

_FETCHING = 20
"""Answers whose files one process fetches at once."""
_TRIES_AT_AN_END = 4
"""Attempts to fetch what a run has made that has not completed."""


class Looks(Creates):
    """Steps of jobs that are `running`, in `action` or `collecting`."""

    async def _poll(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        thread, run = claim.thread_id or "", claim.run_id or ""
        begun = time.monotonic()
        untold: Ambiguous | None = None
        try:
            async with self._permits.getting(claim.protocol):
                untold = await self._ask_to_cancel(thread, run, protocol) if steps.to_cancel(claim) else None
                status = priced_status(await protocol.poll(thread, run), assistant)
                if untold is not None and status.state in (RunState.PENDING, RunState.ACTION):
                    raise untold
        except CallError as error:
            if (said := await self._said_by_stream(claim, error, shown=error is untold)) is None:
                return
            status = priced_status(said, assistant)
        else:
            self._shows_runs = True
            await self._account.answered(claim.protocol, begun=begun)
        if (seen := await self._with_files_of_round(claim, status)) is None:
            return
        decision = await self._polled(claim, seen, assistant, protocol)
        if (whole := await self._with_what_it_made(claim, decision, assistant, protocol)) is None:
            return
        self._learn(claim, seen)
        await self._cancel_if_over(claim, whole, protocol)
        await self._commit(claim, whole)
        if claim.live and claim.cancel is None and status.state is RunState.PENDING:
            # Whoever read its stream may be gone.
            self._watch(claim, thread, run, None, protocol, attempt=claim.attempts)

    async def _said_by_stream(self, claim: Claim, error: CallError, *, shown: bool) -> Status | None:
        """How a run has ended that the service does not show, if its stream has said so. Else None: the job waits for
        the stream as long as somebody reads it, or for the next poll, or ends. `shown`: it is not the poll that has
        failed."""
        decision = steps.not_polled(claim, error, jitter())
        if claim.live and not shown and steps.not_shown(error):
            if (said := final_of(claim)) is not None:
                self._account.tried(LANE_OF[claim.state])
                return said
            # Whoever made the run tells of it in a moment.
            young = claim.started_at is not None and claim.now - claim.started_at < live.TELLS_S
            if young or await asyncio.to_thread(self.store.told, claim.id):
                decision = steps.told_elsewhere(claim, error, jitter())
        await self._settle(claim, decision, error)
        return None

    @staticmethod
    async def _ask_to_cancel(thread: str, run: str, protocol: Protocol) -> Ambiguous | None:
        """Tell the service to cancel; why it may not have heard, so that it is told again unless the run has ended: a
        server that cannot cancel what has ended must not keep its answer."""
        try:
            await protocol.cancel(thread, run)
        except Ambiguous as error:
            return error
        return None

    async def _with_files_of_round(self, claim: Claim, status: Status) -> Status | None:
        """The status; of a run that has ended by asking for functions, with what it has made. None when that has to
        wait. The container may expire before the functions have come to their end, and no later run lists the file
        that it has written over."""
        answer = status.answer
        if status.state is not RunState.ACTION or answer is None or not steps.makes_files(answer):
            return status
        if claim.cancel_sent or steps.to_cancel(claim):
            return status
        if len(self._fetching) >= _FETCHING:
            await self._commit(claim, steps.waits_to_fetch(claim))
            return None
        fetched = await self._with_files(claim, answer)
        return None if fetched is None else dataclasses.replace(status, answer=fetched)

    async def _polled(self, claim: Claim, status: Status, assistant: Assistant, protocol: Protocol) -> steps.Decision:
        if status.state is not RunState.ACTION or claim.cancel_sent or steps.to_cancel(claim):
            return steps.polled(claim, status, assistant, jitter(), await self._pace(claim))
        return rounds.asked(
            claim,
            status.tool_calls,
            await self._calls(claim),
            assistant,
            {"polls": claim.polls + 1, "remote": status.raw, **steps.CLEAN},
            run_id=claim.run_id,
            usage=status.usage,
            answer=status.answer,
            new_runs=protocol.outputs_start_runs,
        )

    async def _with_what_it_made(
        self, claim: Claim, decision: steps.Decision, assistant: Assistant, protocol: Protocol
    ) -> steps.Decision | None:
        """The end of a job whose run has not completed, with what it has said and made until then; None when that has
        to wait. Nothing will be there later, and what is not on record is never deleted. After a few tries the job ends
        without."""
        move = decision.move
        if not steps.is_end(decision) or not assistant.uses("code_interpreter") or claim.run_id is None:
            return decision
        if len(self._fetching) >= _FETCHING:
            await self._commit(claim, steps.waits_to_fetch(claim))
            return None
        answer, used = move.answer, None if move.answer is None else move.answer.usage
        try:
            if not protocol.outputs_start_runs:
                # Their polls do not show what a run has brought.
                async with self._permits.getting(claim.protocol, 3):
                    answer = await protocol.answer(claim.thread_id or "", claim.run_id, assistant)
            if answer is None or not steps.unfetched(answer):
                fetched = answer
            else:
                async with self._permits.getting(claim.protocol, 1 + 2 * len(answer.files)):
                    fetched = await self._fetched(claim, answer)
        except Limited as error:
            await self._settle(claim, steps.not_polled(claim, error, jitter()), error)
            return None
        except (NotNow, CallError) as error:
            if claim.errors + 1 < _TRIES_AT_AN_END and not isinstance(error, (Gone, Refused, Blocked)):
                await self._commit(claim, steps.not_fetched(claim, str(error), jitter()))
                return None
            log.info("%s: what its run has made could not be fetched: %s", claim.id, error)
            return decision
        if fetched is None:
            return decision
        return dataclasses.replace(
            decision, move=dataclasses.replace(move, answer=dataclasses.replace(fetched, usage=used))
        )

    def _learn(self, claim: Claim, status: Status) -> None:
        """What a poll teaches of the next runs."""
        self._durations.note(claim.assistant_digest, steps.took(claim, status, random.random()))  # noqa: S311  no secret
        if status.state is not RunState.PENDING and status.usage is not None and claim.estimated:
            assistant = self._assistants[claim.assistant_digest]
            gate = self._permits.creates(claim.protocol, claim.asked_of or assistant.model)
            gate.used(claim.estimated, status.usage.total_tokens)

    async def _collect(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        if len(self._fetching) >= _FETCHING and _may_fetch(assistant):
            await self._commit(claim, steps.waits_to_fetch(claim))
            return
        try:
            async with self._permits.getting(claim.protocol, 2 if _may_fetch(assistant) else 1):
                answer = await protocol.answer(claim.thread_id or "", claim.run_id or "", assistant)
        except CallError as error:
            said = final_of(claim) if steps.not_shown(error) else None
            if said is None or said.answer is None:
                await self._settle(claim, steps.not_polled(claim, error, jitter()), error)
                return
            self._account.tried(LANE_OF[claim.state])
            answer = said.answer
        answer = priced_answer(answer, assistant)
        if (fetched := await self._with_files(claim, answer)) is not None:
            await self._commit(claim, steps.answered(claim, fetched, {}, usage=claim.usage))

    async def _with_files(self, claim: Claim, answer: Answer) -> Answer | None:
        """The answer with its files here; None when they could not be fetched now, and the job comes back for them."""
        if not steps.makes_files(answer):
            return answer
        try:
            # The container's list, and each file's description and content.
            async with self._permits.getting(claim.protocol, 1 + 2 * len(answer.files)):
                return await self._fetched(claim, answer)
        except NotNow as why:
            await self._commit(claim, steps.not_fetched(claim, str(why), jitter()))
        except CallError as error:
            await self._settle(claim, steps.not_polled(claim, error, jitter()), error)
        return None

    async def _answer_calls(self, claim: Claim, assistant: Assistant, protocol: Protocol) -> None:
        """Wait for the outputs of functions, which others run, and submit them."""
        if claim.cancel_sent or steps.to_cancel(claim):
            await self._cancel_run(claim, protocol)
            await self._commit(claim, rounds.stopped(claim, new_runs=protocol.outputs_start_runs))
            return
        kept = await self._calls(claim)
        decision = rounds.undecided(claim, kept, nobody=await self._nobody_runs(claim))
        if decision is not None:
            if (whole := await self._with_what_it_made(claim, decision, assistant, protocol)) is None:
                return
            await self._cancel_if_over(claim, whole, protocol)
            await self._commit(claim, whole)
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
        thread, run = claim.thread_id or "", claim.run_id or ""
        begun = time.monotonic()
        try:
            async with self._permits.getting(claim.protocol) as gets:
                if not self._leases.fresh(claim):
                    gets.made = False
                    return
                # Where the first time brought no usable reply, nobody asks again whether there are streams.
                if claim.live and not claim.errors and self._desk.room:
                    status, live = await protocol.submit_tool_outputs_live(thread, run, outputs)
                else:
                    status, live = await protocol.submit_tool_outputs(thread, run, outputs), None
        except CallError as error:
            await self._settle(claim, rounds.not_submitted(claim, error, jitter()), error)
        else:
            await self._account.answered(claim.protocol, begun=begun)
            pace = await self._pace(claim)
            await self._commit(claim, rounds.submitted(claim, status, assistant, jitter(), pace))
            if live is not None:
                self._watch(claim, thread, run, live, protocol, attempt=claim.attempts)

    async def _nobody_runs(self, claim: Claim) -> bool:
        """Whether no worker is there that runs functions; asked for jobs that have waited for a while."""
        if not claim.looks:
            return False
        return not any(node.tools for node in await asyncio.to_thread(self.store.nodes))

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


def _may_fetch(assistant: Assistant) -> bool:
    return assistant.uses("code_interpreter") or assistant.uses("image_generation")
