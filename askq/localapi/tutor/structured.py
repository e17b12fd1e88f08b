"""An answer as a JSON object of the form that the client asks for.

Nothing is invented to fill a form: what was computed goes where its type fits, the sentence that says it goes where a
name asks for an explanation, and a form with anything else in it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_ASSIGNED = re.compile(r"(\w+) = (.+)")
_TOLD = frozenset(
    {"explanation", "reason", "reasoning", "solution", "working", "steps", "step", "text", "message", "comment", "why"}
)
_RESULT = frozenset({"answer", "result", "value", "final_answer", "final_result"})


class NotFitting(Exception):
    """The answer cannot be given in this form; the message says why."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a program printed, read."""

    values: tuple[Any, ...]
    """Numbers, truth values, or formulas as text."""
    named: Mapping[str, Any]
    """The value of each variable that has one only."""


def read(logs: str) -> Computed:
    """The values in what the tutor's programs print: `x = 1` for each solution, or the value, exact and rounded."""
    lines = [line.strip() for line in logs.splitlines() if line.strip()]
    assigned = [match for line in lines if (match := _ASSIGNED.fullmatch(line))]
    if assigned and len(assigned) == len(lines):
        by_name: dict[str, list[Any]] = {}
        for match in assigned:
            by_name.setdefault(match[1], []).append(_value(match[2]))
        return Computed(
            values=tuple(value for values in by_name.values() for value in values),
            named={name: values[0] for name, values in by_name.items() if len(values) == 1},
        )
    if not lines:
        return Computed((), {})
    exact = _value(lines[0])
    rounded = _value(lines[1]) if len(lines) > 1 else None
    if isinstance(exact, str) and isinstance(rounded, float | int) and not isinstance(rounded, bool):
        exact = rounded
    return Computed((exact,), {})


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return text
    return int(number) if number.denominator == 1 else float(number)


def as_json(wanted: Mapping[str, Any], text: str, logs: str | None) -> str:
    """The answer in the form of `{type: json_object}` or `{type: json_schema, schema}`; raises NotFitting."""
    computed = read(logs or "")
    if wanted["type"] == "json_object":
        values = list(computed.values)
        result = values[0] if len(values) == 1 else values or None
        return json.dumps({"answer": text, "result": result}, ensure_ascii=False)
    schema = wanted.get("schema") or {}
    made = _object(schema, text, computed)
    # Imported here: it takes a tenth of a second.
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable

    try:
        # With a registry of our own: by itself jsonschema would fetch what a client's `$ref` names.
        for error in Draft202012Validator(schema, registry=REGISTRY).iter_errors(made):
            raise NotFitting(f"what I computed does not fit the schema: {error.message}")
    except Unresolvable as exc:
        raise NotFitting(f"its $ref {exc.ref} leads nowhere") from exc
    return json.dumps(made, ensure_ascii=False)


def _object(schema: Mapping[str, Any], text: str, computed: Computed) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        raise NotFitting("the schema names no properties")
    made = {}
    for name, rules in properties.items():
        try:
            made[name] = _filled(name, rules if isinstance(rules, Mapping) else {}, text, computed)
        except NotFitting:
            if name in schema.get("required", ()):
                raise
    return made


def _filled(name: str, rules: Mapping[str, Any], text: str, computed: Computed) -> Any:
    kinds = rules.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    plain = name.lower()
    single = [computed.named[name]] if name in computed.named else list(computed.values)
    told = plain in _TOLD
    for kind in kinds:
        match kind:
            case "number" | "integer" if len(single) == 1 and _is(single[0], kind):
                return single[0]
            case "boolean" if len(single) == 1 and isinstance(single[0], bool):
                return single[0]
            case "string" if told:
                return text
            case "string" if (plain in _RESULT or name in computed.named) and single:
                return ", ".join(_worded(value) for value in single)
            case "string" if plain in _RESULT:
                return text
            case "array":
                items = rules.get("items")
                of = items.get("type") if isinstance(items, Mapping) else None
                if of == "string":
                    return [text] if told else [_worded(value) for value in single]
                if single and all(_is(value, of) for value in single):
                    return single
    if "null" in kinds:
        return None
    raise NotFitting(f"nothing that I computed fits '{name}'")


def _is(value: Any, kind: Any) -> bool:
    match value:
        case bool():
            return bool(kind == "boolean")
        case int():
            return kind in ("integer", "number")
        case float():
            return bool(kind == "number")
        case _:
            return False


def _worded(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
