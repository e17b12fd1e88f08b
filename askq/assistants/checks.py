"""Everything that is wrong with an assistant file, each mistake on its line."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend

from askq.assistants import choice, functions, local_files
from askq.assistants.lines import line_of
from askq.assistants.notation import completion_window, schema, seconds, short, table, text_of
from askq.errors import Problem
from askq.structured import dangling

TOOL_KEYS: Mapping[str, tuple[str, ...]] = {
    "code_interpreter": ("type", "container", "allowed_callers"),
    "file_search": ("type", "vector_store_ids", "max_num_results", "filters", "ranking_options"),
    "web_search": ("type", "filters", "user_location", "search_context_size", "external_web_access"),
    "mcp": (
        "type",
        "server_label",
        "server_url",
        "server_description",
        "connector_id",
        "tunnel_id",
        "authorization",
        "headers",
        "allowed_tools",
        "allowed_callers",
        "require_approval",
        "defer_loading",
    ),
    "image_generation": (
        "type",
        "action",
        "background",
        "complexity",
        "frame_count",
        "frame_duration_ms",
        "input_fidelity",
        "input_image_mask",
        "model",
        "moderation",
        "output_compression",
        "output_format",
        "partial_images",
        "quality",
        "size",
        "svg",
    ),
}
"""The tools askq can hand on, and their keys in the SDK (a test compares them). Others go through, because services
add keys all the time; only what looks like one of these misspelt is told."""

_TOOLS = tuple(TOOL_KEYS)
_TOOLS_BY_NAME = ("code_interpreter", "file_search", "web_search")
"""Those that need no settings, so that their name is enough."""
_TOOLS_OF_ASSISTANTS = ("code_interpreter", "file_search")
_OWN_METADATA = "askq_"
"""How the keys begin by which askq finds its own runs again; a file's would be overwritten, or mistaken for them."""
_MOST_LEVELS = 32
"""How deep values may be nested: far beyond what the service takes, and far from Python's own bound."""

_Validator = extend(  # type: ignore[no-untyped-call]  # the stubs leave it untyped
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        # JSON Schema calls 64.0 an integer, but it would be sent as 64.0, which services refuse.
        "integer",
        lambda _, value: isinstance(value, int) and not isinstance(value, bool),
    ),
)
_WORDS = {
    "array": "a list, in [ ]",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a table",
    "string": "a text",
}

Found = tuple[tuple[str | int, ...], str]
"""Where in the file, and what is wrong there."""


def read(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """What a file says, and everything wrong with it in the order of its lines."""
    file = str(path)
    try:
        text = text_of(path)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return {}, [Problem(file=file, line=line, message="is not UTF-8 text; save it as UTF-8")]
    except OSError as error:
        return {}, [Problem(file=file, message=f"cannot be read: {error.strerror or error}")]
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        line = int(place.group(1)) if place else text.rstrip("\n").count("\n") + 1
        return {}, [Problem(file=file, line=line, message=f"is not TOML: {error}")]
    except (ValueError, RecursionError):
        return {}, [Problem(file=file, message="has a number that is too long, or values that are nested too deeply")]
    # Nothing else can be said of values that Python can neither print nor walk through.
    found = _beyond((), values) or [*_not_json((), values), *_by_schema(values), *_by_hand(path, values)]
    if not found:
        values, found = functions.described(path, values)
    if not found:
        found = choice.unknown(values)
    problems = [Problem(file=file, line=line_of(text, where), message=message) for where, message in found]
    return values, sorted(problems, key=lambda problem: problem.line or 0)


def _dotted(where: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in where)


def _beyond(where: tuple[str | int, ...], value: object) -> list[Found]:
    """Numbers and nesting that no reader needs to take."""
    if len(where) > _MOST_LEVELS:
        return [(where, f"{_dotted(where[:3])}… is nested too deeply: at most {_MOST_LEVELS} levels are taken")]
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _beyond((*where, key), item)]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _beyond((*where, index), item)]
    if isinstance(value, int) and value.bit_length() > 63:
        return [(where, f"{_dotted(where)} is larger than a number may be")]
    return []


def _not_json(where: tuple[str | int, ...], value: object) -> list[Found]:
    """What cannot be sent, because JSON in UTF-8 has no way to write it."""
    name = _dotted(where)
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _not_json((*where, key), item)]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _not_json((*where, index), item)]
    if isinstance(value, date | time):
        return [(where, f"{name} is a date or a time; write it as a text, in quotes")]
    if isinstance(value, float) and not math.isfinite(value):
        return [(where, f"{name} is {value}; write a number")]
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return [(where, f"{name} holds half a character (\\ud800 to \\udfff); write the whole one")]
    return []


def _by_schema(values: Mapping[str, Any]) -> list[Found]:
    return [
        found
        for error in _Validator(schema()).iter_errors(values)
        for found in _explain(error, tuple(error.absolute_path))
    ]


def _explain(error: ValidationError, where: tuple[str | int, ...]) -> list[Found]:
    """An error of the validator in words: its own would repeat the whole value, and speak of JSON."""
    given: Any = error.instance
    rule: Any = error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        return [((*where, given), f"the key {short(given)} has {len(given)} characters; at most {rule} are taken")]
    if error.validator == "additionalProperties" and isinstance(given, Mapping):
        known = list(error.schema.get("properties", {})) if isinstance(error.schema, Mapping) else []
        return [((*where, key), f"unknown key {key!r}{_near(key, known)}") for key in given if key not in known]
    name = _dotted(where)
    if error.validator in ("maxLength", "maxItems", "maxProperties"):
        things = {"maxLength": "characters", "maxItems": "items", "maxProperties": "entries"}[error.validator]
        return [(where, f"{name} has {len(given)} {things}; at most {rule} are taken{_comment(error)}")]
    if error.validator == "anyOf":
        return []  # a tool, or a choice of one: said by hand
    return [(where, _wrong_value(error, name))]


def _wrong_value(error: ValidationError, name: str) -> str:
    given = short(error.instance)
    rule: Any = error.validator_value
    match error.validator:
        case "enum":
            return f"{name} is {given}; allowed: {', '.join(map(str, rule))}"
        case "type":
            words = [_WORDS[kind] for kind in (rule if isinstance(rule, list) else [rule])]
            return f"{name} is {given}; write {' or '.join(words)}"
        case "minimum":
            return f"{name} is {given}; the least is {rule}"
        case "maximum":
            return f"{name} is {given}; the most is {rule}"
        case "minLength":
            return f"{name} is empty; write something, or leave it out"
        case "pattern":
            return f"{name} is {given}{_comment(error)}"
        case "required":
            return f"{name} needs {' and '.join(map(repr, rule))}"
        case _:
            return f"{name}: {error.message}"


def _comment(error: ValidationError) -> str:
    """The schema's own remark about a rule."""
    comment = error.schema.get("$comment") if isinstance(error.schema, Mapping) else None
    return f"; {comment}" if comment else ""


def _near(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _by_hand(path: Path, values: Mapping[str, Any]) -> list[Found]:
    """What a schema cannot say."""
    found = [*_same(values), *_of_one_protocol(values), *_metadata(values)]
    if "instructions" in values and "instructions_file" in values:
        found.append((("instructions_file",), "instructions and instructions_file exclude each other"))
    if isinstance(values.get("instructions_file"), str):
        found += _instructions(path, values["instructions_file"])
    tier = values.get("service_tier", "auto")
    if (window := completion_window(values)) in ("2h", "8h") and tier not in ("auto", "default"):
        told = f"a completion window of {window} excludes service_tier = {short(tier)}; leave one of them out"
        found.append((("service_tier",), told))
    timeout = table(values, "run").get("timeout")
    if isinstance(timeout, str | int) and seconds(timeout) is None:
        told = f'run.timeout is {short(timeout)}; write "90s", "10m", "2h" or seconds above 0, at most 30 days'
        found.append((("run", "timeout"), told))
    return [*found, *_tools(values), *choice.wrong(values), *_format(path, values), *local_files.wrong(path, values)]


def _same(values: Mapping[str, Any]) -> list[Found]:
    """Pairs of names for one thing: two of them could contradict each other."""
    pairs: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
        (("protocol",), ("api",)),
        (("max_output_tokens",), ("max_completion_tokens",)),
        (("reasoning", "effort"), ("reasoning_effort",)),
        (("background_options", "completion_window"), ("run", "completion_window")),
        (("text", "format"), ("response_format",)),
    )
    return [
        (two, f"{_dotted(one)} and {_dotted(two)} are the same; keep one")
        for one, two in pairs
        if _has(values, one) and _has(values, two)
    ]


def _has(values: Mapping[str, Any], where: tuple[str, ...]) -> bool:
    return where[-1] in (table(values, where[0]) if len(where) == 2 else values)


def _of_one_protocol(values: Mapping[str, Any]) -> list[Found]:
    """What one protocol has and the other has not. A file that names no protocol may be asked over both, and what
    does not fit is left out there; but a file that names one must fit it."""
    named = {values.get("protocol"), values.get("api")}
    found: list[Found] = []
    if "assistant_id" in values:
        if "responses" in named:
            found.append((("assistant_id",), 'assistant_id needs protocol = "assistants"'))
        elif "assistants" not in named and not {"instructions", "instructions_file"} & values.keys():
            told = 'alone, assistant_id needs protocol = "assistants" (or instructions, to be asked over responses too)'
            found.append((("assistant_id",), told))
    if "responses" in named and "max_prompt_tokens" in values:
        found.append((("max_prompt_tokens",), 'max_prompt_tokens needs protocol = "assistants"; leave it out'))
    if "assistants" in named and completion_window(values) in ("2h", "8h"):
        place = "run" if "completion_window" in table(values, "run") else "background_options"
        found.append(((place, "completion_window"), 'completion windows need protocol = "responses"'))
    if "assistants" in named:
        tools = values.get("tools")
        for index, tool in enumerate(tools if isinstance(tools, list) else []):
            kind = tool.get("type") if isinstance(tool, Mapping) else tool
            if kind in _TOOLS and kind not in _TOOLS_OF_ASSISTANTS:
                found.append((("tools", index), f'the tool {kind!r} needs protocol = "responses"'))
    return found


def _metadata(values: Mapping[str, Any]) -> list[Found]:
    return [
        (("metadata", key), f"keys that begin with {_OWN_METADATA} are askq's own; call {short(key)} something else")
        for key in table(values, "metadata")
        if key.startswith(_OWN_METADATA)
    ]


def _instructions(path: Path, name: str) -> list[Found]:
    where = ("instructions_file",)
    text = _text_beside(path, where, name)
    if not isinstance(text, str):
        return text
    longest = schema()["properties"]["instructions"]["maxLength"]
    if (length := len(text.strip())) > longest:
        return [(where, f"{path.parent / name} has {length} characters; at most {longest} are taken")]
    return []


def _tools(values: Mapping[str, Any]) -> list[Found]:
    tools = values.get("tools")
    return [
        (("tools", index, *where), message)
        for index, tool in enumerate(tools if isinstance(tools, list) else [])
        for where, message in _wrong_tool(tool)
    ]


def _wrong_tool(tool: object) -> list[Found]:
    """What is wrong with one of the tools."""
    known = f"known: {', '.join(_TOOLS)}, and functions as module:function"
    kind = tool.get("type") if isinstance(tool, Mapping) else tool
    if isinstance(tool, Mapping) and not isinstance(kind, str):
        return [((), f"a tool needs a type, which is a text; {known}")]
    if not isinstance(kind, str):
        return [((), f"{short(kind)} is not a tool; {known}")]
    if kind == "function":
        return [((), 'name a function by its module, as a text: "module:function" (see `askq.tools`)')]
    if ":" in kind and not isinstance(tool, Mapping):
        return functions.misspelt(kind)
    if kind not in _TOOLS:
        near = difflib.get_close_matches(kind, _TOOLS, n=1)
        return [((), f"unknown tool {short(kind)}; {f'did you mean {near[0]!r}? ' if near else ''}{known}")]
    if isinstance(tool, Mapping):
        return _misspelt(kind, tool)
    if kind not in _TOOLS_BY_NAME:
        return [((), f'the tool {kind!r} has settings of its own: write {{ type = "{kind}", … }}')]
    return []


def _misspelt(kind: str, tool: Mapping[str, Any]) -> list[Found]:
    known = (*TOOL_KEYS[kind], kind)
    found: list[Found] = [
        ((*where, key), f"unknown key {key!r} of the tool {kind!r}; did you mean {near[0]!r}?")
        for where, keys in (((), tool), ((kind,), table(tool, kind)))
        for key in keys
        if key not in known and (near := difflib.get_close_matches(key, known, n=1, cutoff=0.8))
    ]
    if kind == "mcp" and "server_label" not in tool:
        found.append(((), "the tool 'mcp' needs a server_label"))
    return found


def _format(path: Path, values: Mapping[str, Any]) -> list[Found]:
    found: list[Found] = []
    places = {
        ("text", "format"): table(table(values, "text"), "format"),
        ("response_format",): table(values, "response_format"),
    }
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
    if "on_invalid" in table(values, "text") and all(wanted.get("type") != "json_schema" for wanted in places.values()):
        found.append((("text", "on_invalid"), 'text.on_invalid needs a format with type = "json_schema"'))
    return found


def _json_schema(where: tuple[str, ...], wanted: object) -> list[Found]:
    """What is wrong with the name and the schema of a format, in the shape of either protocol."""
    if not isinstance(wanted, Mapping):
        return []  # told by the schema of the file
    found: list[Found] = []
    if "name" not in wanted:
        found.append((where, "a json_schema format needs a name"))
    if "schema" not in wanted:
        return [*found, (where, "a json_schema table needs a schema")]
    return found + _schema((*where, "schema"), wanted["schema"])


def _schema_file(path: Path, where: tuple[str, ...], wanted: Mapping[str, Any]) -> list[Found]:
    at = (*where, "schema_file")
    name = wanted["schema_file"]
    found: list[Found] = [] if "name" in wanted else [(where, "a json_schema format needs a name")]
    if not isinstance(name, str):
        return found  # told by the schema of the file
    text = _text_beside(path, at, name)
    if not isinstance(text, str):
        return found + text
    try:
        given = json.loads(text)
    except ValueError as error:
        return [*found, (at, f"{name} is not JSON: {error}")]
    except RecursionError:
        return [*found, (at, f"{name} is nested too deeply: at most {_MOST_LEVELS} levels are taken")]
    unsent = _beyond((), given) or _not_json((), given)
    return found + ([(at, f"{name}: {message}") for _, message in unsent] or _schema(at, given))


def _schema(at: tuple[str, ...], given: object) -> list[Found]:
    if not isinstance(given, Mapping):
        return [(at, "is not a JSON Schema: it must be an object")]
    try:
        Draft202012Validator.check_schema(given)
    except SchemaError as error:
        place = _dotted(list(error.absolute_path))
        return [(at, f"is not a JSON Schema: {f'{place}: ' if place else ''}{_clipped(error.message)}")]
    return [
        (at, f"its $ref {short(ref)} leads nowhere; put what it names into the schema itself, under $defs")
        for ref in dangling(given)
    ]


def _clipped(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:199]}…"


def _text_beside(path: Path, where: tuple[str, ...], name: str) -> str | list[Found]:
    """The text of a file named in an assistant file, or why there is none."""
    beside = path.parent / name
    try:
        return text_of(beside)
    except UnicodeDecodeError:
        return [(where, f"{beside} cannot be read: it is not UTF-8 text")]
    except OSError as error:
        return [(where, f"{beside} cannot be read: {error.strerror or error}")]
    except ValueError:
        return [(where, f"{name!r} cannot be the name of a file")]
