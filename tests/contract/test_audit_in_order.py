"""The audit of the invariants leaves alone what is in order, and what is just being changed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from askq.ids import job_id
from askq.jobs import keys, redis_audit
from askq.jobs.model import ASKED_AGAIN, MOVES, PENDING, Answer, Lane, Outcome, State
from tests.contract.audit_stage import end, sweep
from tests.contract.store_stage import (
    ALL,
    SERVERS,
    USAGE,
    RedisStage,
    Stage,
    audit,
    bring,
    in_shard,
    move,
    open_batch,
    question,
    submit,
)
from tests.parts import RedisServer

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.mark.parametrize("state", State)
def test_a_job_in_order_is_found_in_order(stage: Stage, state: State) -> None:
    batch = submit(stage.store, 3)
    bring(stage.store, job_id(batch, "q1"), state)
    before = stage.everything()
    report = sweep(stage.store)
    assert (report.findings, report.batches, report.rows, report.unsettled) == ([], 1, 3, 0)
    assert report.finished_at is not None
    assert report.started_at <= report.finished_at <= stage.now()
    assert stage.everything() == before, "nothing is touched"


def test_nothing_at_all_is_in_order(stage: Stage) -> None:
    report = sweep(stage.store)
    assert (report.findings, report.batches, report.rows) == ([], 0, 0)


def test_a_batch_being_submitted_is_in_order(stage: Stage) -> None:
    batch = open_batch(stage.store)
    stage.store.add(batch, [question(index) for index in range(5)])
    assert sweep(stage.store).findings == []


def test_ended_jobs_that_have_expired_are_no_loss(redis_servers: Callable[[str], RedisServer]) -> None:
    """Given results that went before their batch did, then the counters are not taken for wrong."""
    stage = RedisStage(redis_servers(SERVERS[0]))
    try:
        batch = submit(stage.store, 60)
        jobs = end(stage.store, batch, [f"q{index}" for index in range(20)], State.COMPLETED)
        jobs += end(stage.store, batch, [f"q{index}" for index in range(20, 40)], State.FAILED)
        for job in jobs[::2]:
            stage.raw.delete(keys.job(job), keys.ask(job), keys.answer(job))
        before = stage.everything()
        assert sweep(stage.store).findings == []
        assert stage.everything() == before
    finally:
        stage.close()


@pytest.mark.parametrize("page", [5, 100])
def test_no_false_alarm_while_jobs_move(alone: RedisStage, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """Given threads that submit, claim, move, cancel and ask again, when audits run, then they find nothing wrong.

    Some shards are small enough for one step, others are read in many.
    """
    monkeypatch.setattr(redis_audit, "_PAGE", page)
    batches = [submit(alone.store, 160, key=str(number)) for number in range(3)]
    stop, moved, again = threading.Event(), list[bool](), list[Outcome]()

    def work(seed: int) -> None:
        pick, store = random.Random(seed), alone.another()
        while not stop.is_set():
            for lane in Lane:
                for taken in store.claim(lane, ALL, limit=20, lease_s=0):
                    apt = [rule.name for rule in MOVES.values() if taken.state in rule.sources]
                    going_on = [name for name in apt if MOVES[name].target in (PENDING | {None})]
                    name = pick.choice(apt if pick.random() < 0.03 else going_on)
                    answer = Answer(text="x", usage=USAGE) if name == "complete" else None
                    outcome = move(store, taken.id, taken.fence, name, answer=answer)
                    moved.append(outcome is Outcome.MOVED)
                    if pick.random() < 0.1:
                        store.cancel([taken.id])
                    if MOVES[name].target in ASKED_AGAIN and pick.random() < 0.7:
                        again.extend(store.retry([taken.id], ASKED_AGAIN))

    def grow() -> None:
        store = alone.another()
        for index in range(160, 400):
            if stop.is_set():
                return
            store.add(batches[0], [question(index)])
            store.seal(batches[0], index + 1)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, seed) for seed in range(3)] + [pool.submit(grow)]
        try:
            reports = []
            while len(reports) < 6 or not (len(moved) > 300 and Outcome.MOVED in again):
                reports.append(sweep(alone.store))
                assert len(reports) < 200, "the threads get nowhere"
        finally:
            stop.set()
        for one in working:
            one.result(timeout=30)
    assert any(moved)
    assert [found for report in reports for found in report.findings] == []
    assert all(report.rows >= 480 for report in reports)
    audit(alone, *batches)
    last = sweep(alone.store)
    assert (last.findings, last.unsettled) == ([], 0)


def test_counters_that_change_all_the_time_are_not_judged(alone: RedisStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a shard of many pages whose counters change between two of them, then it is left for another time."""
    monkeypatch.setattr(redis_audit, "_PAGE", 2)
    batch = open_batch(alone.store)
    rows = in_shard(batch, 3, 7)
    alone.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    alone.store.seal(batch, 7)
    books, source = alone.store.books(), redis_audit.RedisBooks._rows
    disturb = True

    def meddle(self: Any, *args: Any, **how: Any) -> Any:
        if disturb:
            alone.raw.hincrby(keys.count(3, batch), "queued", 1)
            alone.raw.hincrby(keys.count(3, batch), "queued", -1)
        return source(self, *args, **how)

    monkeypatch.setattr(redis_audit.RedisBooks, "_rows", meddle)
    *_, found = books.recount(batch, [3], repair=True, tries=2)
    assert found is not None
    assert (found.settled, found.facts) == (False, [])
    disturb = False
    *_, found = books.recount(batch, [3], repair=True, tries=2)
    assert found is not None
    assert (found.settled, found.rows, found.facts) == (True, 7, [])
