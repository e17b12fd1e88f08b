"""How a state follows from the clock, and that a work survives being stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from askq.localapi.engines.base import Call, Code, Outcome, Plan, Text, Usage
from askq.localapi.work import Work

DONE = Outcome(
    outputs=(
        Code(source="1", logs="1"),
        Text(value="x", annotations=({"a": 1},)),
        Call(call_id="c", name="f", arguments="{}"),
    ),
    usage=Usage(input_tokens=1, output_tokens=2),
)


def work(**fields: Any) -> Work:
    given: dict[str, Any] = {
        "id": "run_1",
        "protocol": "assistants",
        "scope": "thread_1",
        "number": 1,
        "created": 100.0,
        "deadline": 700.0,
        "body": {},
        "started": 100.0,
    }
    return Work(**(given | fields))


def test_a_planned_course_shows_its_statuses_one_after_the_other() -> None:
    it = work(plan=Plan(outcome=DONE, seconds=10, statuses=("a", "b", "c", "d")))
    assert [it.status(100 + at) for at in (0, 0.9, 1, 3.9, 4, 6.9, 7, 9.9)] == list("aabbccdd")
    assert it.due(109.9) is None
    assert it.due(110) == (110, DONE)


def test_a_course_of_no_length_begins_with_its_first_status() -> None:
    it = work(plan=Plan(outcome=DONE, seconds=0))
    assert it.status(100) == "queued"
    assert it.due(100) == (100, DONE)


def test_a_course_without_end_moves_on_by_the_second_and_stays_at_the_last() -> None:
    it = work(plan=Plan(outcome=DONE, seconds=None), deadline=None)
    assert [it.status(100 + at) for at in (0, 0.5, 1, 1e6)] == ["queued", "queued", "in_progress", "in_progress"]
    assert it.due(1e9) is None


def test_a_course_by_poll_ends_after_its_last_status() -> None:
    it = work(plan=Plan(outcome=DONE, seconds=1, statuses=("a", "b"), by_poll=True, poll_after_ms=(5,)))
    seen = []
    for _ in range(3):
        it.polls += 1
        due = it.due(101)
        seen.append((it.status(101), it.poll_after_ms, due is not None))
    assert seen == [("a", 5, False), ("b", 5, False), ("b", 5, True)]


@pytest.mark.parametrize(
    ("cancel_at", "deadline", "status", "at"),
    [
        (None, 700, "completed", 110),
        (105, 700, "cancelled", 105),
        (120, 700, "completed", 110),
        (120, 108, "expired", 108),
    ],
)
def test_the_earliest_end_wins(cancel_at: float | None, deadline: float, status: str, at: float) -> None:
    it = work(plan=Plan(outcome=DONE, seconds=10), cancel_at=cancel_at, deadline=deadline)
    due = it.due(1000)
    assert due is not None
    assert (due[1].status, due[0]) == (status, at)


def test_an_engine_that_works_queues_first() -> None:
    it = work()
    assert it.status(101) == "queued"
    it.begun = 101
    assert it.status(102) == "in_progress"
    it.outcome, it.outcome_at = DONE, 103
    assert it.due(104) == (103, DONE)


def test_a_response_has_no_word_for_expired() -> None:
    expired = Outcome(status="expired")
    assert work(ended=1.0, outcome=expired).status(2) == "expired"
    assert work(ended=1.0, outcome=expired, protocol="responses").status(2) == "failed"


def test_a_work_survives_being_stored() -> None:
    it = work(
        plan=Plan(outcome=DONE, seconds=10, statuses=("a",), poll_after_ms=(1, 2)),
        outcome=DONE,
        outcome_at=3.0,
        cancel_at=4.0,
        waiting=True,
        spent=Usage(input_tokens=5, output_tokens=6),
        made=[{"id": "step_1"}],
        input=[{"id": "msg_1"}],
        body={"model": "m"},
    )
    assert Work.from_json(json.loads(json.dumps(it.to_json()))) == it
    assert Work.from_json(json.loads(json.dumps(work().to_json()))) == work()
