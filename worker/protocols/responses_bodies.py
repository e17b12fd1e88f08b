"""The bodies of the calls of Responses (protocols B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openai.types.responses import ResponseIncludable

from worker.protocols.base import Ask, Given, ToolOutput

INCLUDE: list[ResponseIncludable] = ["code_interpreter_call.outputs", "file_search_call.results"]
"""What replies do not hold unless it is asked for."""
WINDOW = "askq_window"
"""Metadata: the completion window that was asked for. It sets the price, and no reply repeats it."""
DISCOUNTED = ("2h", "8h")
"""Completion windows of runs that cost less, and have no streams."""


def chosen_id(ask: Ask) -> str:
    """The id of the response of an intent, on servers that take ours."""
    return f"resp_{ask.idempotency_key[:32]}"


def request_body(ask: Ask, thread_id: str) -> dict[str, Any]:
    """The body that creates a background response."""
    assistant = ask.assistant
    window = assistant.completion_window
    text_format = assistant.text_format
    if text_format is not None and isinstance(text_format.get("json_schema"), Mapping):
        text_format = {"type": "json_schema", **text_format["json_schema"]}
    tools = [tool for tool in assistant.tools if _is_of_use(tool, ask)]
    body: dict[str, Any] = {
        "model": ask.model or assistant.model,
        "input": [_output(output) for output in ask.outputs] or _input(ask),
        "instructions": ask.instructions or assistant.instructions,
        "background": True,
        "store": True,
        "background_options": {"completion_window": window} if window is not None else None,
        "conversation": thread_id or None,
        "previous_response_id": None if thread_id else ask.previous,
        "metadata": ask.run_metadata | ({WINDOW: window} if window in DISCOUNTED else {}),
        "tools": [_tool(tool, assistant.tool_resources, ask.given) for tool in tools],
        "tool_choice": ask.tool_choice if len(tools) == len(assistant.tools) else _left_to_choose(ask, tools),
        "parallel_tool_calls": assistant.parallel_tool_calls,
        "include": INCLUDE if assistant.tools else None,
        "temperature": assistant.temperature,
        "top_p": assistant.top_p,
        "reasoning": {"effort": assistant.reasoning_effort} if assistant.reasoning_effort else None,
        "text": {"format": text_format} if text_format is not None else None,
        "max_output_tokens": assistant.max_output_tokens,
        "truncation": assistant.truncation,
        "service_tier": assistant.service_tier,
    }
    return {name: value for name, value in body.items() if value not in (None, [])}


def _input(ask: Ask) -> str | list[dict[str, Any]]:
    """The question; with its images, a message of several parts."""
    if not ask.given.images:
        return ask.text
    parts: list[dict[str, Any]] = [{"type": "input_text", "text": ask.text}]
    for image in ask.given.images:
        place = {"image_url": image.url} if image.file_id is None else {"file_id": image.file_id}
        parts.append({"type": "input_image", "detail": "auto", **place})
    return [{"type": "message", "role": "user", "content": parts}]


def _tool(tool: Mapping[str, Any], resources: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """A tool with the files and stores that Assistants would keep apart from it."""
    kind = tool.get("type")
    if kind == "code_interpreter" and not isinstance(tool.get("container"), str):
        container = dict(tool.get("container") or {"type": "auto"})
        named = container.get("file_ids") or (resources.get("code_interpreter") or {}).get("file_ids") or []
        files = _different(named, given.code, given.thread_code, given.row_code)
        return {**tool, "container": {**container, "file_ids": files} if files else container}
    if kind == "file_search":
        return {**tool, "vector_store_ids": _stores(tool, resources, given)}
    return dict(tool)


def _is_of_use(tool: Mapping[str, Any], ask: Ask) -> bool:
    """Not a file search that has nothing to search: unlike Assistants, this protocol refuses it."""
    return tool.get("type") != "file_search" or bool(_stores(tool, ask.assistant.tool_resources, ask.given))


def _left_to_choose(ask: Ask, tools: Sequence[Mapping[str, Any]]) -> str | Mapping[str, Any] | None:
    """The choice of a tool without the file search that is left out: a choice that names it would be refused."""
    choice = ask.tool_choice
    if not tools or choice is None or isinstance(choice, str):
        return choice if tools else None
    if choice["type"] != "allowed_tools":
        return None if choice["type"] == "file_search" else choice
    left = [tool for tool in choice["tools"] if tool.get("type") != "file_search"]
    return {**choice, "tools": left} if left else "none"


def _stores(tool: Mapping[str, Any], resources: Mapping[str, Any], given: Given) -> list[str]:
    named = tool.get("vector_store_ids") or (resources.get("file_search") or {}).get("vector_store_ids") or []
    return _different(named, given.stores, given.thread_stores, given.row_stores)


def _different(*ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(id_ for some in ids for id_ in some))


def _output(output: ToolOutput) -> dict[str, str]:
    return {"type": "function_call_output", "call_id": output.call_id, "output": output.output}
