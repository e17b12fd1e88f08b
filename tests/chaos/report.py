"""What an experiment found, and whether that keeps the promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

BROKEN = (
    "lost",
    "stuck",
    "wrong",
    "unexpected",
    "paid_twice",
    "miscounted",
    "stray_runs",
    "counters_off",
    "left_behind",
    "stale_accepted",
    "overstayed",
    "run_again",
    "calls_wrong",
)
"""Figures that must be 0."""


@dataclass(slots=True, kw_only=True)
class Report:
    """Figures of one profile, or the sum of several."""

    jobs: int = 0
    kills: int = 0
    """SIGKILLs of workers, pool processes and producers."""
    points: Counter[str] = field(default_factory=Counter)
    """Failpoints that went off."""
    redis_restarts: int = 0
    rollbacks: int = 0
    fault_kinds: Counter[str] = field(default_factory=Counter)
    """API faults by kind."""
    strikes: Counter[str] = field(default_factory=Counter)
    """Everything else that was done, by kind."""
    ends: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Rows of the producer's file without an end."""
    stuck: int = 0
    """Jobs without an end at the deadline, and those overdue by more than a minute."""
    wrong: int = 0
    """Answers that are not their question's."""
    unexpected: int = 0
    """Ends that nothing that was done explains."""
    paid_twice: int = 0
    """Runs in the ledger beyond the first of a job."""
    ledger_runs: int = 0
    counted_runs: int = 0
    miscounted: int = 0
    """Jobs whose own count of runs differs from the ledger's."""
    stray_runs: int = 0
    """Runs in the ledger that belong to no row of the producer's file."""
    counters_off: int = 0
    """Batches whose counters differ from a recount."""
    left_behind: int = 0
    """Claims, schedule entries and leases that are left after the end."""
    stale_commits: int = 0
    """Commits under a fence that was not the job's any more."""
    stale_accepted: int = 0
    overstayed: int = 0
    """Workers that went on working although they were asked to end."""
    calls: int = 0
    """Function calls with an output on record."""
    executions: int = 0
    """How often functions began: each more than the calls was cut off by a kill."""
    run_again: int = 0
    """Calls of which an execution began after the one that is on record."""
    calls_wrong: int = 0
    """Calls on record with an error, or with what their function did not return."""
    recovery_s: list[float] = field(default_factory=list)
    """From the SIGKILL of a claim's holder to the next claim."""
    restart_s: list[float] = field(default_factory=list)
    """From the moment a killed Redis answered again until a job that was in hand moved on."""
    problems: list[str] = field(default_factory=list)
    """Evidence, for whoever looks for the cause."""
    missed: list[str] = field(default_factory=list)
    """What the profile claims to do and did not: without it, it says nothing."""
    wall_s: float = 0.0

    def __iadd__(self, other: Report) -> Report:
        for spec in fields(self):
            setattr(self, spec.name, getattr(self, spec.name) + getattr(other, spec.name))
        return self

    @property
    def broken(self) -> list[str]:
        """The promises that were broken."""
        return [f"{name}: {number}" for name in BROKEN if (number := getattr(self, name))]

    def need(self, what: str, found: float, least: float) -> None:
        """Note when something was not done as often as the profile says."""
        if found < least:
            self.missed.append(f"{what}: {found:g} of at least {least:g}")

    def to_json(self) -> dict[str, object]:
        """The figures, recovery times as percentiles."""
        return {
            "jobs": self.jobs,
            "kills": self.kills,
            "points": len(self.points),
            "redis_restarts": self.redis_restarts,
            "rollbacks": self.rollbacks,
            "api_faults": sum(self.fault_kinds.values()),
            "fault_kinds": len(self.fault_kinds),
            **{name: getattr(self, name) for name in BROKEN},
            "ledger_runs": self.ledger_runs,
            "counted_runs": self.counted_runs,
            "calls": self.calls,
            "executions": self.executions,
            "stale_commits": self.stale_commits,
            "recovery_n": len(self.recovery_s),
            "recovery_p50_s": percentile(self.recovery_s, 50),
            "recovery_p95_s": percentile(self.recovery_s, 95),
            "restart_recovery_n": len(self.restart_s),
            "restart_recovery_p50_s": percentile(self.restart_s, 50),
            "restart_recovery_p95_s": percentile(self.restart_s, 95),
            "ends": dict(sorted(self.ends.items())),
            "strikes": dict(sorted(self.strikes.items())),
            "faults_by_kind": dict(sorted(self.fault_kinds.items())),
            "hits_by_point": dict(sorted(self.points.items())),
            "wall_s": round(self.wall_s, 1),
            "broken": self.broken,
            "missed": self.missed,
            "problems": self.problems[:20],
        }


def percentile(values: Sequence[float], share: int) -> float | None:
    """The smallest value that is not below `share` percent of them; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 2)
