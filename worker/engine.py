"""One worker process's engine: an event loop, a client, and every job in hand.

Built after the fork and kept for the life of the process. Chains lend it time to claim jobs; the calls it has open
go on by themselves, their leases renewed, so that a slow reply never holds up a chain.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from askq.errors import StoreError
from askq.ids import split_job_id
from askq.jobs.model import CANCELLED_IN_TIME, LANE_OF, Claim, Lane, State
from worker import steps
from worker.looks import Looks
from worker.monitor import Monitor

log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 0.5
T = TypeVar("T")


class Engine(Looks):
    """Advances claimed jobs, each by one step.

    `protocols` is called once, inside the loop, because the clients it makes belong to it: `open` does that.
    `start_chain` sees to it that somebody serves the start lane; it is called from another thread and may block.
    """

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

        Paid calls get `paid_s` seconds, and so do streams that may be all there is of a run: their replies are worth
        more than a quick end.
        """
        tasks = {task for tasks in self._open.values() for task in tasks} | self._fetching
        tasks |= self.library.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        paid = {task for task in self._intended.values() if task is not None}
        if not self._shows_runs:
            # Perhaps it shows none: then streams are replies, too.
            paid |= self._desk.precious()
        if paid:
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
        self._commits.close()
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
            if self._intended.get(claim.id) is asyncio.current_task():
                # Not what a later claim of the job has put down, when this one's lease was lost meanwhile.
                del self._intended[claim.id]
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
        if steps.in_vain(claim):
            await self._commit(claim, steps.give_up_creates(claim))
            return
        # Threads and files of a hundred thousand questions must not be made for a batch that may never go on.
        batch = split_job_id(claim.id)[0]
        pause = self._account.stopped_batch(batch) if claim.state is State.QUEUED else None
        if pause is None:
            pause = await self._account.stopped(claim.protocol)
        if pause is not None:
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
