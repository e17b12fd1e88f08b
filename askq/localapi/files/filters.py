"""Attributes of files in vector stores, and the filters that choose by them."""

from __future__ import annotations

from typing import Any

from askq.localapi import fields
from askq.localapi.errors import invalid
from askq.localapi.wire import JsonObject

_COMPARISONS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")
_DEPTH = 10


def checked_attributes(body: JsonObject) -> JsonObject:
    """The `attributes` of a file; empty when absent; raises ApiError."""
    given = fields.obj(body, "attributes")
    if given is None:
        return {}
    if len(given) > fields.METADATA_PAIRS:
        raise invalid(f"Invalid 'attributes': more than {fields.METADATA_PAIRS} of them.", param="attributes")
    for key, value in given.items():
        fields.check_length(key, "attributes", fields.METADATA_KEY_CHARS)
        if isinstance(value, str):
            fields.check_length(value, f"attributes.{key}", fields.METADATA_VALUE_CHARS)
        elif not isinstance(value, (bool, int, float)):
            raise invalid(
                f"Invalid type for 'attributes.{key}': expected a string, a number or a boolean, but got "
                f"{fields.json_name(value)} instead.",
                param=f"attributes.{key}",
                code="invalid_type",
            )
    return dict(given)


def checked_filter(given: JsonObject | None, depth: int = 0) -> JsonObject | None:
    """A filter; raises ApiError."""
    if given is None:
        return None
    kind = given.get("type")
    if kind in ("and", "or") and depth < _DEPTH:
        for inner in fields.objects(given, "filters", most=100):
            checked_filter(inner, depth + 1)
        return given
    value = given.get("value")
    lists = isinstance(value, list) and kind in ("in", "nin")
    if (
        kind not in _COMPARISONS
        or not isinstance(given.get("key"), str)
        or not (lists or isinstance(value, (str, int, float)))
    ):
        raise invalid(
            "Invalid 'filters': expected {type: 'and' or 'or', filters} or {type, key, value} with a type out of "
            f"{', '.join(_COMPARISONS)}.",
            param="filters",
        )
    return given


def passes(attributes: JsonObject, given: JsonObject | None) -> bool:
    """Whether a file with these attributes is chosen by a checked filter."""
    if given is None:
        return True
    if given["type"] in ("and", "or"):
        inner = [passes(attributes, one) for one in given.get("filters") or []]
        return all(inner) if given["type"] == "and" else any(inner)
    return _holds(given["type"], attributes.get(given["key"]), given["value"])


def _holds(kind: str, found: Any, value: Any) -> bool:
    match kind:
        case "eq":
            return bool(found == value)
        case "ne":
            return bool(found != value)
        case "in" | "nin":
            # The service's types allow a value alone.
            among = found in (value if isinstance(value, list) else [value])
            return among if kind == "in" else not among
    if isinstance(found, str) != isinstance(value, str) or found is None:
        return False
    match kind:
        case "gt":
            return bool(found > value)
        case "gte":
            return bool(found >= value)
        case "lt":
            return bool(found < value)
        case _:
            return bool(found <= value)
