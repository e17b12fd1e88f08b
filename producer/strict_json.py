"""JSON as strict as the standard: nothing is dropped, guessed or nested without end.

The standard library keeps the last of two equal keys, reads NaN, turns 1e999 into infinity, and lets a lone
surrogate through that no store can write; each would change or lose something silently.
"""

from __future__ import annotations

import json
import re

DEPTH_LIMIT = 64
"""Levels of nesting. Bodies of OpenAI's Batch API with tool schemas have about 15."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)


class JsonFault(ValueError):
    """What is wrong with the JSON, in words for people. `structural` means that its end could not be found."""

    def __init__(self, message: str, *, structural: bool = False) -> None:
        super().__init__(message)
        self.structural = structural


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonFault(f'the key "{key}" is there twice')
            seen.add(key)
    return value


def _constant(name: str) -> object:
    raise JsonFault(f"{name} is not a JSON value")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise JsonFault(f"the number {text[:40]} is too large")
    return number


def _int(text: str) -> int:
    if len(text) > 400:
        raise JsonFault(f"a number has {len(text):,} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)
_LENIENT = json.JSONDecoder(parse_float=str, parse_int=str)


def parse(text: str) -> object:
    """The value of a whole JSON text. Raises JsonFault."""
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise JsonFault(f"not valid JSON: {exc.msg} (character {exc.colno})", structural=True) from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    check(value, text)
    return value


def parse_at(text: str, position: int) -> tuple[object, int]:
    """The value that starts at `position` exactly, and where it ends.

    Raises json.JSONDecodeError where more text might help, JsonFault where it cannot.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except RecursionError as exc:
        raise _too_deep() from exc
    check(value, text[position:end])
    return value, end


def skip_at(text: str, position: int) -> int:
    """Where the value at `position` ends, however wrong it is otherwise. Raises json.JSONDecodeError."""
    try:
        return _LENIENT.raw_decode(text, position)[1]
    except RecursionError as exc:
        raise _too_deep() from exc


def check(value: object, text: str) -> None:
    """Raise JsonFault when the value that `text` gave is nested too deep or cannot be written as UTF-8."""
    if text.count("[") + text.count("{") > DEPTH_LIMIT and _depth(text) > DEPTH_LIMIT:
        raise JsonFault(f"it is nested deeper than {DEPTH_LIMIT} levels")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as exc:
            raise JsonFault(f"\\u{ord(exc.object[exc.start]):04x} is half a character (a lone surrogate)") from exc


def _too_deep() -> JsonFault:
    return JsonFault(f"it is nested deeper than {DEPTH_LIMIT} levels", structural=True)


def _depth(text: str) -> int:
    depth = deepest = 0
    for found in _TOKEN.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return deepest
