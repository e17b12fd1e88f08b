"""Whether an answer fits a schema: what is wrong and where, and its fields as columns."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askq.localapi.tutor.structured import NotFitting, as_json
from askq.structured import NotJson, cells_of, columns_of, dangling, schema_of, value_of, why_invalid

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


@pytest.fixture
def address() -> Iterator[tuple[str, list[bytes]]]:
    """An address on this machine where a schema could be had, and what comes there."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError), server.accept()[0] as client:
                    asked.append(client.recv(4096))
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/s.json", asked
        over.set()
        thread.join(20)


def test_nothing_is_fetched_for_a_schema(address: tuple[str, list[bytes]], tmp_path: Path) -> None:
    """A schema may come from anybody: what it points to elsewhere is asked for neither on the network nor on disk."""
    url, asked = address
    (tmp_path / "s.json").write_text("{}", "utf-8")
    for elsewhere in (url, (tmp_path / "s.json").as_uri(), "other.json", "#/$defs/nothing"):
        schema = {"type": "object", "properties": {"a": {"$ref": elsewhere}}}
        reason = why_invalid('{"a": 1}', schema) or ""
        assert f"with the schema, whose $ref {elsewhere.removeprefix('#')} leads nowhere" in reason
        assert dangling(schema) == [elsewhere]
        form = {"properties": {"answer": {"type": "string"}}, "$ref": elsewhere}
        with pytest.raises(NotFitting, match="leads nowhere"):
            as_json({"type": "json_schema", "schema": form}, "1", "1")
    assert asked == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
        {"$id": "https://example.org/s", "$ref": "#a", "$defs": {"a": {"$anchor": "a"}}},
        {"$ref": "b.json", "$defs": {"b": {"$id": "b.json", "$ref": "#/$defs/c", "$defs": {"c": {}}}}},
        {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "nowhere"}], "default": {"$ref": "nowhere"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "definitions": {"a": {}}},
        {"items": {"$ref": "https://json-schema.org/draft/2020-12/schema"}},
        {"properties": {"a": {"$ref": "#"}}},
    ],
)
def test_references_that_lead_somewhere(schema: dict[str, Any]) -> None:
    assert dangling(schema) == []
    assert "leads nowhere" not in (why_invalid('{"a": {}}', schema) or "")
