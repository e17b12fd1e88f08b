"""What a file's functions look like, found out in a process of their own: importing them runs a user's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from askq.tools.child import START_S, Child, RunnerEnded, RunnerTimeout
from askq.tools.modules import file_of, reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A function as the assistant holds it, or what is wrong with it."""

    tool: Mapping[str, Any] = field(default_factory=dict)
    """The tool in the Responses shape."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """Where the function is, and how it is to be run."""
    problem: str | None = None


def describe(wanted: Sequence[str], folders: Sequence[Path]) -> list[Described]:
    """Each of the functions `module:function`; modules are looked for in the folders, in their order."""
    found: list[Described | None] = [_missing(reference, folders) for reference in wanted]
    asked = [at for at, problem in enumerate(found) if problem is None]
    if asked:
        parts = [wanted[at].split(":", 1) for at in asked]
        for at, described in zip(asked, _ask(parts, folders), strict=True):
            found[at] = described
    return [described for described in found if described is not None]


def _missing(reference: str, folders: Sequence[Path]) -> Described | None:
    """What is wrong with a module before anything of it is run."""
    module, _, _ = reference.partition(":")
    path = file_of(module, folders)
    if path is None:
        looked = " and ".join(str(folder) for folder in dict.fromkeys(folders))
        name = f"{module.replace('.', '/')}.py"
        return Described(problem=f"{reference}: there is no module {module!r}; looked for {name} in {looked}")
    if reserved(module):
        return Described(problem=f"{reference}: {path}: a module {module!r} is Python's or askq's own; rename the file")
    return None


def _ask(wanted: Sequence[Sequence[str]], folders: Sequence[Path]) -> list[Described]:
    child = Child(folders)
    try:
        reply, _ = child.ask({"describe": [list(parts) for parts in wanted]}, timeout_s=START_S)
    except RunnerTimeout:
        return [_failed(parts, f"importing it took longer than {START_S:.0f} s") for parts in wanted]
    except RunnerEnded as error:
        printed = " ".join(error.printed.split())[-300:]
        return [_failed(parts, f"importing it ended the interpreter: {error.by}; {printed}") for parts in wanted]
    finally:
        child.stop()
    return [_read(parts, told, folders) for parts, told in zip(wanted, reply["described"], strict=True)]


def _failed(parts: Sequence[str], why: str) -> Described:
    return Described(problem=f"{':'.join(parts)}: {why}"[:500])


def _read(parts: Sequence[str], told: Mapping[str, Any], folders: Sequence[Path]) -> Described:
    module, function = parts
    if "problem" in told:
        problem = told["problem"]
        place = "" if problem["file"] is None else str(problem["file"])
        place += "" if problem["line"] is None else f":{problem['line']}"
        return Described(problem=f"{module}:{function}: {f'{place}: ' if place else ''}{problem['message']}")
    path = file_of(module, folders)
    assert path is not None
    folder = path.parents[len(module.split(".")) - (path.name != "__init__.py")]
    where = {"module": module, "function": function, "folder": _portable(folder)}
    return Described(tool={"type": "function", **told["tool"]}, how={**where, **told["how"]})


def _portable(folder: Path) -> str:
    """A folder as other processes find it: relative to the project's where it is inside, so that it may be elsewhere
    on another machine."""
    place, here = folder.resolve(), Path.cwd().resolve()
    return place.relative_to(here).as_posix() if place.is_relative_to(here) else place.as_posix()
