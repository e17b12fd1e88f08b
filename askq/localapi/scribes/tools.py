"""What a client says about tools, in the words of engines."""

from __future__ import annotations

from typing import Any

from askq.localapi.wire import JsonObject


def tool_options(body: JsonObject, *, called: bool = False) -> dict[str, Any]:
    """`tool_choice` and `parallel_tool_calls` where they are not the default; None where they are.

    `called`: functions were called already, and the choice is not the client's to change. A model "must call one or
    more tools before responding to the user": it has, and what would force it again would never let the run end.
    """
    choice = _choice(body["tool_choice"])
    return {
        "tool_choice": None if called and choice != "none" else choice,
        "parallel_tool_calls": None if body["parallel_tool_calls"] else False,
    }


def offered(body: JsonObject) -> list[JsonObject]:
    """The tools that may be called: all, or those that `allowed_tools` leaves."""
    choice, tools = body["tool_choice"], list(body["tools"])
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools
    return [tool for tool in tools if any(_is_named(tool, named) for named in choice["tools"])]


def _is_named(tool: JsonObject, named: JsonObject) -> bool:
    return all(tool.get(key) == named.get(key) for key in ("type", "name", "server_label"))


def _choice(choice: Any) -> str | None:
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            return "required" if choice["mode"] == "required" else None
        named = choice.get("function") or choice  # nested in the Assistants protocol, flat in Responses
        return named.get("name") if choice.get("type") == "function" else None
    return None if choice == "auto" else choice
