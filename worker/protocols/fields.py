"""Reading replies whose fields may be missing, null or of another type: servers differ, and none may break a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonObject = Mapping[str, Any]

_EMPTY: JsonObject = {}


def an_object(value: object) -> JsonObject:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else _EMPTY


def objects(value: object) -> list[JsonObject]:
    """The objects of a list; anything else in it, or instead of it, is left out."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def a_text(value: object) -> str:
    """The value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def a_count(value: object) -> int:
    """The value if it is a number from 0, else 0."""
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 2**53 else 0


def a_status(value: object) -> str:
    """The service's word for a status; `unknown` where it says none."""
    return a_text(value) or "unknown"


def joined(texts: list[str]) -> str | None:
    """Texts with an empty line between them; None where there is nothing to read."""
    return "\n\n".join(text for text in texts if text.strip()) or None
