"""Calls that a model has written into its text, because it or its server has no other way to make them.

Small models often answer with the call's JSON alone, bare, in a code block or in `<tool_call>` tags. Only a text that is
nothing else, and names functions that were offered, is taken for calls: prose never is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

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
    decoder, values, at = json.JSONDecoder(), [], 0
    piece = piece.strip()
    while at < len(piece):
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
