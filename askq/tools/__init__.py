"""Functions that an assistant may call: mark yours with `@tool`, and name them in the assistant's file.

from typing import Literal
from askq.tools import tool

@tool
def equipment_control(device: Literal["light", "fan"], action: Literal["on", "off"]) -> str:
    \"\"\"Switch a device of the room on or off.\"\"\"
    return f"{device} is {action}"

# assistants/home.toml:  tools = ["home:equipment_control"]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

__all__ = ["Tool", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__askq_tool__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A registered function, and how it is run. None = the worker's settings say."""

    function: Callable[..., Any]
    name: str
    description: str | None = None
    timeout_s: float | None = None
    memory_mb: int | None = None
    once: bool = False


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    once: bool = False,
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    once: bool = False,
) -> F | Callable[[F], F]:
    """Register a function, plain or `async`. It stays what it was, and can be called and tested as before.

    The model is told its name, its docstring and the types of its parameters, as a JSON Schema; arguments that do not
    fit never reach it. What it returns becomes text: a text as it is, anything else as JSON.

    `timeout_s` and `memory_mb` bound one call. `once`: when the process dies in the middle of a call, it is not run
    again; the model is told that nobody knows whether it was carried out. Without it the call is run again, so that
    what it does may happen twice. Raises ValueError for bounds that are none.
    """
    if timeout_s is not None and not 0 < timeout_s <= 86_400:
        raise ValueError(f"timeout_s is {timeout_s!r}; write seconds above 0, at most a day")
    if memory_mb is not None and not 64 <= memory_mb <= 1_048_576:
        raise ValueError(f"memory_mb is {memory_mb!r}; write megabytes, at least 64")

    def register(marked: F) -> F:
        if not callable(marked):
            raise ValueError(f"@tool marks functions, not {type(marked).__name__}")
        made = Tool(
            function=marked,
            name=name or str(getattr(marked, "__name__", "")),
            description=description,
            timeout_s=timeout_s,
            memory_mb=memory_mb,
            once=once,
        )
        setattr(marked, _MARK, made)
        return marked

    return register if function is None else register(function)


def tool_of(found: object) -> Tool | None:
    """The registration of a function; None where there is none."""
    made = getattr(found, _MARK, None)
    return made if isinstance(made, Tool) else None
