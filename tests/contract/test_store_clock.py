"""A clock that was set back, for both stores: what was due in a while is due in that while."""

from __future__ import annotations

import pytest

from askq.ids import job_id
from askq.jobs.model import Lane, Outcome, State
from tests.contract.store_stage import LONG, Stage, audit, bring, claim, job_of, move, submit


def test_the_schedule_follows_a_clock_that_was_set_back(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 4)
    later, soon, running, due = (job_id(batch, f"q{index}") for index in range(4))
    assert move(store, running, bring(store, running, State.RUNNING), "poll", delay=LONG) is Outcome.MOVED
    for job, delay in ((later, 2 * LONG), (soon, LONG / 2)):
        taken = claim(store, job, lease_s=0)
        assert move(store, job, taken.fence, "defer", delay=delay) is Outcome.MOVED
    before = {job: job_of(store, job).due_at or 0.0 for job in (later, soon, running, due)}

    assert store.set_back(LONG)
    now = stage.now()
    for job, expected in (
        (later, before[later] - LONG),
        (running, before[running] - LONG),
        (soon, now),
        (due, before[due]),
    ):
        assert job_of(store, job).due_at == pytest.approx(expected, abs=1.0)
    assert not store.set_back(LONG), "others who notice speak of the same step"
    assert job_of(store, later).due_at == pytest.approx(before[later] - LONG, abs=1.0)
    audit(stage, batch)


def test_the_clock_of_the_store_is_told(stage: Stage) -> None:
    before = stage.now()
    told = stage.another().now()
    assert before <= told <= stage.now()
    assert stage.store.next_due(Lane.START) is None
