"""A clock that was set back, for both stores: what was due in a while is due in that while."""

from __future__ import annotations

import pytest

from askq.ids import job_id
from askq.jobs.model import Lane, Outcome, State
from tests.contract.store_stage import (
    ALL,
    LONG,
    Stage,
    audit,
    bring,
    claim,
    in_shard,
    job_of,
    move,
    open_batch,
    question,
    submit,
)


def test_the_schedule_follows_a_clock_that_was_set_back(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 4)
    later, soon, running, due = (job_id(batch, f"q{index}") for index in range(4))
    assert move(store, running, bring(store, running, State.RUNNING), "poll", delay=LONG) is Outcome.MOVED
    for job, delay in ((later, 2 * LONG), (soon, LONG / 2)):
        taken = claim(store, job, lease_s=0)
        assert move(store, job, taken.fence, "defer", delay=delay) is Outcome.MOVED
    before = {job: job_of(store, job).due_at or 0.0 for job in (later, soon, running, due)}

    assert store.set_back(LONG, ALL)
    now = stage.now()
    for job, expected in (
        (later, before[later] - LONG),
        (running, before[running] - LONG),
        (soon, now),
        (due, before[due]),
    ):
        assert job_of(store, job).due_at == pytest.approx(expected, abs=1.0)
    assert not store.set_back(LONG, ALL), "others who notice speak of the same step"
    assert job_of(store, later).due_at == pytest.approx(before[later] - LONG, abs=1.0)
    audit(stage, batch)


def test_only_the_shards_of_the_clock_that_was_set_back_follow_it(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = {shard: in_shard(batch, shard, 1)[0] for shard in (3, 8)}
    store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows.values())])
    store.seal(batch, 2)
    jobs = {shard: job_id(batch, row) for shard, row in rows.items()}
    for job in jobs.values():
        assert move(store, job, claim(store, job, lease_s=0).fence, "defer", delay=2 * LONG) is Outcome.MOVED
    assert store.hold(Lane.POLL, "me", [3, 8], ttl_s=LONG) == [3, 8]
    before = {job: job_of(store, job).due_at or 0.0 for job in jobs.values()}

    assert store.set_back(LONG, [8])
    assert job_of(store, jobs[3]).due_at == before[jobs[3]]
    assert job_of(store, jobs[8]).due_at == pytest.approx(before[jobs[8]] - LONG, abs=1.0)
    assert store.hold(Lane.POLL, "another", [3, 8], ttl_s=LONG) == [8], "the lease of the other clock holds"
    assert store.set_back(LONG, [3]), "that is another step"
    audit(stage, batch)


def test_the_clock_of_the_store_is_told(stage: Stage) -> None:
    before = stage.now()
    told = stage.another().now()
    assert before <= told <= stage.now()
    assert all(before <= clock <= stage.now() for clock in stage.store.clocks())
    assert stage.store.next_due(Lane.START) is None
