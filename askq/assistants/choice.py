"""`tool_choice`: whether a run may, must or must not call a tool, and which; in the shape of either protocol."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from askq.assistants.notation import flat_tool, short

WORDS = ("none", "auto", "required")
_OF_ASSISTANTS = ("function", "code_interpreter", "file_search")
_SHAPE = '{ type = "function", name = "…" }'

Found = tuple[tuple[str | int, ...], str]
"""Where in the file, and what is wrong there."""


def flat(choice: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A choice in the flat shape of Responses, whichever shape the file has."""
    if choice is None or isinstance(choice, str):
        return choice
    nested = choice.get("function")
    if choice.get("type") == "function" and isinstance(nested, Mapping):
        return {"type": "function", **nested}
    return dict(choice)


def after_a_call(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """What is left of a choice once its tool was called: nothing that forces another call, or no run would ever end.

    What only keeps tools out stays.
    """
    if isinstance(choice, Mapping):
        return {**choice, "mode": "auto"} if choice.get("type") == "allowed_tools" else None
    return None if choice == "required" else choice


def wrong(values: Mapping[str, Any]) -> list[Found]:
    """What is wrong with the choice of a file, as far as it can be said before its functions are described."""
    choice, tools = values.get("tool_choice"), values.get("tools") or []
    at = ("tool_choice",)
    if choice is None:
        useless = "parallel_tool_calls" in values and not tools and "assistant_id" not in values
        return [(("parallel_tool_calls",), _NO_TOOLS)] if useless else []
    if isinstance(choice, str) and choice not in WORDS:
        return [(at, f"tool_choice is {short(choice)}; write {', '.join(WORDS)}, or {_SHAPE}")]
    if not isinstance(choice, str | Mapping):
        return [(at, f"tool_choice is {short(choice)}; write a text ({', '.join(WORDS)}), or {_SHAPE}")]
    if not tools and choice not in ("none", "auto") and "assistant_id" not in values:
        return [(at, _NO_TOOLS)]
    return [] if isinstance(choice, str) else _wrong_table(choice, {values.get("protocol"), values.get("api")})


_NO_TOOLS = "there is nothing to choose from: the file names no tools"


def _wrong_table(choice: Mapping[str, Any], protocols: set[Any]) -> list[Found]:
    at, kind = ("tool_choice",), choice.get("type")
    if not isinstance(kind, str):
        return [(at, f"tool_choice needs a type, which is a text; write {_SHAPE}")]
    if "assistants" in protocols and kind not in _OF_ASSISTANTS:
        return [(at, f'a tool_choice of the type {short(kind)} needs protocol = "responses"')]
    if kind == "function":
        return [] if isinstance(_name(choice), str) else [(at, f"tool_choice needs the function's name: {_SHAPE}")]
    if kind != "allowed_tools":
        return []
    found: list[Found] = []
    if choice.get("mode") not in ("auto", "required"):
        found.append(((*at, "mode"), "allowed_tools needs a mode: auto or required"))
    some = choice.get("tools")
    if not isinstance(some, list) or not some or not all(isinstance(tool, Mapping) for tool in some):
        found.append(((*at, "tools"), f"allowed_tools needs tools, a list of tables like {_SHAPE}"))
    return found


def unknown(values: Mapping[str, Any]) -> list[Found]:
    """Tools that the choice names and the file has not; `values` with its functions described."""
    choice, tools = values.get("tool_choice"), [flat_tool(tool) for tool in values.get("tools") or []]
    if not isinstance(choice, Mapping):
        return []
    if "assistant_id" in values and not tools and choice["type"] != "function":
        return []  # the assistant at the service has tools of its own; functions are run only if the file names them
    if choice["type"] == "allowed_tools":
        return [
            (("tool_choice", "tools", index), told)
            for index, tool in enumerate(choice["tools"])
            if (told := _missing(tool, tools)) is not None
        ]
    told = _missing(choice, tools)
    return [] if told is None else [(("tool_choice",), told)]


def _missing(choice: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> str | None:
    kind = choice.get("type")
    of_kind = [tool for tool in tools if tool.get("type") == kind]
    if kind == "function":
        name, known = _name(choice), [str(tool.get("name")) for tool in of_kind]
        if name in known:
            return None
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; its functions: {', '.join(known) or 'none'}"
        return f"the file has no function {short(name)}{hint}"
    if not of_kind:
        kinds = dict.fromkeys(str(tool.get("type")) for tool in tools)
        return f"the file has no tool of the type {short(kind)}; it has {', '.join(kinds)}"
    label = choice.get("server_label")
    if kind == "mcp" and label not in [tool.get("server_label") for tool in of_kind]:
        return f"the file has no mcp server called {short(label)}"
    return None


def _name(choice: Mapping[str, Any]) -> object:
    nested = choice.get("function")
    return nested.get("name") if isinstance(nested, Mapping) else choice.get("name")
