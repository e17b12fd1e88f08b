"""Claims given back untouched, for both stores."""

from __future__ import annotations

import pytest

from askq.ids import job_id
from askq.jobs.model import PENDING, Outcome, State
from tests.contract.store_stage import LONG, Stage, audit, bring, claim, job_of, move, submit


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_claim_given_back_does_not_count(stage: Stage, state: State) -> None:
    store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    move(store, job, bring(store, job, state), "defer")
    for _ in range(3):
        taken = claim(store, job)
        assert taken.claims == 1
        assert store.give_back([(job, taken.fence)], delay_s=0) == 1
    assert claim(store, job, lease_s=0).claims == 1
    again = claim(store, job)
    assert again.claims == 2, "one that was not given back counts"
    assert store.give_back([(job, again.fence)], delay_s=LONG) == 1
    assert job_of(store, job).due_at == pytest.approx(stage.now() + LONG, abs=5)
    audit(stage, batch)


def test_only_the_holder_gives_back(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    job, other = (job_id(batch, f"q{index}") for index in range(2))
    old = claim(store, job, lease_s=0).fence
    new = claim(store, job).fence
    held = claim(store, other).fence
    assert move(store, other, held, "prepare") is Outcome.MOVED
    before = stage.everything()
    pairs = [(job, old), (job, new + 1), (other, held), (f"{batch}.nobody", 1)]
    assert store.give_back(pairs, delay_s=0) == 0, "stale, invented, given back by a move, and not there"
    assert store.give_back([], delay_s=0) == 0
    assert stage.everything() == before
