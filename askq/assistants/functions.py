"""Functions among the tools of an assistant file: `"module:function"`, described by the module itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DESCRIBED = "functions described"
"""Where `described` puts how functions are run; no key of a file is called so, because none may be unknown."""

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Found = tuple[tuple[str | int, ...], str]


def misspelt(reference: str) -> list[Found]:
    """What is wrong with the spelling of a reference."""
    if _REFERENCE.fullmatch(reference):
        return []
    return [((), f"{reference!r} is no function; write module:function, for example home:equipment_control")]


def described(path: Path, values: dict[str, Any]) -> tuple[dict[str, Any], list[Found]]:
    """What a file without other mistakes says, with each function replaced by what the model is told of it; and what is
    wrong with functions. Modules are looked for beside the file, then in the current folder."""
    tools = values.get("tools", [])
    wanted = {at: tool for at, tool in enumerate(tools) if isinstance(tool, str) and ":" in tool}
    if not wanted:
        return values, []
    # Here, because it costs a process, and most files name no function.
    from askq.tools.describe import describe

    told = describe(list(wanted.values()), [path.resolve().parent, Path.cwd()])
    found: list[Found] = []
    how: dict[str, Mapping[str, Any]] = {}
    made = list(tools)
    for at, function in zip(wanted, told, strict=True):
        if function.problem is not None:
            found.append((("tools", at), function.problem))
            continue
        name = function.tool["name"]
        if name in how:
            found.append((("tools", at), f"two functions are called {name!r}; give one @tool(name=…)"))
        made[at] = function.tool
        how[name] = function.how
    return {**values, "tools": made, DESCRIBED: how}, found
