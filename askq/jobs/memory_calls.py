"""Function calls of the store in memory: the twin of `RedisCalls` and its scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from askq.jobs.calls import CallClaim, CallResult, KeptCall, Recorded, WantedCall
from askq.jobs.model import State


class Record(Protocol):
    """What is needed of a job's record."""

    state: State
    claims: int | None
    due: float
    assistant_digest: str

    def count(self, name: str) -> int: ...

    def text(self, name: str) -> str | None: ...


@dataclass(slots=True)
class Held:
    """One call."""

    wanted: WantedCall
    result: CallResult | None = None
    due: float | None = None
    """None when it is not in the schedule."""
    fence: int = 0
    claims: int = 0
    crashes: int = 0
    begun: bool = False

    @property
    def round(self) -> int:
        return int(self.wanted.key.partition(".")[0])


@dataclass(slots=True)
class Kept:
    """All calls, by job and key, and the executions that run them."""

    calls: dict[str, dict[str, Held]] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    hinted: float = 0.0

    def offer(self, job: str, wanted: Sequence[WantedCall], due: float) -> None:
        """Put calls on record, due at a moment that has passed; those that are there stay as they are."""
        known = self.calls.setdefault(job, {})
        for call in wanted:
            known.setdefault(call.key, Held(call, due=due))

    def none_left(self, job: str, round_: int) -> bool:
        """Whether every call of the round has its output."""
        calls = [call for call in self.calls.get(job, {}).values() if call.round == round_]
        return bool(calls) and all(call.result is not None for call in calls)


class MemoryCalls:
    """`Calls` over what a `MemoryStore` keeps. `lock` is the store's."""

    def __init__(self, kept: Kept, records: Mapping[str, Any], *, clock: Callable[[], float], lock: Any) -> None:
        self._kept = kept
        self._records: Mapping[str, Record] = records
        self._now = clock
        self._lock = lock

    def look(self, job: str) -> Sequence[KeptCall]:
        with self._lock:
            record = self._records.get(job)
            calls = list(self._kept.calls.get(job, {}).values())
            for call in calls:
                if record is not None and _waits_for(record, call) and call.result is None and call.due is None:
                    call.due = self._now()
            return [KeptCall(wanted=call.wanted, result=call.result) for call in calls]

    def claim(self, *, limit: int, lease_s: float) -> list[CallClaim]:
        with self._lock:
            now = self._now()
            everything = ((call.due, job, call) for job, calls in self._kept.calls.items() for call in calls.values())
            due = sorted((entry for entry in everything if entry[0] is not None and entry[0] <= now), key=_first)
            taken: list[CallClaim] = []
            for _, job, call in due:
                if len(taken) >= limit:
                    break
                record = self._records.get(job)
                if record is None or not _waits_for(record, call) or call.result or record.text("cancel"):
                    call.due = None
                    continue
                call.fence = max(int(now * 1_000_000), call.fence + 1)
                call.claims += 1
                call.due = now + lease_s
                taken.append(
                    CallClaim(
                        job=job,
                        wanted=call.wanted,
                        fence=call.fence,
                        assistant_digest=record.assistant_digest,
                        claims=call.claims,
                        crashes=call.crashes,
                        begun=call.begun,
                    )
                )
            return taken

    def _mine(self, claim: CallClaim) -> tuple[Record, Held] | None:
        record = self._records.get(claim.job)
        call = self._kept.calls.get(claim.job, {}).get(claim.wanted.key)
        if record is None or call is None or call.fence != claim.fence or call.result is not None:
            return None
        return (record, call) if _waits_for(record, call) else None

    def begin(self, claim: CallClaim) -> Recorded:
        with self._lock:
            if (mine := self._mine(claim)) is None:
                return Recorded.STALE
            mine[1].begun = True
            return Recorded.DONE

    def renew(self, claim: CallClaim, *, lease_s: float) -> Recorded:
        with self._lock:
            if (mine := self._mine(claim)) is None:
                return Recorded.STALE
            mine[1].due = self._now() + lease_s
            return Recorded.DONE

    def finish(self, claim: CallClaim, result: CallResult, *, on_disk: bool = False) -> Recorded:
        with self._lock:
            if (mine := self._mine(claim)) is None:
                return Recorded.STALE
            record, call = mine
            call.result, call.due = result, None
            if self._kept.none_left(claim.job, call.round) and record.claims is None:
                record.due = self._now()
            return Recorded.DONE

    def again(self, claim: CallClaim, *, crashed: bool, delay_s: float) -> Recorded:
        with self._lock:
            if (mine := self._mine(claim)) is None:
                return Recorded.STALE
            _, call = mine
            call.crashes += crashed
            call.claims -= not crashed
            call.begun = call.begun and crashed
            call.fence += 1
            call.due = self._now() + delay_s
            return Recorded.DONE

    def next_due(self) -> float | None:
        with self._lock:
            dues = [call.due for calls in self._kept.calls.values() for call in calls.values() if call.due is not None]
            return min((due - self._now() for due in dues), default=None)

    def waiting(self) -> int:
        with self._lock:
            return sum(call.due is not None for calls in self._kept.calls.values() for call in calls.values())

    def enlist(self, execution: str, *, ttl_s: float) -> int:
        with self._lock:
            self._kept.hinted = 0.0
            self._kept.running[execution] = self._now() + ttl_s
            return self.running()

    def discharge(self, execution: str) -> None:
        with self._lock:
            self._kept.running.pop(execution, None)

    def running(self) -> int:
        with self._lock:
            return sum(until > self._now() for until in self._kept.running.values())

    def hint(self, *, ttl_s: float) -> bool:
        with self._lock:
            if self._kept.hinted > self._now():
                return False
            self._kept.hinted = self._now() + ttl_s
            return True


def _first(entry: tuple[float | None, str, Held]) -> float:
    return entry[0] or 0.0


def _waits_for(record: Record, call: Held) -> bool:
    return record.state is State.ACTION and record.count("rounds") == call.round
