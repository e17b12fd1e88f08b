"""JSON as it goes over the wire: the alias for it, identifiers of the shapes OpenAI uses, and list pages."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

JsonObject = dict[str, Any]
"""One JSON object. Its values are what the caller sent; they are checked where they are used."""

_HEX_DIGITS = {"resp": 48, "conv": 48, "cntr": 48}
"""Responses' ids are longer than those of the Assistants protocol."""


def new_id(prefix: str) -> str:
    """A fresh id such as `run_5f0c…`: letters and digits only after the prefix, because clients parse it that way."""
    return f"{prefix}_{secrets.token_hex(_HEX_DIGITS.get(prefix, 24) // 2)}"


def new_file_id() -> str:
    """The id of an uploaded file; it has a hyphen where others have an underscore."""
    return f"file-{secrets.token_hex(12)}"


def derived_id(prefix: str, owner: str, number: int) -> str:
    """The id of the `number`-th thing `owner` makes.

    It is a function of its arguments, so that a run which is settled again after a crash makes the same messages.
    """
    digest = hashlib.sha256(f"{owner}/{prefix}/{number}".encode()).hexdigest()
    return f"{prefix}_{digest[: _HEX_DIGITS.get(prefix, 24)]}"


def page(data: Sequence[JsonObject], *, has_more: bool) -> JsonObject:
    """The list envelope every list endpoint answers with."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
