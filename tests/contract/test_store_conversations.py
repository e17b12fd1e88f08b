"""What every job store promises of conversations: who waits, who is told, and what the next one is told."""

from __future__ import annotations

import pytest

from askq.files.model import Attachment, FileRef
from askq.ids import job_id
from askq.jobs import codec
from askq.jobs.model import WAIT_FOR_TURN_S, Answer, Lane, Move, NewJob, Outcome, State, Usage
from askq.jobs.store import Store
from tests.contract.store_stage import (
    ALL,
    LONG,
    Stage,
    audit,
    bring,
    claim,
    job_of,
    move,
    open_batch,
    question,
    submit,
)


def talk(turns: int, *, thread: str = "대화") -> list[NewJob]:
    """The questions of one conversation."""
    return [
        NewJob(
            question=question(index, thread=thread).question,
            assistant="tutor",
            assistant_digest="0123456789abcdef",
            protocol="responses",
            after=f"q{index - 1}" if index else None,
        )
        for index in range(turns)
    ]


def due(stage: Stage, job: str) -> float:
    """Seconds until a job is due."""
    found = job_of(stage.store, job).due_at
    assert found is not None
    return found - stage.now()


def test_only_the_first_question_of_a_conversation_is_due_and_the_others_stay_in_the_schedule(stage: Stage) -> None:
    batch = submit(stage.store, talk(4))
    claimed = [held.id for held in stage.store.claim(Lane.START, ALL, limit=100, lease_s=LONG)]
    assert claimed == [job_id(batch, "q0")]
    for row in ("q1", "q2", "q3"):
        assert due(stage, job_id(batch, row)) == pytest.approx(WAIT_FOR_TURN_S, abs=5)
    audit(stage, batch)


def test_a_question_knows_its_conversation_and_the_one_before_it(stage: Stage) -> None:
    batch = submit(stage.store, talk(2))
    first, second = (job_of(stage.store, job_id(batch, row)) for row in ("q0", "q1"))
    assert (first.question.thread, first.after) == ("대화", None)
    assert (second.question.thread, second.after) == ("대화", "q0")
    held = claim(stage.store, first.id)
    assert (held.after, held.next) == (None, "q1")
    assert held.question is not None
    assert held.question.thread == "대화"


def test_a_question_keeps_the_files_of_its_conversation(stage: Stage) -> None:
    job = job_id(submit(stage.store, talk(1)), "q0")
    file = Attachment(tool="file_search", file=FileRef(name="보고서.txt", sha256="ab" * 32, size=3))
    held = claim(stage.store, job)
    assert held.held == ()
    fields = {"thread": "t", "held": codec.dump_held([file])}
    assert move(stage.store, job, held.fence, "prepare", fields=fields) is Outcome.MOVED
    assert claim(stage.store, job).held == (file,)
    (seen,) = stage.store.follow([(job, "q1")])
    assert seen is not None
    assert seen.held == (file,)


def test_an_end_makes_the_next_question_due_and_no_other(stage: Stage) -> None:
    batch = submit(stage.store, talk(3))
    fence = bring(stage.store, job_id(batch, "q0"), State.COLLECTING)
    ended = Move(job=job_id(batch, "q0"), fence=fence, name="complete", wakes=job_id(batch, "q1"))
    assert stage.store.commit([ended]) == [Outcome.MOVED]
    assert due(stage, job_id(batch, "q1")) <= 0
    assert due(stage, job_id(batch, "q2")) > WAIT_FOR_TURN_S / 2
    assert stage.store.commit([ended]) == [Outcome.ALREADY]
    audit(stage, batch)


def test_who_is_just_looking_when_the_one_before_ends_looks_again_at_once(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, talk(2))
    second = job_id(batch, "q1")
    store.wake([second])
    held = claim(store, second)
    # It has read that the first has not ended, and is about to say how long it waits.
    store.wake([second])
    assert move(store, second, held.fence, "defer", delay=LONG) is Outcome.MOVED
    assert due(stage, second) <= 0
    held = claim(store, second)
    assert move(store, second, held.fence, "defer", delay=LONG) is Outcome.MOVED
    assert due(stage, second) > LONG / 2, "it was told once, and has looked since"
    audit(stage, batch)


@pytest.mark.parametrize("state", [state for state in State if state is not State.QUEUED])
def test_a_wake_is_for_who_waits_alone(stage: Stage, state: State) -> None:
    batch = submit(stage.store, talk(1))
    bring(stage.store, job_id(batch, "q0"), state)
    before = stage.everything()
    stage.store.wake([job_id(batch, "q0"), job_id(batch, "nobody")])
    assert stage.everything() == before


def test_following_tells_what_the_next_one_joins_and_sees_to_it_that_it_is_woken(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    job = job_id(batch, "q0")
    fence = bring(store, job, State.RUNNING)
    fields = {"thread": "conv_1", "run": "resp_1", "joined": "msg_0", "previous": "resp_0"}
    assert move(store, job, fence, "defer", fields=fields) is Outcome.MOVED
    (seen,) = store.follow([(job, "q1")])
    assert seen is not None
    assert (seen.id, seen.state, seen.after) == (job, State.RUNNING, None)
    assert (seen.thread_id, seen.run_id, seen.joined, seen.previous) == ("conv_1", "resp_1", "msg_0", "resp_0")
    assert seen.tokens is None
    assert claim(store, job).next == "q1"
    assert store.follow([(job_id(batch, "never"), "q1")]) == [None]
    audit(stage, batch)


def test_following_one_that_has_ended_changes_nothing_and_tells_how_it_ended(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    job = job_id(batch, "q0")
    fence = bring(store, job, State.RUNNING)
    fields: dict[str, str | int | float | None] = {"error_code": "run_failed", "error_message": "so it was"}
    assert move(store, job, fence, "fail", fields=fields | {"total": 7}) is Outcome.MOVED
    before = stage.everything()
    (seen,) = store.follow([(job, "q1")])
    assert seen is not None
    assert (seen.state, seen.error_code, seen.error_message) == (State.FAILED, "run_failed", "so it was")
    assert seen.tokens == 7
    assert stage.everything() == before


def test_a_row_that_comes_when_the_one_before_it_has_ended_is_due_at_once(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    first, second = talk(2)
    store.add(batch, [first])
    bring(store, job_id(batch, "q0"), State.COMPLETED)
    store.add(batch, [second])
    store.seal(batch, 2)
    assert due(stage, job_id(batch, "q1")) <= 0
    audit(stage, batch)


def test_a_submission_that_died_and_comes_again_tells_who_waits_for_whom(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store, key="again")
    first, second, third = talk(3)
    store.add(batch, [first, second])
    again = store.add(batch, [first, second, third])
    assert (again.added, again.already, again.conflicts) == (1, 2, ())
    assert claim(store, job_id(batch, "q0")).next == "q1"


def test_another_order_of_a_conversation_is_another_list(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, talk(3), key="k")
    moved = NewJob(**{**_fields(talk(3)[2]), "after": "q0"})
    assert store.compare(batch, [moved]).conflicts == ("q2",)
    assert store.compare(batch, talk(3, thread="another")).conflicts == ("q0", "q1", "q2")
    assert store.compare(batch, talk(3)).already == 3


def _fields(job: NewJob) -> dict[str, object]:
    return {name: getattr(job, name) for name in NewJob.__dataclass_fields__}


def test_cancelling_one_that_is_queued_tells_the_next(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, talk(3))
    assert store.cancel([job_id(batch, "q0")]) == [Outcome.MOVED]
    assert due(stage, job_id(batch, "q1")) <= 0
    assert due(stage, job_id(batch, "q2")) > WAIT_FOR_TURN_S / 2
    assert store.cancel([job_id(batch, row) for row in ("q1", "q2")]) == [Outcome.MOVED, Outcome.MOVED]
    audit(stage, batch)


def test_asked_again_it_keeps_its_place_and_forgets_what_it_had_joined(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, talk(2))
    job = job_id(batch, "q1")
    store.wake([job])
    held = claim(store, job)
    fields: dict[str, str | int | float | None] = {"thread": "conv_1", "joined": "m", "previous": "r", "history": 9}
    assert move(store, job, held.fence, "fail", fields=fields) is Outcome.MOVED
    assert store.retry([job], [State.FAILED]) == [Outcome.MOVED]
    again = claim(store, job)
    assert (again.after, again.thread_id) == ("q0", None)
    assert (again.joined, again.previous, again.history) == (None, None, None)
    audit(stage, batch)


def test_what_waits_for_its_turn_is_no_sign_that_the_start_lane_moves(stage: Stage) -> None:
    store = stage.store
    submit(store, talk(5))
    assert store.books().ahead(Lane.START) == 0
    submit(store, 1)
    claims = store.claim(Lane.START, ALL, limit=100, lease_s=LONG)
    assert len(claims) == 2
    assert store.books().ahead(Lane.START) == 2


def test_usage_of_a_turn_tells_how_long_the_conversation_is(stage: Stage) -> None:
    store: Store = stage.store
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = bring(store, job, State.COLLECTING)

    usage = Usage(input_tokens=20, output_tokens=5, total_tokens=25)
    assert move(store, job, fence, "complete", answer=Answer(text="a", usage=usage)) is Outcome.MOVED
    (seen,) = store.follow([(job, "q1")])
    assert seen is not None
    assert seen.tokens == 25
