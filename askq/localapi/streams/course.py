"""Following one leg of a work in time."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from askq.localapi.api import Api
from askq.localapi.engines.base import Outcome
from askq.localapi.files.products import stripped
from askq.localapi.streams.parts import Event, Part
from askq.localapi.work import Work

_LOOK_S = 0.5
"""How often a stream looks whether its client is still there."""
_LEAST_S = 0.002


class Left(Exception):
    """Nobody listens any more, or the server is about to stop."""


class Gone(Exception):
    """The work was deleted."""


class Teller(Protocol):
    """How a protocol words the events."""

    def opening(self) -> list[Event]:
        """Before it is in progress."""

    def in_progress(self) -> list[Event]:
        """When it has left the queue."""

    def cancelling(self) -> list[Event]:
        """When a cancel was asked for that takes time."""

    def parts(self, outcome: Outcome, at: float) -> list[Part]:
        """The outputs of an outcome, or of as much of it as there is."""

    def ending(self, now: float) -> list[Event]:
        """When it is over."""

    def trouble(self, code: str, message: str) -> list[Event]:
        """When it cannot be told any further."""


class Course:
    """One leg, from now to its end."""

    def __init__(self, api: Api, work: Work, teller: Teller, listening: Callable[[], bool]) -> None:
        self._api = api
        self._work = work
        self._teller = teller
        self._listening = listening
        self._plan = work.plan
        self._started = work.started
        self._bell = api.works.listen(work)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Every event when its time has come. Raises Left."""
        try:
            for event in self._teller.opening():
                yield event
            if await self._begun():
                for event in self._teller.in_progress():
                    yield event
                async for event in self._outputs():
                    yield event
            told = False
            while not self._over():
                if self._work.cancel_at is not None and not told:
                    told = True
                    for event in self._teller.cancelling():
                        yield event
                await self._pause(_LOOK_S)
            for event in self._teller.ending(self._api.now()):
                yield event
        except Gone:
            for event in self._teller.trouble("not_found", f"{self._work.id} was deleted."):
                yield event
        finally:
            self._api.works.unlisten(self._work, self._bell)

    def _over(self) -> bool:
        self._api.works.look(self._work)
        if not self._api.works.exists(self._work):
            raise Gone
        return self._work.ended is not None or self._work.waiting or self._work.started != self._started

    @property
    def _as_planned(self) -> bool:
        """Whether the leg, which is over, came to what was planned or worked out, and not to a cancel or expiry."""
        work = self._work
        if work.ended is None or work.started != self._started:
            return True
        if self._plan is not None:
            return work.outcome is not None and stripped(work.outcome) == stripped(self._plan.outcome)
        return work.outcome is not None and work.outcome.status not in ("cancelled", "expired")

    async def _begun(self) -> bool:
        if self._plan is not None:
            return await self._until(self._work.begun_at or self._started)
        while self._work.begun is None and not self._over():
            await self._pause(_LOOK_S)
        return self._work.begun is not None

    async def _until(self, at: float) -> bool:
        """Wait for a moment of the plan; False if the leg ended before, and otherwise than planned."""
        while True:
            over = self._over()
            now = self._api.now()
            passed = (math.inf if self._as_planned else self._work.ended or now) if over else now
            if at <= passed:
                return True
            if over:
                return False
            if self._work.cancel_at is not None and self._work.cancel_at <= at:
                return False
            await self._pause(at - now)

    async def _pause(self, seconds: float) -> None:
        if self._api.closing.is_set() or not self._listening():
            raise Left
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), min(max(seconds, _LEAST_S), _LOOK_S))
        self._bell.clear()

    async def _outputs(self) -> AsyncIterator[Event]:
        if self._plan is None:
            async for event in self._live():
                yield event
            return
        plan = self._plan
        if not plan.by_poll and plan.seconds is None:
            return
        begin = self._work.begun_at or self._started
        end = self._started + (plan.seconds or 0.0)
        if plan.telling is not None:
            begin = max(begin, end - plan.telling)
        events = [event for part in self._teller.parts(plan.outcome, end) for event in part.events]
        for number, event in enumerate(events, 1):
            if not await self._until(begin + (end - begin) * number / (len(events) + 1)):
                return
            yield event

    async def _live(self) -> AsyncIterator[Event]:
        """What the engine says, as it says it; at the end what it has not said before."""
        live = self._api.works.live(self._work)
        place, told = -1, 0
        part: Part | None = None
        while True:
            over = self._over()
            outputs = [] if live is None else live.outputs
            for index in range(max(place, 0), len(outputs)):
                if part is None or index > place:
                    so_far = self._teller.parts(
                        Outcome(outputs=tuple(output.output() for output in outputs[: index + 1])), self._api.now()
                    )
                    for event in so_far[place].closed if part is not None else []:
                        yield event
                    place, told, part = index, 0, so_far[index]
                    for event in part.opened:
                        yield event
                new = outputs[index].pieces[told:]
                told += len(new)
                for piece in new:
                    yield part.say(piece)
            if over:
                break
            await self._pause(_LOOK_S)
        if not self._as_planned or self._work.outcome is None:
            return
        parts = self._teller.parts(self._work.outcome, self._work.ended or self._api.now())
        for number, final in enumerate(parts):
            if number >= place:
                for event in final.closed if number == place else final.events:
                    yield event
