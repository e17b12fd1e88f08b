"""Function calls without a language model: the words of the question, held against those of the functions.

The tutor understands nothing. It reads a function's description, and those of its parameters, as rules, clause by
clause:

    When it is hot, switch on the fan and the AC. To watch a drama, switch on the TV.

A clause applies to a question that has one of its words (`hot`, `drama`), leaving aside words that say nothing (`the`,
`when`, `switch`), those of the function's name, and the values of its parameters. The values that the clause names
become the arguments, one call for each combination: fan on, AC on. A question that names the values itself ("Turn the
light off") is its own clause. Numbers are taken from the question, in order, for a function one of whose words it has;
a function without parameters is called for a word of its name. A function with a parameter that cannot be filled so is
not called.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"\w+")
_CLAUSE = re.compile(r"[.;:!?\n]+(?:\s|$)|\n")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_MOST_CALLS = 32

_SAYS_NOTHING_TEXT = """
    a about after all also always am an and any anything are as ask asked asks at back be because been before being
    but by call called calls can could did do does doing done down each either equipment every everything false for from
    function functions get give given go goes going had has have having he her here him his how i if in into is it its
    just let like make makes many me mine much my need needs no not now of off on one only onto or our out over own
    person piece please put room say says set she should so some something state switch switched switches than that the
    their them then there these they thing things this those to too true turn turned turns two up us use used user users
    value values very wait want wanted wants was we were what when where whether which while who whom whose why will
    wish with without would yes you your
"""
_SAYS_NOTHING = frozenset(_SAYS_NOTHING_TEXT.split())
_TRUE, _FALSE = frozenset({"on", "true", "yes", "enable"}), frozenset({"off", "false", "no", "disable"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that the question asks for."""

    name: str
    arguments: Mapping[str, Any]

    def said(self) -> str:
        """Name and arguments, as a person would write them."""
        inner = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.arguments.items())
        return f"{self.name}({inner})"


def wanted(question: str, functions: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """The calls of the first function that fits the question; none if none does.

    `functions`: `{name, description, parameters}`, the parameters a JSON Schema, as clients send them.
    """
    for function in functions:
        calls = _calls(question, function)
        if calls:
            return calls[:_MOST_CALLS]
    return []


def _calls(question: str, function: Mapping[str, Any]) -> list[Wanted]:
    schema = function.get("parameters") or {}
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required = set(schema.get("required", properties))
    choices = {name: _choices(rules) for name, rules in properties.items() if isinstance(rules, Mapping)}
    numeric = [name for name, rules in properties.items() if _kind(rules) in ("integer", "number") and name in required]
    free = [name for name in required if not choices.get(name) and name not in numeric]
    if free:
        return []
    own = _stems(_words(" ".join([function["name"].replace("_", " "), *properties])))
    named = _stems(value for values in choices.values() for value in values)
    texts = [str(function.get("description") or "")]
    texts += [str(rules.get("description") or "") for rules in properties.values() if isinstance(rules, Mapping)]
    clauses = [clause for text in texts for clause in _CLAUSE.split(text) if clause.strip()]
    asked = _content(question) - named
    applying = [question, *(clause for clause in clauses if asked & (_content(clause) - named - own))]
    numbers = _NUMBER.findall(question)
    if numeric and (len(numbers) != len(numeric) or not asked & (own | _content(" ".join(clauses)))):
        return []
    filled = dict(zip(numeric, map(_number, numbers), strict=True)) if numeric else {}
    found: list[Wanted] = []
    for clause in applying:
        for named_values in _combinations(clause, choices, required - set(numeric)):
            arguments = {**filled, **named_values}
            call = Wanted(function["name"], {name: arguments[name] for name in properties if name in arguments})
            # Without arguments nothing but its name tells that it is meant.
            if call not in found and (arguments or asked & own):
                found.append(call)
    return found


def _combinations(
    clause: str, choices: Mapping[str, Mapping[str, Any]], required: set[str]
) -> Iterable[dict[str, Any]]:
    """Every way to fill the parameters with values that the clause names; none if a required one stays empty."""
    words = _words(clause)
    named: dict[str, list[Any]] = {}
    for name, values in choices.items():
        mentioned = [value for word, value in values.items() if _mentions(words, word)]
        if mentioned:
            named[name] = list(dict.fromkeys(mentioned))
        elif name in required:
            return
    for chosen in itertools.product(*named.values()):
        yield dict(zip(named, chosen, strict=True))


def _choices(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The values a parameter can have, by the words that name them."""
    if _kind(rules) == "boolean":
        return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
    return {str(value).lower(): value for value in rules.get("enum") or ()}


def _kind(rules: Any) -> str | None:
    return rules.get("type") if isinstance(rules, Mapping) and isinstance(rules.get("type"), str) else None


def _mentions(words: Sequence[str], value: str) -> bool:
    """Whether a value of one or several words occurs, if need be with an ending such as a Korean particle."""
    parts = _words(value)
    if not parts:
        return False
    for start in range(len(words) - len(parts) + 1):
        if all(_same(word, part) for word, part in zip(words[start:], parts, strict=False)):
            return True
    return False


def _same(word: str, part: str) -> bool:
    ending = word.removeprefix(part)
    return _stem(word) == _stem(part) or (ending != word and ending != "" and not ending.isascii())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("_", " "))


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


def _stems(words: Iterable[str]) -> set[str]:
    return {_stem(word) for text in words for word in _words(text)}


def _content(text: str) -> set[str]:
    """The words that say something."""
    return {_stem(word) for word in _words(text) if word not in _SAYS_NOTHING and not word.isdigit()}


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def report(done: Sequence[tuple[str, str, str]]) -> str:
    """What the tutor says when the outputs have come: each call (name, arguments as JSON) and its output, no more."""
    lines = []
    for name, arguments, output in done:
        try:
            call = Wanted(name, json.loads(arguments)).said()
        except (ValueError, AttributeError):
            call = f"{name}({arguments})"
        lines.append(f"{call}: {output}")
    return "\n".join(lines)
