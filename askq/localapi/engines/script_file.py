"""The file of the `script` engine: JSON or TOML (by its suffix), for example

    salt = "another draw of durations"

    [default]                                   # what holds where no rule says otherwise
    answer = "Answer to: {question}"
    duration = [2, 20]

    [[rule]]                                    # the first rule whose conditions all hold is used
    contains = "France"
    answer = "Paris"

    [[rule]]
    nth = [3, 7]
    status = "failed"
    error = {code = "rate_limit_exceeded", message = "Slow down."}

    [[store_file]]                              # what becomes of files in vector stores
    contains = "scan"
    seconds = 3
    error = {code = "unsupported_file", message = "No text."}

    [[fault]]                                   # rules of `askq.localapi.faults`, in force from the start
    kind = "drop_after"
    path = "/runs$"
    times = 1

Conditions of a rule (all that are given must hold; a rule without any always holds):

    contains       the question (the last user message) contains this text
    regex          this regular expression is found in it; `answer` may use its groups as {1} or {name}
    nth            it is the n-th run of the ledger, counting from 1; a number or a list. A response that brings
                   outputs of function calls has the number of the one that the question came with
    every          the run's number is a multiple of this
    protocol       "assistants" or "responses"
    metadata       the run's metadata has all these pairs
    earlier        an earlier message of the user in this thread or conversation contains this text
    output         an output given since the question, for a function call, contains this text; so never before one
    times          the rule was used less often than this, since the server started
    times_each     the same for each wording of a question: 1 hits only the first attempt, also of a hundred questions

What a rule (or `[default]`) prescribes, and what holds without it:

    answer         a text, or a list of texts: one message each. A table instead of a text is given out as JSON. Fields
                   such as {question} are filled in, see below ("Answer to: {question}")
    refusal        the answer is a refusal, as models refuse to answer in a form that was asked for (false)
    duration       seconds, or [low, high]: drawn from the question, so equal questions take equally long ([0.2, 1.0])
    pace           words a second at which the answer is said, after the duration and in addition to it; a stream
                   shows it. Without it a stream spreads the answer over the duration (none)
    status         completed (the default), failed, incomplete, expired, cancelled, stuck (never ends), or
                   requires_action, which is completed with the duty to give `calls`
    error          {code, message} of a failed run (code server_error)
    reason         why it is incomplete, in either protocol's words (max_output_tokens)
    partial        text that a run which is not completed leaves behind (none)
    statuses       raw statuses on the way, any text (["queued", "in_progress"])
    advance        "time": the first status takes a tenth of the duration, the others share the rest. "poll": each
                   retrieve shows the next status, and the one after the last shows the end; no duration ("time")
    poll_after_ms  the header openai-poll-after-ms of the retrieves: a number, or a list for the first, second ... of
                   which the last repeats (no header)
    immediate      the reply to the create has the end already, as from a server that ignores `background` (false)
    calls          function calls, as a list of rounds: [[{name, arguments}], [{name, arguments}, ...]]. The first round
                   is asked for first, the second when its outputs have come, and at last comes the answer. Names need
                   not be those of functions that were offered. `arguments` is a table, or a text that need not be JSON;
                   fields are filled in. With `parallel_tool_calls` false each call is a round of its own, with
                   `tool_choice` "none" there are no calls (none)
    calls_code     code-interpreter calls, like `code`, before the calls of each round: a list with a list for each of
                   them; a shorter one leaves the later rounds without (none)
    code           code-interpreter calls before the answer: [{input, logs, images, files}, ...]. `images` and `files`
                   are what the code made: names, or tables with a name and one of text, base64 and size (bytes). Names
                   are given out as they are, also nasty ones; an image without a content is a small PNG. {files} in
                   the answer links the files; so does `sandbox:/mnt/data/NAME` anywhere in it (none)
    container_gone seconds from the end until the container of a response and its files are gone; 0: at once (never)
    search         searches in the stores before the answer: [{queries, results = [{file, text, score}, ...]}, ...];
                   `file` is the name or the id of a file that was given (none)
    citations      files that the last text cites: names or ids, or {file, after}: behind that text, else at its end
                   (none)
    annotations    annotations of the last text, given out as they are (none)
    phases         `phase` of each text, on Responses (none)
    cancel_takes   seconds in "cancelling"; if the run's own end comes sooner, the cancel has lost (0.2)
    usage          {input_tokens, output_tokens} (one token for every four bytes)

Fields of answers and arguments (what else stands in braces is left as it is):

    {question}, {n}, {round}      the question, the run's number, how many rounds of outputs have been given
    {1}, {name}                   groups of the rule's `regex`
    {earlier}, {earlier_count}    the user's earlier messages in this thread or conversation, joined by " | "; how many
    {earlier_1}, {previous}       the first of them (and so on), the last of them
    {outputs}, {output}           the outputs given since the question, joined by ", "; the last of them
    {output_1}, {output_add}      the first of them (and so on); the last one of the function `add`

What `[[store_file]]` prescribes for files that are put into a vector store; the first that holds is used, and what no
rule names is indexed for real:

    contains       the file's name contains this text (any)
    regex          this regular expression is found in it (any)
    seconds        it stays "in_progress" so long (0)
    error          {code, message}: then it is "failed" with this `last_error` (none)

On Responses an expired run shows as failed, because they know no expiry.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from askq.localapi.engines.script_files import is_citation, is_product, is_search
from askq.localapi.errors import ApiError, LocalApiError
from askq.localapi.faults import checked_rule
from askq.localapi.files.stores import Fate
from askq.localapi.wire import JsonObject

STORE_FILE_ERRORS = ("server_error", "unsupported_file", "invalid_file")
STATUSES = ("completed", "failed", "incomplete", "expired", "cancelled", "requires_action", "stuck")

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_answer(value: Any) -> bool:
    return isinstance(value, (str, dict))


def _is_list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_table_of(**required: Check) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and set(value) <= set(required)
        and all(check(value.get(name)) for name, check in required.items())
    )


def _or_list(check: Check) -> Check:
    return lambda value: check(value) or (bool(value) and _is_list_of(check)(value))


def _is_range(value: Any) -> bool:
    return _is_number(value) or (_is_list_of(_is_number)(value) and len(value) == 2 and value[0] <= value[1])


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


_is_code = _is_table_of(
    input=_is_text,
    logs=_optional(_is_text),
    images=_optional(_is_list_of(is_product)),
    files=_optional(_is_list_of(is_product)),
)
_CODE = "{input, logs, images, files}, with files as names or {name, and one of text, base64, size}"

_CONDITIONS: dict[str, tuple[Check, str]] = {
    "contains": (_is_text, "a text"),
    "regex": (_is_text, "a text"),
    "nth": (_or_list(_is_count), "a number or a list of numbers"),
    "every": (lambda value: _is_count(value) and value > 0, "a number above 0"),
    "protocol": (lambda value: value in ("assistants", "responses"), "'assistants' or 'responses'"),
    "metadata": (lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "a table of texts"),
    "earlier": (_is_text, "a text"),
    "output": (_is_text, "a text"),
    "times": (_is_count, "a number"),
    "times_each": (_is_count, "a number"),
}

_EFFECTS: dict[str, tuple[Check, str]] = {
    "answer": (_or_list(_is_answer), "a text, a table, or a list of them"),
    "duration": (_is_range, "seconds, or [low, high]"),
    "pace": (lambda value: _is_number(value) and value > 0, "words a second, above 0"),
    "status": (lambda value: value in STATUSES, f"one of {', '.join(STATUSES)}"),
    "error": (_is_table_of(code=_is_text, message=_optional(_is_text)), "a table with code and message"),
    "reason": (_is_text, "a text"),
    "partial": (_is_text, "a text"),
    "statuses": (lambda value: bool(value) and _is_list_of(_is_text)(value), "a list of texts"),
    "advance": (lambda value: value in ("time", "poll"), "'time' or 'poll'"),
    "poll_after_ms": (_or_list(_is_count), "a number or a list of numbers"),
    "refusal": (lambda value: isinstance(value, bool), "true or false"),
    "immediate": (lambda value: isinstance(value, bool), "true or false"),
    "calls": (
        _is_list_of(
            _is_list_of(
                _is_table_of(name=_is_text, arguments=lambda value: value is None or isinstance(value, (dict, str)))
            )
        ),
        "a list of rounds, each a list of {name, arguments}",
    ),
    "code": (_is_list_of(_is_code), f"a list of {_CODE}"),
    "calls_code": (_is_list_of(_is_list_of(_is_code)), f"a list of rounds, each a list of {_CODE}"),
    "container_gone": (_is_number, "seconds"),
    "search": (_is_list_of(is_search), "a list of {queries, results = [{file, text, score}]}"),
    "citations": (_is_list_of(is_citation), "a list of files, or of {file, after}"),
    "annotations": (_is_list_of(lambda value: isinstance(value, dict)), "a list of tables"),
    "phases": (_is_list_of(_is_text), "a list of texts"),
    "cancel_takes": (_is_number, "seconds"),
    "usage": (_is_table_of(input_tokens=_is_count, output_tokens=_is_count), "{input_tokens, output_tokens}"),
}

_STORE_FILE: dict[str, tuple[Check, str]] = {
    "contains": (_is_text, "a text"),
    "regex": (_is_text, "a text"),
    "seconds": (_is_number, "seconds"),
    "error": (
        lambda value: _is_table_of(code=_is_text, message=_is_text)(value) and value["code"] in STORE_FILE_ERRORS,
        f"a table with message and a code out of {', '.join(STORE_FILE_ERRORS)}",
    ),
}

DEFAULTS: JsonObject = {"answer": "Answer to: {question}", "duration": [0.2, 1.0]}


@dataclass(slots=True)
class Rule:
    """Conditions and what they lead to. The counters are this server's, not the file's."""

    conditions: JsonObject
    effects: JsonObject
    """Complete: the defaults are filled in."""
    regex: re.Pattern[str] | None = None
    used: int = 0
    used_each: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """A script file, read and checked."""

    rules: tuple[Rule, ...]
    """The last one always holds: it is the default."""
    salt: str = ""
    faults: tuple[JsonObject, ...] = ()
    store_files: tuple[JsonObject, ...] = ()

    def fate(self, filename: str) -> Fate:
        """What becomes of a file of this name in a vector store."""
        for rule in self.store_files:
            if rule.get("contains", "") in filename and re.search(rule.get("regex", ""), filename):
                return Fate(seconds=float(rule.get("seconds", 0)), error=rule.get("error"))
        return Fate()


def read_script(path: Path) -> Script:
    """Read a script file; raises LocalApiError with everything that is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as exc:
        raise LocalApiError(f"The script file {path} cannot be read: {exc.strerror}. Check --script.") from exc
    except ValueError as exc:
        language = "TOML" if path.suffix == ".toml" else "JSON"
        raise LocalApiError(f"The script file {path} is no {language}: {exc}. Correct it there.") from exc
    try:
        return parse_script(content)
    except LocalApiError as exc:
        raise LocalApiError(f"The script file {path} is wrong:\n{exc}") from exc


def parse_script(content: object) -> Script:
    """Check the content of a script file; raises LocalApiError with a line for each problem."""
    if not isinstance(content, dict):
        raise LocalApiError("it must be a table")
    problems: list[str] = [
        f"unknown key '{name}'; there are: salt, default, rule, store_file, fault"
        for name in content
        if name not in ("salt", "default", "rule", "store_file", "fault")
    ]
    salt = content.get("salt", "")
    if not isinstance(salt, str):
        problems.append("'salt' must be a text")
    default = _table(content, "default", problems)
    problems += _wrong("[default]", default, _EFFECTS)
    base = {**DEFAULTS, **default}
    rules = []
    for number, rule in enumerate(_tables(content, "rule", problems), 1):
        wrong = _wrong(f"rule {number}", rule, {**_CONDITIONS, **_EFFECTS})
        problems += wrong
        if not wrong:
            rules.append(_rule(number, rule, base, problems))
    store_files = _tables(content, "store_file", problems)
    for number, table in enumerate(store_files, 1):
        problems += _wrong(f"store_file {number}", table, _STORE_FILE)
        try:
            re.compile(str(table.get("regex", "")))
        except re.error as exc:
            problems.append(f"store_file {number}: 'regex' is no regular expression: {exc}")
    faults = _tables(content, "fault", problems)
    for number, fault in enumerate(faults, 1):
        try:
            checked_rule(fault)
        except ApiError as exc:
            problems.append(f"fault {number}: {exc}")
    if problems:
        raise LocalApiError("\n".join(problems))
    return Script(rules=(*rules, Rule({}, base)), salt=salt, faults=tuple(faults), store_files=tuple(store_files))


def _table(content: Mapping[str, Any], name: str, problems: list[str]) -> JsonObject:
    value = content.get(name, {})
    if isinstance(value, dict):
        return value
    problems.append(f"'{name}' must be a table")
    return {}


def _tables(content: Mapping[str, Any], name: str, problems: list[str]) -> list[JsonObject]:
    value = content.get(name, [])
    if isinstance(value, list) and all(isinstance(element, dict) for element in value):
        return value
    problems.append(f"'{name}' must be a list of tables")
    return []


def _wrong(where: str, table: JsonObject, known: Mapping[str, tuple[Check, str]]) -> list[str]:
    problems = []
    for name, value in table.items():
        if name not in known:
            problems.append(f"{where}: unknown key '{name}'; there are: {', '.join(known)}")
        elif not known[name][0](value):
            problems.append(f"{where}: '{name}' must be {known[name][1]}")
    return problems


def _rule(number: int, rule: JsonObject, base: JsonObject, problems: list[str]) -> Rule:
    conditions = {name: value for name, value in rule.items() if name in _CONDITIONS}
    effects = {**base, **{name: value for name, value in rule.items() if name in _EFFECTS}}
    if effects.get("status") == "requires_action" and not effects.get("calls"):
        problems.append(f"rule {number}: status 'requires_action' needs 'calls'")
    regex = None
    if "regex" in conditions:
        try:
            regex = re.compile(conditions["regex"])
        except re.error as exc:
            problems.append(f"rule {number}: 'regex' is no regular expression: {exc}")
    return Rule(conditions, effects, regex)
