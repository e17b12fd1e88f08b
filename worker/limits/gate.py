"""One scope's permits in one process: who wants to call waits here, in line, and asks the store for all together.

A permit is taken when everything else is ready, so that it is used at once: what is granted early and used late comes
to the service in heaps, and is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from askq.errors import StoreError
from askq.jobs.limits import FIRST_WINDOW, NOTHING_TOLD, Bound, Heard, Permit, Scope, Told
from askq.jobs.store import Store
from worker.protocols.base import Limited
from worker.protocols.hints import NO_LIMITS, Limits
from worker.steps import OWN_LIMIT

log = logging.getLogger(__name__)

PATIENCE_S = 3.0
"""Who would have to wait longer gives the job back instead, due when its turn comes: nothing is held for nothing."""
_MOST_ASKED = 200
_GATHER_S = 0.01
"""How long reports wait for company: below a round trip to the service."""
_REPORT_S = 0.03
"""The same where nobody waits for what they bring."""
_USAGE_S = 0.5
"""The same for what runs have used: it matters for the next ones only."""
_SEARCH = 64
"""Jobs made ready for an account nothing is known of: enough to go on at once when it grants more."""
_AGAIN_S = 0.2
"""Until the store is asked again after it did not answer."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A permit in hand."""

    scope: Scope
    tokens: float
    at: float
    """When it was given, by the clock of the store."""
    serial: float
    tserial: float


@dataclass(slots=True)
class _Reports:
    """What is to be told to the store."""

    closed: int = 0
    accepted: int = 0
    refused: int = 0
    granted_at: float = 0.0
    retry_after_s: float | None = None
    contradicted: bool = False
    requests: Told = NOTHING_TOLD
    token: Told = NOTHING_TOLD
    serial: float = -1.0
    tserial: float = 0.0
    unused: int = 0
    unused_tokens: float = 0.0
    estimated: float = 0.0
    used: float = 0.0

    def any(self) -> bool:
        return bool(self.closed or self.refused or self.unused or self.estimated)

    def urgent(self) -> bool:
        return bool(self.closed or self.refused or self.unused)

    def heard(self, window: int) -> Heard:
        return Heard(
            window=window,
            closed=self.closed,
            accepted=self.accepted,
            refused=self.refused,
            granted_at=self.granted_at,
            retry_after_s=self.retry_after_s,
            contradicted=self.contradicted,
            requests=self.requests,
            token=self.token,
            serial=max(0.0, self.serial),
            tserial=self.tserial,
            unused=self.unused,
            unused_tokens=self.unused_tokens,
            estimated=self.estimated,
            used=self.used,
        )

    def tell(self, limits: Limits, serial: float, tserial: float) -> None:
        """Of several replies the one of the latest call knows best."""
        if serial >= self.serial and limits != NO_LIMITS:
            self.requests, self.token = limits.requests, limits.tokens
            self.serial, self.tserial = serial, tserial


@dataclass(slots=True)
class _Waiter:
    tokens: float
    future: asyncio.Future[Grant]
    since: float = field(default_factory=time.monotonic)


class Gate:
    """Belongs to one event loop. Works while somebody waits or something is to be told, and costs nothing else."""

    def __init__(self, store: Store, scope: Scope, *, bound: Callable[[], Bound], window: int = FIRST_WINDOW) -> None:
        self.scope = scope
        self.last: Permit | None = None
        """What the store said last."""
        self.coming = 0
        """Jobs on their way to this gate: their intent is being written."""
        self._last_at = 0.0
        self._looking = False
        self._store = store
        self._bound = bound
        self._window = window
        self._waiting: deque[_Waiter] = deque()
        self._reports = _Reports()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def line(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextlib.contextmanager
    def on_the_way(self) -> Iterator[None]:
        """Count a job that will want a permit soon."""
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    def age(self) -> float:
        """Seconds since the store was last heard of this scope."""
        return time.monotonic() - self._last_at

    async def take(self, tokens: float) -> Grant:
        """Wait for a permit. Raises Limited when that would take too long, with the time it takes."""
        waiter = _Waiter(tokens * self.ratio, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._work_on()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.give_back(waiter.future.result())
            raise

    @property
    def ratio(self) -> float:
        """By how much tokens are underestimated."""
        return 1.0 if self.last is None else self.last.ratio

    def give_back(self, grant: Grant) -> None:
        """A permit was not needed."""
        self._reports.unused += 1
        self._reports.unused_tokens += grant.tokens
        self._work_on()

    def accepted(self, grant: Grant, limits: Limits) -> None:
        """The service took the call."""
        self._reports.closed += 1
        self._reports.accepted += 1
        self._reports.tell(limits, grant.serial, grant.tserial)
        self._work_on()

    def refused(self, grant: Grant, limits: Limits, retry_after_s: float | None) -> None:
        """The service refused the call for its limits."""
        told = self._reports
        told.closed += 1
        told.refused += 1
        told.granted_at = max(told.granted_at, grant.at)
        if retry_after_s is not None:
            told.retry_after_s = max(told.retry_after_s or 0.0, retry_after_s)
        told.contradicted |= _contradicts(limits, grant.tokens)
        told.tell(limits, grant.serial, grant.tserial)
        self._work_on()

    def passed(self, many: int) -> None:
        """So many calls for which no permit was taken were not refused."""
        self._reports.closed += many

    def lost(self, grant: Grant) -> None:
        """Nobody knows what came of the call; it is over."""
        self._reports.closed += 1
        self._work_on()

    def used(self, estimated: float, used: float) -> None:
        """What a run has used, beside what was put aside for it."""
        self._reports.estimated += estimated
        self._reports.used += used
        self._work_on(urgent=False)

    def wait_s(self) -> float:
        """How long a permit would take now, as far as is known: behind those in line, and those on their way."""
        last = self.last
        if last is None:
            return 0.0
        left = last.wait_s - self.age()
        if last.held and left > 0:
            return left
        if last.rate is None:
            return 0.0
        there = last.ready + last.rate * self.age()
        return max(0.0, (self.line + self.coming + 1 - there) / last.rate)

    def forecast(self, seconds: float) -> float:
        """How many permits there will be within so many seconds, for all processes together."""
        last = self.last
        if last is None or (last.rate is None and not last.held):
            return float(_MOST_ASKED if last is None else max(_SEARCH, 2 * last.ready))
        held_s = max(0.0, last.wait_s - self.age()) if last.held else 0.0
        rate = last.rate or 1.0
        there = last.ready + rate * self.age() if not last.held else 0.0
        return max(0.0, there) + rate * max(0.0, seconds - held_s)

    async def look(self, *, older_than_s: float) -> Permit:
        """What there is, asked of the store when what is known is older than that."""
        if self.last is None or (self.age() > older_than_s and not self._looking):
            self._looking = True
            try:
                self._note(await asyncio.to_thread(self._store.look_limits, self.scope))
            finally:
                self._looking = False
        assert self.last is not None
        return self.last

    def _note(self, permit: Permit) -> None:
        self.last, self._last_at = permit, time.monotonic()

    # -- the line --------------------------------------------------------------------------------------

    def _work_on(self, *, urgent: bool = True) -> None:
        if urgent:
            self._wake.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # a defect: who waits must hear of it
            for waiter in self._waiting:
                if not waiter.future.done():
                    waiter.future.set_exception(error)
            self._waiting.clear()
            raise

    async def _serve(self) -> None:
        while self._waiting or self._reports.any():
            if not self._waiting:
                await self._company(_REPORT_S if self._reports.urgent() else _USAGE_S)
            self._wake.clear()
            try:
                wait = await self._round()
            except StoreError as error:
                log.warning("%s: no permits can be had: %s", self.scope, error.message)
                self._refuse(_AGAIN_S, "the store does not answer", waited=True)
                wait = _AGAIN_S
            if not self._waiting:
                continue
            if wait > _GATHER_S:
                # A reply may shorten the wait, and so may who comes now and needs less.
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_GATHER_S)
            else:
                await asyncio.sleep(wait)

    async def _company(self, seconds: float) -> None:
        """Wait for more to tell; not while somebody wants a permit."""
        until = time.monotonic() + seconds
        while not self._waiting and (left := until - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return
            if self._reports.urgent():
                until = min(until, time.monotonic() + _REPORT_S)

    async def _round(self) -> float:
        """Tell what is to be told, take what can be had; how long until there is more."""
        if self._reports.any():
            told, self._reports = self._reports, _Reports()
            try:
                self._note(await asyncio.to_thread(self._store.learn_limits, self.scope, told.heard(self._window)))
            except StoreError:
                # Not kept: it is about this moment, and the next replies say the same.
                log.debug("%s: what %d replies said was not stored", self.scope, told.closed)
                raise
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        asking = [waiter for waiter in self._waiting if not waiter.future.done()][:_MOST_ASKED]
        if not asking:
            self._waiting.clear()
            return _GATHER_S
        permit = await asyncio.to_thread(
            self._store.take_permits,
            self.scope,
            [waiter.tokens for waiter in asking],
            bound=self._bound(),
            window=self._window,
        )
        self._note(permit)
        self._hand_out(asking[: permit.granted], permit)
        if permit.granted == len(asking):
            return 0.0
        if permit.rate is None and not permit.held:
            # A window: its wait is a guess, and no reason to give up.
            self._refuse(0.0, "", waited=True)
        else:
            self._refuse(permit.wait_s, _why(permit), rate=permit.rate)
        return permit.wait_s

    def _hand_out(self, granted: list[_Waiter], permit: Permit) -> None:
        serial = permit.serial - len(granted)
        tserial = permit.tserial - sum(waiter.tokens for waiter in granted)
        for waiter in granted:
            serial, tserial = serial + 1, tserial + waiter.tokens
            grant = Grant(self.scope, waiter.tokens, permit.now, serial, tserial)
            if waiter.future.done():
                self.give_back(grant)
            else:
                waiter.future.set_result(grant)
        self._waiting = deque(waiter for waiter in self._waiting if not waiter.future.done())

    def _refuse(self, wait_s: float, why: str, *, rate: float | None = None, waited: bool = False) -> None:
        """Send away who would have to wait too long; with `waited`, only who has waited that long already."""
        now = time.monotonic()
        for place, waiter in enumerate(self._waiting):
            turn = wait_s + (place / rate if rate else 0.0)
            too_long = now - waiter.since > PATIENCE_S if waited else turn > PATIENCE_S
            if too_long and not waiter.future.done():
                message = why or "the account's limit"
                waiter.future.set_exception(Limited(OWN_LIMIT, message, retry_after=max(turn, _AGAIN_S)))
        self._waiting = deque(waiter for waiter in self._waiting if not waiter.future.done())


def _why(permit: Permit) -> str:
    if permit.held:
        return "the account's limit: the service asked to wait"
    return f"the account's limit of {permit.rate:.3g} requests a second" if permit.rate else "the account's limit"


def _contradicts(limits: Limits, tokens: float) -> bool:
    """Whether there was enough left, by the very reply that refuses."""
    requests, token = limits.requests.remaining, limits.tokens.remaining
    return requests is not None and requests >= 1 and (token is None or token >= max(1.0, tokens))
