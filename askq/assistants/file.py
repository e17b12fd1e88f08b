"""Reading assistant files: every problem told at once, with its line."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import math
import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from askq.assistants.lines import line_of
from askq.assistants.model import Assistant, ProtocolName
from askq.errors import AssistantError, Problem

_TOOLS = ("code_interpreter", "file_search", "web_search", "mcp", "image_generation")
_TOOLS_BY_NAME = ("code_interpreter", "file_search", "web_search")
"""Those that need no settings, so that their name is enough."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_TIMEOUT_S = 30 * 86_400.0
"""As long as the service keeps a response."""
_TIMEOUT_S = {"assistants": 900.0, "responses": 3600.0}
_WINDOW_S = {"2h": 3 * 3600.0, "8h": 9 * 3600.0}
"""Deadlines where the file sets none: the service's own bound, or the window, with some grace (protocols F.4)."""


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema of assistant files."""
    text = (importlib.resources.files("askq.assistants") / "schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def names(folder: Path) -> list[str]:
    """Names of the assistants that can be asked: the folder's, then those that came with askq."""
    own = {path.stem for path in folder.glob("*.toml")} if folder.is_dir() else set()
    return sorted(own | {path.stem for path in _shipped().glob("*.toml")})


def load(name: str | Path, *, folder: Path, default_model: str, default_protocol: ProtocolName) -> Assistant:
    """The assistant of this name, or of the file at this path.

    Raises AssistantError with every problem of the file, or with the names that exist.
    """
    path = find(name, folder=folder)
    values, problems = _read(path)
    if problems:
        raise AssistantError(problems, remedy=f"`askq assistants validate {path}` checks it again.")
    return _build(path, values, default_model, default_protocol)


def check(path: Path) -> list[Problem]:
    """Everything wrong with one file; an empty list when it can be used."""
    return _read(path)[1]


def find(name: str | Path, *, folder: Path) -> Path:
    """The file of an assistant. Raises AssistantError when there is none."""
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        if Path(text).is_file():
            return Path(text)
        raise AssistantError(f"there is no assistant file {text}", remedy="Check the path.")
    for place in (folder, _shipped()):
        if (place / f"{text}.toml").is_file():
            return place / f"{text}.toml"
    known = names(folder)
    near = difflib.get_close_matches(text, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise AssistantError(
        f"there is no assistant called {text!r} in {folder}; known: {', '.join(known) or 'none'}.{hint}",
        remedy=f"Write {folder / text}.toml, or choose one with --assistant.",
    )


def describe(assistant: Assistant) -> dict[str, Any]:
    """What `askq assistants show --json` prints."""
    return {**dataclasses.asdict(assistant), "digest": assistant.digest}


def _shipped() -> Path:
    """The assistants that came with askq: the wheel carries the repository's `assistants/` here."""
    inside = Path(str(importlib.resources.files("askq.assistants"))) / "shipped"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "assistants"


def _read(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    try:
        text = _text(path)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return {}, [Problem(file=str(path), line=line, message="is not UTF-8 text; save it as UTF-8")]
    except OSError as error:
        return {}, [Problem(file=str(path), message=f"cannot be read: {error.strerror or error}")]
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else text.count("\n") + 1
        return {}, [Problem(file=str(path), line=line, message=f"is not TOML: {error}")]
    problems = [
        Problem(file=str(path), line=line_of(text, where), message=message)
        for where, message in [*_by_schema(values), *_by_hand(path, values)]
    ]
    return values, sorted(problems, key=lambda problem: problem.line or 0)


def _text(path: Path) -> str:
    # Editors of Windows begin a file with a mark that is no part of the text.
    return path.read_text("utf-8-sig")


Found = tuple[tuple[str | int, ...], str]


def _by_schema(values: Mapping[str, Any]) -> list[Found]:
    return [
        found
        for error in Draft202012Validator(schema()).iter_errors(values)
        for found in _explain(error, tuple(error.absolute_path))
    ]


def _explain(error: ValidationError, where: tuple[str | int, ...]) -> list[Found]:
    name = ".".join(str(part) for part in where)
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        rule = error.schema
        known = list(rule.get("properties", {})) if isinstance(rule, Mapping) else []
        if not known:
            return [(where, f"{name}: {error.message}")]
        unknown = [key for key in error.instance if key not in known]
        return [((*where, key), f"unknown key {key!r}{_near(key, known)}") for key in unknown]
    if error.validator == "enum":
        allowed = ", ".join(map(str, error.validator_value)) if isinstance(error.validator_value, list) else ""
        return [(where, f"{name} is {error.instance!r}; allowed: {allowed}")]
    if error.validator == "anyOf":
        return []  # a tool: `_tools` says what is wrong with it
    return [(where, f"{name}: {error.message}" if name else error.message)]


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _by_hand(path: Path, values: Mapping[str, Any]) -> list[Found]:
    """What a schema cannot say."""
    found: list[Found] = _not_json((), values)
    if "protocol" in values and "api" in values:
        found.append((("api",), "protocol and api say the same thing; keep one"))
    if "instructions" in values and "instructions_file" in values:
        found.append((("instructions_file",), "instructions and instructions_file exclude each other"))
    if isinstance(values.get("instructions_file"), str):
        found += _instructions(path, values["instructions_file"])
    if "assistant_id" in values and "responses" in (values.get("protocol"), values.get("api")):
        found.append((("assistant_id",), 'assistant_id needs protocol = "assistants"'))
    window = _table(values, "background_options").get("completion_window")
    if window in ("2h", "8h") and "assistants" in (values.get("protocol"), values.get("api")):
        found.append((("background_options", "completion_window"), 'completion windows need protocol = "responses"'))
    if "max_output_tokens" in values and "max_completion_tokens" in values:
        found.append((("max_completion_tokens",), "max_output_tokens and max_completion_tokens are the same; keep one"))
    if "reasoning_effort" in values and "effort" in _table(values, "reasoning"):
        found.append((("reasoning_effort",), "reasoning_effort and [reasoning] effort are the same; keep one"))
    timeout = _table(values, "run").get("timeout")
    if isinstance(timeout, str | int) and _seconds(timeout) is None:
        told = f'run.timeout is {timeout!r}; write "90s", "10m", "2h" or seconds above 0, at most 30 days'
        found.append((("run", "timeout"), told))
    found += _tools(values)
    return found + _format(path, values)


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name)
    return table if isinstance(table, Mapping) else {}


def _not_json(where: tuple[str | int, ...], value: object) -> list[Found]:
    """What TOML can write and JSON, in which all of it is sent, cannot."""
    name = ".".join(str(part) for part in where)
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _not_json((*where, key), item)]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _not_json((*where, index), item)]
    if isinstance(value, date | time):
        return [(where, f"{name} is a date or a time; write it as a text, in quotes")]
    if isinstance(value, float) and not math.isfinite(value):
        return [(where, f"{name} is {value}; write a number")]
    return []


def _instructions(path: Path, name: str) -> list[Found]:
    where = ("instructions_file",)
    if unread := _readable(path, where, name):
        return unread
    longest = schema()["properties"]["instructions"]["maxLength"]
    if (length := len(_text(path.parent / name).strip())) > longest:
        return [(where, f"{path.parent / name} has {length} characters; at most {longest} are taken")]
    return []


def _tools(values: Mapping[str, Any]) -> list[Found]:
    tools = values.get("tools")
    return [
        (("tools", index), message)
        for index, tool in enumerate(tools if isinstance(tools, list) else [])
        if (message := _wrong_tool(tool)) is not None
    ]


def _wrong_tool(tool: object) -> str | None:
    """What is wrong with one of the tools."""
    known = f"known: {', '.join(_TOOLS)}"
    kind = tool.get("type") if isinstance(tool, Mapping) else tool
    if isinstance(tool, Mapping) and not isinstance(kind, str):
        return f"a tool needs a type, which is a text; {known}"
    if not isinstance(kind, str):
        return f"{kind!r} is not a tool; {known}"
    if kind == "function":
        return "functions are not supported yet: remove the tool of type 'function'"
    if kind not in _TOOLS:
        near = difflib.get_close_matches(kind, _TOOLS, n=1)
        return f"unknown tool {kind!r}; {f'did you mean {near[0]!r}? ' if near else ''}{known}"
    if isinstance(tool, str) and kind not in _TOOLS_BY_NAME:
        return f'the tool {kind!r} has settings of its own: write {{ type = "{kind}", … }}'
    return None


def _format(path: Path, values: Mapping[str, Any]) -> list[Found]:
    found: list[Found] = []
    places = {
        ("text", "format"): _table(_table(values, "text"), "format"),
        ("response_format",): _table(values, "response_format"),
    }
    if all(places.values()):
        found.append((("response_format",), "[text.format] and response_format are the same; keep one"))
    for where, wanted in places.items():
        named = [key for key in ("schema", "schema_file", "json_schema") if key in wanted]
        if wanted.get("type") != "json_schema":
            found += [((*where, key), f'{key} needs type = "json_schema"') for key in named]
        elif not named:
            found.append((where, "a json_schema format needs schema or schema_file"))
        elif len(named) > 1:
            found.append(((*where, named[-1]), f"{' and '.join(named)} exclude each other"))
        elif named == ["json_schema"]:
            found += _json_schema((*where, "json_schema"), wanted["json_schema"])
        elif named == ["schema_file"]:
            found += _schema_file(path, where, wanted)
        else:
            found += _json_schema(where, wanted)
    return found


def _json_schema(where: tuple[str, ...], wanted: object) -> list[Found]:
    """What is wrong with the name and the schema of a format, in the shape of either protocol."""
    if not isinstance(wanted, Mapping):
        return []  # told by the schema of the file
    found: list[Found] = []
    if "name" not in wanted:
        found.append((where, "a json_schema format needs a name"))
    if "schema" not in wanted:
        return [*found, (where, "a json_schema format needs schema or schema_file")]
    return found + _schema((*where, "schema"), wanted["schema"])


def _schema_file(path: Path, where: tuple[str, ...], wanted: Mapping[str, Any]) -> list[Found]:
    at = (*where, "schema_file")
    name = wanted["schema_file"]
    found: list[Found] = [] if "name" in wanted else [(where, "a json_schema format needs a name")]
    if not isinstance(name, str):
        return found  # told by the schema of the file
    if unread := _readable(path, at, name):
        return found + unread
    try:
        given = json.loads(_text(path.parent / name))
    except ValueError as error:
        return [*found, (at, f"{name} is not JSON: {error}")]
    return found + _schema(at, given)


def _schema(at: tuple[str, ...], given: object) -> list[Found]:
    if not isinstance(given, Mapping):
        return [(at, "is not a JSON Schema: it must be an object")]
    try:
        Draft202012Validator.check_schema(given)
    except SchemaError as error:
        return [(at, f"is not a JSON Schema: {error.message}")]
    return []


def _readable(path: Path, where: tuple[str, ...], name: str) -> list[Found]:
    try:
        _text(path.parent / name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return [(where, f"{path.parent / name} cannot be read: {reason}")]
    return []


def _seconds(duration: str | int) -> float | None:
    seconds: float
    if isinstance(duration, int):
        seconds = duration
    else:
        found = _DURATION.fullmatch(duration.strip())
        seconds = float(found.group(1)) * _UNIT_S[found.group(2) or "s"] if found else 0.0
    return float(seconds) if 0 < seconds <= _LONGEST_TIMEOUT_S else None


def _build(path: Path, values: Mapping[str, Any], default_model: str, default_protocol: ProtocolName) -> Assistant:
    protocol: ProtocolName = values.get("protocol") or values.get("api") or default_protocol
    instructions = values.get("instructions")
    if "instructions_file" in values:
        instructions = _text(path.parent / values["instructions_file"]).strip()
    window = _table(values, "background_options").get("completion_window")
    run = _table(values, "run")
    timeout_s = _seconds(run["timeout"]) if "timeout" in run else None
    wanted = dict(_table(_table(values, "text"), "format") or _table(values, "response_format"))
    if "schema_file" in wanted:
        wanted["schema"] = json.loads(_text(path.parent / wanted.pop("schema_file")))
    return Assistant(
        name=path.stem,
        protocol=protocol,
        model=values.get("model", default_model),
        assistant_id=values.get("assistant_id") if protocol == "assistants" else None,
        description=values.get("description"),
        instructions=instructions,
        temperature=values.get("temperature"),
        top_p=values.get("top_p"),
        tools=tuple(_tool(tool) for tool in values.get("tools", [])),
        tool_resources=values.get("tool_resources", {}),
        reasoning_effort=values.get("reasoning_effort") or _table(values, "reasoning").get("effort"),
        text_format=wanted or None,
        max_output_tokens=values.get("max_output_tokens") or values.get("max_completion_tokens"),
        max_prompt_tokens=values.get("max_prompt_tokens"),
        truncation=values.get("truncation"),
        service_tier=values.get("service_tier"),
        completion_window=window if protocol == "responses" else None,
        timeout_s=timeout_s or _WINDOW_S.get(window or "", _TIMEOUT_S[protocol]),
        on_uncertain=run.get("on_uncertain", "fail"),
        metadata=values.get("metadata", {}),
    )


def _tool(tool: str | Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the flat shape of Responses, whichever shape the file has."""
    if isinstance(tool, str):
        return {"type": tool}
    kind = tool["type"]
    nested = tool.get(kind)
    if isinstance(nested, Mapping):
        return {"type": kind, **nested}
    return dict(tool)
