"""What a client says about tools, in the words of engines."""

from __future__ import annotations

from typing import Any

from askq.localapi.wire import JsonObject


def tool_options(body: JsonObject) -> dict[str, Any]:
    """`tool_choice` and `parallel_tool_calls` where they are not the default; None where they are."""
    return {
        "tool_choice": _choice(body["tool_choice"]),
        "parallel_tool_calls": None if body["parallel_tool_calls"] else False,
    }


def _choice(choice: Any) -> str | None:
    if isinstance(choice, dict):
        named = choice.get("function") or choice  # nested in the Assistants protocol, flat in Responses
        return named.get("name") if choice.get("type") == "function" else None
    return None if choice == "auto" else choice
