"""A function's parameters as a JSON Schema, and arguments as its parameters.

pydantic reads the types: what it can describe may be a parameter (texts, numbers, `Literal`, `Enum`, lists, dates,
dataclasses, `BaseModel` …). The schema that is made is the one the model is told, and the one arguments must fit.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import typing
from collections.abc import Mapping
from typing import Any

from docstring_parser import parse
from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from askq.tools import Tool
from askq.tools.outcomes import MOST_ARGUMENTS_BYTES, MOST_LEVELS

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_DESCRIPTION = 1024
_STRICT = frozenset(
    {"type", "properties", "required", "additionalProperties", "description", "enum", "const", "items", "anyOf", "$ref"}
    | {"$defs", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"}
    | {"minItems", "maxItems"}
)
"""What the service's strict mode takes; schemas with anything else are sent without it."""


class SignatureError(Exception):
    """A function that cannot be described."""


class ArgumentsError(Exception):
    """Arguments that do not fit; the message is for the model."""


class Signature:
    """What the model is told of a registered function. Raises SignatureError."""

    def __init__(self, tool: Tool) -> None:
        if not _NAME.fullmatch(tool.name):
            raise SignatureError(
                f"the name {tool.name!r} is none the service takes: letters, digits, _ and -, at most 64"
            )
        self.name = tool.name
        told = parse(inspect.getdoc(tool.function) or "")
        described = {param.arg_name: param.description for param in told.params}
        parts = (told.short_description, told.long_description)
        text = tool.description or "\n\n".join(part for part in parts if part)
        self.description = text[:_LONGEST_DESCRIPTION]
        self._names: dict[str, str] = {}
        self._model = self._model_of(tool, described)
        try:
            schema = self._model.model_json_schema(by_alias=True, schema_generator=_Plain)
        except (PydanticUserError, TypeError) as error:
            raise SignatureError(f"its parameters cannot be described: {_first_line(error)}") from error
        self.parameters: Mapping[str, Any] = _closed(schema)

    def _model_of(self, tool: Tool, described: Mapping[str, str | None]) -> type[BaseModel]:
        """A model with a field for each parameter, under names of our own: any name may be a parameter's."""
        try:
            parameters = inspect.signature(tool.function).parameters
            hints = typing.get_type_hints(tool.function, include_extras=True)
        except (NameError, TypeError, ValueError, AttributeError) as error:
            raise SignatureError(f"its types cannot be read: {_first_line(error)}") from error
        fields: dict[str, Any] = {}
        for number, (name, parameter) in enumerate(parameters.items()):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise SignatureError(f"*{name}: every parameter needs a name and a type")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise SignatureError(f"{name} is positional-only: arguments come by their names")
            if name not in hints:
                raise SignatureError(f"the parameter {name!r} needs a type, for example {name}: str")
            default = ... if parameter.default is parameter.empty else parameter.default
            field = f"p{number}"
            self._names[field] = name
            about: dict[str, Any] = {"description": described[name]} if described.get(name) else {}
            fields[field] = (hints[name], Field(default, alias=name, **about))
        try:
            return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
        except (PydanticUserError, TypeError, ValueError) as error:
            raise SignatureError(f"its types cannot be described: {_first_line(error)}") from error

    def arguments(self, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a call, checked against the schema the model was told. Raises ArgumentsError."""
        given = _parsed(text)
        wrong = next(Draft202012Validator(schema, registry=REGISTRY).iter_errors(given), None)
        if wrong is not None:
            place = ".".join(str(part) for part in wrong.absolute_path)
            raise ArgumentsError(f"{f'{place}: ' if place else ''}{wrong.message[:500]}")
        try:
            model = self._model.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ArgumentsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:500]) from error
        return {name: getattr(model, field) for field, name in self._names.items() if field in model.model_fields_set}


class _Plain(GenerateJsonSchema):
    """Without the titles pydantic makes of names: the model would read each name twice."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _closed(schema: Any) -> Any:
    """The schema with every object closed: what is not described must not be given."""
    if isinstance(schema, Mapping):
        made = {name: _closed(part) for name, part in schema.items()}
        if "properties" in made and isinstance(made["properties"], Mapping) and made.get("type") == "object":
            made.setdefault("additionalProperties", False)
            if isinstance(made.get("title"), str):
                del made["title"]
        elif made.get("title") and "enum" in made:
            del made["title"]
        return made
    return [_closed(part) for part in schema] if isinstance(schema, list) else schema


def is_strict(schema: Any, *, names: bool = False) -> bool:
    """Whether the service's strict mode takes a schema: every object closed, every property required. `names`: the keys
    of this mapping are names of properties."""
    if isinstance(schema, list):
        return all(is_strict(part) for part in schema)
    if not isinstance(schema, Mapping):
        return True
    if names:
        return all(is_strict(part) for part in schema.values())
    if not schema.keys() <= _STRICT:
        return False
    if schema.get("type") == "object" and (
        schema.get("additionalProperties") is not False
        or set(schema.get("properties", {})) != set(schema.get("required", ()))
    ):
        return False
    plain = {"enum", "const", "required", "description", "type", "pattern", "format"}
    return all(
        is_strict(part, names=name in ("properties", "$defs")) for name, part in schema.items() if name not in plain
    )


def _parsed(text: str) -> Mapping[str, Any]:
    """Arguments as JSON. Some models send nothing at all for a function without parameters."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_ARGUMENTS_BYTES:
        raise ArgumentsError(f"the arguments are longer than {MOST_ARGUMENTS_BYTES} bytes")
    try:
        given = json.loads(text or "{}", parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ArgumentsError(f"the arguments are not JSON: {_first_line(error)}") from error
    if not isinstance(given, dict):
        raise ArgumentsError("the arguments are no JSON object")
    if _levels(given) > MOST_LEVELS:
        raise ArgumentsError(f"the arguments are nested deeper than {MOST_LEVELS} levels")
    return given


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
        raise ValueError("a number is too large")
    return found


def _levels(value: Any) -> int:
    deepest, left = 0, [(value, 1)]
    while left:
        at, level = left.pop()
        deepest = max(deepest, level)
        if isinstance(at, dict):
            left += [(part, level + 1) for part in at.values()]
        elif isinstance(at, list):
            left += [(part, level + 1) for part in at]
    return deepest


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
