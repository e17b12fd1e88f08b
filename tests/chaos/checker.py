"""The verdict: what the API's ledger, the store and the producer's file say, compared. Never a log."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from askq.jobs import keys
from askq.jobs.model import BatchStatus, Job, State, Usage
from askq.jobs.redis_store import RedisStore
from tests.chaos.questions import Asked, read
from tests.chaos.report import Report

_OVERDUE_S = 60.0
_LEASES_END_S = 60.0
"""Leases of a chain last a few seconds and are given back at its end; this is for a machine that has a lot to do."""


def check(
    file: Path,
    store: RedisStore,
    ledger: Sequence[dict[str, Any]],
    client: redis.Redis,
    *,
    keyed: bool,
    leases_end_s: float = _LEASES_END_S,
) -> Report:
    """Compare the three. `keyed`: the API honours idempotency keys. `leases_end_s`: how long chains may take to end."""
    report = Report()
    rows = _by_key(read(file))
    paid = Counter(str(entry["metadata"].get("askq_job")) for entry in ledger)
    known: set[str] = set()
    for key, asked in rows.items():
        batch = store.batch_under(key)
        doubted: set[str] = set()
        jobs = {} if batch is None else {job.question.row_id: job for job in store.jobs(batch)}
        for row in asked:
            job = jobs.pop(row.row, None)
            if job is None:
                report.lost += 1
                report.problems.append(f"lost: {key}/{row.row} is not in the store")
            else:
                known.add(job.id)
                stopped = row.thread in doubted and job.error_code == "conversation_stopped"
                _check_job(report, row, job, paid[job.id], keyed=keyed, stopped=stopped)
                if row.thread is not None and job.state is State.UNCERTAIN:
                    doubted.add(row.thread)
        report.unexpected += len(jobs)
        report.problems += [f"unexpected: {job.id} is in no list" for job in jobs.values()]
        if batch is not None:
            _check_counters(report, store.batch(batch), list(store.jobs(batch)))
    report.jobs = sum(len(asked) for asked in rows.values())
    report.ledger_runs = len(ledger)
    strays = [job for job in paid if job not in known]
    report.stray_runs = sum(paid[job] for job in strays)
    report.problems += [f"stray: {paid[job]} runs of {job}" for job in strays[:5]]
    left = left_behind(client, leases_end_s)
    report.left_behind = len(left)
    report.problems += [f"left behind: {name}" for name in left[:5]]
    return report


def _by_key(rows: Iterable[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = defaultdict(list)
    for row in rows:
        found[row.key].append(row)
    return found


def _check_job(report: Report, row: Asked, job: Job, paid: int, *, keyed: bool, stopped: bool) -> None:
    report.ends[job.state] += 1
    report.counted_runs += job.runs
    report.paid_twice += max(0, paid - row.runs())
    if paid > row.runs():
        report.problems.append(f"paid twice: {job.id} has {paid} runs in the ledger: {_shown(job)}")
    if job.runs != paid:
        report.miscounted += 1
        report.problems.append(f"miscounted: {job.id} says {job.runs} runs, the ledger {paid}: {_shown(job)}")
    if not job.state.terminal:
        report.stuck += 1
        overdue = "" if job.due_at is None else f", due {time.time() - job.due_at:.0f} s ago"
        report.problems.append(f"stuck: {job.id}{overdue}: {_shown(job)}")
        return
    if job.state is State.UNCERTAIN and row.protocol == "responses" and not keyed:
        return  # nothing can tell, and the default policy pays for nothing twice
    if stopped:
        return  # no conversation goes on after a question of which nothing is known
    if job.state not in row.ends():
        report.unexpected += 1
        report.problems.append(f"unexpected: {job.id} should end {row.end()}: {_shown(job)}")
        return
    text = None if job.answer is None else job.answer.text
    if row.answer() is not None and text != row.answer():
        report.wrong += 1
        report.problems.append(f"wrong: {job.id} is answered {text!r}")


def _shown(job: Job) -> str:
    return (
        f"{job.protocol} {job.state} code={job.error_code} attempts={job.attempts} runs={job.runs} fence={job.fence} "
        f"note={job.note!r} message={job.error_message!r}"
    )


def _check_counters(report: Report, status: BatchStatus | None, jobs: Sequence[Job]) -> None:
    assert status is not None
    states = Counter(job.state for job in jobs)
    used = [job.answer.usage for job in jobs if job.state.terminal and job.answer is not None and job.answer.usage]
    tokens = sum((usage.total_tokens for usage in used), Usage().total_tokens)
    counted = Counter({state: number for state, number in status.counts.items() if number})
    if counted != states or status.usage.total_tokens != tokens or not status.sealed:
        report.counters_off += 1
        report.problems.append(
            f"counters: batch {status.id} says {dict(counted)}, {status.usage.total_tokens} tokens, sealed "
            f"{status.sealed}; a recount {dict(states)}, {tokens} tokens"
        )


def left_behind(client: redis.Redis, patience_s: float) -> list[str]:
    """What must be gone once everything has ended: entries of the schedule, claims, leases."""
    until = time.monotonic() + patience_s
    while (left := [*_names(client, "*:due:*"), *_names(client, "*:lease:*"), *_names(client, "*:calls:*")]) and (
        time.monotonic() < until
    ):
        time.sleep(0.2)
    for name in _names(client, "*:job:*"):
        if client.hexists(name, "claims"):
            left.append(f"{name} claims")
    return left


def _names(client: redis.Redis, pattern: str) -> list[str]:
    return [name.decode() for name in client.scan_iter(match=keys.PREFIX + pattern, count=1000)]
