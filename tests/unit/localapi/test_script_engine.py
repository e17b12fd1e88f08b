"""What the script engine plans."""

from __future__ import annotations

from typing import Any

import pytest

from askq.localapi.engines.base import Code, Plan, Request, Text, Turn, Usage
from askq.localapi.engines.script import ScriptEngine
from askq.localapi.engines.script_file import parse_script


def request(question: str = "Why?", *more: Turn, **fields: Any) -> Request:
    given: dict[str, Any] = {
        "work_id": "run_1",
        "protocol": "assistants",
        "model": "m",
        "instructions": "",
        "turns": (Turn(role="user", text=question), *more),
        "number": 1,
    }
    return Request(**(given | fields))


def engine(*rules: dict[str, Any], **content: Any) -> ScriptEngine:
    return ScriptEngine(parse_script({"rule": list(rules), **content}))


def texts(plan: Plan) -> list[str]:
    return [output.value for output in plan.outcome.outputs if isinstance(output, Text)]


def test_without_a_script_the_answer_is_a_function_of_the_question() -> None:
    plan = ScriptEngine().plan(request("What {is} this?"))
    assert texts(plan) == ["Answer to: What {is} this?"]
    assert plan == ScriptEngine().plan(request("What {is} this?"))
    assert plan.seconds is not None
    assert 0.2 <= plan.seconds <= 1.0


def test_durations_are_drawn_from_the_question_and_fill_their_range() -> None:
    it = engine(default={"duration": [2, 20]})
    drawn = [it.plan(request(f"Question {n}?")).seconds or 0 for n in range(300)]
    assert min(drawn) >= 2
    assert max(drawn) <= 20
    assert min(drawn) < 3
    assert max(drawn) > 19
    assert drawn == [engine(default={"duration": [2, 20]}).plan(request(f"Question {n}?")).seconds for n in range(300)]
    salted = engine(default={"duration": [2, 20]}, salt="other")
    assert drawn[0] != salted.plan(request("Question 0?")).seconds


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ({"contains": "Why"}, {}, {"question": "How?"}),
        ({"regex": "^W.*\\?$"}, {}, {"question": "Who"}),
        ({"nth": 2}, {"number": 2}, {"number": 3}),
        ({"nth": [2, 5]}, {"number": 5}, {"number": 3}),
        ({"every": 3}, {"number": 6}, {"number": 7}),
        ({"protocol": "responses"}, {"protocol": "responses"}, {}),
        ({"metadata": {"a": "1"}}, {"metadata": {"a": "1", "b": "2"}}, {"metadata": {"a": "2"}}),
    ],
)
def test_conditions(condition: dict[str, Any], holds: dict[str, Any], fails: dict[str, Any]) -> None:
    it = engine({**condition, "answer": "rule"}, default={"answer": "default"})
    assert texts(it.plan(request(**holds))) == ["rule"]
    assert texts(it.plan(request(**fails))) == ["default"]


def test_all_conditions_of_a_rule_must_hold_and_the_first_rule_wins() -> None:
    it = engine({"contains": "a", "regex": "b", "answer": "both"}, {"contains": "a", "answer": "a"}, {"answer": "last"})
    assert [texts(it.plan(request(question))) for question in ("ab", "a", "b")] == [["both"], ["a"], ["last"]]


def test_times_counts_uses_and_times_each_counts_them_per_question() -> None:
    it = engine({"times": 2, "answer": "rule"})
    assert [texts(it.plan(request("q")))[0] for _ in range(3)] == ["rule", "rule", "Answer to: q"]
    it = engine({"times_each": 1, "answer": "rule"})
    assert [texts(it.plan(request(q)))[0] for q in ("a", "b", "a")] == ["rule", "rule", "Answer to: a"]


def test_the_answer_is_filled_in() -> None:
    it = engine({"regex": r"(\d+) \+ (?P<b>\d+)", "answer": ["{1} and {b}", "run {n}: {question} {unknown}"]})
    assert texts(it.plan(request("1 + 2", number=7))) == ["1 and 2", "run 7: 1 + 2 {unknown}"]


def test_calls_come_by_rounds_and_then_the_answer() -> None:
    it = engine({"times": 1, "calls": [[{"name": "f", "arguments": {"x": 1}}], [{"name": "g"}, {"name": "h"}]]})
    call, output = Turn(role="call", text="{}", call_id="c"), Turn(role="output", text="1", call_id="c")
    first, second, third = (
        it.plan(request("q", *turns)) for turns in ((), (call, output), (call, output, call, call, output, output))
    )
    assert [each.name for each in first.outcome.calls] == ["f"]
    assert first.outcome.calls[0].arguments == '{"x": 1}'
    assert [each.name for each in second.outcome.calls] == ["g", "h"]
    assert texts(third) == ["Answer to: q"]
    made = [each.call_id for each in (*first.outcome.calls, *second.outcome.calls)]
    assert len(set(made)) == 3
    assert texts(it.plan(request("q"))) == ["Answer to: q"], "the rule has been used up"


CALL = Turn(role="call", text="{}", call_id="c1", name="add")
OTHER_CALL = Turn(role="call", text="{}", call_id="c2", name="get-sub")
OUTPUT = Turn(role="output", text="3", call_id="c1")
OTHER_OUTPUT = Turn(role="output", text='{"error": "none"}', call_id="c2")


def test_the_answer_is_built_from_the_outputs_that_were_given() -> None:
    it = engine({"answer": "{outputs} / {output} / {output_1} / {output_add} / {output_get-sub} / {output_3} {round}"})
    plan = it.plan(request("q", CALL, OTHER_CALL, OTHER_OUTPUT, OUTPUT))
    error = '{"error": "none"}'
    assert texts(plan) == [f"3, {error} / {error} / 3 / 3 / {error} / {{output_3}} 1"]
    assert texts(engine({"answer": "<{outputs}{output}>"}).plan(request())) == ["<>"]


def test_a_rule_can_depend_on_an_output() -> None:
    it = engine({"output": "error", "answer": "It failed."}, {"calls": [[{"name": "add"}]], "answer": "{output}"})
    assert [call.name for call in it.plan(request()).outcome.calls] == ["add"]
    assert texts(it.plan(request("q", CALL, OUTPUT))) == ["3"]
    assert texts(it.plan(request("q", OTHER_CALL, OTHER_OUTPUT))) == ["It failed."]
    later = (CALL, OTHER_OUTPUT, Turn(role="assistant", text="x"), Turn(role="user", text="And now?"))
    assert it.plan(request("q", *later)).outcome.calls, "what was given for an earlier question does not count"


def test_arguments_are_filled_in_and_may_be_malformed() -> None:
    calls = [
        [{"name": "{name}", "arguments": {"q": "{question}", "list": ["{1}", 2]}}, {"name": "g", "arguments": "{{2}"}]
    ]
    plan = engine({"regex": r"(\d)\D+(\d) (?P<name>\w+)", "calls": calls}).plan(request("1, 2 add"))
    assert [(call.name, call.arguments) for call in plan.outcome.calls] == [
        ("add", '{"q": "1, 2 add", "list": ["1", 2]}'),
        ("g", "{2"),
    ]


def test_the_choice_of_tools_is_minded() -> None:
    it = engine({"calls": [[{"name": "f"}, {"name": "g"}]], "answer": "done"})
    alone = {"parallel_tool_calls": False}
    assert [call.name for call in it.plan(request(options=alone)).outcome.calls] == ["f"]
    assert [call.name for call in it.plan(request("q", CALL, OUTPUT, options=alone)).outcome.calls] == ["g"]
    assert texts(it.plan(request(options={"tool_choice": "none"}))) == ["done"]


def test_code_may_run_before_functions_are_asked_for() -> None:
    rounds = [[{"input": "1", "files": ["a.csv"]}], []]
    it = engine({"calls": [[{"name": "f"}], [{"name": "g"}]], "calls_code": rounds, "answer": "done"})
    assert [type(output).__name__ for output in it.plan(request()).outcome.outputs] == ["Code", "Call"]
    more = request("Why?", CALL, OUTPUT)
    assert [type(output).__name__ for output in it.plan(more).outcome.outputs] == ["Call"]


def test_an_answer_can_quote_what_was_said_before() -> None:
    told = (Turn(role="assistant", text="Hello."), Turn(role="user", text="How old?"))
    it = engine({"answer": "{earlier} / {earlier_1} / {previous} / {earlier_count} / {earlier_3}"})
    plan = it.plan(request("I am Kim", Turn(role="user", text="I am 7"), *told))
    assert texts(plan) == ["I am Kim | I am 7 / I am Kim / I am 7 / 2 / {earlier_3}"]
    assert texts(it.plan(request())) == [" / {earlier_1} /  / 0 / {earlier_3}"]
    it = engine({"earlier": "Kim", "answer": "I know you"})
    assert texts(it.plan(request("I am Kim", Turn(role="user", text="Who?")))) == ["I know you"]
    assert texts(it.plan(request("I am Kim"))) == ["Answer to: I am Kim"]


def test_a_table_is_answered_as_json() -> None:
    it = engine({"regex": r"(\d+)", "answer": [{"result": "{1}", "unit": "m²", "list": [1, True]}, "{ broken"]})
    assert texts(it.plan(request("7?"))) == ['{"result": "7", "unit": "m²", "list": [1, true]}', "{ broken"]


def test_everything_else_a_rule_can_prescribe() -> None:
    plan = engine(
        {
            "code": [{"input": "1+1", "logs": "2"}],
            "answer": ["thinking", "two"],
            "phases": ["commentary", "final_answer"],
            "annotations": [{"type": "url_citation"}],
            "usage": {"input_tokens": 1, "output_tokens": 2},
            "statuses": ["queued", "odd"],
            "advance": "poll",
            "poll_after_ms": 50,
            "cancel_takes": 3,
            "immediate": True,
            "duration": 4,
        }
    ).plan(request())
    assert plan.outcome.outputs == (
        Code(source="1+1", logs="2"),
        Text(value="thinking", phase="commentary"),
        Text(value="two", phase="final_answer", annotations=({"type": "url_citation"},)),
    )
    assert plan.outcome.usage == Usage(input_tokens=1, output_tokens=2)
    assert (plan.statuses, plan.by_poll, plan.poll_after_ms) == (("queued", "odd"), True, (50,))
    assert (plan.cancel_seconds, plan.at_once, plan.seconds) == (3, True, 4.0)


@pytest.mark.parametrize("status", ["failed", "incomplete", "expired", "cancelled"])
def test_ends_without_an_answer(status: str) -> None:
    outcome = engine({"status": status}).plan(request()).outcome
    assert (outcome.status, outcome.outputs) == (status, ())
    partial = engine({"status": status, "partial": "so far"}).plan(request())
    assert texts(partial) == ["so far"]


def test_stuck_has_no_end() -> None:
    plan = engine({"status": "stuck", "advance": "poll"}).plan(request())
    assert (plan.seconds, plan.by_poll) == (None, False)


async def test_it_never_works() -> None:
    with pytest.raises(NotImplementedError):
        await ScriptEngine().answer(request())


def test_history_and_round_of_a_request() -> None:
    turns = (
        Turn(role="system", text="s"),
        Turn(role="user", text="one"),
        Turn(role="call", text="{}", call_id="c"),
        Turn(role="output", text="1", call_id="c"),
        Turn(role="assistant", text="uno"),
        Turn(role="user", text="two"),
    )
    it = request(turns=turns)
    assert (it.question, it.history, it.round) == ("two", ("one", "uno"), 0)
    assert request(turns=turns[:4]).round == 1
    assert (request(turns=()).question, request(turns=()).history) == ("", ())
