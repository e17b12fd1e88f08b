"""The gates of one process: one for the creates of each protocol and model, one for the GETs of each protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from askq.assistants.model import Assistant
from askq.jobs.limits import GETS, NO_WINDOW, Bound, Scope
from askq.jobs.store import Store
from worker.limits.gate import PATIENCE_S, Gate, Grant
from worker.protocols.base import Ask, CallError, Limited
from worker.protocols.hints import NO_LIMITS

_REMEMBERED_S = 30.0
"""How long a scope nobody uses counts for what may be claimed."""
_LOOK_EVERY_S = 0.25
_LOOK_AT_GETS_EVERY_S = 1.0
_LEAD_S = 0.5
"""How much longer than jobs take to get ready they are claimed ahead of their permits."""

_GET_BOUNDS: Mapping[tuple[str, str], float] = MappingProxyType(
    {("assistants", host): 0.9 * 1000 / 60 for host in ("openai.com", "azure.com", "azure.us", "azure.cn")}
)
"""GETs a second that are allowed whatever is heard, by protocol and host: 1000 a minute (protocols A.7), less a tenth
for others on the same account."""


@dataclass(slots=True)
class Gets:
    """GETs that are being made."""

    grants: list[Grant] = field(default_factory=list)
    """None where no limit is known."""
    made: bool = True
    """False for calls that were given up before they were made: their permits go back."""


class Permits:
    """Belongs to one event loop. `host` is the service's."""

    def __init__(self, store: Store, account: str, host: str) -> None:
        self._store = store
        self._account = account
        self._host = host
        self._gates: dict[Scope, Gate] = {}
        self._used_at: dict[Scope, float] = {}
        self._bounds: dict[Scope, dict[str, tuple[Bound, float]]] = {}
        self._passed: dict[str, int] = {}
        """GETs that needed no permit and were answered, since the last that was refused, by protocol."""
        self._ready_s = 2.0
        """How long it takes until the intents of jobs are on disk and they want their permits: the longer times lately,
        because a disk that is written once a second makes some wait for two."""

    # -- creates ---------------------------------------------------------------------------------------

    def creates(self, protocol: str, model: str) -> Gate:
        """The gate of the creates of a protocol and model."""
        return self._gate(Scope(account=self._account, protocol=protocol, model=model))

    def create_gate(self, ask: Ask) -> Gate:
        """The gate for this question, told what its assistant's file allows at most."""
        gate = self.creates(ask.assistant.protocol, ask.model or ask.assistant.model)
        allowed = self._bounds.setdefault(gate.scope, {})
        allowed[ask.assistant.digest] = (_bound_of(ask.assistant), time.monotonic())
        self._used_at[gate.scope] = time.monotonic()
        return gate

    def refused(self, ask: Ask, error: CallError) -> None:
        """A call that needs no permit was refused for the account's limits, and comes with each create."""
        gate = self.create_gate(ask)
        gate.refused(Grant(gate.scope, 0.0, _clock_of(gate), 0.0, 0.0), NO_LIMITS, error.retry_after)

    def ready(self, seconds: float) -> None:
        """A claimed job took so long to get to its gate."""
        weight = 0.3 if seconds > self._ready_s else 0.02
        self._ready_s += weight * (min(seconds, 5.0) - self._ready_s)

    async def room(self, executions: int) -> float:
        """How many jobs this process may get ready, as one of so many: its share of the permits there will be."""
        now = time.monotonic()
        recent = [gate for scope, gate in self._gates.items() if now - self._used_at.get(scope, 0.0) < _REMEMBERED_S]
        gates = [gate for gate in recent if gate.scope.model != GETS]
        if not gates:
            return float("inf")
        for gate in gates:
            await gate.look(older_than_s=_LOOK_EVERY_S)
        seconds = self._ready_s + _LEAD_S
        return _share(sum(gate.forecast(seconds) for gate in gates), executions)

    def hopeless(self, gate: Gate) -> float | None:
        """When to come back to a gate where a permit would take longer than anybody may wait; None = go on."""
        wait = gate.wait_s()
        return None if wait <= self._ready_s + PATIENCE_S / 2 else max(0.2, wait - self._ready_s)

    def wait_s(self) -> float:
        """How long nothing can be created, whatever the model."""
        now = time.monotonic()
        waits = [
            gate.wait_s()
            for scope, gate in self._gates.items()
            if scope.model != GETS and now - self._used_at.get(scope, 0.0) < _REMEMBERED_S
        ]
        return min(waits, default=0.0)

    # -- GETs ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def getting(self, protocol: str, many: int = 1) -> AsyncIterator[Gets]:
        """Around so many GETs: their permits are there when it begins, and what came of them is told when it ends.
        Raises Limited."""
        gets = Gets(await self._get(protocol, many))
        try:
            yield gets
        except CallError as error:
            self._got(protocol, gets.grants, error)
            raise
        except BaseException:
            # Something of ours went wrong with what the service had answered, or nobody wants the answer any more.
            self._got(protocol, gets.grants, None)
            raise
        if gets.made:
            self._got(protocol, gets.grants, None)
        else:
            for grant in gets.grants:
                self.gets(protocol).give_back(grant)

    async def _get(self, protocol: str, many: int = 1) -> list[Grant]:
        """Permits for GETs; none where no limit is known, because then nobody counts. Raises Limited."""
        gate = self.gets(protocol)
        if not await self._restricted(gate):
            return []
        grants: list[Grant] = []
        try:
            while len(grants) < many:
                grants.append(await gate.take(0.0))
        except BaseException:
            # For the calls that were to be made together there are too few: those that there are go back.
            for grant in grants:
                gate.give_back(grant)
            raise
        return grants

    def gets(self, protocol: str) -> Gate:
        """The gate of the GETs of a protocol."""
        return self._gate(Scope(account=self._account, protocol=protocol, model=GETS))

    async def gets_per_s(self, protocol: str) -> float | None:
        """How many GETs a second the account allows; None while no limit is known."""
        gate = self.gets(protocol)
        bound = gate_bound(gate.scope, self._host)
        rate = (await gate.look(older_than_s=_LOOK_AT_GETS_EVERY_S)).rate
        return min((one for one in (rate, bound.requests) if one is not None), default=None)

    async def _restricted(self, gate: Gate) -> bool:
        if gate_bound(gate.scope, self._host).requests is not None:
            return True
        last = await gate.look(older_than_s=_LOOK_AT_GETS_EVERY_S)
        return last.known

    async def get_room(self, executions: int) -> float:
        """How many polls this process may begin, as one of so many."""
        gates = [gate for gate in self._gates.values() if gate.scope.model == GETS]
        if not gates or not all([await self._restricted(gate) for gate in gates]):
            return float("inf")
        return _share(sum(gate.forecast(_LEAD_S) - gate.line for gate in gates), executions)

    def _got(self, protocol: str, grants: list[Grant], error: CallError | None) -> None:
        """GETs were answered, or refused."""
        gate = self.gets(protocol)
        if isinstance(error, Limited) and error.limits is not None:
            # Without a permit it is as good as one of this moment: the refusal is the first thing that is heard.
            grant = grants.pop() if grants else Grant(gate.scope, 0.0, _clock_of(gate), 0.0, 0.0)
            # How many are refused for each that is not decides whether this is a limit.
            gate.passed(self._passed.pop(protocol, 0))
            gate.refused(grant, error.limits, error.retry_after)
        elif not grants:
            self._passed[protocol] = self._passed.get(protocol, 0) + 1
        for grant in grants:
            # What GETs are told of limits may be about creates: nobody says. A refusal is about them.
            gate.accepted(grant, NO_LIMITS)

    # ----------------------------------------------------------------------------------------------------

    def _gate(self, scope: Scope) -> Gate:
        gate = self._gates.get(scope)
        if gate is None:
            if scope.model == GETS:
                gate = Gate(self._store, scope, bound=lambda: gate_bound(scope, self._host), window=NO_WINDOW)
            else:
                gate = Gate(self._store, scope, bound=lambda: self._least(scope))
            self._gates[scope] = gate
        return gate

    def _least(self, scope: Scope) -> Bound:
        """What the files of the assistants in use allow, the strictest of them."""
        now = time.monotonic()
        known = self._bounds.get(scope, {})
        for digest in [digest for digest, (_, at) in known.items() if now - at > _REMEMBERED_S]:
            del known[digest]
        bounds = [bound for bound, _ in known.values()]
        return Bound(
            requests=min((bound.requests for bound in bounds if bound.requests is not None), default=None),
            tokens=min((bound.tokens for bound in bounds if bound.tokens is not None), default=None),
        )


def _share(permits: float, executions: int) -> float:
    """One execution's part; where there is one for somebody, everybody may try."""
    return 0.0 if permits < 1 else max(1.0, permits / max(1, executions))


def gate_bound(scope: Scope, host: str) -> Bound:
    """What a service allows of GETs without being asked."""
    for (protocol, domain), rate in _GET_BOUNDS.items():
        if scope.protocol == protocol and (host == domain or host.endswith(f".{domain}")):
            return Bound(requests=rate)
    return Bound()


def _bound_of(assistant: Assistant) -> Bound:
    limits = assistant.limits or {}
    requests, tokens = limits.get("requests_per_minute"), limits.get("tokens_per_minute")
    return Bound(requests=None if requests is None else requests / 60, tokens=None if tokens is None else tokens / 60)


def _clock_of(gate: Gate) -> float:
    return 0.0 if gate.last is None else gate.last.now + gate.age()
