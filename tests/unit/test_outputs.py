"""What becomes of an answer that must fit a schema."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from askq.assistants.model import Assistant
from askq.jobs.codec import dump_usage, load_usage, with_brought
from askq.jobs.model import MOVES, Answer, Claim, Move, State, Usage
from tests.unit.test_steps import claim
from worker.outputs import correction, judged

SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
ASKS = Assistant(
    name="t", protocol="responses", model="m", text_format={"type": "json_schema", "name": "x", "schema": SCHEMA}
)
RETRIES = dataclasses.replace(ASKS, on_invalid="retry")
FIRST = Usage(input_tokens=3, output_tokens=4, total_tokens=7, cost_usd=0.5)
SECOND = Usage(input_tokens=10, output_tokens=1, total_tokens=11, cost_usd=0.25)


def running(**changes: Any) -> Claim:
    return claim(State.RUNNING, thread_id="c1", run_id="r1", attempts=1, runs=1, **changes)


def complete(text: str | None, *, usage: Usage | None = FIRST, **more: Any) -> Move:
    answer = Answer(text=text, usage=usage, **more)
    return Move(job="b_1.q1", fence=3, name="complete", fields={"polls": 2, "note": None}, answer=answer)


def test_an_answer_that_fits_is_left_as_it_is() -> None:
    move = complete('{"x": 1}')
    assert judged(running(), move, RETRIES) is move


@pytest.mark.parametrize("name", ["fail", "cut", "cancel", "expire", "doubt"])
def test_other_ends_are_left_as_they_are(name: str) -> None:
    move = dataclasses.replace(complete("no"), name=name)
    assert judged(running(), move, RETRIES) is move


def test_without_a_schema_every_answer_fits() -> None:
    move = complete("no")
    assert judged(running(), move, dataclasses.replace(ASKS, text_format=None)) is move
    assert judged(running(), move, dataclasses.replace(ASKS, text_format={"type": "json_object"})) is move


def test_an_answer_that_does_not_fit_ends_the_job_and_is_kept() -> None:
    move = judged(running(), complete('{"x": "1"}'), ASKS)
    assert move.name == "fail"
    assert move.fields["error_code"] == "invalid_output"
    assert move.fields["error_message"] == "at $.x: '1' is not of type 'integer'"
    assert move.fields["polls"] == 2
    assert move.answer is not None
    assert (move.answer.text, move.answer.usage) == ('{"x": "1"}', FIRST)


def test_a_refusal_is_not_asked_again() -> None:
    move = judged(running(), complete("I will not.", refused=True), RETRIES)
    assert (move.name, move.fields["error_code"]) == ("fail", "refused")
    assert move.answer is not None
    assert move.answer.text == "I will not."


def test_it_is_asked_once_more_with_what_was_wrong_and_what_it_has_cost() -> None:
    move = judged(running(), complete("prose"), RETRIES)
    assert move.name == "correct"
    assert MOVES["correct"].target is State.QUEUED
    assert (move.answer, move.fields["refers"], move.fields["fixes"], move.fields["run"]) == (None, "r1", 1, None)
    assert load_usage(str(move.fields["spent"])) == FIRST
    reason = str(move.fields["wrong"])
    assert reason in correction(reason)
    # The second answer is added, whatever it is.
    after = running(fixes=1, wrong=reason, spent=FIRST)
    both = Usage(input_tokens=13, output_tokens=5, total_tokens=18, cost_usd=0.75)
    good = judged(after, complete('{"x": 1}', usage=SECOND), RETRIES)
    bad = judged(after, complete("prose again", usage=SECOND), RETRIES)
    gone = judged(after, Move(job="b_1.q1", fence=3, name="fail", fields={"error_code": "run_vanished"}), RETRIES)
    assert (good.name, bad.name, bad.fields["error_code"]) == ("complete", "fail", "invalid_output")
    assert good.answer is not None
    assert bad.answer is not None
    assert gone.answer is not None
    assert (good.answer.usage, bad.answer.usage, gone.answer.usage) == (both, both, FIRST)


def test_an_answer_that_functions_led_to_is_asked_for_again_with_all_it_brought() -> None:
    """What functions have done is done: the calls stay on record, under their numbers, and code and files with them."""
    held = running(rounds=2, earlier=FIRST, acted_run="r0", brought='{"code":[{"input":"1"}]}', began_at=1.0)
    file = {"name": "a.csv", "path": "b/q/a.csv", "file_id": "f"}
    move = judged(held, complete("prose", files=(file,), code=({"input": "2"},), citations=({"quote": "q"},)), RETRIES)
    assert (move.name, move.fields["closed"], "rounds" in move.fields) == ("correct", 2, False)
    assert [move.fields[name] for name in ("earlier", "acted", "began")] == [None, None, None]
    kept = with_brought(Answer(text="{}"), str(move.fields["brought"]))
    assert [part["input"] for part in kept.code] == ["1", "2"]
    assert (kept.files, kept.citations) == ((file,), ()), "citations are places in a text that is not the answer"
    again = dataclasses.replace(held, fixes=1, closed=2, rounds=3, spent=FIRST)
    assert judged(again, complete("prose"), RETRIES).fields["error_code"] == "invalid_output"


def test_where_a_price_is_not_known_neither_is_the_sum() -> None:
    unpriced = dataclasses.replace(SECOND, cost_usd=None)
    move = judged(running(fixes=1, spent=FIRST), complete('{"x": 1}', usage=unpriced), RETRIES)
    assert move.answer is not None
    assert move.answer.usage is not None
    assert (move.answer.usage.total_tokens, move.answer.usage.cost_usd) == (18, None)


def test_what_somebody_wants_cancelled_is_not_asked_again() -> None:
    assert judged(running(cancel="asked"), complete("prose"), RETRIES).name == "fail"


def test_usage_is_read_back_as_it_was() -> None:
    for usage in (FIRST, Usage(), dataclasses.replace(SECOND, cost_usd=None)):
        assert load_usage(dump_usage(usage)) == usage
