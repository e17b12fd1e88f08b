"""Answers of the tutor in the form of a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from askq.localapi.tutor.structured import NotFitting, as_json

TEXT = "The solution is x = 1."


def formed(logs: str | None, properties: dict[str, Any], *required: str, **schema: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(required or properties), **schema}
    return json.loads(as_json({"type": "json_schema", "name": "n", "schema": schema}, TEXT, logs))


NUMBER, INTEGER, STRING = {"type": "number"}, {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("logs", "properties", "made"),
    [
        ("x = 1\n", {"x": NUMBER}, {"x": 1}),
        ("x = 1\n", {"result": INTEGER, "explanation": STRING}, {"result": 1, "explanation": TEXT}),
        ("x = -2\nx = 2\n", {"solutions": {"type": "array", "items": NUMBER}}, {"solutions": [-2, 2]}),
        ("x = 1\ny = 3/2\n", {"x": NUMBER, "y": NUMBER}, {"x": 1, "y": 1.5}),
        ("391\n391.0000000\n", {"anything": INTEGER}, {"anything": 391}),
        ("4*pi\n12.56637061\n", {"area": NUMBER}, {"area": 12.56637061}),
        ("False\n7 * 13\n", {"prime": {"type": "boolean"}}, {"prime": False}),
        ("2*x\n", {"answer": STRING, "steps": {"type": "array", "items": STRING}}, {"answer": "2*x", "steps": [TEXT]}),
        ("391\n", {"answer": STRING, "unit": {"type": ["string", "null"]}}, {"answer": "391", "unit": None}),
    ],
)
def test_what_was_computed_goes_where_it_fits(logs: str, properties: dict[str, Any], made: Any) -> None:
    assert formed(logs, properties, additionalProperties=False) == made


@pytest.mark.parametrize(
    ("logs", "properties", "words"),
    [
        ("x = 1\n", {"poem": STRING}, "nothing that I computed fits 'poem'"),
        ("2*x\n", {"result": NUMBER}, "nothing that I computed fits 'result'"),
        ("5/2\n", {"result": INTEGER}, "nothing that I computed fits 'result'"),
        ("7\n", {"result": {"type": "integer", "maximum": 5}}, "does not fit the schema"),
        ("True\n", {"result": NUMBER}, "fits 'result'"),
        (None, {}, "the schema names no properties"),
    ],
)
def test_what_does_not_fit_is_refused(logs: str | None, properties: dict[str, Any], words: str) -> None:
    with pytest.raises(NotFitting, match=words):
        formed(logs, properties)


def test_what_is_not_required_is_left_out() -> None:
    assert formed("x = 1\n", {"x": NUMBER, "poem": STRING}, "x") == {"x": 1}


def test_any_object_has_the_answer_and_the_result() -> None:
    assert json.loads(as_json({"type": "json_object"}, TEXT, "x = 1\n")) == {"answer": TEXT, "result": 1}
    assert json.loads(as_json({"type": "json_object"}, TEXT, "x = 1\nx = 2\n"))["result"] == [1, 2]
    assert json.loads(as_json({"type": "json_object"}, TEXT, None))["result"] is None
