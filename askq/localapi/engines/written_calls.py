"""Calls that a model has written into its text, because it or its server has no other way to make them.

Small models often answer with the call's JSON alone, bare, in a code block or in `<tool_call>` tags. Only a text that
is nothing else, and names functions that were offered, is taken for calls: prose never is.

A server that has no way to force a call has one to force a form (`json_schema`), and a call has one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from askq.localapi.wire import JsonObject

_TAG = "<tool_call>"
_BEGINNINGS = (_TAG, "```", "{", "[")
_WRAPPED = re.compile(r"<tool_call>(.*?)</tool_call>|```[a-zA-Z_]*\n(.*?)```", re.DOTALL)
_ARGUMENTS = ("arguments", "parameters")


def may_be_calls(text: str) -> bool:
    """Whether a text that goes on might still turn out to be nothing but calls."""
    begun = text.lstrip()
    return any(begun.startswith(beginning) or beginning.startswith(begun) for beginning in _BEGINNINGS)


def written_calls(text: str, functions: Collection[str]) -> list[tuple[str, str]]:
    """The calls that a text consists of: names, and arguments as JSON text. Empty for any other text."""
    text = text.strip()
    wrapped = [first or second for first, second in _WRAPPED.findall(text)]
    if wrapped and _WRAPPED.sub("", text).strip():
        return []
    # The end of the turn may stand in place of the closing tag.
    pieces = wrapped or [text.removeprefix(_TAG)]
    calls = [_call(value, functions) for piece in pieces for value in _values(piece)]
    return [call for call in calls if call is not None] if all(calls) else []


def _values(piece: str) -> list[Any]:
    """The JSON values a piece consists of; a list counts as what is in it."""
    decoder, at = json.JSONDecoder(), 0
    values: list[Any] = []
    piece = piece.strip()
    doubled = piece.startswith("{{")  # as the template of Qwen2.5-Coder shows it to the model, by mistake
    if doubled:
        piece = piece[1:]
    while at < len(piece):
        if doubled and values and not piece[at:].strip("}"):
            break
        try:
            value, end = decoder.raw_decode(piece, at)
        except (ValueError, RecursionError):
            return [None]
        values += value if isinstance(value, list) and value else [value]
        at = end + len(piece[end:]) - len(piece[end:].lstrip(" \r\n\t,;"))
    return values or [None]


def _call(value: Any, functions: Collection[str]) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    if value.get("type") == "function":
        inner = value.get("function")
        value = inner if isinstance(inner, dict) else {key: part for key, part in value.items() if key != "type"}
    named = [key for key in _ARGUMENTS if key in value]
    if value.get("name") not in functions or len(named) > 1 or set(value) - {"name", "id", *named}:
        return None
    arguments = value[named[0]] if named else {}
    if isinstance(arguments, str):
        return value["name"], arguments
    return (value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def form_of_a_call(functions: Sequence[JsonObject]) -> JsonObject:
    """The JSON Schema of a call of one of these functions (`{name, description, parameters}`)."""
    definitions: JsonObject = {}
    calls = []
    for number, function in enumerate(functions):
        arguments = dict(function.get("parameters") or {"type": "object"})
        for key in ("$defs", "definitions"):
            for name, definition in (arguments.pop(key, None) or {}).items():
                definitions[f"{number}_{name}"] = _pointing(definition, number)
        name_and_arguments = {"name": {"const": function["name"]}, "arguments": _pointing(arguments, number)}
        calls.append(
            {
                "type": "object",
                "properties": name_and_arguments,
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: JsonObject = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _pointing(schema: Any, number: int) -> Any:
    """The schema with its references to definitions as they are called in the whole."""
    if isinstance(schema, list):
        return [_pointing(one, number) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _pointing(value, number) for key, value in schema.items()}
    place = found.get("$ref")
    if isinstance(place, str) and place.startswith(("#/$defs/", "#/definitions/")):
        found["$ref"] = f"#/$defs/{number}_{place.rpartition('/')[2]}"
    return found
