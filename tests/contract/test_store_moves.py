"""Moves of jobs, as every job store makes them: by the table of states, under a fence, once."""

from __future__ import annotations

import pytest

from askq.ids import job_id
from askq.jobs.model import LANE_OF, MOVES, PENDING, TERMINAL, Answer, Lane, Move, Outcome, State
from tests.contract.store_stage import (
    ALL,
    LONG,
    SHORT,
    USAGE,
    Stage,
    audit,
    bring,
    claim,
    job_of,
    move,
    source_of,
    status_of,
    submit,
    way_to,
)


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
    fence = bring(stage.store, job, source_of(name))
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
    fence = bring(stage.store, job, source_of(name), lease_s=0)
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
