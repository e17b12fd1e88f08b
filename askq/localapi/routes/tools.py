"""Function tools and the choice among them, as clients send them: checked, refused in OpenAI's words."""

from __future__ import annotations

from typing import Any

from askq.localapi import fields
from askq.localapi.engines.base import ProtocolName
from askq.localapi.errors import ApiError, invalid
from askq.localapi.wire import JsonObject

TOOLS = 128
_CHOICES = ("none", "auto", "required")


def checked_tools(body: JsonObject, protocol: ProtocolName, *, most: int) -> list[JsonObject]:
    """The tools of a request; raises ApiError for a function that cannot be called."""
    tools = fields.objects(body, "tools", most=most)
    for index, tool in enumerate(tools):
        kind = fields.required_text(tool, "type")
        if kind != "function":
            continue
        if protocol == "assistants":
            function, where = fields.obj(tool, "function"), f"tools[{index}].function"
            if function is None:
                raise fields.missing(where)
        else:
            function, where = tool, f"tools[{index}]"
        _check_function(function, where)
    return tools


def _check_function(function: JsonObject, where: str) -> None:
    name = fields.check_name(function.get("name"), f"{where}.name")
    parameters = fields.obj(function, "parameters")
    if parameters is not None:
        flaw = schema_flaw(parameters, strict=function.get("strict") is True)
        if parameters and parameters.get("type") != "object":
            flaw = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{parameters.get('type')}\"'."
        if flaw is not None:
            raise invalid(
                f"Invalid schema for function '{name}': {flaw}",
                param=f"{where}.parameters",
                code="invalid_function_parameters",
            )


def schema_flaw(schema: JsonObject, *, strict: bool) -> str | None:
    """What is wrong with a JSON Schema, or None. `strict`: by the rules of OpenAI's strict mode too."""
    # Imported here: it takes a tenth of a second, and few requests bring a schema.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as exc:
        return f"{exc.message}."
    return _not_strict(schema, ()) if strict else None


def _not_strict(schema: Any, context: tuple[str, ...]) -> str | None:
    """The first object schema that is not closed, or does not require all of its properties."""
    if isinstance(schema, list):
        flaws = (_not_strict(element, (*context, str(index))) for index, element in enumerate(schema))
        return next((flaw for flaw in flaws if flaw is not None), None)
    if not isinstance(schema, dict):
        return None
    kinds = schema.get("type")
    properties = schema.get("properties")
    if kinds == "object" or (isinstance(kinds, list) and "object" in kinds):
        where = f"In context=({', '.join(repr(part) for part in context)})"
        if schema.get("additionalProperties") is not False:
            return f"{where}, 'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in properties or {} if name not in schema.get("required", [])]
        if missing:
            return (
                f"{where}, 'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )
    if isinstance(properties, dict):
        for name, value in properties.items():
            if (flaw := _not_strict(value, (*context, "properties", name))) is not None:
                return flaw
    for name in ("items", "anyOf", "$defs", "definitions"):
        value = schema.get(name)
        inner = list(value.values()) if name in ("$defs", "definitions") and isinstance(value, dict) else value
        if (flaw := _not_strict(inner, (*context, name))) is not None:
            return flaw
    return None


def checked_choice(body: JsonObject, tools: list[JsonObject]) -> Any:
    """`tool_choice`, `auto` if there is none; raises ApiError for one that cannot be met."""
    choice = body.get("tool_choice")
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise invalid(
                f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'.",
                param="tool_choice",
                code="invalid_value",
            )
        return choice
    if not isinstance(choice, dict):
        raise _wrong_choice(choice)
    if choice.get("type") == "function":
        nested = choice.get("function")
        name = nested.get("name") if isinstance(nested, dict) else choice.get("name")
        if name is None:
            raise invalid(
                "Missing required parameter: 'tool_choice.name'.",
                param="tool_choice.name",
                code="missing_required_parameter",
            )
        if name not in [_function_name(tool) for tool in tools]:
            raise invalid(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    elif choice.get("type") == "allowed_tools":
        _check_allowed(choice, tools)
    return choice


def _check_allowed(choice: JsonObject, tools: list[JsonObject]) -> None:
    if choice.get("mode") not in ("auto", "required"):
        raise invalid(
            f"Invalid value: '{choice.get('mode')}'. Supported values are: 'auto' and 'required'.",
            param="tool_choice.mode",
            code="invalid_value",
        )
    for index, named in enumerate(fields.objects(choice, "tools", most=TOOLS)):
        kind, name = named.get("type"), named.get("name")
        if not any(tool.get("type") == kind and (kind != "function" or tool.get("name") == name) for tool in tools):
            where = f"tool_choice.tools[{index}]"
            raise invalid(f"Tool choice '{name or kind}' not found in 'tools' parameter.", param=where)


def _function_name(tool: JsonObject) -> Any:
    return (tool.get("function") or tool).get("name") if tool.get("type") == "function" else None


def _wrong_choice(choice: object) -> ApiError:
    return invalid(
        f"Invalid type for 'tool_choice': expected one of 'none', 'auto', 'required' or an object, but got "
        f"{fields.json_name(choice)} instead.",
        param="tool_choice",
        code="invalid_type",
    )
