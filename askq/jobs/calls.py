"""Function calls of runs: what is on record of them, and what running them needs of a store.

A run that asks for functions is one round; its calls are put on record with the move that notices them (`act`), and
are due in a schedule of their own. Whoever claims one runs the function and records its output, before anybody submits
it: what is on record is never run again. A claim that ends without an output is followed by another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCall:
    """A function call the model asks for. `arguments` is its JSON text, unchecked."""

    key: str
    """`<round>.<n>`, both from their beginnings 1 and 0: services may use an id twice."""
    call_id: str
    name: str
    arguments: str

    def to_json(self) -> str:
        """How a store keeps it."""
        return json.dumps([self.call_id, self.name, self.arguments], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, key: str, text: str) -> WantedCall:
        """What `to_json` wrote."""
        call_id, name, arguments = json.loads(text)
        return cls(key=key, call_id=call_id, name=name, arguments=arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What came of a call. `output` goes to the model, also when it tells of an error."""

    output: str
    seconds: float = 0.0
    """How long the function ran."""
    error: str | None = None
    """Why there is no proper output: a key of `askq.tools.outcomes.OUTCOMES`."""
    printed: str = ""
    """What the function wrote to its standard output and error, cut to a bound."""

    def to_json(self) -> str:
        """How a store keeps it."""
        kept: dict[str, Any] = {"output": self.output, "seconds": self.seconds}
        kept |= {"error": self.error} if self.error is not None else {}
        kept |= {"printed": self.printed} if self.printed else {}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> CallResult:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCall:
    """A call on record, with its result once there is one."""

    wanted: WantedCall
    result: CallResult | None = None

    @property
    def round(self) -> int:
        """The round of the job in which it was asked for."""
        return int(self.wanted.key.partition(".")[0])

    def shown(self) -> Mapping[str, Any]:
        """As results show it."""
        shown: dict[str, Any] = {"name": self.wanted.name, "arguments": self.wanted.arguments}
        shown["output"] = None if self.result is None else self.result.output
        if self.result is not None:
            shown["seconds"] = self.result.seconds
            shown |= {"error": self.result.error} if self.result.error is not None else {}
            shown |= {"printed": self.result.printed} if self.result.printed else {}
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class CallClaim:
    """A call in the hands of one process, until its lease ends. `fence` proves the right to record its output."""

    job: str
    wanted: WantedCall
    fence: int
    assistant_digest: str
    claims: int
    """Claims of this call, this one included: each but the last has ended without an output."""
    crashes: int
    """How often the process that ran the function has died of it."""
    begun: bool
    """Whether an earlier claim had noted that it begins to run the function (`Calls.begin`)."""


class Recorded(StrEnum):
    """What the record of a call said to a change."""

    DONE = "done"
    STALE = "stale"
    """The claim has ended, the output is on record already, or the job waits for it no more."""


class Calls(Protocol):
    """The calls' side of a store."""

    def look(self, job: str) -> Sequence[KeptCall]:
        """All calls of a job that has not ended, oldest first. Those it waits for are put back into the schedule, if
        they have dropped out of it."""

    def claim(self, *, limit: int, lease_s: float) -> list[CallClaim]:
        """Lease up to `limit` due calls of jobs that wait for them, each under a new fence; those whose runs began
        earliest come first, within a shard."""

    def begin(self, claim: CallClaim) -> Recorded:
        """Note on disk that the function is about to run: for one that must not run twice."""

    def renew(self, claim: CallClaim, *, lease_s: float) -> Recorded:
        """Extend a lease."""

    def finish(self, claim: CallClaim, result: CallResult, *, on_disk: bool = False) -> Recorded:
        """Record the output; the last one of a round makes the job due at once.

        On disk it is what a call is that began so (`begin`), and anything where the server writes through. Elsewhere a
        power cut, not a crash, may take back the last second: such a call is run again.
        """

    def again(self, claim: CallClaim, *, crashed: bool, delay_s: float) -> Recorded:
        """Let another claim come, `delay_s` from now: because the function's process died of it (counted), or because
        nothing was begun (and then the claim does not count)."""

    def next_due(self) -> float | None:
        """Seconds until the earliest call is due, negative when overdue; None when there is none."""

    def waiting(self) -> int:
        """How many calls are in the schedule, those that run included."""

    def enlist(self, execution: str, *, ttl_s: float) -> int:
        """Register an execution that runs functions as alive; how many are."""

    def discharge(self, execution: str) -> None:
        """Take it off the register."""

    def running(self) -> int:
        """How many executions that run functions are alive."""

    def hint(self, *, ttl_s: float) -> bool:
        """Whether the caller may send the message that starts such an execution: one at a time is on its way."""


def kept_calls(record: Mapping[str, str]) -> list[KeptCall]:
    """The calls of a job's record of calls, oldest first."""
    names = [key for key in record if "/" not in key and "." in key]
    found = []
    for key in sorted(names, key=lambda key: tuple(map(int, key.split(".")))):
        output = record.get(f"{key}/output")
        found.append(
            KeptCall(wanted=WantedCall.of(key, record[key]), result=None if output is None else CallResult.of(output))
        )
    return found
