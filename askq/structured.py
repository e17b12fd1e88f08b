"""Answers that are data: the schema an assistant asks for, whether an answer fits it, and its fields as columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

_FENCED = re.compile(r"\A```[\w-]*\n(.*)\n```\Z", re.DOTALL)
_MOST_COLUMNS = 200
_MOST_LEVELS = 8
_SHOWN = 160
_LONGEST = 500
"""Characters of a reason: it goes into results, and back to the model."""


class NotJson(ValueError):
    """An answer that is no JSON, and where it ceases to be."""


def schema_of(text_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The JSON Schema of a `[text.format]`, in the shape of either protocol; None where there is none."""
    if text_format is None or text_format.get("type") != "json_schema":
        return None
    nested = text_format.get("json_schema")
    found = (nested if isinstance(nested, Mapping) else text_format).get("schema")
    return found if isinstance(found, Mapping) else None


def unfenced(text: str) -> str:
    """A text without the ``` lines a model may have put around it."""
    plain = text.strip()
    fenced = _FENCED.match(plain)
    return fenced.group(1).strip() if fenced else plain


def value_of(text: str) -> Any:
    """What an answer says in JSON. A model may put it between ``` lines. Raises NotJson."""
    plain = unfenced(text)
    if not plain:
        raise NotJson("it is empty")
    try:
        return json.loads(plain, parse_constant=_no_number, object_pairs_hook=_without_twins)
    except NotJson:
        raise
    except json.JSONDecodeError as error:
        raise NotJson(f"it is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise NotJson("it is JSON that nothing can read: a number is too long, or it is nested too deeply") from None


def _no_number(word: str) -> NoReturn:
    raise NotJson(f"it is not JSON: {word} is no number there")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise NotJson(f"the key {_clipped(json.dumps(twin, ensure_ascii=False))} stands twice in one object")
    return found


def why_invalid(text: str | None, schema: Mapping[str, Any]) -> str | None:
    """Why an answer does not fit a schema: what is wrong, and where in it (`$.items[2].price`). None when it does."""
    if text is None:
        return "there is no text"
    try:
        value = value_of(text)
    except NotJson as error:
        return str(error)
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        worst = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except RecursionError:
        return "it is nested too deeply to be compared with the schema"
    except Unresolvable as error:
        return f"it cannot be compared with the schema, whose $ref {_clipped(str(error.ref))} leads nowhere"
    if worst is None:
        return None
    return f"at {worst.json_path[:100]}: {_clipped(worst.message, _LONGEST - 120)}"


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    loaded = json.loads(schema)
    # Whatever `$schema` says; the newest where it says nothing. With a registry of our own, because by itself
    # jsonschema fetches what a `$ref` names, from files and from the network.
    return validator_for(loaded, default=Draft202012Validator)(loaded, registry=REGISTRY)


def dangling(schema: Mapping[str, Any]) -> list[str]:
    """The `$ref`s of a schema that lead nowhere within it: nothing is fetched from elsewhere."""
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    found = dict.fromkeys(_references(schema))
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = REGISTRY.resolver_with_root(resource)
    lost = []
    for ref in found:
        try:
            resolver.lookup(ref)
        except (Unresolvable, ValueError):
            lost.append(ref)
    return lost


_DATA = frozenset({"const", "default", "enum", "examples"})
"""Keys whose values are no schemas, whatever is in them."""


def _references(part: Any, *, inside: bool = False) -> Iterator[str]:
    if isinstance(part, Mapping):
        if inside and isinstance(part.get("$id"), str):
            return  # a part with an address of its own: what it points to is reckoned from there
        if isinstance(ref := part.get("$ref"), str):
            yield ref
        for name, inner in part.items():
            if name not in _DATA:
                yield from _references(inner, inside=True)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner, inside=True)


def columns_of(schema: Mapping[str, Any]) -> list[str]:
    """The fields of a schema as columns, in its order: `name`, `address.city`. A list is one column."""
    found: list[str] = []
    _collect(schema, schema, (), found)
    return found[:_MOST_COLUMNS]


def _collect(part: Any, whole: Mapping[str, Any], path: tuple[str, ...], found: list[str]) -> None:
    part = _resolved(part, whole)
    properties = part.get("properties") if isinstance(part, Mapping) else None
    if isinstance(properties, Mapping) and properties and len(path) < _MOST_LEVELS:
        for name, inner in properties.items():
            if len(found) < _MOST_COLUMNS:
                _collect(inner, whole, (*path, name), found)
    elif path:
        found.append(".".join(path))


def _resolved(part: Any, whole: Mapping[str, Any]) -> Any:
    """What a `$ref` within the schema stands for; a few steps, because it may lead in a circle."""
    for _ in range(_MOST_LEVELS):
        at = part.get("$ref") if isinstance(part, Mapping) else None
        if not isinstance(at, str) or not at.startswith("#/"):
            return part
        part = whole
        for name in at.removeprefix("#/").split("/"):
            part = part.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(part, Mapping) else None
    return part


def cells_of(value: Any, columns: Sequence[str]) -> dict[str, Any]:
    """The values of these columns in an answer; None where it has none."""
    return {column: _at(value, column.split(".")) for column in columns}


def _at(value: Any, path: Sequence[str]) -> Any:
    for end in range(len(path), 0, -1):
        # A name may have dots of its own.
        name = ".".join(path[:end])
        if isinstance(value, Mapping) and name in value:
            return value[name] if end == len(path) else _at(value[name], path[end:])
    return None


def _clipped(text: str, most: int = _SHOWN) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
