"""Decisions about function calls: what goes on record, what waits, what is submitted, what is paid for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from askq.jobs.calls import CallResult, KeptCall, WantedCall
from askq.jobs.codec import MOST_BROUGHT, load_usage, with_brought
from askq.jobs.model import MOVES, Claim, State, Usage
from tests.unit.test_steps import ANSWER, BLOCKED, LIMITED, LOST, NOW, TUTOR, claim, legal, running, status
from worker import rounds, steps
from worker.protocols.base import Found, Gone, Refused, RunState, Search, ToolCall, ToolOutput
from worker.steps import Decision

HOME = dataclasses.replace(TUTOR, functions={"light": {"module": "home", "function": "light", "folder": "."}})
CALLS = (
    ToolCall(call_id="c1", name="light", arguments='{"on": true}'),
    ToolCall(call_id="c2", name="fan", arguments="{}"),
)
USED = Usage(input_tokens=10, cached_tokens=2, output_tokens=3, total_tokens=13, cost_usd=0.5)


def kept(
    round_: int = 1, *, results: tuple[str | None, ...] = (None, None), error: str | None = None
) -> list[KeptCall]:
    return [
        KeptCall(
            wanted=WantedCall(key=f"{round_}.{at}", call_id=call.call_id, name=call.name, arguments=call.arguments),
            result=None if result is None else CallResult(output=result, error=error),
        )
        for at, (call, result) in enumerate(zip(CALLS, results, strict=True))
    ]


def asked(held: Claim, calls: tuple[ToolCall, ...] = CALLS, **changes: Any) -> Decision:
    values: dict[str, Any] = {"run_id": "r", "usage": USED, "new_runs": True}
    known = changes.pop("known", ())
    assistant = changes.pop("assistant", HOME)
    return legal(rounds.asked(held, calls, known, assistant, {"polls": 1}, **(values | changes)), held)


def action(**changes: Any) -> Claim:
    values = {"thread_id": "t", "run_id": "r", "acted_run": "r", "rounds": 1, "attempts": 1, "runs": 1}
    values |= {"deadline": NOW + 600, "started_at": NOW - 9, "allowance": 1}
    return claim(State.ACTION, **(values | changes))


# -- asked for functions -------------------------------------------------------------------------------------


def test_calls_go_on_record_with_the_move_that_notices_them() -> None:
    move = asked(running()).move
    assert (move.name, move.fields["rounds"], move.fields["acted"], move.fields["base"]) == ("act", 1, "r", 1)
    assert move.delay > 0, "the last output makes the job due before that"
    assert [(call.key, call.call_id, call.name, call.arguments) for call in move.calls] == [
        ("1.0", "c1", "light", '{"on": true}'),
        ("1.1", "c2", "fan", "{}"),
    ]
    assert move.fields["note"] == "functions: fan, light"


def test_what_a_run_has_used_that_ended_by_asking_is_kept() -> None:
    assert load_usage(str(asked(running()).move.fields["earlier"])) == USED
    second = running(rounds=1, acted_run="r0", earlier=USED)
    found = load_usage(str(asked(second).move.fields["earlier"]))
    assert found == Usage(input_tokens=20, cached_tokens=4, output_tokens=6, total_tokens=26, cost_usd=1.0)


def test_what_a_run_has_brought_that_ended_by_asking_is_kept() -> None:
    """Its code and files no later run repeats."""
    first = dataclasses.replace(ANSWER, code=({"input": "1"},), files=({"file_id": "f1"},))
    kept = asked(running(), answer=first).move.fields["brought"]
    second = dataclasses.replace(ANSWER, code=({"input": "2"},), citations=({"file_id": "c"},))
    held = running(rounds=1, acted_run="r0", brought=kept)
    kept = asked(held, answer=second).move.fields["brought"]
    whole = with_brought(dataclasses.replace(ANSWER, code=({"input": "3"},)), str(kept))
    assert [part["input"] for part in whole.code] == ["1", "2", "3"]
    assert (whole.files, whole.citations) == (({"file_id": "f1"},), ({"file_id": "c"},))
    assert asked(running(), answer=ANSWER).move.fields["brought"] is None


def test_a_record_has_its_bounds_and_files_stay_in_it_longest() -> None:
    file = {"file_id": "f", "path": "b/q/a.csv", "size": 3}
    first = dataclasses.replace(ANSWER, code=({"input": "1", "output": "y" * 1000},), files=(file,))
    held = running(rounds=1, acted_run="r0", brought=asked(running(), answer=first).move.fields["brought"])
    huge = dataclasses.replace(ANSWER, code=({"input": "x" * 2 * MOST_BROUGHT, "container_id": "c1"},))
    kept = str(asked(held, answer=huge).move.fields["brought"])
    assert len(kept) <= MOST_BROUGHT
    whole = with_brought(ANSWER, kept)
    assert [len(part["input"]) for part in whole.code] == [1, 8000], "code and what it prints are shortened"
    assert whole.code[1]["container_id"] == "c1"
    assert len(whole.code[0]["output"]) == 1000
    assert whole.files == (file,)
    many = dataclasses.replace(
        ANSWER,
        code=tuple({"input": "x" * 100} for _ in range(4000)),
        files=tuple({"file_id": f"{n}", "error": {"code": "too_many", "message": "no"}} for n in range(9000)),
    )
    kept = str(asked(held, answer=many).move.fields["brought"])
    assert len(kept) <= MOST_BROUGHT
    assert with_brought(ANSWER, kept).files[0] == file, "what is on disk comes before what could not be had"


def test_rounds_before_a_correction_count_no_more() -> None:
    """Calls go on under new numbers; the bound, the intent and the way back are those of the answer at work."""
    few = dataclasses.replace(HOME, max_rounds=2)
    held = running(rounds=2, closed=2, acted_run=None, run_id="r9")
    move = asked(held, known=kept(2, results=("on", "off")), assistant=few, run_id="r9").move
    assert (move.name, move.fields["rounds"], [call.key for call in move.calls]) == ("act", 3, ["3.0", "3.1"])
    assert asked(running(rounds=4, closed=2), assistant=few).move.fields["error_code"] == "too_many_rounds"
    queued = claim(rounds=2, closed=2, thread_id="t", joined="m", attempts=3)
    assert rounds.outputs_of(queued, kept(2, results=("on", "off"))) == ()
    assert "began" not in steps.intent(queued, 6.0).fields
    assert steps.not_sent(queued).move.name == "void"
    assert legal(steps.not_created(queued, LIMITED, 0.0), queued).move.name == "void"
    gone = starting(rounds=2, closed=2, looks=1)
    assert legal(steps.searched(gone, Found(search=Search.NOT_STARTED), HOME, 6.0, 0.0), gone).move.name == "void"


def test_a_cost_that_is_not_known_makes_none_of_the_sum() -> None:
    for usage in (None, dataclasses.replace(USED, cost_usd=None)):
        found = load_usage(
            str(asked(running(rounds=1, acted_run="r0", earlier=USED), usage=usage).move.fields["earlier"])
        )
        assert found.cost_usd is None
        assert found.total_tokens == (13 if usage is None else 26)


def test_a_run_that_goes_on_has_used_nothing_that_it_will_not_tell() -> None:
    assert "earlier" not in asked(running(), new_runs=False).move.fields


def test_the_same_calls_of_the_same_run_are_not_a_new_round() -> None:
    """The submission was lost: outputs that are there are not made again."""
    held = running(rounds=1, acted_run="r", errors=2)
    move = asked(held, known=kept(results=("on", "off")), new_runs=False).move
    assert (move.name, move.delay) == ("act", 0.0)
    assert [call.key for call in move.calls] == ["1.0", "1.1"]
    assert "rounds" not in move.fields
    assert move.fields["errors"] == 2, "a submission that is refused for ever ends at last"


@pytest.mark.parametrize(
    ("held", "calls"),
    [
        (running(rounds=1, acted_run="r"), (dataclasses.replace(CALLS[0], call_id="c9"),)),
        (running(rounds=1, acted_run="r"), (dataclasses.replace(CALLS[0], arguments="{}"), CALLS[1])),
        (running(rounds=1, acted_run="another run"), CALLS),
    ],
)
def test_other_calls_are_a_new_round(held: Claim, calls: tuple[ToolCall, ...]) -> None:
    move = asked(held, calls, known=kept(results=("on", "off"))).move
    assert (move.fields["rounds"], move.calls[0].key) == (2, "2.0")


@pytest.mark.parametrize(
    ("calls", "assistant", "code"),
    [
        ((), HOME, "unknown_function"),
        (CALLS, TUTOR, "unknown_function"),
        ((dataclasses.replace(CALLS[0], kind="mcp_approval_request"),), HOME, "unknown_function"),
    ],
)
def test_what_nothing_could_answer_ends_the_job(calls: tuple[ToolCall, ...], assistant: Any, code: str) -> None:
    decision = asked(running(earlier=USED), calls, assistant=assistant)
    assert decision.move.fields["error_code"] == code
    assert decision.move.answer is not None
    assert decision.move.answer.usage is not None
    assert decision.move.answer.usage.total_tokens == 26, "what it has cost stays"
    assert rounds.ends_over_a_run(decision, running())


def test_a_function_that_is_not_named_is_a_call_like_any_other() -> None:
    """The model gets an error, and can answer without it."""
    assert asked(running(), (dataclasses.replace(CALLS[0], name="rm"),)).move.name == "act"


def test_rounds_have_a_bound() -> None:
    few = dataclasses.replace(HOME, max_rounds=2)
    assert asked(running(rounds=1, acted_run="x"), assistant=few).move.name == "act"
    over = asked(running(rounds=2, acted_run="x"), assistant=few)
    assert over.move.fields["error_code"] == "too_many_rounds"
    assert "max_rounds is 2" in str(over.move.fields["error_message"])
    assert asked(running(rounds=9, acted_run="x")).move.name == "act"
    assert asked(running(rounds=10, acted_run="x")).move.fields["error_code"] == "too_many_rounds"


# -- waiting -------------------------------------------------------------------------------------------------


def test_a_job_waits_for_its_outputs_ever_more_patiently() -> None:
    for looks, least in ((0, 5), (1, 10), (20, 60)):
        decision = rounds.undecided(action(looks=looks), kept(results=("on", None)))
        assert decision is not None
        move = legal(decision, action()).move
        assert (move.name, move.delay) == ("wait", least)
        assert move.fields["note"] == "functions: fan (1 of 2 done)"


def test_a_job_for_which_nobody_runs_functions_says_so() -> None:
    decision = rounds.undecided(action(looks=1), kept(), nobody=True)
    assert decision is not None
    assert str(decision.move.fields["note"]).startswith("no worker runs functions: start `askq worker`")


def test_nobody_waits_beyond_the_deadline() -> None:
    decision = rounds.undecided(action(looks=9, deadline=NOW + 3), kept())
    assert decision is not None
    assert decision.move.delay == 3


def test_outputs_are_submitted_when_all_are_there() -> None:
    held = action()
    assert rounds.outputs_of(held, kept(results=("on", None))) == ()
    assert rounds.undecided(held, kept(results=("on", "off"))) is None
    earlier = kept(1, results=("old", "old"))
    outputs = rounds.outputs_of(action(rounds=2), [*earlier, *kept(2, results=("on", "off"))])
    assert outputs == (ToolOutput(call_id="c1", output="on"), ToolOutput(call_id="c2", output="off"))


def test_a_function_no_worker_can_load_ends_the_job() -> None:
    decision = rounds.undecided(action(earlier=USED), kept(results=("no module", None), error="unavailable"))
    assert decision is not None
    assert decision.move.fields["error_code"] == "function_unavailable"
    assert decision.move.answer is not None
    assert decision.move.answer.usage == USED


def test_calls_that_are_gone_are_asked_for_again() -> None:
    """Redis came back without them: the run still knows."""
    decision = rounds.undecided(action(), [])
    assert decision is not None
    assert legal(decision, action()).move.name == "poll"
    nameless = rounds.undecided(action(acted_run=None), [])
    assert nameless is not None
    assert nameless.move.fields["error_code"] == "run_vanished"


@pytest.mark.parametrize(("why", "code"), [("asked", "cancelled"), (None, "deadline")])
def test_a_job_that_is_to_end_while_it_waits_ends(why: str | None, code: str) -> None:
    held = action(cancel=why, earlier=USED)
    ended = legal(rounds.stopped(held, new_runs=True), held).move
    assert ended.fields["error_code"] == code
    assert ended.answer is not None
    assert ended.answer.usage == USED
    told = legal(rounds.stopped(held, new_runs=False), held).move
    assert (told.name, told.fields["cancel"], told.fields["cancel_sent"]) == ("poll", why or "deadline", 1)
    again = rounds.stopped(action(cancel=why or "deadline", cancel_sent=True), new_runs=False).move
    assert again.fields["error_code"] == code


def test_a_run_that_still_asks_after_its_cancel_is_cancelled() -> None:
    held = running(cancel="asked", cancel_sent=True)
    move = legal(steps.polled(held, status(RunState.ACTION, tool_calls=CALLS), HOME, 0.0), held).move
    assert move.fields["error_code"] == "cancelled"


# -- submitting ----------------------------------------------------------------------------------------------


def test_a_run_with_its_outputs_runs_again() -> None:
    held = action()
    move = legal(rounds.submitted(held, status(RunState.PENDING), HOME, 0.0, None), held).move
    assert (move.name, move.fields["errors"]) == ("poll", None)
    assert move.delay > 0
    assert rounds.submitted(held, status(RunState.DONE), HOME, 0.0, None).move.delay == 0


@pytest.mark.parametrize("error", [LOST, Refused("bad_request", "already submitted"), Gone("not_found", "no run")])
def test_whether_outputs_arrived_the_run_itself_says(error: Any) -> None:
    held = action(errors=1)
    move = legal(rounds.not_submitted(held, error, 0.0), held).move
    assert (move.name, move.fields["errors"]) == ("poll", 2)


def test_being_limited_or_paused_is_no_try() -> None:
    for error in (LIMITED, BLOCKED):
        move = legal(rounds.not_submitted(action(), error, 0.0), action()).move
        assert (move.name, "errors" in move.fields) == ("defer", False)


def test_a_submission_that_is_always_refused_ends_the_job() -> None:
    worn = action(errors=steps.MOST_ERRORS)
    assert rounds.not_submitted(worn, Refused("bad_request", "no"), 0.0).move.fields["error_code"] == "bad_request"
    gone = action(gone=steps.MOST_GONE)
    assert rounds.not_submitted(gone, Gone("not_found", "no"), 0.0).move.fields["error_code"] == "run_vanished"


# -- outputs in a run of their own ---------------------------------------------------------------------------


def starting(**changes: Any) -> Claim:
    return dataclasses.replace(action(**changes), state=State.STARTING, attempts=2, intent_at=NOW - 100)


def after_the_intent(decision: Decision) -> Decision:
    assert State.STARTING in MOVES[decision.move.name].sources
    return decision


def test_the_intent_remembers_when_the_first_run_began() -> None:
    move = steps.intent(action(), 6.0)
    assert (move.name, move.fields["attempts"], move.fields["began"]) == ("intend", 2, NOW - 9)
    assert steps.intent(action(began_at=NOW - 50), 6.0).fields["began"] == NOW - 50
    assert "began" not in steps.intent(claim(), 6.0).fields


def test_a_create_that_certainly_made_nothing_leads_back_to_the_outputs() -> None:
    for error in (LIMITED, BLOCKED):
        move = after_the_intent(steps.not_created(action(), error, 0.0)).move
        assert (move.name, move.fields["attempts"]) == ("withdraw", 1)
    assert steps.not_sent(action()).move.name == "withdraw"
    assert steps.not_sent(claim()).move.name == "void"


def test_a_create_that_is_refused_keeps_what_was_paid() -> None:
    move = steps.not_created(action(earlier=USED), Refused("bad_request", "no tool call found"), 0.0).move
    assert (move.fields["error_code"], move.fields["attempts"]) == ("bad_request", 1)
    assert move.answer is not None
    assert move.answer.usage == USED, "with its cost: there is no present run"


def test_a_conversation_that_vanished_cannot_be_made_anew_for_outputs() -> None:
    gone = Gone("not_found", "no conversation")
    again = after_the_intent(steps.not_created(action(), gone, 0.0)).move
    assert (again.name, "thread" in again.fields) == ("withdraw", False), "reads may lag behind writes"
    move = steps.not_created(action(gone=steps.MOST_GONE), gone, 0.0).move
    assert move.fields["error_code"] == "thread_vanished"


def test_a_lost_reply_is_looked_for_before_anything_else() -> None:
    assert steps.not_created(action(), LOST, 0.0).move.name == "defer"


def test_a_run_that_does_not_exist_leads_back_to_the_outputs() -> None:
    held = starting(looks=1)
    found = Found(search=Search.NOT_STARTED)
    move = legal(steps.searched(held, found, HOME, 6.0, 0.0), held).move
    assert (move.name, move.fields["attempts"]) == ("withdraw", 1)


def test_an_uncertain_run_is_repeated_in_its_own_conversation_where_that_is_wanted() -> None:
    retrying = dataclasses.replace(HOME, on_uncertain="retry", timeout_s=50)
    held = starting()
    move = legal(steps.searched(held, Found(search=Search.UNKNOWN), retrying, 6.0, 0.0), held).move
    assert (move.name, "thread" in move.fields) == ("withdraw", False)
    again = dataclasses.replace(held, attempts=3)
    assert steps.searched(again, Found(search=Search.UNKNOWN), retrying, 6.0, 0.0).move.name == "doubt"


def test_usage_is_summed_over_all_runs() -> None:
    held = running(earlier=USED, rounds=1)
    used = Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_usd=0.25)
    done = status(RunState.DONE, answer=dataclasses.replace(ANSWER, usage=used), usage=used)
    move = legal(steps.polled(held, done, HOME, 0.0), held).move
    assert move.answer is not None
    assert move.answer.usage == Usage(input_tokens=11, cached_tokens=2, output_tokens=4, total_tokens=15, cost_usd=0.75)
    cut = status(
        RunState.INCOMPLETE, error_code="incomplete", answer=dataclasses.replace(ANSWER, usage=used), usage=used
    )
    move = legal(steps.polled(held, cut, HOME, 0.0), held).move
    assert move.answer is not None
    assert move.answer.usage is not None
    assert move.answer.usage.total_tokens == 15


def test_a_run_whose_usage_nobody_knows_has_no_cost() -> None:
    held = starting(earlier=USED)
    found = Found(search=Search.ANSWERED, answer=dataclasses.replace(ANSWER, usage=None))
    move = legal(steps.searched(held, found, HOME, 6.0, 0.0), held).move
    assert move.name == "complete"
    assert move.answer is not None
    assert move.answer.usage == dataclasses.replace(USED, cost_usd=None)


def test_time_spent_in_functions_teaches_nothing_of_runs() -> None:
    done = status(RunState.DONE)
    assert steps.took(running(), done, 0.5)
    assert steps.took(running(rounds=1), done, 0.5) == []
    assert steps.took(running(rounds=1, began_at=NOW - 100), done, 0.5), "a run of its own"
