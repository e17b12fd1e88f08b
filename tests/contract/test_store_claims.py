"""Claims, leases and witnesses, as every job store keeps them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from askq.ids import SHARDS, job_id, shard_of, split_job_id
from askq.jobs import keys
from askq.jobs.model import LANE_OF, PENDING, TERMINAL, Lane, Outcome, State
from askq.jobs.store import Store
from tests.contract.store_stage import (
    ALL,
    LONG,
    SHORT,
    RedisStage,
    Stage,
    answer_all,
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


def test_a_claimed_job_is_not_claimed_again_before_its_lease_ends(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    taken = claim(store, job, lease_s=LONG)
    assert (taken.state, taken.claims, taken.first) == (State.QUEUED, 1, True)
    assert taken.was_due <= taken.now <= stage.now()
    assert job_of(store, job).due_at == pytest.approx(taken.now + LONG, abs=1e-4)
    assert store.claim(Lane.START, ALL, limit=1000, lease_s=LONG) == []
    stage.pass_time(SHORT)
    assert store.claim(Lane.START, ALL, limit=1000, lease_s=LONG) == []


def test_a_job_is_claimed_again_after_its_lease_under_a_greater_fence(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = 0
    for nth in range(1, 5):
        taken = claim(store, job, lease_s=SHORT)
        assert (taken.claims, taken.first) == (nth, nth == 1)
        assert taken.fence > fence
        fence = taken.fence
        assert taken.now >= taken.was_due
        stage.pass_time(SHORT)
    assert move(store, job, fence, "defer") is Outcome.MOVED, "a lease that ended is good until somebody else claims"
    assert claim(store, job).claims == 1, "any move is progress"


@pytest.mark.parametrize("text", [b'{"text": "cut of', b'{"text": "x", "of_a_later_version": 1}', b"z no zlib"])
def test_a_record_that_cannot_be_read_costs_no_other_job_its_claim(
    alone: RedisStage, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a question that another version wrote, when it is claimed with others, then those are worked on, and do not
    count as jobs on which workers die; nor does it itself, for a worker that can read it."""
    store = alone.store
    batch = submit(store, 4)
    bad = job_id(batch, "q1")
    known = alone.raw.get(keys.ask(bad))
    alone.raw.set(keys.ask(bad), text)
    claimed = {held.id for held in store.claim(Lane.START, ALL, limit=1000, lease_s=LONG)}
    assert claimed == {job_id(batch, row) for row in ("q0", "q2", "q3")}
    assert f"{bad} cannot be read" in caplog.text
    assert "cut of" not in caplog.text, "texts do not go into logs"
    due = keys.due(shard_of(bad), Lane.START)
    assert alone.raw.zscore(due, bad) > alone.now() + LONG / 2, "nobody looks at it all the time"
    alone.raw.zadd(due, {bad: 0})
    assert bad not in {held.id for held in store.claim(Lane.START, ALL, limit=1000, lease_s=LONG)}
    alone.raw.zadd(due, {bad: 0})
    alone.raw.set(keys.ask(bad), known)
    assert claim(store, bad).claims == 1


def test_an_intent_keeps_the_claim_and_its_lease(stage: Stage) -> None:
    """Given a claim, when the intent is written, then the same fence may renew, start the run and no more."""
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = claim(store, job, lease_s=SHORT).fence
    assert move(store, job, fence, "intend", delay=SHORT) is Outcome.MOVED
    assert store.renew([(job, fence)], lease_s=LONG) == []
    stage.pass_time(SHORT)
    assert store.claim(Lane.START, ALL, limit=1000, lease_s=LONG) == []
    assert move(store, job, fence, "start") is Outcome.MOVED
    assert store.renew([(job, fence)], lease_s=LONG) == [job]


def test_claims_of_an_intent_that_went_nowhere_are_counted_from_one(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    claim(store, job, lease_s=0)
    fence = claim(store, job, lease_s=0).fence
    move(store, job, fence, "intend")
    assert [claim(store, job, lease_s=0).claims for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_lease_is_renewed_by_its_holder(stage: Stage, state: State) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    move(store, job, bring(store, job, state), "defer")
    taken = claim(store, job, lease_s=SHORT)
    before = stage.now()
    assert store.renew([(job, taken.fence)], lease_s=LONG) == []
    due = job_of(store, job).due_at
    assert due is not None
    assert before + LONG <= due <= stage.now() + LONG
    stage.pass_time(2 * SHORT)
    assert store.claim(LANE_OF[state], ALL, limit=1000, lease_s=LONG) == []
    assert job_of(store, job).state is state


def test_a_stale_fence_renews_nothing(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 30)
    old = {claim.id: claim.fence for claim in store.claim(Lane.START, ALL, limit=1000, lease_s=0)}
    assert len(old) == 30
    lost = [claim.id for claim in store.claim(Lane.START, ALL[:8], limit=1000, lease_s=LONG)]
    assert 0 < len(lost) < 30
    dues = {id_: job_of(store, id_).due_at for id_ in lost}
    pairs = [*old.items(), (job_id(batch, "nobody"), 1)]
    assert sorted(store.renew(pairs, lease_s=2 * LONG)) == sorted([*lost, job_id(batch, "nobody")])
    assert {id_: job_of(store, id_).due_at for id_ in lost} == dues
    assert store.renew([], lease_s=LONG) == []
    audit(stage, batch)


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_renewal_that_comes_after_the_move_does_not_touch_when_the_job_is_due(stage: Stage, state: State) -> None:
    """The renewer of a process does not know which of its calls has just been committed."""
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = bring(store, job, state)
    move(store, job, fence, "defer", delay=100.0)
    before = stage.everything()
    assert store.renew([(job, fence)], lease_s=LONG) == [job]
    assert stage.everything() == before


def test_an_ended_job_is_nobodys(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    fence = bring(stage.store, job, State.COMPLETED)
    before = stage.everything()
    assert stage.store.renew([(job, fence)], lease_s=LONG) == [job]
    for lane in Lane:
        assert stage.store.claim(lane, ALL, limit=1000, lease_s=LONG) == []
    assert stage.everything() == before


def test_claims_come_earliest_first_within_a_shard(stage: Stage) -> None:
    store, shard = stage.store, 3
    batch = open_batch(store)
    rows = in_shard(batch, shard, 6)
    for index, row in enumerate(rows):
        store.add(batch, [question(index, row_id=row)])
        stage.pass_time(0.001)
    (first,) = store.claim(Lane.START, [shard], limit=1, lease_s=LONG)
    assert first.id == job_id(batch, rows[0])
    assert move(store, first.id, first.fence, "defer") is Outcome.MOVED
    claims = store.claim(Lane.START, [shard], limit=4, lease_s=LONG)
    assert [split_job_id(claim.id)[1] for claim in claims] == rows[1:5]
    assert [claim.was_due for claim in claims] == sorted(claim.was_due for claim in claims)
    rest = store.claim(Lane.START, [shard], limit=4, lease_s=LONG)
    assert [split_job_id(claim.id)[1] for claim in rest] == [rows[5], rows[0]]


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, 7, 16, 33, 1000])
def test_a_claim_takes_no_more_than_its_limit(stage: Stage, limit: int) -> None:
    store = stage.store
    batch = open_batch(store)
    # In every shard: where a job lives is chance.
    rows = [row for shard in ALL for row in in_shard(batch, shard, 6)]
    store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    claims = store.claim(Lane.START, ALL, limit=limit, lease_s=LONG)
    assert len({claim.id for claim in claims}) == len(claims) <= max(0, limit)
    assert len(claims) >= min(limit, 16) or limit < 0, "there is plenty to take"
    if limit == 1000:
        assert len(claims) == len(rows)


def test_little_room_is_not_used_up_by_empty_shards(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = in_shard(batch, SHARDS - 1, 5)
    store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    assert len(store.claim(Lane.START, ALL, limit=3, lease_s=LONG)) == 3


def test_a_claim_takes_jobs_of_its_shards_alone(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 200)
    wanted = [1, 5, 11]
    claims = store.claim(Lane.START, wanted, limit=1000, lease_s=LONG)
    expected = {job.id for job in store.jobs(batch) if shard_of(job.id) in wanted}
    assert {claim.id for claim in claims} == expected
    assert store.claim(Lane.START, [], limit=1000, lease_s=LONG) == []


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_job_is_claimed_in_the_lane_of_its_state(stage: Stage, state: State) -> None:
    store = stage.store
    job = job_id(submit(store, [question(0, "why?", model="m2", input={"a": "b"})]), "q0")
    fence = bring(store, job, state)
    move(store, job, fence, "defer")
    other = next(lane for lane in Lane if lane is not LANE_OF[state])
    assert store.claim(other, ALL, limit=1000, lease_s=LONG) == []
    (taken,) = store.claim(LANE_OF[state], ALL, limit=1000, lease_s=LONG)
    assert (taken.id, taken.state) == (job, state)
    assert taken.fence > fence
    assert (taken.assistant, taken.assistant_digest, taken.protocol) == ("tutor", "0123456789abcdef", "responses")
    needed = state in (State.QUEUED, State.STARTING, State.ACTION)
    expected = job_of(store, job).question if needed else None
    assert taken.question == expected, "while a run goes on nobody needs the text"


def test_many_who_claim_at_once_never_get_the_same_job(stage: Stage) -> None:
    batch = submit(stage.store, 300)
    stores = [stage.another() for _ in range(4)]

    def take(store: Store) -> list[str]:
        taken = []
        while claims := store.claim(Lane.START, ALL, limit=7, lease_s=LONG):
            taken += [claim.id for claim in claims]
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [job for part in pool.map(take, stores) for job in part]
    assert len(taken) == 300
    assert set(taken) == {job.id for job in stage.store.jobs(batch)}


def test_the_next_due_time_of_a_lane_is_told(stage: Stage) -> None:
    store = stage.store
    assert [store.next_due(lane) for lane in Lane] == [None, None]
    batch = submit(store, 3)
    stage.pass_time(SHORT)
    due = store.next_due(Lane.START)
    assert due is not None
    assert due <= -SHORT + 1e-5, "overdue"
    for index in range(3):
        fence = claim(store, job_id(batch, f"q{index}"), lease_s=0).fence
        for name in ("intend", "start"):
            move(store, job_id(batch, f"q{index}"), fence, name, delay=LONG * (index + 1))
    assert store.next_due(Lane.START) is None
    due = store.next_due(Lane.POLL)
    assert due is not None
    assert LONG - 60 < due <= LONG
    answer_all(store, submit(store, 2))
    assert store.next_due(Lane.START) is None


def test_a_witness_is_kept_for_the_attempt_that_is_starting(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = claim(store, job, lease_s=0).fence
    move(store, job, fence, "intend", fields={"attempts": 1})
    before = stage.everything()
    store.witness(job, 2, "run_of_another_attempt")
    store.witness(job_id("b_0", "nobody"), 1, "run_of_nobody")
    assert stage.everything() == before
    store.witness(job, 1, "run_1")
    taken = claim(store, job, lease_s=0)
    assert (taken.witness, taken.state) == ("run_1", State.STARTING)
    move(store, job, taken.fence, "adopt", fields={"witness": None, "run": "run_1"})
    assert claim(store, job).run_id == "run_1"


@pytest.mark.parametrize("name", ["void", "doubt"])
def test_a_witness_contradicts_whoever_says_there_is_no_run(stage: Stage, name: str) -> None:
    """Given a search that found nothing, when a witness arrives before its commit, then the run is not given up."""
    store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = claim(store, job).fence
    move(store, job, fence, "intend", fields={"attempts": 1})
    store.witness(job, 1, "run_late")
    assert move(store, job, fence, name) is Outcome.NOT_YOURS
    assert job_of(store, job).state is State.STARTING
    assert move(store, job, fence, "adopt", fields={"witness": None, "run": "run_late"}) is Outcome.MOVED
    audit(stage, batch)


@pytest.mark.parametrize("state", sorted(frozenset(State) - {State.STARTING}))
def test_a_witness_has_nothing_to_say_in_another_state(stage: Stage, state: State) -> None:
    job = job_id(submit(stage.store, 1), "q0")
    fence = bring(stage.store, job, state)
    if state not in TERMINAL:
        move(stage.store, job, fence, "defer", fields={"attempts": 1})
    before = stage.everything()
    stage.store.witness(job, 1, "run_1")
    assert stage.everything() == before
