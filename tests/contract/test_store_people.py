"""What a person may do to jobs: ask again, cancel, look at what killed workers. Every store does the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from askq.ids import job_id, shard_of
from askq.jobs import keys
from askq.jobs.model import (
    ASKED_AGAIN,
    CANCELLED_IN_TIME,
    DEAD_LETTER,
    FINISHING,
    LANE_OF,
    MOVES,
    PENDING,
    TERMINAL,
    Answer,
    Lane,
    Outcome,
    State,
)
from tests.contract.store_stage import (
    ALL,
    LONG,
    SERVERS,
    SHORT,
    USAGE,
    RedisStage,
    Stage,
    answer_all,
    audit,
    bring,
    claim,
    job_of,
    marks,
    move,
    question,
    status_of,
    submit,
)
from tests.parts import RedisServer, eventually

OF_THE_RUN: dict[str, str | int | float | None] = {
    "thread": "thread_1", "run": "run_1", "remote": "failed", "deadline": 9.5, "looks": 2, "errors": 3, "polls": 4,
    "limited": 1.5, "note": "hm", "cancel": "deadline", "cancel_sent": 1, "error_code": "server_error",
    "error_message": "oops", "attempts": 2, "runs": 2, "resets": 1,
}  # fmt: skip


def end(stage: Stage, job: str, state: State) -> int:
    """End a queued job that has been through everything; the fence it ended under."""
    fence = claim(stage.store, job, lease_s=0).fence
    for name in ("prepare", "intend"):
        assert move(stage.store, job, fence, name, delay=LONG, fields={"attempts": 2}) is Outcome.MOVED
    stage.store.witness(job, 2, "run_w")
    if state is not State.UNCERTAIN:
        assert move(stage.store, job, fence, "start", fields={"witness": None}) is Outcome.MOVED
    else:
        assert move(stage.store, job, fence, "defer", delay=LONG, fields={"witness": None}) is Outcome.MOVED
    answer = Answer(text="part", model="m", usage=USAGE)
    outcome = move(stage.store, job, fence, FINISHING[state], fields=OF_THE_RUN, answer=answer)
    assert outcome is Outcome.MOVED
    return fence


# -- asking again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ends", [set(State), ASKED_AGAIN, {State.FAILED}, set()], ids=["all", "usual", "failed", "none"]
)
@pytest.mark.parametrize("state", State)
def test_what_has_ended_as_was_said_is_queued_again_and_nothing_else(
    stage: Stage, state: State, ends: set[State]
) -> None:
    batch = submit(stage.store, 2)
    job = job_id(batch, "q0")
    bring(stage.store, job, state)
    before = stage.everything()
    (outcome,) = stage.store.retry([job], ends)
    if state in PENDING:
        assert outcome is Outcome.ALREADY
    elif state not in ends or state is State.COMPLETED:
        assert outcome is Outcome.NOT_YOURS, "a complete answer is never asked again"
    else:
        assert outcome is Outcome.MOVED
        assert job_of(stage.store, job).state is State.QUEUED
    if outcome is not Outcome.MOVED:
        assert stage.everything() == before
    audit(stage, batch)


@pytest.mark.parametrize("state", sorted(ASKED_AGAIN))
def test_a_job_asked_again_begins_anew_and_remembers_what_it_cost(stage: Stage, state: State) -> None:
    store = stage.store
    batch = submit(store, [question(0, "Why?", model="m2", input={"a": "b"}), question(1)])
    job = job_id(batch, "q0")
    end(stage, job, state)
    ended = job_of(store, job)
    stage.pass_time(SHORT)
    assert store.retry([job], [state]) == [Outcome.MOVED]
    again = job_of(store, job)
    assert (again.question, again.assistant_digest, again.created_at) == (
        ended.question,
        ended.assistant_digest,
        ended.created_at,
    )
    assert (again.attempts, again.runs, again.retries) == (2, 2, 1)
    gone = (again.thread_id, again.run_id, again.remote, again.note, again.cancel, again.error_code, again.answer)
    assert gone == (None,) * 7
    assert (again.polls, again.error_message, again.started_at, again.completed_at) == (0, None, None, None)
    assert again.due_at is not None
    assert again.due_at <= stage.now(), "due at once"
    audit(stage, batch)
    taken = claim(store, job)
    assert (taken.claims, taken.errors, taken.looks, taken.polls, taken.cancel_sent) == (1, 0, 0, 0, False)
    assert (taken.limited_at, taken.intent_at, taken.deadline, taken.witness, taken.usage) == (None,) * 5
    assert (taken.attempts, taken.allowance, taken.question) == (2, 2, ended.question)
    assert taken.resets == 1, "the next thread is made under another key than the one that vanished"
    assert status_of(store, batch).usage.total_tokens == 100, "what the earlier run has used stays counted"
    for name in ("intend", "start", "complete"):
        move(store, job, taken.fence, name, delay=LONG, answer=Answer(text="whole", usage=USAGE))
    assert job_of(store, job).answer == Answer(text="whole", usage=USAGE)
    assert status_of(store, batch).usage.total_tokens == 200
    assert job_of(store, job).retries == 1


@pytest.mark.parametrize("name", MOVES)
def test_whoever_held_a_job_before_it_was_asked_again_holds_it_no_more(stage: Stage, name: str) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    old = end(stage, job, State.FAILED)
    stage.store.retry([job], [State.FAILED])
    before = job_of(stage.store, job)
    assert move(stage.store, job, old, name) is Outcome.NOT_YOURS
    assert stage.store.renew([(job, old)], lease_s=LONG) == [job]
    stage.store.witness(job, 2, "run_late")
    assert job_of(stage.store, job) == before
    assert claim(stage.store, job).witness is None
    assert before.fence > old


def test_asking_again_twice_asks_once(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    end(stage, job, State.FAILED)
    found = stage.store.retry([job, job, job_id(batch, "nobody"), "b_0.q0"], [State.FAILED])
    assert found == [Outcome.MOVED, Outcome.ALREADY, Outcome.MISSING, Outcome.MISSING]
    assert stage.store.retry([], [State.FAILED]) == []
    assert job_of(stage.store, job).retries == 1
    end(stage, job, State.FAILED)
    assert stage.store.retry([job], [State.FAILED]) == [Outcome.MOVED]
    assert job_of(stage.store, job).retries == 2
    audit(stage, batch)


def test_a_batch_that_is_asked_again_stays_until_it_has_ended_again(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 1, key="k")
    job = job_id(batch, "q0")
    end(stage, job, State.FAILED)
    assert store.tidy(keep_s=2) == 1
    assert store.retry([job], [State.FAILED]) == [Outcome.MOVED]
    status = status_of(store, batch)
    assert (status.done, status.finished_at, status.pending) == (False, None, 1)
    stage.pass_time(2.1)
    assert store.tidy(keep_s=2) == 0
    assert store.batch_under("k") == batch
    assert status_of(store, batch).counts[State.QUEUED] == 1
    answer_all(store, batch)
    assert store.tidy(keep_s=2) == 1, "and is marked again"


def test_nothing_of_a_job_that_is_asked_again_expires(behind: RedisStage) -> None:
    batch = submit(behind.store, 1, key="k")
    job = job_id(batch, "q0")
    end(behind, job, State.FAILED)
    behind.store.tidy(keep_s=1000)
    lasting = {key for key in behind.raw.keys("askq:*") if behind.raw.ttl(key) == -1}
    tombstones = {keys.objects(job).encode(), keys.buried(shard_of(job)).encode()}
    assert lasting - marks(behind) == {keys.BATCHES.encode()} | tombstones
    behind.store.retry([job], [State.FAILED])
    assert {key for key in behind.raw.keys("askq:*") if behind.raw.ttl(key) != -1} == set()
    assert not behind.raw.exists(keys.answer(job))
    assert set(behind.raw.hkeys(keys.job(job))) == {
        b"state", b"index", b"digest", b"assistant", b"adigest", b"protocol", b"created", b"fence", b"attempts",
        b"runs", b"base", b"retries", b"resets",
    }  # fmt: skip


def test_a_job_whose_record_has_expired_cannot_be_asked_again(redis_servers: Callable[[str], RedisServer]) -> None:
    stage = RedisStage(redis_servers(SERVERS[0]), keep_days=1 / 86_400)
    try:
        batch = submit(stage.store, 2)
        job = job_id(batch, "q0")
        end(stage, job, State.FAILED)
        eventually(lambda: stage.store.job(job) is None, what="the result expires")
        assert stage.store.retry([job], ASKED_AGAIN) == [Outcome.MISSING]
        assert stage.store.cancel([job]) == [Outcome.MISSING]
        assert not stage.raw.exists(keys.job(job)), "no ghost is made"
        counts = status_of(stage.store, batch).counts
        assert (counts[State.FAILED], counts[State.QUEUED]) == (1, 1)
    finally:
        stage.close()


# -- cancelling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [True, False], ids=["held", "free"])
@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_wish_to_cancel_is_noted_and_carried_out_by_the_next_claim(
    stage: Stage,
    state: State,
    held: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    store = stage.store
    batch = submit(store, 2)
    job = job_id(batch, "q0")
    fence = bring(store, job, state)
    if not held:
        assert move(store, job, fence, "defer", delay=LONG, fields={"note": "waiting"}) is Outcome.MOVED
    before = job_of(store, job)
    assert store.cancel([job]) == [Outcome.MOVED]
    found = job_of(store, job)
    assert found.cancel == "asked"
    if state is State.QUEUED and not held:
        assert (found.state, found.error_code, found.error_message) == (State.CANCELLED, "cancelled", CANCELLED_IN_TIME)
        assert (found.note, found.due_at, found.answer) == (None, None, None)
        assert found.completed_at is not None
        assert found.completed_at <= stage.now()
        assert store.claim(Lane.START, [shard_of(job)], limit=10, lease_s=LONG) == []
        assert store.retry([job], [State.CANCELLED]) == [Outcome.MOVED], "a person may think again"
        assert job_of(store, job).cancel is None
    else:
        assert (found.state, found.fence) == (before.state, before.fence)
        if held:
            assert found.due_at == before.due_at, "whoever holds it goes on in peace"
            assert move(store, job, fence, "defer") is Outcome.MOVED
        taken = claim(store, job)
        assert (taken.cancel, taken.state, taken.cancel_sent) == ("asked", state, False)
    audit(stage, batch)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_has_ended_is_not_cancelled(stage: Stage, state: State) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    bring(stage.store, job, state)
    before = stage.everything()
    assert stage.store.cancel([job]) == [Outcome.ALREADY]
    assert stage.everything() == before


def test_cancelling_twice_is_cancelling(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    queued, running = job_id(batch, "q0"), job_id(batch, "q1")
    bring(store, running, State.RUNNING)
    assert store.cancel([queued, running, job_id(batch, "nobody")]) == [Outcome.MOVED, Outcome.MOVED, Outcome.MISSING]
    before = stage.everything()
    assert store.cancel([queued, running]) == [Outcome.ALREADY] * 2
    assert stage.everything() == before
    assert store.cancel([]) == []


def test_a_queued_job_that_was_held_when_it_was_cancelled_can_be_cancelled_once_more(stage: Stage) -> None:
    """Given a worker that gave the job back and an account nobody may call, when asked again, then it ends."""
    store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = claim(store, job).fence
    assert store.cancel([job]) == [Outcome.MOVED]
    assert move(store, job, fence, "defer", delay=LONG) is Outcome.MOVED
    assert job_of(store, job).state is State.QUEUED
    assert store.cancel([job]) == [Outcome.MOVED]
    assert job_of(store, job).state is State.CANCELLED
    audit(stage, batch)


def test_a_run_past_its_deadline_may_be_cancelled_by_a_person_too(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    fence = bring(store, job, State.RUNNING)
    move(store, job, fence, "poll", delay=LONG, fields={"cancel": "deadline", "cancel_sent": 1})
    assert store.cancel([job]) == [Outcome.MOVED]
    taken = claim(store, job)
    assert (taken.cancel, taken.cancel_sent) == ("asked", True), "the service has been told already"


def test_a_cancelled_job_expires_like_any_that_has_ended(behind: RedisStage) -> None:
    batch = submit(behind.store, 1)
    job = job_id(batch, "q0")
    behind.store.cancel([job])
    month = 30 * 86_400
    for name in (keys.job(job), keys.ask(job)):
        assert month - 100 < behind.raw.ttl(name) <= month
    assert status_of(behind.store, batch).done
    assert behind.store.tidy(keep_s=1000) == 1


# -- dead letters --------------------------------------------------------------------------------------------


def test_what_killed_workers_is_a_dead_letter_until_it_is_asked_again(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 40)
    assert store.dead_letters() == {}
    poison, other = job_id(batch, "q0"), job_id(batch, "q1")
    before = stage.now()
    for job, code in ((poison, DEAD_LETTER), (other, "server_error")):
        fence = claim(store, job, lease_s=0).fence
        assert move(store, job, fence, "fail", fields={"error_code": code}) is Outcome.MOVED
    letters = store.dead_letters()
    assert set(letters) == {poison}
    assert before - 1e-5 <= letters[poison] <= stage.now()
    assert store.retry([poison, other], [State.FAILED]) == [Outcome.MOVED] * 2
    assert store.dead_letters() == {}
    audit(stage, batch)


def test_a_dead_letter_goes_with_its_record(stage: Stage) -> None:
    store = stage.store
    job = job_id(submit(store, 1), "q0")
    move(store, job, claim(store, job).fence, "fail", fields={"error_code": DEAD_LETTER})
    store.tidy(keep_s=1)
    assert set(store.dead_letters()) == {job}
    # The server's clock is read in whole seconds for this.
    stage.pass_time(2.1)
    store.tidy(keep_s=1)
    assert store.dead_letters() == {}


def test_the_lanes_know_no_cancelled_job(stage: Stage) -> None:
    batch = submit(stage.store, 30)
    assert set(stage.store.cancel([job.id for job in stage.store.jobs(batch)])) == {Outcome.MOVED}
    assert stage.lanes() == {}
    for lane in set(LANE_OF.values()):
        assert stage.store.claim(lane, ALL, limit=100, lease_s=LONG) == []
    assert status_of(stage.store, batch).done
    audit(stage, batch)
