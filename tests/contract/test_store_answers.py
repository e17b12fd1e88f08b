"""Questions, answers and what they used, as every job store gives them back."""

from __future__ import annotations

import dataclasses

import pytest

from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import PENDING, TERMINAL, Answer, Lane, Outcome, State, Usage
from tests.contract.store_stage import (
    ALL,
    LONG,
    USAGE,
    RedisStage,
    Stage,
    answer_all,
    audit,
    bring,
    claim,
    job_of,
    move,
    open_batch,
    question,
    status_of,
    submit,
    way_to,
)


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
