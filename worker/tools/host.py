"""One pool process's runners, and what comes of a call in one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from askq.jobs.calls import CallClaim, CallResult
from askq.tools.child import START_S, Child, RunnerAborted, RunnerEnded, RunnerTimeout
from askq.tools.outcomes import MOST_CALLS, MOST_CLAIMS, MOST_CRASHES, MOST_PRINTED, error_output

_RECYCLE_AFTER = 500
"""Calls of one runner: what a function leaks ends with it."""
_MOST_RUNNERS = 4
"""Runners one process keeps: one per folder with functions, and limit of memory."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The runner died of the call."""

    by: str
    printed: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """Nobody waits for the call any more."""


def refusal(claim: CallClaim, assistant: Assistant | None) -> CallResult | None:
    """What is said of a call that is not run, or not run again; None for one that is."""
    wanted = claim.wanted
    functions = {} if assistant is None else assistant.functions or {}
    if wanted.name not in functions:
        known = ", ".join(functions) or "none"
        return failure("unknown_function", f"there is no function {wanted.name[:100]!r}; known: {known}")
    if int(wanted.key.partition(".")[2]) >= MOST_CALLS:
        return failure("too_many_calls", f"at most {MOST_CALLS} calls are run at a time; call it again")
    if claim.begun and functions[wanted.name].get("once"):
        return failure("unknown_outcome", "it was begun, and nobody knows whether it was carried out")
    if claim.crashes >= MOST_CRASHES:
        return failure("crashed", "the function ended its process each time it was tried")
    if claim.claims > MOST_CLAIMS:
        return failure("given_up", f"{claim.claims - 1} times it was begun and did not come to its end")
    return None


def failure(code: str, message: str, *, seconds: float = 0.0, printed: str = "") -> CallResult:
    """An error as the output of a call."""
    return CallResult(output=error_output(code, message), error=code, seconds=seconds, printed=printed)


class Host:
    """Runs calls one after the other. `folders` are looked through besides those the assistant's file names."""

    def __init__(self, folders: Sequence[Path], *, timeout_s: float, memory_mb: int) -> None:
        self._folders = folders
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._children: dict[tuple[str, int], Child] = {}

    def run(self, claim: CallClaim, assistant: Assistant, wanted: Callable[[], bool]) -> CallResult | Crashed | Aborted:
        """Run a call that nothing speaks against. `wanted` tells, meanwhile, whether anybody still waits for it."""
        how = (assistant.functions or {})[claim.wanted.name]
        child = self._child(str(how["folder"]), int(how.get("memory_mb", self._memory_mb)))
        request = {
            "module": how["module"],
            "function": how["function"],
            "arguments": claim.wanted.arguments,
            "schema": _schema(assistant, claim.wanted.name),
        }
        try:
            timeout_s = START_S
            if (fault := child.load(how["module"], how["function"], wanted)) is not None:
                return CallResult(output=str(fault["output"]), error="unavailable")
            timeout_s = float(how.get("timeout_s", self._timeout_s))
            reply, printed = child.ask(request, timeout_s=timeout_s, wanted=wanted)
        except RunnerAborted:
            return Aborted()
        except RunnerTimeout as error:
            told = f"the function did not come to its end within {timeout_s:g} s"
            return failure("timeout", told, seconds=timeout_s, printed=error.printed)
        except RunnerEnded as error:
            return Crashed(error.by, error.printed)
        if reply.get("error") == "memory" or child.asked >= _RECYCLE_AFTER:
            child.stop()
        return CallResult(
            output=str(reply.get("output", "")),
            seconds=float(reply.get("seconds", 0.0)),
            error=reply.get("error"),
            printed=printed[:MOST_PRINTED],
        )

    def _child(self, folder: str, memory_mb: int) -> Child:
        key = (folder, memory_mb)
        if key not in self._children:
            while len(self._children) >= _MOST_RUNNERS:
                self._children.pop(next(iter(self._children))).stop()
            self._children[key] = Child([Path(folder), *self._folders], memory_mb=memory_mb)
        return self._children[key]

    def close(self) -> None:
        """Kill every runner."""
        while self._children:
            self._children.popitem()[1].stop()


def _schema(assistant: Assistant, name: str) -> Mapping[str, Any]:
    """The parameters as the model was told."""
    tools = (tool for tool in assistant.tools if tool.get("type") == "function" and tool.get("name") == name)
    parameters: Mapping[str, Any] = next(tools, {}).get("parameters", {})
    return parameters
