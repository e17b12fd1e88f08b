"""Whether an answer fits a schema: what is wrong and where, and its fields as columns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from askq.structured import NotJson, cells_of, columns_of, schema_of, value_of, why_invalid

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}}
    },
    "required": ["items"],
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"items": []}', None),
        (' \n{"items": [{"price": 1.5}]}\n', None),
        ('```json\n{"items": []}\n```', None),
        ('```\n{"items": []}\n```', None),
        (None, "there is no text"),
        ("", "it is empty"),
        ("``` \n\n```", "it is not JSON: Expecting value, line 1, column 1"),
        ('{"items": [}', "it is not JSON: Expecting value, line 1, column 12"),
        ('{"items": []} and more', "it is not JSON: Extra data, line 1, column 15"),
        ('{"items": [NaN]}', "it is not JSON: NaN is no number there"),
        ('{"items": [], "items": []}', 'the key "items" stands twice in one object'),
        ("[" * 100_000, "it is JSON that nothing can read"),
        ('{"items": [' + "9" * 10_000 + "]}", "it is JSON that nothing can read"),
        ('{"items": [{"price": 1}, {"price": "2"}]}', "at $.items[1].price: '2' is not of type 'number'"),
        ("{}", "at $: 'items' is a required property"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str | None, reason: str | None) -> None:
    found = why_invalid(text, SCHEMA)
    assert found == reason or (reason is not None and found is not None and found.startswith(reason))


def test_a_reason_is_never_longer_than_a_line() -> None:
    found = why_invalid(json.dumps({"items": "x" * 100_000}), SCHEMA)
    assert found is not None
    assert len(found) < 600
    assert "\n" not in found


def test_the_schema_is_found_in_either_shape() -> None:
    flat = {"type": "json_schema", "name": "a", "schema": SCHEMA}
    nested = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    assert schema_of(flat) == schema_of(nested) == SCHEMA
    assert schema_of({"type": "json_object"}) is None
    assert schema_of(None) is None


def test_fields_become_columns_in_the_order_of_the_schema() -> None:
    schema = {
        "properties": {
            "z": {"type": "string"},
            "home": {"$ref": "#/$defs/home"},
            "list": {"type": "array"},
            "loop": {"$ref": "#/properties/loop"},
            "free": {"type": "object"},
        },
        "$defs": {"home": {"properties": {"city": {}, "a.b": {}}}},
    }
    columns = columns_of(schema)
    assert columns == ["z", "home.city", "home.a.b", "list", "loop", "free"]
    value = {"z": 1, "home": {"city": "Ulm", "a.b": 2}, "list": [1], "more": 3}
    assert cells_of(value, columns) == {
        "z": 1, "home.city": "Ulm", "home.a.b": 2, "list": [1], "loop": None, "free": None
    }  # fmt: skip
    assert set(cells_of(None, columns).values()) == {None}
    assert set(cells_of([1], columns).values()) == {None}


def test_a_schema_without_end_has_few_columns() -> None:
    circle = {"properties": {"next": {"$ref": "#"}, "name": {}}}
    assert len(columns_of(circle)) < 20
    wide = {"properties": {f"f{number}": {} for number in range(1000)}}
    assert len(columns_of(wide)) == 200
    assert columns_of({"type": "array"}) == []


def test_an_answer_in_json_is_what_it_says() -> None:
    assert value_of('{"a": [1, null, "é"]}') == {"a": [1, None, "é"]}
    with pytest.raises(NotJson):
        value_of("yes")
