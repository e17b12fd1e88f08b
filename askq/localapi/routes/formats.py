"""The form of answers that a client asks for: `text` of Responses, `response_format` of the Assistants protocol."""

from __future__ import annotations

from typing import Any

from askq.localapi import fields
from askq.localapi.errors import invalid
from askq.localapi.routes.tools import schema_flaw
from askq.localapi.wire import JsonObject

_KINDS = ("text", "json_object", "json_schema")
_VERBOSITIES = ("low", "medium", "high")


def checked_text(body: JsonObject) -> JsonObject:
    """`text` of a response, complete; raises ApiError."""
    text = fields.obj(body, "text") or {}
    for name in text:
        if name not in ("format", "verbosity"):
            raise invalid(f"Unknown parameter: 'text.{name}'.", param=f"text.{name}", code="unknown_parameter")
    fields.one_of(text, "verbosity", _VERBOSITIES)
    form = fields.obj(text, "format")
    if form is None:
        return {**text, "format": {"type": "text"}}
    if _kind(form, "text.format") == "json_schema":
        _check_schema(form, "text.format", response_format=False)
    return text


def checked_response_format(body: JsonObject) -> Any:
    """`response_format` of an assistant or run, None if there is none; raises ApiError."""
    value = body.get("response_format")
    if value is None or value == "auto":
        return value
    form = fields.obj(body, "response_format")
    assert form is not None
    if _kind(form, "response_format") == "json_schema":
        schema = fields.obj(form, "json_schema")
        if schema is None:
            raise fields.missing("response_format.json_schema")
        _check_schema(schema, "response_format.json_schema", response_format=True)
    return form


def _kind(form: JsonObject, where: str) -> str:
    if form.get("type") is None:
        raise fields.missing(f"{where}.type")
    kind = fields.one_of(form, "type", _KINDS)
    assert kind is not None
    return kind


def _check_schema(form: JsonObject, where: str, *, response_format: bool) -> None:
    name = fields.check_name(form.get("name"), f"{where}.name")
    schema = fields.obj(form, "schema")
    if schema is None:
        if response_format:
            return
        raise fields.missing(f"{where}.schema")
    flaw = schema_flaw(schema, strict=form.get("strict") is True)
    if flaw is None and form.get("strict") is True and schema.get("type") != "object":
        flaw = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if flaw is not None:
        raise invalid(
            f"Invalid schema for response_format '{name}': {flaw}",
            param=f"{where}.schema",
            code="invalid_json_schema",
        )
