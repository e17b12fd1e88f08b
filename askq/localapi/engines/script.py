"""The `script` engine: what happens is prescribed (`askq.localapi.engines.script_file` says how)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from askq.localapi.engines import script_files
from askq.localapi.engines.base import Call, End, Outcome, Output, Plan, Request, Text, Usage
from askq.localapi.engines.script_file import Rule, Script, parse_script
from askq.localapi.wire import JsonObject, derived_id

_FIELD = re.compile(r"\{([\w-]+)\}")


class ScriptEngine:
    """Plans every run at its creation, as a function of script, question, number and round."""

    name = "script"
    models = ("askq-script",)
    concurrency = 1

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or parse_script({})

    def plan(self, request: Request) -> Plan:
        """The course of the first rule that holds."""
        question = request.question
        for rule in self._script.rules:
            match = _holding(rule, request, question)
            if match is not None:
                if request.round == 0:
                    rule.used += 1
                    if "times_each" in rule.conditions:
                        rule.used_each[question] = rule.used_each.get(question, 0) + 1
                return self._course(rule.effects, request, question, match)
        raise LookupError("no rule of the script holds")  # the default, which is the last, always does

    async def answer(self, request: Request) -> Outcome:
        """Never asked: everything is planned."""
        raise NotImplementedError("the script engine plans every run")

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _course(self, effects: JsonObject, request: Request, question: str, match: Mapping[str, str]) -> Plan:
        hints = effects.get("poll_after_ms", [])
        outcome = _outcome(effects, request, question, match)
        seconds = self._seconds(effects["duration"], question)
        telling = None
        if "pace" in effects:
            telling = _words(outcome) / effects["pace"]
            seconds += telling
        return Plan(
            outcome=outcome,
            seconds=None if effects.get("status") == "stuck" else seconds,
            telling=telling,
            statuses=tuple(effects.get("statuses", ("queued", "in_progress"))),
            by_poll=effects.get("advance") == "poll" and effects.get("status") != "stuck",
            poll_after_ms=tuple(hints if isinstance(hints, list) else [hints]),
            at_once=effects.get("immediate", False),
            cancel_seconds=effects.get("cancel_takes", 0.2),
        )

    def _seconds(self, duration: float | list[float], question: str) -> float:
        if not isinstance(duration, list):
            return float(duration)
        low, high = duration
        return low + (high - low) * _fraction(f"{self._script.salt}\0{question}")


def _words(outcome: Outcome) -> int:
    return sum(len(output.value.split()) for output in outcome.outputs if isinstance(output, Text))


def _fraction(text: str) -> float:
    """A number from 0 to 1 that depends on nothing but the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def _holding(rule: Rule, request: Request, question: str) -> Mapping[str, str] | None:
    """The groups of the rule's expression if all its conditions hold, else None."""
    conditions = rule.conditions
    if "contains" in conditions and conditions["contains"] not in question:
        return None
    if "protocol" in conditions and conditions["protocol"] != request.protocol:
        return None
    if "every" in conditions and request.number % conditions["every"]:
        return None
    if "nth" in conditions:
        numbers = conditions["nth"]
        if request.number not in (numbers if isinstance(numbers, list) else [numbers]):
            return None
    if any(request.metadata.get(key) != value for key, value in conditions.get("metadata", {}).items()):
        return None
    if "earlier" in conditions and not any(conditions["earlier"] in text for text in request.earlier):
        return None
    if "output" in conditions and not any(conditions["output"] in output.text for _, output in request.given):
        return None
    # Uses count questions: later rounds belong to the use that began them.
    allowance = 0 if request.round == 0 else 1
    if "times" in conditions and rule.used >= conditions["times"] + allowance:
        return None
    if "times_each" in conditions and rule.used_each.get(question, 0) >= conditions["times_each"] + allowance:
        return None
    if rule.regex is None:
        return {}
    match = rule.regex.search(question)
    if match is None:
        return None
    groups = {str(number): text or "" for number, text in enumerate(match.groups(), 1)}
    return {**groups, **{name: text or "" for name, text in match.groupdict().items()}}


def _outcome(effects: JsonObject, request: Request, question: str, groups: Mapping[str, str]) -> Outcome:
    status: str = effects.get("status", "completed")
    usage = Usage(**effects["usage"]) if "usage" in effects else None
    values = {**_fields(request, question), **groups}
    rounds = _rounds(effects, request)
    if request.round < len(rounds):
        calls = tuple(_call(request, index, call, values) for index, call in enumerate(rounds[request.round]))
        before = effects.get("calls_code", [])[request.round : request.round + 1]
        codes = [script_files.code(code) for codes in before for code in codes]
        return Outcome(outputs=(*codes, *calls), usage=usage, container_gone_s=effects.get("container_gone"))
    codes = [script_files.code(code) for code in effects.get("code", [])]
    values["files"] = script_files.links(codes)
    searches = [script_files.search(search, request) for search in effects.get("search", [])]
    outputs: list[Output] = [*searches, *codes]
    end: End = "completed"
    match status:
        case "failed" | "incomplete" | "expired" | "cancelled":
            end = status
            texts = [effects["partial"]] if "partial" in effects else []
        case _:
            answer = effects["answer"]
            texts = answer if isinstance(answer, list) else [answer]
    phases = effects.get("phases", [])
    for index, text in enumerate(texts):
        last = index == len(texts) - 1
        value = _text(text, values)
        outputs.append(
            Text(
                value=value,
                refusal=effects.get("refusal", False),
                annotations=tuple(effects.get("annotations", ())) if last else (),
                quotes=script_files.quotes(effects.get("citations", []), value, request) if last else (),
                phase=phases[index] if index < len(phases) else None,
            )
        )
    error = effects.get("error", {})
    return Outcome(
        status=end,
        outputs=tuple(outputs),
        usage=usage,
        error_code=error.get("code", "server_error"),
        error_message=error.get("message") or ("The script says so." if end == "failed" else ""),
        reason=effects.get("reason", "max_output_tokens"),
        container_gone_s=effects.get("container_gone"),
    )


def _fields(request: Request, question: str) -> dict[str, str]:
    """What `{name}` stands for in answers and arguments; the groups of the expression come on top."""
    values = {"question": question, "n": str(request.number), "round": str(request.round)}
    values["earlier"] = " | ".join(request.earlier)
    values["earlier_count"] = str(len(request.earlier))
    values["previous"] = request.earlier[-1] if request.earlier else ""
    values.update({f"earlier_{place}": text for place, text in enumerate(request.earlier, 1)})
    values["attached"] = ", ".join(sorted({file.name for file in request.files}))
    given = [(call.name, output.text) for call, output in request.given]
    values["outputs"] = ", ".join(output for _, output in given)
    values["output"] = given[-1][1] if given else ""
    for place, (name, output) in enumerate(given, 1):
        values[f"output_{place}"] = output
        values[f"output_{name}"] = output
    return values


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """`value` with the fields of every text in it filled in."""
    match value:
        case str():
            return _FIELD.sub(lambda found: values.get(found[1], found[0]), value)
        case list():
            return [_filled(element, values) for element in value]
        case dict():
            return {name: _filled(element, values) for name, element in value.items()}
        case _:
            return value


def _text(value: Any, values: Mapping[str, str]) -> str:
    """A text with its fields filled in, or a table of them as JSON."""
    filled = _filled(value, values)
    return filled if isinstance(filled, str) else json.dumps(filled, ensure_ascii=False)


def _rounds(effects: JsonObject, request: Request) -> list[list[JsonObject]]:
    """The rounds of calls as this request allows them."""
    rounds: list[list[JsonObject]] = effects.get("calls", [])
    if request.options.get("tool_choice") == "none":
        return []
    if request.options.get("parallel_tool_calls") is False:
        return [[call] for calls in rounds for call in calls]
    return rounds


def _call(request: Request, index: int, call: JsonObject, values: Mapping[str, str]) -> Call:
    return Call(
        call_id=derived_id("call", request.work_id, request.round * 1000 + index),
        name=_filled(call["name"], values),
        arguments=_text(call.get("arguments") or {}, values),
    )
