"""The engine with runs that ask for functions."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from askq.jobs.calls import CallResult, WantedCall
from askq.jobs.model import State
from tests.unit.engine_stage import PROBE_S
from tests.unit.functions_stage import HOME, HOW, USED, Houses, Service, building
from worker.protocols.base import (
    Ambiguous,
    Blocked,
    Limited,
)
from worker.tools.host import Aborted, Crashed, failure


@pytest.fixture
def houses() -> Iterator[Houses]:
    yield from building()


@pytest.mark.parametrize("own_runs", [True, False])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_functions_are_run_once_and_answered(houses: Houses, rounds: int, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs, rounds=rounds))
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert done.answer.text == ("light done fan done" if rounds else "no function needed")
    assert [call["name"] for call in done.answer.tool_calls] == ["light", "fan"] * rounds
    assert set(house.functions.ran.values()) <= {1}
    assert [part["input"] for part in done.answer.code] == [f"round {n}" for n in range(rounds if own_runs else 0)]
    runs = rounds + 1 if own_runs else 1
    assert (done.attempts, done.runs, len(house.service.creates)) == (runs, runs, runs)
    assert [attempt for _, attempt in house.service.creates] == list(range(1, runs + 1))
    assert done.answer.usage is not None
    assert done.answer.usage.total_tokens == 7 * runs
    assert done.answer.usage.cost_usd == pytest.approx(0.1 * runs)
    assert house.store.calls().look(done.id) == [], "nothing is left behind"
    assert bool(house.nudged) is bool(rounds)
    status = house.store.batch(done.id.partition(".")[0])
    assert status is not None
    assert status.usage.total_tokens == 7 * runs


@pytest.mark.parametrize("own_runs", [True, False])
def test_outputs_are_on_record_before_they_are_submitted(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    job = house.submit()

    def look(what: str) -> None:
        if what == "outputs":
            assert [call.result is not None for call in house.store.calls().look(job)] == [True, True]

    house.service.before = look
    assert house.finish(job).state is State.COMPLETED


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_submission_whose_reply_is_lost_runs_nothing_again(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs, rounds=2))
    house.service.items = True
    lost = Counter[str]()

    def lose(what: str) -> None:
        lost[what] += 1
        if what == "outputs" and lost[what] == 1:
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert len(house.functions.ran) == 4
    assert done.runs == len(house.service.creates) == (3 if own_runs else 1)


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_submission_that_was_not_carried_out_is_made_again(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    house.service.keyed = own_runs
    tried = Counter[str]()

    def fail(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] == 1:
            raise Ambiguous("no_reply", "it did not even arrive")

    house.service.before = fail
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert done.attempts == (2 if own_runs else 1)
    assert len(house.service.creates) == (2 if own_runs else 1)


def test_a_limit_while_outputs_are_submitted_is_waited_out(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    tried = Counter[str]()

    def limit(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] < 3:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.05)

    house.service.before = limit
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs) == (2, 2), "a refusal is no attempt"
    assert set(house.functions.ran.values()) == {1}


def test_outputs_wait_while_the_account_is_out_of_credit(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    tried = Counter[str]()

    def block(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] < 4:
            raise Blocked("quota_exhausted", "no credit left")

    house.service.before = block
    job = house.submit()
    began = time.monotonic()
    done = house.finish(job)
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs, tried["outputs"]) == (2, 2, 4)
    assert time.monotonic() - began > 3 * PROBE_S, "it is probed, and not hammered"
    assert house.store.pauses() == []
    assert set(house.functions.ran.values()) == {1}


def test_a_first_run_whose_reply_is_lost_is_found_by_what_it_asks_for(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.service.items = True

    def lose(what: str) -> None:
        if what == "question":
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs, len(house.service.creates)) == (2, 2, 2)
    assert done.answer is not None
    assert done.answer.usage is not None
    assert done.answer.usage.cost_usd is None, "what the first run cost nobody knows"


def test_an_uncertain_submission_ends_in_doubt_with_its_calls(houses: Houses) -> None:
    house = houses(Service(own_runs=True))

    def lose(what: str) -> None:
        if what == "outputs":
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, timeout_s=2.5)))
    assert (done.state, done.error_code) == (State.UNCERTAIN, "uncertain_create")
    assert done.answer is not None
    assert [call["output"] for call in done.answer.tool_calls] == ["light done", "fan done"]
    assert len(house.service.creates) == 2, "nothing was paid for twice"


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_worker_that_dies_at_any_step_costs_nothing(houses: Houses, *, own_runs: bool) -> None:
    """A new engine goes on from the store alone."""
    house = houses(Service(own_runs=own_runs, rounds=2))
    house.service.keyed = True
    job = house.submit()
    until = time.monotonic() + 120
    while not house.job(job).state.terminal:
        assert time.monotonic() < until
        house.step()
        house.engine()
    done = house.job(job)
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert done.runs == len(house.service.creates) == (3 if own_runs else 1)


def test_an_error_is_an_output_that_the_model_answers(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: failure("exception", "ValueError: broken")
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert "ValueError: broken" in (done.answer.text or "")
    assert [call["error"] for call in done.answer.tool_calls] == ["exception", "exception"]


def test_a_function_that_kills_its_process_is_tried_three_times(houses: Houses) -> None:
    house = houses(Service(own_runs=False))
    house.functions.does = lambda claim: Crashed("it was killed by SIGSEGV", "")
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert set(house.functions.ran.values()) == {3}
    assert {call["error"] for call in done.answer.tool_calls} == {"crashed"}


def test_a_function_that_must_not_run_twice_does_not(houses: Houses) -> None:
    once = dataclasses.replace(HOME, functions={name: how | {"once": True} for name, how in HOW.items()})
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: Crashed("it was killed by SIGKILL", "")
    done = house.finish(house.submit(assistant=once))
    assert set(house.functions.ran.values()) == {1}
    assert done.answer is not None
    assert {call["error"] for call in done.answer.tool_calls} == {"unknown_outcome"}


def test_runs_are_put_off_while_too_many_functions_wait(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    full = house.store.calls().waiting
    house.store._calls.offer(
        "b_0.other", [WantedCall(key=f"1.{n}", call_id="c", name="f", arguments="") for n in range(51)], 0
    )
    assert full() == 51
    job = house.submit()
    house.until(lambda: (house.job(job).note or "").startswith("51 function calls wait"), tools=False)
    assert house.service.creates == []
    house.store._calls.calls.clear()
    assert house.finish(job).state is State.COMPLETED


def test_rounds_without_end_come_to_one(houses: Houses) -> None:
    house = houses(Service(own_runs=False, rounds=99))
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, max_rounds=2)))
    assert (done.state, done.error_code) == (State.FAILED, "too_many_rounds")
    assert done.answer is not None
    assert len(done.answer.tool_calls) == 4
    assert house.service.cancelled, "the run does not go on waiting"


def test_a_function_nobody_can_load_ends_the_job(houses: Houses) -> None:
    house = houses(Service(own_runs=False))
    house.functions.does = lambda claim: CallResult(output="home.py:1: is not Python", error="unavailable")
    done = house.finish(house.submit())
    assert (done.state, done.error_code) == (State.FAILED, "function_unavailable")
    assert "home.py:1" in (done.error_message or "")
    assert house.service.cancelled


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_job_is_cancelled_while_it_waits_for_functions(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    job = house.submit()
    house.until(lambda: house.job(job).state is State.ACTION, tools=False)
    house.store.cancel([job])
    done = house.finish(job)
    assert (done.state, done.error_code) == (State.CANCELLED, "cancelled")
    assert not house.functions.ran, "what nobody waits for is not run"
    assert bool(house.service.cancelled) is not own_runs
    if own_runs:
        assert done.answer is not None
        assert done.answer.usage == USED, "it has cost what it has cost"


def test_a_deadline_ends_a_job_whose_functions_never_end(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: Crashed("it was killed", "") if claim.crashes < 1 else Aborted()
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, timeout_s=1.0)))
    assert (done.state, done.error_code) == (State.EXPIRED, "deadline")


def test_outputs_are_paid_from_the_budget_of_the_batch(houses: Houses) -> None:
    priced = dataclasses.replace(
        HOME, price={"input": 1.0, "output": 1.0}, max_output_tokens=100, max_prompt_tokens=100
    )
    house = houses(Service(own_runs=True, rounds=2))
    job = house.submit(assistant=priced, max_cost_usd=1.0)
    done = house.finish(job)
    assert done.state is State.COMPLETED
    status = house.store.batch(job.partition(".")[0])
    assert status is not None
    assert status.budget is not None
    assert status.budget.reserved_usd == 0
    assert status.budget.spent_usd == pytest.approx(0.3, abs=1e-4), "three runs, each counted once"


def test_a_budget_that_does_not_cover_the_outputs_makes_them_wait(houses: Houses) -> None:
    priced = dataclasses.replace(
        HOME, price={"input": 1000.0, "output": 1000.0}, max_output_tokens=100, max_prompt_tokens=100, timeout_s=1.5
    )
    house = houses(Service(own_runs=True))
    job = house.submit(assistant=priced, max_cost_usd=0.61)  # a run costs 0.6 at worst
    done = house.finish(job)
    assert (done.error_code, len(house.service.creates)) == ("deadline", 1)
    assert set(house.functions.ran.values()) == {1}
