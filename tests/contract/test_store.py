"""What every job store promises. One suite, every implementation: memory, and each real server at hand."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from askq.errors import StoreError, StoreUnreachable, StoreUnsafe
from askq.ids import SHARDS, job_id, shard_of, split_job_id
from askq.jobs import keys
from askq.jobs.health import Health
from askq.jobs.model import (
    LANE_OF,
    MOVES,
    PENDING,
    TERMINAL,
    Answer,
    Lane,
    Move,
    NewBatch,
    Node,
    Outcome,
    State,
    Usage,
)
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from tests.conftest import StartRedis
from tests.contract.store_stage import (
    ALL,
    LONG,
    SERVERS,
    SHORT,
    MemoryStage,
    RedisStage,
    Stage,
    answer_all,
    audit,
    bring,
    claim,
    in_shard,
    job_of,
    marks,
    move,
    open_batch,
    question,
    status_of,
    submit,
    way_to,
)
from tests.parts import RedisServer, eventually

USAGE = Usage(input_tokens=70, cached_tokens=20, output_tokens=30, total_tokens=100, cost_usd=0.00125)


# -- moves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("name", MOVES)
def test_a_move_leaves_the_states_of_the_table_and_no_other(stage: Stage, name: str, state: State) -> None:
    store, rule = stage.store, MOVES[name]
    batch = submit(store, 2)
    job = job_id(batch, "q0")
    fence = bring(store, job, state)
    before, was = stage.everything(), job_of(store, job)
    outcome = move(store, job, fence, name, delay=LONG, fields={"note": "moved"})
    if state in rule.sources:
        assert outcome is Outcome.MOVED
        now = job_of(store, job)
        assert (now.state, now.note) == (rule.target or state, "moved")
        assert (now.fence, now.question) == (was.fence, was.question)
        assert job_of(store, job_id(batch, "q1")).state is State.QUEUED, "the neighbour stays as it is"
    else:
        # A move into an end, made again, is a repeated commit.
        repeated = state in TERMINAL and way_to(state)[-1] == name
        assert outcome is (Outcome.ALREADY if repeated else Outcome.NOT_YOURS)
        assert stage.everything() == before
    audit(stage, batch)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_made_again_changes_nothing(stage: Stage, name: str) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    fence = bring(stage.store, job, _source(name))
    answer = Answer(text="x", usage=USAGE)
    assert move(stage.store, job, fence, name, delay=LONG, answer=answer) is Outcome.MOVED
    before = stage.everything()
    assert move(stage.store, job, fence, name, delay=0.0, answer=answer, fields={"note": "?"}) is Outcome.ALREADY
    assert stage.everything() == before


@pytest.mark.parametrize("name", MOVES)
def test_a_stale_fence_moves_nothing(stage: Stage, name: str) -> None:
    """Given a claim whose lease ended and a newer one, when the old one commits, then nothing happens."""
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    fence = bring(stage.store, job, _source(name), lease_s=0)
    newer = claim(stage.store, job).fence
    before, lanes = job_of(stage.store, job), stage.lanes()
    assert status_of(stage.store, batch).stale == 0
    for wrong in (fence, 0, newer + 1, -1):
        assert move(stage.store, job, wrong, name) is Outcome.NOT_YOURS
    assert (job_of(stage.store, job), stage.lanes()) == (before, lanes)
    assert status_of(stage.store, batch).stale == 4, "each is counted, and that is all"
    audit(stage, batch)
    assert move(stage.store, job, newer, name) is Outcome.MOVED, "the newer claim is not disturbed"


@pytest.mark.parametrize("name", MOVES)
def test_a_job_that_is_not_there_is_missing_and_stays_so(stage: Stage, name: str) -> None:
    batch = submit(stage.store, 1)
    before = stage.everything()
    assert move(stage.store, job_id(batch, "nobody"), 1, name) is Outcome.MISSING
    assert stage.everything() == before


def test_a_job_nobody_claimed_takes_no_move(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    before = stage.everything()
    for fence in (0, 1):
        assert move(stage.store, job_id(batch, "q0"), fence, "fail") is Outcome.NOT_YOURS
    assert stage.everything() == before


def test_one_commit_takes_many_moves_and_answers_in_their_order(stage: Stage) -> None:
    batch = submit(stage.store, 40)
    claims = stage.store.claim(Lane.START, ALL, limit=1000, lease_s=LONG)
    assert len(claims) == 40
    moves = [Move(job=claim.id, fence=claim.fence, name="prepare") for claim in claims[:20]]
    moves += [Move(job=claim.id, fence=claim.fence + 1, name="prepare") for claim in claims[20:]]
    moves += [moves[0], Move(job="b_0.x", fence=1, name="fail")]
    expected = [Outcome.MOVED] * 20 + [Outcome.NOT_YOURS] * 20 + [Outcome.ALREADY, Outcome.MISSING]
    assert stage.store.commit(moves) == expected
    assert stage.store.commit([]) == []
    audit(stage, batch)


def test_fields_are_written_and_deleted_with_the_move(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = claim(store, job, lease_s=0).fence
    fields: dict[str, str | int | float | None] = {
        "thread": "thread_1", "attempts": 1, "looks": 2, "errors": 3, "note": "é½", "deadline": 1.5, "remote": "queued"
    }  # fmt: skip
    assert move(store, job, fence, "prepare", fields=fields) is Outcome.MOVED
    taken = claim(store, job, lease_s=0)
    assert (taken.thread_id, taken.attempts, taken.looks, taken.errors) == ("thread_1", 1, 2, 3)
    assert (taken.deadline, taken.remote, taken.cancel, taken.cancel_sent) == (1.5, "queued", None, False)
    assert job_of(store, job).note == "é½"
    fields = {"thread": None, "looks": None, "note": None, "never there": None, "cancel": "deadline"}
    assert move(store, job, taken.fence, "defer", fields=fields) is Outcome.MOVED
    taken = claim(store, job)
    assert (taken.thread_id, taken.looks, taken.errors, taken.cancel) == (None, 0, 3, "deadline")
    assert job_of(store, job).note is None


def test_times_are_noted_when_things_happen(stage: Stage) -> None:
    store = stage.store
    before = stage.now()
    job = job_id(submit(store, 1), "q0")
    stage.pass_time(SHORT)
    fence = claim(store, job, lease_s=0).fence
    move(store, job, fence, "intend")
    taken = claim(store, job, lease_s=0)
    stage.pass_time(SHORT)
    move(store, job, taken.fence, "start")
    polled = claim(store, job, lease_s=0)
    stage.pass_time(SHORT)
    move(store, job, polled.fence, "complete", answer=Answer(text="x"))
    ended = job_of(store, job)
    assert taken.intent_at is not None
    assert polled.started_at == ended.started_at
    assert ended.started_at is not None
    assert ended.completed_at is not None
    times = [before, ended.created_at, taken.intent_at, ended.started_at, ended.completed_at, stage.now()]
    assert times == sorted(times)
    micros = 1e-5
    assert taken.now - ended.created_at >= SHORT - micros
    assert ended.started_at - taken.intent_at >= SHORT - micros
    assert ended.completed_at - ended.started_at >= SHORT - micros


def test_a_run_that_was_found_has_started_when_it_was_found(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    move(store, job, claim(store, job, lease_s=0).fence, "intend")
    stage.pass_time(SHORT)
    taken, before = claim(store, job), stage.now()
    assert taken.started_at is None
    assert move(store, job, taken.fence, "adopt") is Outcome.MOVED
    found = claim(store, job)
    assert found.started_at == job_of(store, job).started_at
    assert found.started_at is not None
    assert before - 1e-5 <= found.started_at <= stage.now()
    assert found.intent_at == taken.intent_at, "the intent was made before"


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_move_says_when_the_job_is_due_again(stage: Stage, state: State) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = bring(store, job, state)
    before = stage.now()
    move(store, job, fence, "defer", delay=100.0)
    due = job_of(store, job).due_at
    assert due is not None
    assert before + 100 <= due <= stage.now() + 100
    assert store.claim(LANE_OF[state], ALL, limit=1000, lease_s=LONG) == []


# -- claims and leases ---------------------------------------------------------------------------------------


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


# -- the witness ---------------------------------------------------------------------------------------------


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


# -- asking --------------------------------------------------------------------------------------------------


def test_rows_added_again_add_what_is_missing_and_nothing_else(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = [question(index) for index in range(120)]
    found = store.add(batch, rows[:100])
    assert (found.added, found.already, found.conflicts) == (100, 0, ())
    answer_all(store, batch)
    before = list(store.jobs(batch))
    found = store.add(batch, rows)
    assert (found.added, found.already, found.conflicts) == (20, 100, ())
    assert list(store.jobs(batch))[:100] == before
    audit(stage, batch)
    before_all = stage.everything()
    assert store.add(batch, rows).already == 120
    assert store.add(batch, []).added == 0
    assert stage.everything() == before_all


CHANGES: dict[str, dict[str, Any]] = {
    "text": {"text": "Something else?"},
    "model": {"model": "m2"},
    "instructions": {"instructions": "Be brief."},
}


@pytest.mark.parametrize("change", [*CHANGES, "assistant", "protocol"])
def test_a_row_with_another_question_is_a_conflict_and_left_as_it_was(stage: Stage, change: str) -> None:
    store = stage.store
    batch = submit(store, 5)
    rows = [question(index) for index in range(7)]
    for at in (4, 1):
        match change:
            case "assistant":
                rows[at] = dataclasses.replace(rows[at], assistant_digest="f" * 16)
            case "protocol":
                rows[at] = dataclasses.replace(rows[at], protocol="assistants")
            case _:
                rows[at] = question(at, **CHANGES[change])
    before = stage.everything()
    found = store.compare(batch, rows)
    assert (found.added, found.already, found.conflicts) == (2, 3, ("q1", "q4"))
    assert stage.everything() == before, "comparing changes nothing"
    assert store.add(batch, rows) == found
    assert [job.question.text for job in store.jobs(batch)][:5] == [f"What is {index}?" for index in range(5)]
    audit(stage, batch)


def test_a_row_that_comes_twice_is_added_once(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = [question(0), question(0), question(0, "Something else?"), question(1)]
    expected = store.compare(batch, rows)
    assert (expected.added, expected.already, expected.conflicts) == (2, 1, ("q0",))
    assert store.add(batch, rows) == expected
    assert status_of(store, batch).counts[State.QUEUED] == 2


def test_a_row_whose_result_expired_is_not_asked_again(redis_servers: Callable[[str], RedisServer]) -> None:
    """Given a list that is submitted again after some of its results have expired, then nobody is paid twice."""
    stage = RedisStage(redis_servers(SERVERS[0]), keep_days=1 / 86_400)
    try:
        store = stage.store
        batch = submit(store, 2, key="k")
        answer_all(store, batch)
        eventually(lambda: not any(store.jobs(batch)), what="the results expire")
        store.add(batch, [question(2)])
        rows = [question(0), question(1, "Something else?"), question(2, "Something else?"), question(3), question(3)]
        expected = store.compare(batch, rows)
        assert (expected.added, expected.already, expected.conflicts) == (1, 3, ("q2",))
        assert store.add(batch, rows) == expected
        store.seal(batch, 4)
        status = status_of(store, batch)
        assert (status.total, status.pending) == (4, 2)
        assert {state: many for state, many in status.counts.items() if many} == {State.COMPLETED: 2, State.QUEUED: 2}
        assert [job.question.row_id for job in store.jobs(batch)] == ["q2", "q3"]
    finally:
        stage.close()


def test_two_who_add_the_same_rows_at_once_add_them_once(stage: Stage) -> None:
    batch = open_batch(stage.store)
    rows = [question(index) for index in range(200)]
    stores = [stage.another() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda store: store.add(batch, rows), stores))
    assert sum(part.added for part in found) == sum(part.already for part in found) == 200
    audit(stage, batch)


def test_a_batch_has_what_it_was_opened_with(stage: Stage) -> None:
    store = stage.store
    new = NewBatch(
        name="Übung", assistant="tutor", protocol="assistants", idempotency_key="k", metadata={"class": "7b"}
    )
    before = stage.now()
    batch, created = store.open_batch(new)
    assert created
    status = status_of(store, batch)
    assert (status.id, status.name, status.assistant, status.protocol) == (batch, "Übung", "tutor", "assistants")
    assert (status.idempotency_key, status.metadata) == ("k", {"class": "7b"})
    assert before <= status.created_at <= stage.now()
    assert (status.sealed, status.total, status.pending, status.done) == (False, 0, 0, False)
    assert (status.usage, status.finished_at, status.paused) == (Usage(), None, ())
    plain = status_of(store, store.open_batch(NewBatch(name=None, assistant="a", protocol="responses"))[0])
    assert (plain.name, plain.idempotency_key, plain.metadata) == (None, None, {})


def test_an_idempotency_key_leads_to_its_batch(stage: Stage) -> None:
    store = stage.store
    new = NewBatch(name="one", assistant="tutor", protocol="responses", idempotency_key="k")
    batch, created = store.open_batch(new)
    assert created
    before = stage.everything()
    assert store.open_batch(dataclasses.replace(new, name="two")) == (batch, False)
    assert stage.everything() == before
    other, created = store.open_batch(dataclasses.replace(new, idempotency_key="K"))
    assert created
    assert other != batch
    odd, _ = store.open_batch(dataclasses.replace(new, idempotency_key="not text: \udcff"))
    assert store.batch_under("not text: \udcff") == odd
    assert status_of(store, odd).idempotency_key == "not text: \udcff"
    unkeyed = dataclasses.replace(new, idempotency_key=None)
    assert store.open_batch(unkeyed)[0] != store.open_batch(unkeyed)[0]


def test_of_many_who_open_a_batch_under_one_key_one_does(stage: Stage) -> None:
    stores = [stage.another() for _ in range(4)]
    gate = threading.Barrier(4)

    def open_(store: Store, key: str) -> tuple[str, bool]:
        gate.wait(10)
        return store.open_batch(NewBatch(name=None, assistant="tutor", protocol="responses", idempotency_key=key))

    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            found = list(pool.map(open_, stores, [f"key {number}"] * 4))
            assert len({batch for batch, _ in found}) == 1
            assert sum(created for _, created in found) == 1
    assert len(stage.store.batches(limit=100)) == 10


def test_a_batch_is_done_when_it_is_sealed_and_every_job_ended(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    store.add(batch, [question(0), question(1)])
    answer_all(store, batch)
    status = status_of(store, batch)
    assert (status.sealed, status.total, status.pending, status.done) == (False, 2, 0, False), "more rows may come"
    store.seal(batch, 3)
    status = status_of(store, batch)
    assert (status.sealed, status.total, status.pending, status.done) == (True, 3, 1, False), "the submitter died?"
    assert status.finished_at is None
    store.add(batch, [question(2)])
    answer_all(store, batch)
    status = status_of(store, batch)
    assert (status.pending, status.done) == (0, True)
    assert status.finished_at == max(job.completed_at or 0 for job in store.jobs(batch))


def test_rows_added_to_a_sealed_batch_make_it_undone_at_once(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    answer_all(store, batch)
    assert status_of(store, batch).done
    store.add(batch, [question(2)])
    status = status_of(store, batch)
    assert (status.total, status.pending, status.done, status.finished_at) == (3, 1, False, None)
    store.seal(batch, 3)
    assert status_of(store, batch).total == 3


def test_an_empty_batch_is_done_when_sealed(store: Store) -> None:
    batch = submit(store, 0)
    status = status_of(store, batch)
    assert (status.total, status.pending, status.done, status.finished_at) == (0, 0, True, None)
    assert list(store.jobs(batch)) == []


def test_sealing_what_is_not_there_says_so_and_makes_nothing(stage: Stage) -> None:
    before = stage.everything()
    with pytest.raises(StoreError, match="batch b_0 could not be sealed") as caught:
        stage.store.seal("b_0", 3)
    assert caught.value.remedy == "Submit the list again."
    assert stage.everything() == before
    assert stage.store.batches() == []


def test_assistants_are_kept_under_their_hash(store: Store) -> None:
    assert store.assistant("d1") is None
    store.save_assistant("d1", '{"name": "tütor"}')
    store.save_assistant("d2", "{}")
    store.save_assistant("d1", '{"name": "tütor"}')
    assert store.assistant("d1") == '{"name": "tütor"}'


# -- reading -------------------------------------------------------------------------------------------------


def test_jobs_come_in_input_order_however_many_and_however_added(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    order = sorted(range(650), key=lambda index: index * 7919 % 650)
    for start in range(0, 650, 130):
        store.add(batch, [question(index, row_id=f"row {650 - index}") for index in order[start : start + 130]])
    submit(store, 3)
    jobs = list(store.jobs(batch))
    assert [job.index for job in jobs] == list(range(650))
    assert [job.question.row_id for job in jobs] == [f"row {650 - index}" for index in range(650)]
    assert {job.question.text for job in jobs if job.index == 649} == {"What is 649?"}
    assert list(store.jobs("b_0")) == []


def test_jobs_of_one_place_come_in_the_order_of_their_ids(stage: Stage) -> None:
    """A list that was changed and submitted again may give a place twice."""
    batch = submit(stage.store, [question(0, row_id=row) for row in "dbeac"])
    assert [job.question.row_id for job in stage.store.jobs(batch)] == list("abcde")


def test_jobs_of_some_states_are_picked(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 230)
    states = dict(zip((3, 40, 205, 229), (State.RUNNING, State.FAILED, State.COMPLETED, State.FAILED), strict=True))
    for index, state in states.items():
        job = job_id(batch, f"q{index}")
        fence = claim(store, job, lease_s=0).fence
        for name in way_to(state):
            assert move(store, job, fence, name) is Outcome.MOVED
    assert [job.index for job in store.jobs(batch, states=[State.FAILED])] == [40, 229]
    assert [job.index for job in store.jobs(batch, states=TERMINAL)] == [40, 205, 229]
    assert len(list(store.jobs(batch, states=PENDING))) == 227
    assert list(store.jobs(batch, states=())) == []


def test_a_question_comes_back_as_it_was_asked(stage: Stage) -> None:
    store = stage.store
    rows = [
        question(0, "plain"),
        question(1, "ünï¢ødé — 方程式 \U0001f9ee\n\ttwo lines\x00\u2028", row_id="Frage № 1/ä"),
        question(2, "long " * 5000, row_id="a.b.c"),
        question(
            3,
            "all",
            assistant="other",
            model="m2",
            instructions="Be brief.",
            input={"a": "1", "b": 2.5, "c": None, "d": [1, {"e": True}], "f": "é" * 2000},
        ),
        question(4, "half a pair: \ud83e, and a z", row_id="z"),
        question(5, "zzz"),
    ]
    batch = submit(store, rows)
    assert [job.question for job in store.jobs(batch)] == [row.question for row in rows]
    claims = store.claim(Lane.START, ALL, limit=1000, lease_s=LONG)
    assert {claim.id: claim.question for claim in claims} == {
        job_id(batch, row.question.row_id): row.question for row in rows
    }
    assert store.add(batch, rows).already == len(rows)


ANSWERS = [
    Answer(text="x = 1"),
    Answer(text=""),
    Answer(text=None),
    Answer(text="z", model="m-2026"),
    Answer(text="The answer. " * 500),
    Answer(text="ünï¢ødé — x² = 方程式 \U0001f9ee\x00"),
    Answer(text="half a pair: \ud83e"),
    Answer(
        text="See [1].",
        citations=({"type": "url_citation", "url": "https://example.org/é", "start": 4},),
        code=({"input": "print(1)", "output": "1"}, {"input": "x", "output": None}),
        files=({"id": "file_1", "name": "plot.png"},),
        model="m-2026",
        usage=USAGE,
    ),
    Answer(text=None, code=({"input": "é" * 3000, "output": ""},), usage=Usage(total_tokens=7)),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_comes_back_as_it_was_given(stage: Stage, answer: Answer) -> None:
    store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = bring(store, job, State.RUNNING)
    assert move(store, job, fence, "complete", answer=answer) is Outcome.MOVED
    assert job_of(store, job).answer == answer
    assert [job.answer for job in store.jobs(batch)] == [answer]
    status = status_of(store, batch)
    assert status.usage == (answer.usage or Usage())


def test_an_end_without_an_answer_has_its_reason(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fields = {"error_code": "server_error", "error_message": "it said: half a pair \ud83e"}
    assert move(store, job, bring(store, job, State.RUNNING), "fail", fields=fields) is Outcome.MOVED
    ended = job_of(store, job)
    assert (ended.answer, ended.error_code, ended.error_message) == (None, *fields.values())


def test_long_answers_take_little_room(behind: RedisStage) -> None:
    batch = submit(behind.store, 2)
    for index, size in ((0, 900), (1, 50_000)):
        job = job_id(batch, f"q{index}")
        fence = claim(behind.store, job, lease_s=0).fence
        for name in ("intend", "start"):
            move(behind.store, job, fence, name)
        move(behind.store, job, fence, "complete", answer=Answer(text="word " * (size // 5)))
        stored = behind.raw.get(keys.answer(job))
        assert stored.startswith(b"{" if index == 0 else b"z")
        assert len(stored) < 1024


def test_tokens_and_cost_of_a_batch_are_the_sums_of_its_jobs(stage: Stage) -> None:
    store = stage.store
    batch, other = submit(store, 20), submit(store, 1)
    answer_all(store, batch, usage=USAGE)
    usage = status_of(store, batch).usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.total_tokens) == (1400, 400, 600, 2000)
    assert usage.cost_usd == pytest.approx(20 * 0.00125)
    answer_all(store, other, usage=dataclasses.replace(USAGE, cost_usd=None))
    assert status_of(store, other).usage.cost_usd is None, "an unknown price is not a price of nothing"
    mixed = submit(store, 1)
    answer_all(store, mixed, usage=USAGE)
    store.add(mixed, [question(1)])
    answer_all(store, mixed, usage=dataclasses.replace(USAGE, cost_usd=None))
    assert status_of(store, mixed).usage.cost_usd == pytest.approx(0.00125)
    audit(stage, batch, other, mixed)


@pytest.mark.parametrize(("name", "answer"), [("complete", Answer(text="x", usage=USAGE)), ("fail", None)])
def test_tokens_known_before_the_answer_are_counted_once_and_in_any_end(
    stage: Stage, name: str, answer: Answer | None
) -> None:
    store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fields = {"in": 70, "cached": 20, "out": 30, "total": 100, "cost": 0.00125}
    assert move(store, job, bring(store, job, State.RUNNING), "collect", fields=fields) is Outcome.MOVED
    assert status_of(store, batch).usage == Usage(), "the batch counts what ended"
    taken = claim(store, job)
    assert (taken.usage, taken.state) == (USAGE, State.COLLECTING)
    assert move(store, job, taken.fence, name, answer=answer) is Outcome.MOVED
    usage = status_of(store, batch).usage
    assert usage.total_tokens == 100
    assert usage.cost_usd == pytest.approx(0.00125)


def test_the_newest_batches_come_first(stage: Stage) -> None:
    store = stage.store
    ids = []
    for _ in range(15):
        ids.append(submit(store, 1))
        stage.pass_time(0.002)
    assert [status.id for status in store.batches(limit=4)] == ids[:-5:-1]
    assert [status.id for status in store.batches(limit=100)] == ids[::-1]
    assert [status.id for status in store.batches()] == ids[::-1]
    assert [store.batches(limit=limit) for limit in (0, -1)] == [[], []]
    assert store.find_batches("b_") == ids[:-11:-1], "ten at most"
    assert store.find_batches(ids[3]) == [ids[3]]
    assert store.find_batches("b_zzz") == []
    assert (store.batch("b_0"), store.job("b_0.q0"), store.job("nonsense")) == (None, None, None)


# -- sharing the work ----------------------------------------------------------------------------------------


def test_executions_are_alive_until_they_leave_or_their_time_is_up(stage: Stage) -> None:
    store = stage.store
    assert store.running(Lane.POLL) == 0
    assert store.enlist(Lane.POLL, "one", ttl_s=SHORT) >= 1
    assert store.enlist(Lane.POLL, "two", ttl_s=LONG) >= 1
    assert store.enlist(Lane.POLL, "three", ttl_s=LONG) >= 2
    assert store.running(Lane.START) == 0, "lanes have registers of their own"
    stage.pass_time(2 * SHORT)
    assert store.running(Lane.POLL) == 2, "the first is taken for dead"
    assert store.enlist(Lane.POLL, "two", ttl_s=LONG) == 2, "the same one again is the same one"
    store.discharge(Lane.POLL, "two", [])
    store.discharge(Lane.POLL, "unknown", [1])
    assert store.running(Lane.POLL) == 1


def test_a_shard_has_one_holder_until_it_is_given_back_or_the_lease_ends(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1, 2, 3], ttl_s=LONG) == [1, 2, 3]
    assert store.hold(Lane.POLL, "two", [2, 3, 4], ttl_s=SHORT) == [4]
    assert store.hold(Lane.START, "two", [2], ttl_s=LONG) == [2], "lanes are held apart"
    assert store.hold(Lane.POLL, "one", [3, 1], ttl_s=LONG) == [3, 1], "renewed"
    stage.pass_time(2 * SHORT)
    assert store.hold(Lane.POLL, "three", [1, 4], ttl_s=LONG) == [4], "the second did not renew"
    store.release(Lane.POLL, "two", [1, 4])
    assert store.hold(Lane.POLL, "two", [1, 4], ttl_s=LONG) == [], "nobody gives back what is another's"
    store.release(Lane.POLL, "one", [1])
    assert store.hold(Lane.POLL, "two", [1, 2], ttl_s=LONG) == [1]
    store.enlist(Lane.POLL, "one", ttl_s=LONG)
    store.discharge(Lane.POLL, "one", [1, 2, 3])
    assert store.hold(Lane.POLL, "four", [1, 2, 3], ttl_s=LONG) == [2, 3]
    assert store.hold(Lane.POLL, "four", [], ttl_s=LONG) == []


def test_what_is_kept_for_no_time_is_gone_soon(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1], ttl_s=0) == [1]
    assert store.hint(Lane.POLL, ttl_s=0)
    store.pause("acc", "quota", "why", probe_after_s=0)
    stage.pass_time(0.003)
    assert store.hold(Lane.POLL, "two", [1], ttl_s=LONG) == [1]
    assert store.hint(Lane.POLL, ttl_s=LONG)
    assert store.probe("acc", again_after_s=0)
    stage.pass_time(0.003)
    assert store.probe("acc", again_after_s=LONG)


def test_a_lease_is_prolonged_by_holding_it_again(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1], ttl_s=SHORT) == [1]
    assert store.hold(Lane.POLL, "one", [1], ttl_s=LONG) == [1]
    stage.pass_time(2 * SHORT)
    assert store.hold(Lane.POLL, "two", [1], ttl_s=LONG) == []


def test_one_start_message_is_on_its_way_at_a_time(stage: Stage) -> None:
    store = stage.store
    assert store.hint(Lane.START, ttl_s=LONG)
    assert not store.hint(Lane.START, ttl_s=LONG)
    assert store.hint(Lane.POLL, ttl_s=SHORT)
    store.enlist(Lane.START, "one", ttl_s=LONG)
    assert store.hint(Lane.START, ttl_s=LONG), "it has arrived"
    stage.pass_time(2 * SHORT)
    assert store.hint(Lane.POLL, ttl_s=LONG), "it was lost"


# -- accounts and nodes --------------------------------------------------------------------------------------


def test_a_paused_account_is_probed_by_one_at_a_time(stage: Stage) -> None:
    store = stage.store
    assert store.pauses() == []
    before = stage.now()
    store.pause("acc", "insufficient_quota", "You exceeded your quota", probe_after_s=SHORT)
    store.pause("other", "rejected_key", "Incorrect API key", probe_after_s=LONG)
    pauses = {pause.account: pause for pause in store.pauses()}
    assert sorted(pauses) == ["acc", "other"]
    pause = pauses["acc"]
    assert (pause.code, pause.message) == ("insufficient_quota", "You exceeded your quota")
    assert before <= pause.since <= stage.now()
    assert pause.probe_at == pytest.approx(pause.since + SHORT)
    assert not store.probe("other", again_after_s=LONG), "it is too early"
    stage.pass_time(2 * SHORT)
    assert store.probe("acc", again_after_s=SHORT)
    stage.pass_time(2 * SHORT)
    assert store.probe("acc", again_after_s=LONG), "the first probe brought nothing"
    assert not store.probe("acc", again_after_s=LONG)
    assert store.resume("acc")
    assert not store.resume("acc")
    assert [pause.account for pause in store.pauses()] == ["other"]


def test_a_pause_made_again_says_why_anew(stage: Stage) -> None:
    stage.store.pause("acc", "rate", "first", probe_after_s=LONG)
    stage.store.pause("acc", "quota", "second", probe_after_s=LONG)
    assert [(pause.code, pause.message) for pause in stage.store.pauses()] == [("quota", "second")]
    stage.store.resume("acc")
    assert stage.store.probe("acc", again_after_s=LONG), "nothing is left of the pause"


def test_a_pause_lasts_since_it_began_for_this_reason(stage: Stage) -> None:
    store = stage.store
    store.pause("acc", "quota_exhausted", "first", probe_after_s=LONG)
    (first,) = store.pauses()
    stage.pass_time(SHORT)
    store.pause("acc", "quota_exhausted", "second", probe_after_s=LONG)
    (again,) = store.pauses()
    assert (again.since, again.message) == (first.since, "second")
    assert again.probe_at >= first.probe_at + SHORT
    store.pause("acc", "rejected_key", "third", probe_after_s=LONG)
    (other,) = store.pauses()
    assert other.since >= first.since + SHORT
    store.resume("acc")
    stage.pass_time(SHORT)
    store.pause("acc", "rejected_key", "anew", probe_after_s=LONG)
    assert store.pauses()[0].since >= other.since + SHORT


def test_a_pause_may_concern_one_protocol_alone(stage: Stage) -> None:
    """Given an account one of whose protocols is gone, then batches of the other know nothing of it."""
    store = stage.store
    speaking = {}
    for protocol in ("assistants", "responses"):
        speaking[protocol], _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol=protocol))
        store.add(speaking[protocol], [question(0)])
        store.seal(speaking[protocol], 1)
    store.pause("acc", "endpoint_gone", "no such endpoint", probe_after_s=LONG, protocol="assistants")
    store.pause("acc", "quota_exhausted", "no credit", probe_after_s=SHORT)
    assert [(pause.code, pause.protocol) for pause in store.pauses()].count(("endpoint_gone", "assistants")) == 1
    codes = {name: sorted(pause.code for pause in status_of(store, batch).paused) for name, batch in speaking.items()}
    assert codes == {"assistants": ["endpoint_gone", "quota_exhausted"], "responses": ["quota_exhausted"]}
    stage.pass_time(2 * SHORT)
    assert not store.probe("acc", again_after_s=LONG, protocol="assistants"), "each has probes of its own"
    assert store.probe("acc", again_after_s=LONG)
    assert not store.resume("acc", protocol="responses")
    assert store.resume("acc")
    assert [pause.code for pause in store.pauses()] == ["endpoint_gone"]
    assert store.resume("acc", protocol="assistants")
    assert not store.resume("acc", protocol="assistants")
    assert status_of(store, speaking["assistants"]).paused == ()


def test_a_batch_that_is_not_done_says_why_nothing_moves(stage: Stage) -> None:
    store = stage.store
    batch, done = submit(store, 1), submit(store, 0)
    store.pause("acc", "insufficient_quota", "You exceeded your quota", probe_after_s=LONG)
    (pause,) = status_of(store, batch).paused
    assert (pause.code, pause.message) == ("insufficient_quota", "You exceeded your quota")
    assert status_of(store, done).paused == ()
    store.resume("acc")
    assert status_of(store, batch).paused == ()


def test_the_first_remote_assistant_on_record_stays(stage: Stage) -> None:
    store = stage.store
    assert store.remote_assistant("acc", "d") is None
    assert store.save_remote_assistant("acc", "d", "asst_1") == "asst_1"
    assert store.save_remote_assistant("acc", "d", "asst_2") == "asst_1"
    assert store.save_remote_assistant("other", "d", "asst_3") == "asst_3"
    store.drop_remote_assistant("acc", "d", "asst_2")
    assert store.remote_assistant("acc", "d") == "asst_1", "only the one that proved wrong is forgotten"
    store.drop_remote_assistant("acc", "d", "asst_1")
    assert store.remote_assistant("acc", "d") is None
    assert store.save_remote_assistant("acc", "d", "asst_2") == "asst_2"
    assert store.remote_assistant("other", "d") == "asst_3"


def test_of_many_who_make_a_remote_assistant_one_is_believed(stage: Stage) -> None:
    stores = [stage.another() for _ in range(4)]
    gate = threading.Barrier(4)

    def save(store: Store, name: str) -> str:
        gate.wait(10)
        return store.save_remote_assistant("acc", "d", name)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(save, stores, ["a", "b", "c", "d"]))
    assert found == {stage.store.remote_assistant("acc", "d")}


def test_workers_are_alive_as_long_as_they_say_so(stage: Stage) -> None:
    store = stage.store
    one = Node(name="one@h", processes=2, pid=11, host="h", started_at=1.5)
    two = Node(name="zwei@hö", processes=4, pid=12, host="hö", started_at=2.5)
    assert store.nodes() == []
    store.beat(one, ttl_s=SHORT)
    store.beat(two, ttl_s=LONG)
    store.beat(two, ttl_s=LONG)
    stage.pass_time(2 * SHORT)
    assert store.nodes() == [two]
    store.beat(one, ttl_s=LONG)
    assert sorted(store.nodes(), key=lambda node: node.name) == [one, two]


# -- retention -----------------------------------------------------------------------------------------------


def test_finished_batches_are_marked_once_and_then_go(stage: Stage) -> None:
    store = stage.store
    ended, going, unsealed = submit(store, 2, key="k"), submit(store, 1), open_batch(store)
    assert store.tidy(keep_s=1) == 0
    answer_all(store, ended)
    assert store.tidy(keep_s=1) == 1
    assert store.tidy(keep_s=1) == 0
    stage.pass_time(1.1)
    assert store.tidy(keep_s=1) == 0
    assert store.batch(ended) is None
    assert list(store.jobs(ended)) == []
    assert sorted(status.id for status in store.batches()) == sorted([going, unsealed])
    assert store.open_batch(NewBatch(name=None, assistant="a", protocol="responses", idempotency_key="k"))[1]
    audit(stage, going, unsealed)


def test_a_marked_batch_that_gets_more_rows_stays(stage: Stage) -> None:
    store = stage.store
    batches = {key: submit(store, 1, key=key) for key in ("sealed again", "submitter died")}
    for batch in batches.values():
        answer_all(store, batch)
    assert store.tidy(keep_s=2) == 2
    for key, batch in batches.items():
        assert len(list(store.jobs(batch))) == 1, "still there"
        assert open_batch(store, key=key) == batch
        store.add(batch, [question(1)])
    store.seal(batches["sealed again"], 2)
    stage.pass_time(2.1)
    assert store.tidy(keep_s=2) == 0
    for key, batch in batches.items():
        status = status_of(store, batch)
        assert (status.total, status.pending, status.counts[State.QUEUED]) == (2, 1, 1)
        assert open_batch(store, key=key) == batch
        answer_all(store, batch)
    assert store.tidy(keep_s=2) == 2, "and is marked again when it is done again"


def test_marking_that_was_cut_off_half_way_is_done_again(alone: RedisStage) -> None:
    """Given a batch that finished, when the batch itself expires, then so does all that belongs to it."""
    batch = submit(alone.store, 5, key="k")
    answer_all(alone.store, batch)
    with alone.raw.monitor() as commands:
        assert alone.store.tidy(keep_s=1000) == 1
        alone.raw.echo("end of tidy")
        marked = []
        for command in (seen["command"] for seen in commands.listen()):
            if "end of tidy" in command:
                break
            if command.startswith("EXPIRE "):
                marked.append(command.split()[1])
    assert len(marked) == 3 + 2 * SHARDS
    assert marked[-1] == keys.batch(batch), "what tells that a batch is marked comes last"


def test_every_key_of_a_finished_batch_expires_and_none_before(behind: RedisStage) -> None:
    batch = submit(behind.store, 40, key="k")
    first = job_id(batch, "q0")
    fence = bring(behind.store, first, State.RUNNING)
    move(behind.store, first, fence, "complete", answer=Answer(text="x"))
    assert behind.store.tidy(keep_s=1000) == 0
    month = 30 * 86_400
    lives = {key: behind.raw.ttl(key) for key in behind.raw.keys("askq:*")}
    own = {name.encode() for name in (keys.job(first), keys.ask(first), keys.answer(first))}
    assert {key for key, ttl in lives.items() if ttl != -1} == own, "others of the batch still need the rest"
    assert all(month - 100 < lives[key] <= month for key in own)
    behind.raw.zremrangebyscore(keys.due(shard_of(first), Lane.START), "-inf", "+inf")
    for shard in ALL:
        rows = behind.raw.zrange(keys.rows(shard, batch), 0, -1)
        behind.raw.zadd(keys.due(shard, Lane.START), {job_id(batch, row.decode()): 0 for row in rows} or {"x": 0})
    behind.raw.zrem(keys.due(shard_of(first), Lane.START), first)
    answer_all(behind.store, batch)
    assert behind.store.tidy(keep_s=1000) == 1
    left = {key for key in behind.raw.keys("askq:*") if behind.raw.ttl(key) == -1}
    assert left - marks(behind) == {keys.BATCHES.encode()}


def test_results_go_when_their_time_is_up_and_the_counters_still_tell(
    redis_servers: Callable[[str], RedisServer],
) -> None:
    stage = RedisStage(redis_servers(SERVERS[0]), keep_days=1 / 86_400)
    try:
        batch = submit(stage.store, 2)
        job = job_id(batch, "q0")
        fence = claim(stage.store, job, lease_s=0).fence
        for name in way_to(State.COMPLETED):
            move(stage.store, job, fence, name, answer=Answer(text="x"))
        eventually(lambda: stage.store.job(job) is None, what="the result expires")
        assert [job.question.row_id for job in stage.store.jobs(batch)] == ["q1"]
        status = status_of(stage.store, batch)
        assert (status.counts[State.COMPLETED], status.counts[State.QUEUED], status.pending) == (1, 1, 1)
        assert move(stage.store, job, fence, "complete") is Outcome.MISSING
    finally:
        stage.close()


def test_a_due_job_without_a_record_is_forgotten(behind: RedisStage) -> None:
    batch = submit(behind.store, 1)
    behind.raw.delete(keys.job(job_id(batch, "q0")))
    assert behind.store.claim(Lane.START, ALL, limit=1000, lease_s=LONG) == []
    assert behind.store.next_due(Lane.START) is None
    assert not behind.raw.exists(keys.job(job_id(batch, "q0"))), "no ghost is made"


# -- the server ----------------------------------------------------------------------------------------------


def test_a_safe_server_is_told_from_one_that_loses_jobs(stage: Stage) -> None:
    health = stage.store.health()
    if isinstance(stage, MemoryStage):
        assert health.danger is None
        return
    assert health.version.split(".")[0].isdigit()
    assert health.used_memory > 0
    assert (health.append_only, health.eviction, health.max_memory) == (False, "noeviction", 0)
    with pytest.raises(StoreUnsafe, match="append-only file is off"):
        health.require_safe()


def test_a_server_that_keeps_everything_is_safe(start_redis: StartRedis) -> None:
    server = start_redis("--appendonly", "yes", "--maxmemory", "100mb")
    store = RedisStore(server.url)
    health = store.health()
    store.close()
    assert (health.append_only, health.max_memory, health.danger) == (True, 100 * 1024 * 1024, None)
    health.require_safe()


def test_all_dangers_are_told_at_once() -> None:
    health = Health(version="7", append_only=False, eviction="allkeys-lru", used_memory=1, max_memory=2)
    with pytest.raises(StoreUnsafe) as caught:
        health.require_safe()
    assert "a restart would lose every job; its maxmemory-policy is allkeys-lru" in caught.value.message
    assert "appendonly yes" in str(caught.value.remedy)


def _closed_port() -> socket.socket:
    """A port that is taken and refuses: bound, and nobody listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


CALLS: dict[str, Callable[[Store], object]] = {
    "open_batch": open_batch,
    "add": lambda store: store.add("b_0", [question(0)]),
    "compare": lambda store: store.compare("b_0", [question(0)]),
    "seal": lambda store: store.seal("b_0", 1),
    "batch": lambda store: store.batch("b_0"),
    "jobs": lambda store: list(store.jobs("b_0")),
    "claim": lambda store: store.claim(Lane.START, ALL, limit=1, lease_s=1),
    "renew": lambda store: store.renew([("b_0.q0", 1)], lease_s=1),
    "commit": lambda store: move(store, "b_0.q0", 1, "fail"),
    "witness": lambda store: store.witness("b_0.q0", 1, "run"),
    "next_due": lambda store: store.next_due(Lane.START),
    "enlist": lambda store: store.enlist(Lane.START, "one", ttl_s=1),
    "discharge": lambda store: store.discharge(Lane.START, "one", [1]),
    "pauses": lambda store: store.pauses(),
    "health": lambda store: store.health(),
    "tidy": lambda store: store.tidy(keep_s=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_not_there_is_named_with_the_remedy(name: str) -> None:
    with _closed_port() as bound:
        port = bound.getsockname()[1]
        store = RedisStore(f"redis://user:s3cret@127.0.0.1:{port}/0?client_name=x")
        with pytest.raises(StoreUnreachable) as caught:
            CALLS[name](store)
        store.close()
    assert caught.value.message.startswith(f"Redis at redis://127.0.0.1:{port}/0 does not answer: ")
    assert caught.value.remedy == "Check that it is running and that REDIS_URL is right."
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_server_that_says_nothing_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_s=0.1)
        with ThreadPoolExecutor(1) as pool, pytest.raises(StoreUnreachable, match="does not answer"):
            pool.submit(store.next_due, Lane.START).result(timeout=10)
        store.close()


@pytest.mark.parametrize("user", ["", ":wrong-s3cret@", "somebody:wrong-s3cret@"])
def test_a_wrong_password_is_told_from_a_silent_server(start_redis: StartRedis, user: str) -> None:
    server = start_redis("--requirepass", "right-s3cret")
    store = RedisStore(server.url.replace("//", f"//{user}"))
    with pytest.raises(StoreError) as caught:
        store.batches()
    store.close()
    assert not isinstance(caught.value, StoreUnreachable)
    assert caught.value.message.startswith(f"Redis at {server.url} refused us: ")
    assert caught.value.remedy == "Put the right user and password into REDIS_URL."
    assert "s3cret" not in str(caught.value)
    right = RedisStore(server.url.replace("//", "//:right-s3cret@"))
    assert right.batches() == []
    right.close()


def test_a_user_who_may_not_write_is_told_so(start_redis: StartRedis) -> None:
    server = start_redis("--user", "reader", "on", ">pw", "~*", "+@read", "+info", "+ping")
    store = RedisStore(server.url.replace("//", "//reader:pw@"))
    with pytest.raises(StoreError, match="refused us") as caught:
        open_batch(store)
    store.close()
    assert caught.value.remedy == "Put the right user and password into REDIS_URL."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://:s3cret@localhost:6379", "http://localhost:6379"),
        ("localhost:6379", "localhost:6379"),
        (":s3cret@localhost:6379", "localhost:6379"),
        ("redis://:s3cret@localhost:port", "redis://localhost:port"),
        ("redis://:s3cret/with/slashes@localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://localhost:6379/0?db=s3cret", "redis://localhost:6379/0"),
        ("redis://localhost:6379/0?passwort=s3cret", "redis://localhost:6379/0"),
        ("redis://localhost:port?password=s3@s3cret", "redis://…"),
        ("", ""),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(StoreError) as caught:
        RedisStore(url)
    assert caught.value.message == f"{shown!r} is not a Redis address"
    assert "redis://:password@host:6379/0" in str(caught.value.remedy)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the parser's own words may quote a piece of the password"


def test_a_restarted_server_gets_the_scripts_again(start_redis: StartRedis) -> None:
    """Given a server that keeps its data, when it is killed and started, then the same store goes on."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(server.url)
    batch = submit(store, 3)
    first = claim(store, job_id(batch, "q0"), lease_s=LONG)
    server.stop()
    with pytest.raises(StoreUnreachable):
        move(store, first.id, first.fence, "prepare")
    server.start()
    moves = [Move(job=first.id, fence=first.fence, name=name) for name in ("prepare", "intend", "start")]
    assert store.commit([*moves, moves[-1]]) == [Outcome.MOVED] * 3 + [Outcome.ALREADY]
    with server.client() as raw:
        raw.script_flush()
    assert claim(store, job_id(batch, "q1")).first
    assert status_of(store, batch).counts[State.RUNNING] == 1
    store.close()


def test_a_full_server_takes_nothing_new_and_loses_nothing(alone: RedisStage) -> None:
    """Given no memory, then nothing new comes in, no paid call is prepared, and what was paid for is still saved."""
    store = alone.store
    batch = submit(store, 3, key="k")
    running, queued, due = (job_id(batch, f"q{index}") for index in range(3))
    fences = {id_: claim(store, id_, lease_s=0).fence for id_ in (running, queued)}
    assert move(store, running, fences[running], "intend", fields={"attempts": 1}) is Outcome.MOVED
    alone.raw.config_set("maxmemory", "1mb" if alone.raw.info()["used_memory"] > 2**20 else "1")
    try:
        before = alone.everything()
        refused: list[Callable[[], object]] = [
            lambda: open_batch(store),
            lambda: open_batch(store, key="other"),
            lambda: store.add(batch, [question(index) for index in range(3, 200)]),
            lambda: store.seal(batch, 200),
            lambda: store.claim(Lane.START, ALL, limit=100, lease_s=1),
            lambda: store.renew([(due, 1), (queued, fences[queued])], lease_s=1),
            lambda: move(store, queued, fences[queued], "intend", fields={"attempts": 1, "looks": None}),
        ]
        for call in refused:
            with pytest.raises(StoreError, match="refused: ") as caught:
                call()
            assert caught.value.remedy == (
                "Redis is full: raise maxmemory or remove finished batches. Nothing was lost."
            )
            assert alone.everything() == before, "nothing is half written"
        for name, fields in (("start", {"run": "run_1"}), ("complete", {})):
            assert move(store, running, fences[running], name, fields=fields) is Outcome.MOVED
        assert move(store, queued, fences[queued], "defer") is Outcome.MOVED
    finally:
        alone.raw.config_set("maxmemory", "0")
    audit(alone, batch)
    assert store.add(batch, [question(index) for index in range(200)]).already == 3
    assert claim(store, queued).fence > fences[queued]


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_a_waiting_job_takes_little_memory(alone: RedisStage, state: State) -> None:
    many, text = 2000, "Solve the equation 3x + 11 = 14 and explain each step. " * 4
    store = alone.store
    submit(store, 1)
    store.claim(Lane.START, ALL, limit=1, lease_s=LONG)
    before = _settled_memory(alone)
    rows = [question(index, text, row_id=f"row-{index:06d}", input={"chapter": "4.2"}) for index in range(many)]
    batch = open_batch(store)
    for start in range(0, many, 500):
        store.add(batch, rows[start : start + 500])
    if state is State.RUNNING:
        claims = store.claim(Lane.START, ALL, limit=10 * many, lease_s=LONG)
        steps: list[tuple[str, dict[str, str | int | float | None]]] = [
            ("prepare", {"thread": "conv_" + "6" * 48}),
            ("intend", {"attempts": 1}),
            ("start", {"run": "resp_" + "6" * 48, "runs": 1, "remote": "in_progress", "deadline": 1_800_000_000.123}),
            ("poll", {"polls": 12, "remote": "in_progress"}),
        ]
        for name, fields in steps:
            moves = [Move(job=claim.id, fence=claim.fence, name=name, fields=fields, delay=LONG) for claim in claims]
            assert set(store.commit(moves)) == {Outcome.MOVED}
    texts = sum(alone.raw.strlen(keys.ask(job_id(batch, row.question.row_id))) for row in rows[:20]) / 20
    each = (_settled_memory(alone) - before) / many - texts
    assert each <= 1.5 * 1024, f"{each:.0f} bytes per {state} job besides its text"


def _settled_memory(alone: RedisStage) -> int:
    """Used memory once buffers of clients are gone."""
    alone.store.close()
    eventually(lambda: len(alone.raw.client_list()) == 1, what="the store's connections are gone")
    return int(alone.raw.info("memory")["used_memory"])


# -- what the tests share ------------------------------------------------------------------------------------


def _source(name: str) -> State:
    """A state a move may leave."""
    return next(state for state in State if state in MOVES[name].sources)
