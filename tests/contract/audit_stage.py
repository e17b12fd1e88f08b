"""What the tests of the audit share: sweeps, ends, jobs that are late, and what a report says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askq.ids import job_id, shard_of
from askq.jobs import keys
from askq.jobs.audit import Finding, Report
from askq.jobs.auditor import Auditor
from askq.jobs.model import LANE_OF, Node, Outcome, State
from askq.jobs.store import Store
from tests.contract.store_stage import MemoryStage, RedisStage, Stage, claim, job_of, move, way_to

POISON = {"error_code": "poison"}
ALIVE = Node(name="one@h", processes=2, pid=11, host="h", started_at=1.5)


def sweep(store: Store, **how: Any) -> Report:
    """An audit of everything, without what it says of the test's server, which keeps nothing on purpose."""
    report = Auditor(store, by="test", **how).run()
    report.findings = [finding for finding in report.findings if finding.code != "unsafe_server"]
    return report


def end(store: Store, batch: str, rows: Sequence[str], state: State, **more: Any) -> list[str]:
    """End these rows of a batch, and leave the others as they are; the ids of their jobs."""
    jobs = [job_id(batch, row) for row in rows]
    for job in jobs:
        fence = claim(store, job, lease_s=0).fence
        *way, last = way_to(state)
        for name in way:
            assert move(store, job, fence, name) is Outcome.MOVED
        assert move(store, job, fence, last, **more) is Outcome.MOVED
    return jobs


def codes(report: Report) -> dict[str, int]:
    """How often each kind was found."""
    found: dict[str, int] = {}
    for finding in report.findings:
        found[finding.code] = found.get(finding.code, 0) + finding.count
    return found


def check_repaired(stage: Stage, report: Report, *wanted: str) -> Sequence[Finding]:
    """These were found and put right, and now everything is in order."""
    assert sorted(codes(report)) == sorted(wanted)
    assert all(finding.repaired and not finding.attention for finding in report.findings)
    assert sweep(stage.store, closed=True).findings == []
    return report.findings


def make_due(stage: Stage, job: str, *, ago: float) -> None:
    """Let a job be late without waiting a minute."""
    if isinstance(stage, RedisStage):
        lane = LANE_OF[job_of(stage.store, job).state]
        stage.raw.zadd(keys.due(shard_of(job), lane), {job: stage.now() - ago}, xx=True)
    else:
        assert isinstance(stage, MemoryStage)
        stage.store._records[job].due = stage.now() - ago
