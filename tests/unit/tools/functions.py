"""A module of functions as users write them, good and bad."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
import enum
import os
import signal
import sys
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from askq.tools import tool


class Mode(enum.Enum):
    ECO = "eco"
    FULL = "full"


@dataclasses.dataclass
class Room:
    name: str
    floor: int = 0


class Order(BaseModel):
    item: str
    count: int = Field(ge=1, le=9)


@tool
def light(device: Literal["lamp", "led"], *, on: bool) -> str:
    """Switch a light.

    Longer words about it.

    Args:
        device: Which one.
        on: Whether it is to shine.
    """
    print(f"{device} {on}")
    return f"{device} is {'on' if on else 'off'}"


@tool
def everything(
    text: str,
    number: float,
    mode: Mode,
    room: Room,
    orders: list[Order],
    when: datetime.date,
    note: Annotated[str | None, Field(description="Anything else.")] = None,
    model_dump: int = 3,
    _hidden: int = 4,
) -> dict[str, Any]:
    """Take a bit of everything."""
    kinds = [type(part).__name__ for part in (text, number, mode, room, orders[0], when)]
    return {"kinds": kinds, "note": note, "model_dump": model_dump, "hidden": _hidden, "room": room, "mode": mode}


@tool
async def slow_sum(a: int, b: int) -> int:
    """Add, later."""
    import asyncio

    await asyncio.sleep(0.01)
    return a + b


@tool(name="now", description="Told elsewhere.", timeout_s=3.5, memory_mb=512, once=True)
def nothing() -> None:
    """Never seen."""


@tool
def korean(도시: str) -> str:  # noqa: N803
    """도시의 날씨를 알려 준다."""
    return f"{도시}: 맑음 ☀"


@tool
def fails() -> str:
    """Raise."""
    raise ValueError("the bulb is broken")


@tool
def leaves() -> str:
    """End the interpreter politely."""
    sys.exit(3)


@tool
def hangs() -> str:
    """Never come back."""
    while True:
        time.sleep(60)


@tool
def dies(how: str) -> str:
    """End the interpreter without a word."""
    print("last words", flush=True)
    if how == "exit":
        os._exit(7)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang up":
        os.closerange(3, 256)
        time.sleep(600)
    if how == "scribble":
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"\0\0\0\2xx")
        time.sleep(600)
    ctypes.string_at(0)
    return "alive"


@tool
def babbles(megabytes: int) -> str:
    """Print a lot."""
    for _ in range(megabytes):
        sys.stdout.write("blah " * 200_000)
        os.write(2, b"x" * 1000)
    return "done"


@tool
def unwritable() -> object:
    """Return what no JSON can hold."""
    return object()


@tool
def circular() -> list[Any]:
    """Return what never ends."""
    found: list[Any] = []
    found.append(found)
    return found


@tool
def long(size: int) -> str:
    """Return a long text."""
    return "x" * size


@tool
def greedy() -> str:
    """Take all the memory there is."""
    kept = [bytearray(1 << 26) for _ in range(10_000)]
    return str(len(kept))


@tool
def secrets() -> dict[str, str]:
    """Tell what the environment has."""
    return {name: value for name, value in os.environ.items() if "KEY" in name or "REDIS" in name}


@tool
def spawns() -> int:
    """Leave a process behind."""
    import subprocess

    return subprocess.Popen(["sleep", "1000"]).pid


@tool
def forks() -> str:
    """Come back twice."""
    return "child" if os.fork() == 0 else "parent"


@tool
def halves(how: str) -> Any:
    """Return, or raise, half of a character."""
    if how == "raise":
        raise FileNotFoundError("no \udcff")
    return "a\ud800" if how == "text" else {"of": "a\ud800"}


@tool
def endless() -> Any:
    """Return what can be written, and never to its end."""
    return (number for number in iter(int, 1))


def unmarked() -> str:
    """Not registered."""
    return "never run"


@tool
def untyped(value):  # type: ignore[no-untyped-def]
    """Say no type."""


@tool
def variadic(*values: int) -> int:
    """Take any number."""
    return sum(values)


@tool
def undescribable(socket: type[Any], other: object) -> str:
    """Take what has no schema."""
    return ""
