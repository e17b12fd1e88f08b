"""Reading request bodies and queries: what may be there, of which type and how long, refused in OpenAI's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from askq.localapi.errors import ApiError, invalid
from askq.localapi.wire import JsonObject

METADATA_PAIRS = 16
METADATA_KEY_CHARS = 64
METADATA_VALUE_CHARS = 512
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_NAME_CHARS = 64

_JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def json_name(value: object) -> str:
    """How OpenAI's messages name the type of a JSON value."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def only(body: JsonObject, allowed: frozenset[str]) -> None:
    """Refuse parameters the endpoint does not have; raises ApiError."""
    for name in body:
        if name not in allowed:
            raise invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def _wrong_type(param: str, expected: str, value: object) -> ApiError:
    return invalid(
        f"Invalid type for '{param}': expected {expected}, but got {json_name(value)} instead.",
        param=param,
        code="invalid_type",
    )


def missing(name: str) -> ApiError:
    """What is said of a parameter that must be there and is not."""
    return invalid(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def check_length(value: str, param: str, most: int) -> str:
    """`value`, unless it has more than `most` characters."""
    if len(value) > most:
        raise invalid(
            f"Invalid '{param}': string too long. Expected a string with maximum length {most}, but got a string "
            f"with length {len(value)} instead.",
            param=param,
            code="string_above_max_length",
        )
    return value


def check_name(value: object, param: str) -> str:
    """The name of a function or of a form; raises ApiError when it is none."""
    if value is None:
        raise missing(param)
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise invalid(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            param=param,
            code="invalid_value",
        )
    return check_length(value, param, _NAME_CHARS)


def check_count(values: Sequence[object], param: str, most: int) -> None:
    """Refuse an array of more than `most` elements."""
    if len(values) > most:
        raise invalid(
            f"Invalid '{param}': array too long. Expected an array with maximum length {most}, but got an array "
            f"with length {len(values)} instead.",
            param=param,
            code="array_above_max_length",
        )


def text(body: JsonObject, name: str, *, most: int = 256_000) -> str | None:
    """An optional string of at most `most` characters."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(name, "a string", value)
    return check_length(value, name, most)


def required_text(body: JsonObject, name: str, *, most: int = 256_000) -> str:
    """A string that must be there and must not be empty."""
    value = text(body, name, most=most)
    if value is None:
        raise missing(name)
    if not value:
        raise invalid(
            f"Invalid '{name}': empty string. Expected a string with minimum length 1, but got an empty string "
            "instead.",
            param=name,
            code="empty_string",
        )
    return value


def flag(body: JsonObject, name: str, *, default: bool) -> bool:
    """An optional boolean."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong_type(name, "a boolean", value)
    return value


def whole(body: JsonObject, name: str, *, least: int) -> int | None:
    """An optional integer of at least `least`."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, "an integer", value)
    if value < least:
        raise invalid(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    return value


def number(body: JsonObject, name: str, *, low: float, high: float) -> float | None:
    """An optional number in a range, ends included."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(name, "a decimal", value)
    if value < low:
        raise invalid(
            f"Invalid '{name}': decimal below minimum value. Expected a value >= {low:g}, but got {value} instead.",
            param=name,
            code="decimal_below_min_value",
        )
    if value > high:
        raise invalid(
            f"Invalid '{name}': decimal above maximum value. Expected a value <= {high:g}, but got {value} instead.",
            param=name,
            code="decimal_above_max_value",
        )
    return value


def obj(body: JsonObject, name: str) -> JsonObject | None:
    """An optional object."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong_type(name, "an object", value)
    return value


def objects(body: JsonObject, name: str, *, most: int) -> list[JsonObject]:
    """An optional array of objects; empty when absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong_type(name, f"an array of objects with at most {most} elements", value)
    check_count(value, name, most)
    for index, element in enumerate(value):
        if not isinstance(element, dict):
            raise _wrong_type(f"{name}[{index}]", "an object", element)
    return value


def strings(body: JsonObject, name: str) -> list[str]:
    """An optional array of strings; empty when absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(element, str) for element in value):
        raise _wrong_type(name, "an array of strings", value)
    return value


def one_of(body: JsonObject, name: str, allowed: Sequence[str]) -> str | None:
    """An optional string out of a closed list."""
    value = text(body, name)
    if value is not None and value not in allowed:
        listed = ", ".join(f"'{word}'" for word in allowed)
        raise invalid(f"Invalid value: '{value}'. Supported values are: {listed}.", param=name, code="invalid_value")
    return value


def metadata(body: JsonObject) -> dict[str, str]:
    """The `metadata` of a create or update, within its limits; empty when absent."""
    value = obj(body, "metadata")
    if value is None:
        return {}
    if len(value) > METADATA_PAIRS:
        raise invalid(
            f"Invalid 'metadata': too many properties. Expected an object with at most {METADATA_PAIRS} properties, "
            f"but got an object with {len(value)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, content in value.items():
        if len(key) > METADATA_KEY_CHARS:
            raise invalid(
                f"Invalid 'metadata': property name too long. Expected a property name with maximum length "
                f"{METADATA_KEY_CHARS}, but got one with length {len(key)} instead.",
                param="metadata",
                code="property_name_above_max_length",
            )
        if not isinstance(content, str):
            raise _wrong_type(f"metadata.{key}", "a string", content)
        check_length(content, f"metadata.{key}", METADATA_VALUE_CHARS)
    return dict(value)


def merged_metadata(old: Mapping[str, str], body: JsonObject) -> dict[str, str]:
    """The metadata after an update: replaced when the update has any, else kept."""
    return metadata(body) if body.get("metadata") is not None else dict(old)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The paging parameters of a list request."""

    limit: int
    ascending: bool
    after: str | None
    before: str | None


def page_query(query: Mapping[str, str], *, most: int = 100, default: int = 20) -> PageQuery:
    """Read `limit` (from 1), `order` (default desc), `after` and `before`; raises ApiError."""
    raw = query.get("limit", str(default))
    try:
        limit = int(raw)
    except ValueError as exc:
        raise invalid(
            f"Invalid type for 'limit': expected an integer, but got {raw!r} instead.",
            param="limit",
            code="invalid_type",
        ) from exc
    if not 1 <= limit <= most:
        raise invalid(
            f"Invalid 'limit': expected a value from 1 to {most}, but got {limit} instead.",
            param="limit",
            code="integer_above_max_value" if limit > most else "integer_below_min_value",
        )
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order", code="invalid_value"
        )
    return PageQuery(limit=limit, ascending=order == "asc", after=query.get("after"), before=query.get("before"))


def cut_page(values: Sequence[JsonObject], asked: PageQuery) -> tuple[list[JsonObject], bool]:
    """One page out of `values` (oldest first), and whether there are more beyond it; raises ApiError."""
    ordered = list(values) if asked.ascending else list(reversed(values))
    if asked.after is not None:
        ordered = ordered[_position(ordered, asked.after, "after") + 1 :]
    if asked.before is not None:
        # `before` pages backwards: the page ends just ahead of the cursor.
        ordered = ordered[: _position(ordered, asked.before, "before")]
        return ordered[-asked.limit :], len(ordered) > asked.limit
    return ordered[: asked.limit], len(ordered) > asked.limit


def _position(values: Sequence[JsonObject], cursor: str, param: str) -> int:
    for index, value in enumerate(values):
        if value["id"] == cursor:
            return index
    raise ApiError(404, f"No item found with id '{cursor}'.", param=param)
