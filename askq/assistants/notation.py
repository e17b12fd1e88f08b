"""How an assistant file is written: its published schema, its texts, durations and tools."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_TIMEOUT_S = 30 * 86_400.0
"""As long as the service keeps a response."""


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema of assistant files."""
    text = (importlib.resources.files("askq.assistants") / "schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def text_of(path: Path) -> str:
    """The text of a file. Raises OSError, and ValueError for one that is not UTF-8 or cannot be named."""
    # Editors of Windows begin a file with a mark that is no part of the text.
    return path.read_text("utf-8-sig")


def seconds(duration: str | int) -> float | None:
    """The seconds of `"90s"`, `"10m"`, `"2h"`, `"1d"` or a bare number; None for what is no usable duration."""
    found: float
    if isinstance(duration, int):
        found = duration
    else:
        parts = _DURATION.fullmatch(duration.strip())
        found = float(parts.group(1)) * _UNIT_S[parts.group(2) or "s"] if parts else 0.0
    return float(found) if 0 < found <= _LONGEST_TIMEOUT_S else None


def table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The table of this name, empty where there is none."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def completion_window(values: Mapping[str, Any]) -> Literal["soonest", "2h", "8h"] | None:
    """The window a file asks for, under OpenAI's name for it or beside the other settings of a run."""
    places = (table(values, "background_options"), table(values, "run"))
    found: Any = next((place["completion_window"] for place in places if "completion_window" in place), None)
    window: Literal["soonest", "2h", "8h"] | None = found if found in ("soonest", "2h", "8h") else None
    return window


def flat_tool(tool: str | Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the flat shape of Responses, whichever shape the file has."""
    if isinstance(tool, str):
        return {"type": tool}
    kind = tool["type"]
    nested = tool.get(kind)
    if isinstance(nested, Mapping):
        return {"type": kind, **nested}
    return dict(tool)


def short(value: object) -> str:
    """A value as it is shown: a whole prompt in a message hides the message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
