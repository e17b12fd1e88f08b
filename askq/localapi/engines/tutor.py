"""The `tutor` engine: questions that can be computed, answered by `askq.localapi.tutor`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from askq.localapi.engines.base import Call, Code, Outcome, Output, Plan, Request, Text
from askq.localapi.engines.tutor_files import from_stores, from_tables, unread
from askq.localapi.wire import derived_id


class TutorEngine:
    """Writes a program for the question, runs it confined, and answers from its output.

    Functions that are offered and fit the question by their words are called first (`askq.localapi.tutor.functions`).
    """

    name = "tutor"
    models = ("askq-tutor",)

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._used = False

    def plan(self, request: Request) -> Plan | None:
        """Nothing is planned: everything is computed."""
        return None

    async def answer(self, request: Request) -> Outcome:
        """Call what fits, or solve the last question; its code and what that printed come before the text."""
        called = _called(request)
        if called is not None:
            return called if called.calls else _formed(called, request, None)
        # Imported here: the tutor brings SymPy's weight, which the other engines need not carry.
        from askq.localapi.tutor import solve

        self._used = True
        replies = [turn.text for turn in request.turns if turn.role == "assistant"]
        filed = await from_tables(request) or await from_stores(request, sure=True)
        if filed is not None:
            return _formed(filed, request, None)
        solution = await solve(request.question, request.history, replies)
        if solution.code is None:
            filed = await from_stores(request, sure=False) or unread(request)
            if filed is not None:
                return _formed(filed, request, None)
        outputs: list[Output] = []
        if solution.code is not None:
            outputs.append(Code(source=solution.code, logs=solution.logs or ""))
        outputs.append(Text(value=solution.text))
        solved = solution.code is not None and not solution.failed
        return _formed(Outcome(outputs=tuple(outputs)), request, solution.logs, solved=solved)

    async def close(self) -> None:
        """End the process the tutor computes in, if it was ever needed."""
        if self._used:
            from askq.localapi.tutor import close

            close()


def _called(request: Request) -> Outcome | None:
    """The calls to make next, or the report on those that were made; None where no function fits."""
    functions, given = _functions(request), request.given
    if not functions and not given:
        return None
    from askq.localapi.tutor.functions import report, wanted

    if given:  # it goes on with the function it has begun with, whatever else is offered by now
        begun = {call.name for call, _ in given}
        functions = [function for function in functions if function["name"] in begun]
    calls = wanted(request.question, functions)
    remaining = calls[len(given) :]
    if request.options.get("parallel_tool_calls") is False:
        remaining = remaining[:1]
    elif given:
        remaining = []
    if remaining:
        return Outcome(
            outputs=tuple(
                Call(
                    call_id=derived_id("call", request.work_id, len(given) + index),
                    name=call.name,
                    arguments=json.dumps(call.arguments, ensure_ascii=False),
                )
                for index, call in enumerate(remaining)
            )
        )
    if given:
        return Outcome(outputs=(Text(value=report([(call.name, call.text, output.text) for call, output in given])),))
    return None


def _formed(outcome: Outcome, request: Request, logs: str | None, *, solved: bool = True) -> Outcome:
    """The outcome with its last text in the form that was asked for; a refusal where it does not fit."""
    wanted = request.options.get("format")
    if wanted is None or wanted["type"] == "text":
        return outcome
    from askq.localapi.tutor.structured import NotFitting, as_json

    *before, last = outcome.outputs
    assert isinstance(last, Text)
    try:
        if not solved:
            raise NotFitting(last.value)
        text = Text(value=as_json(wanted, last.value, logs))
    except NotFitting as exc:
        reason = last.value if not solved else f"I cannot answer in the form that was asked for: {exc}."
        text = Text(value=reason, refusal=True)
    return Outcome(outputs=(*before, text))


def _functions(request: Request) -> list[Mapping[str, Any]]:
    """The functions that may be called, flat in either protocol."""
    choice = request.options.get("tool_choice")
    if choice == "none":
        return []
    flat = [tool.get("function") or tool for tool in request.tools if tool.get("type") == "function"]
    return [function for function in flat if choice in (None, "required", function["name"])]
