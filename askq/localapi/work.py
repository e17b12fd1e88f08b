"""A run or a response as the server holds it, and how its state follows from the clock."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from askq.localapi.engines.base import (
    Call,
    Code,
    Hit,
    Outcome,
    Output,
    Plan,
    Product,
    ProtocolName,
    Quote,
    Search,
    Text,
    Usage,
)
from askq.localapi.wire import JsonObject

QUEUED_SHARE = 0.1
"""The part of a planned course that its first status takes; what follows shares the rest equally."""


@dataclass(slots=True, kw_only=True)
class Work:
    """One run (`assistants`) or response (`responses`). All times are seconds since the epoch."""

    id: str
    protocol: ProtocolName
    scope: str | None
    """Its thread, or its conversation if it has one."""
    number: int
    """Its number in the ledger."""
    created: float
    deadline: float | None
    """When it expires; responses do not."""
    body: JsonObject
    """The wire fields that progress does not change."""
    input: list[JsonObject] = field(default_factory=list)
    """Input items (responses)."""
    first: int | None = None
    """For a response that brings tool outputs: the number of the one that the question came with."""
    made: list[JsonObject] = field(default_factory=list)
    """Run steps (assistants) or output items (responses)."""

    unshown: JsonObject = field(default_factory=dict)
    """What code has made before a run has asked for functions, and no message shows yet: `scribes.made.Made`."""
    container: str | None = None
    """The container that the code of a response works in, if it is not its own."""
    streamed: bool = False
    """It, or its current leg, was asked for as a stream."""
    started: float
    """When the current leg began: at the create, or when tool outputs were given."""
    begun: float | None = None
    """When an engine that works took up the current leg."""
    plan: Plan | None = None
    outcome: Outcome | None = None
    """What came of the current leg, or of the whole work once `ended` is set."""
    outcome_at: float | None = None
    """When an engine that works delivered `outcome`."""
    cancel_at: float | None = None
    """When the cancel that was asked for takes effect."""
    waiting: bool = False
    """A run in `requires_action`."""
    spent: Usage = field(default_factory=lambda: Usage(input_tokens=0, output_tokens=0))
    """Tokens of the legs that are over."""
    ended: float | None = None
    polls: int = 0
    """Retrieves of the current leg; not stored."""

    def due(self, now: float) -> tuple[float, Outcome] | None:
        """What the current leg has come to by `now`, and when: the earliest of result, cancel and expiry."""
        ends: list[tuple[float, Outcome]] = []
        if self.outcome is not None and self.outcome_at is not None:
            ends.append((self.outcome_at, self.outcome))
        elif self.plan is not None and not self.waiting:
            ready = self._plan_ready(self.plan, now)
            if ready is not None:
                ends.append((ready, self.plan.outcome))
        if self.cancel_at is not None:
            ends.append((self.cancel_at, Outcome(status="cancelled")))
        if self.deadline is not None:
            ends.append((self.deadline, Outcome(status="expired")))
        earliest = min(ends, key=lambda end: end[0], default=None)
        return earliest if earliest is not None and earliest[0] <= now else None

    def _plan_ready(self, plan: Plan, now: float) -> float | None:
        if plan.by_poll:
            return now if self.polls > len(plan.statuses) else None
        return None if plan.seconds is None else self.started + plan.seconds

    def status(self, now: float) -> str:
        """The raw status. Apply `due` first: this looks at no end that has not been recorded."""
        if self.ended is not None and self.outcome is not None:
            # Responses know no expiry; a prescribed one shows as a failure.
            if self.protocol == "responses" and self.outcome.status == "expired":
                return "failed"
            return self.outcome.status
        if self.waiting:
            return "requires_action"
        if self.cancel_at is not None:
            return "cancelling"
        if self.plan is not None:
            return self.plan.statuses[self._place(self.plan, now)]
        return "queued" if self.begun is None else "in_progress"

    def _place(self, plan: Plan, now: float) -> int:
        last = len(plan.statuses) - 1
        if plan.by_poll:
            return min(max(self.polls - 1, 0), last)
        if plan.seconds is None:
            # No end to divide by: a second in the first, a second in the next, and so on to the last.
            return min(int(max(now - self.started, 0.0)), last)
        first = plan.seconds * QUEUED_SHARE
        elapsed = now - self.started
        if elapsed <= 0 or elapsed < first or last == 0:
            return 0
        share = (plan.seconds - first) / last
        return last if share <= 0 else min(1 + int((elapsed - first) / share), last)

    @property
    def begun_at(self) -> float | None:
        """When it left the queue, as far as can be said: for a planned course after its first share."""
        if self.plan is None:
            return self.begun
        return self.started + (0.0 if self.plan.seconds is None else self.plan.seconds * QUEUED_SHARE)

    @property
    def poll_after_ms(self) -> int | None:
        """The hint that goes with the retrieve just counted."""
        if self.plan is None or not self.plan.poll_after_ms or self.ended is not None:
            return None
        return self.plan.poll_after_ms[min(max(self.polls - 1, 0), len(self.plan.poll_after_ms) - 1)]

    def to_json(self) -> JsonObject:
        """What is stored."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "polls"}
        values["plan"] = None if self.plan is None else _plan_to_json(self.plan)
        values["outcome"] = None if self.outcome is None else _outcome_to_json(self.outcome)
        values["spent"] = dataclasses.asdict(self.spent)
        return values

    @classmethod
    def from_json(cls, values: JsonObject) -> Work:
        """The work `to_json` stored."""
        return cls(
            **{
                **values,
                "plan": None if values["plan"] is None else _plan_from_json(values["plan"]),
                "outcome": None if values["outcome"] is None else _outcome_from_json(values["outcome"]),
                "spent": Usage(**values["spent"]),
            }
        )


_OUTPUTS: dict[str, type[Text] | type[Code] | type[Search] | type[Call]] = {
    "text": Text,
    "code": Code,
    "search": Search,
    "call": Call,
}
_INNER: dict[str, type[Quote] | type[Product] | type[Hit]] = {
    "quotes": Quote,
    "images": Product,
    "files": Product,
    "hits": Hit,
}


def _output_to_json(output: Output) -> JsonObject:
    return {"output": type(output).__name__.lower(), **dataclasses.asdict(output)}


def _output_from_json(values: JsonObject) -> Output:
    rest: dict[str, Any] = {name: value for name, value in values.items() if name != "output"}
    for name, inner in _INNER.items():
        if name in rest:
            rest[name] = [inner(**value) for value in rest[name]]
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
    return _OUTPUTS[values["output"]](**rest)


def _outcome_to_json(outcome: Outcome) -> JsonObject:
    values = dataclasses.asdict(outcome)
    values["outputs"] = [_output_to_json(output) for output in outcome.outputs]
    return values


def _outcome_from_json(values: JsonObject) -> Outcome:
    usage = values["usage"]
    return Outcome(
        **{
            **values,
            "outputs": tuple(_output_from_json(output) for output in values["outputs"]),
            "usage": None if usage is None else Usage(**usage),
        }
    )


def _plan_to_json(plan: Plan) -> JsonObject:
    values = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    values["outcome"] = _outcome_to_json(plan.outcome)
    return values


def _plan_from_json(values: JsonObject) -> Plan:
    return Plan(
        **{
            **values,
            "outcome": _outcome_from_json(values["outcome"]),
            "statuses": tuple(values["statuses"]),
            "poll_after_ms": tuple(values["poll_after_ms"]),
        }
    )
