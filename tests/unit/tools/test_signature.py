"""What the model is told of a function, and which arguments reach it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from askq.tools import tool, tool_of
from askq.tools.outcomes import MOST_ARGUMENTS_BYTES, MOST_LEVELS, OUTCOMES, error_output
from askq.tools.signature import ArgumentsError, Signature, SignatureError, is_strict
from tests.unit.tools import functions


def signature(name: str) -> Signature:
    made = tool_of(getattr(functions, name))
    assert made is not None
    return Signature(made)


def given(name: str, arguments: Any) -> dict[str, Any]:
    told = signature(name)
    return told.arguments(arguments if isinstance(arguments, str) else json.dumps(arguments), told.parameters)


def test_a_marked_function_stays_a_function() -> None:
    assert functions.light("lamp", on=True) == "lamp is on"


def test_names_types_and_docstring_become_a_schema() -> None:
    told = signature("light")
    assert (told.name, told.description) == ("light", "Switch a light.\n\nLonger words about it.")
    assert told.parameters == {
        "type": "object",
        "properties": {
            "device": {"type": "string", "enum": ["lamp", "led"], "description": "Which one."},
            "on": {"type": "boolean", "description": "Whether it is to shine."},
        },
        "required": ["device", "on"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "docstring",
    [
        "Do.\n\n:param city: Which one.",
        "Do.\n\nParameters\n----------\ncity : str\n    Which one.",
        "Do.\n\nArgs:\n    city (str): Which one.",
    ],
)
def test_every_usual_style_of_docstring_describes_parameters(docstring: str) -> None:
    def weather(city: str) -> str:
        return city

    weather.__doc__ = docstring
    made = tool_of(tool(weather))
    assert made is not None
    told = Signature(made)
    assert (told.description, told.parameters["properties"]["city"]["description"]) == ("Do.", "Which one.")


def test_what_the_decorator_says_is_kept() -> None:
    made = tool_of(functions.nothing)
    assert made is not None
    assert (made.name, made.timeout_s, made.memory_mb, made.once) == ("now", 3.5, 512, True)
    assert Signature(made).description == "Told elsewhere."


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"timeout_s": 1e9}, {"memory_mb": 1}])
def test_a_bound_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tool(**wrong)


def test_every_object_of_a_schema_is_closed_and_it_is_a_schema() -> None:
    parameters = signature("everything").parameters
    Draft202012Validator.check_schema(parameters)
    assert {part["additionalProperties"] for part in parameters["$defs"].values() if "properties" in part} == {False}
    assert "title" not in json.dumps(parameters)
    assert parameters["properties"]["note"]["description"] == "Anything else."
    assert set(parameters["required"]) == {"text", "number", "mode", "room", "orders", "when"}


def test_strict_is_said_of_schemas_that_are() -> None:
    assert is_strict(signature("light").parameters)
    assert not is_strict(signature("everything").parameters), "it has parameters that may be left out"
    assert not is_strict({"type": "object", "properties": {"default": {"type": "string"}}, "required": []})
    closed = {"type": "object", "additionalProperties": False}
    assert is_strict({**closed, "properties": {"default": {"type": "string"}}, "required": ["default"]})


GOOD = {
    "text": "a",
    "number": 2,
    "mode": "eco",
    "room": {"name": "r"},
    "orders": [{"item": "i", "count": 2}],
    "when": "2026-11-28",
}


def test_arguments_arrive_as_their_types() -> None:
    found = given("everything", GOOD)
    told = functions.everything(**found)
    assert told["kinds"] == ["str", "float", "Mode", "Room", "Order", "date"]
    assert (told["note"], told["model_dump"], told["hidden"]) == (None, 3, 4)


def test_names_in_any_script_are_parameters() -> None:
    assert given("korean", {"도시": "서울"}) == {"도시": "서울"}


@pytest.mark.parametrize("text", ["", "{}"])
def test_nothing_at_all_is_no_arguments(text: str) -> None:
    assert given("nothing", text) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('"text"', "no JSON object"),
        ('{"device": "lamp", "device": "led", "on": true}', "given twice"),
        ('{"device": NaN}', "NaN is no JSON"),
        ('{"device": 1e999}', "too large"),
        ("[" * 100_000, "longer than|not JSON"),
        ({}, "'device' is a required property"),
        ({"device": "lamp", "on": True, "rm": "-rf /"}, "'rm' was unexpected"),
        ({"device": "lamp", "on": 1}, "on: 1 is not of type 'boolean'"),
        ({"device": "lamp; reboot", "on": True}, "device: .* is not one of"),
        ({"device": "x" * MOST_ARGUMENTS_BYTES, "on": True}, f"longer than {MOST_ARGUMENTS_BYTES} bytes"),
    ],
)
def test_arguments_that_do_not_fit_reach_nobody(arguments: Any, told: str) -> None:
    with pytest.raises(ArgumentsError, match=told):
        given("light", arguments)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"orders": [{"item": "i", "count": 10}]}, "orders.0.count: 10 is greater"),
        ({"orders": [{"item": "i", "count": 1, "more": 1}]}, "orders.0: Additional properties"),
        ({"when": "the day after"}, "when: "),
        ({"room": {"name": "r", "floor": "0", "x": 1}}, "room"),
    ],
)
def test_what_is_inside_is_checked_too(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentsError, match=told):
        given("everything", GOOD | change)


def test_arguments_nested_too_deeply_are_refused() -> None:
    deep: Any = "x"
    for _ in range(MOST_LEVELS + 1):
        deep = {"a": deep}
    with pytest.raises(ArgumentsError, match="nested deeper"):
        given("light", deep)


@pytest.mark.parametrize(
    ("name", "told"),
    [("untyped", "'value' needs a type"), ("variadic", "every parameter needs a name"), ("undescribable", "described")],
)
def test_a_function_that_cannot_be_described_is_refused(name: str, told: str) -> None:
    with pytest.raises(SignatureError, match=told):
        signature(name)


def test_a_name_the_service_would_refuse_is_refused() -> None:
    made = tool_of(tool(name="switch it")(functions.unmarked))
    del functions.unmarked.__askq_tool__  # type: ignore[attr-defined]
    assert made is not None
    with pytest.raises(SignatureError, match="letters, digits"):
        Signature(made)


def test_every_error_output_is_one_the_table_knows() -> None:
    for code in OUTCOMES:
        assert json.loads(error_output(code, "why"))["error"] == {"code": code, "message": "why"}
