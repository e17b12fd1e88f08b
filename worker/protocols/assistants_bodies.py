"""The bodies of the calls of Assistants v2 (protocols A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from askq.assistants.model import Assistant
from worker.protocols.base import NOTHING_GIVEN, Ask, Given, ToolOutput
from worker.protocols.deletion import DIGEST, HOME


def message_body(ask: Ask) -> dict[str, Any]:
    """The message that asks, with its images and files."""
    given = ask.given
    content: str | list[dict[str, Any]] = ask.text
    if given.images:
        content = [{"type": "text", "text": ask.text}]
        for image in given.images:
            if image.file_id is not None:
                content.append({"type": "image_file", "image_file": {"file_id": image.file_id}})
            else:
                content.append({"type": "image_url", "image_url": {"url": image.url}})
    body: dict[str, Any] = {"role": "user", "content": content}
    attached: dict[str, list[str]] = {}
    for tool, ids in (("code_interpreter", given.row_code), ("file_search", given.row_search)):
        for file_id in ids:
            attached.setdefault(file_id, []).append(tool)
    if attached:
        body["attachments"] = [
            {"file_id": file_id, "tools": [{"type": tool} for tool in tools]} for file_id, tools in attached.items()
        ]
    return body


def thread_resources(given: Given) -> dict[str, Any]:
    """What a thread may read besides its assistant's."""
    resources: dict[str, Any] = {}
    if given.thread_code:
        resources["code_interpreter"] = {"file_ids": list(given.thread_code)}
    if given.thread_store_files:
        resources["file_search"] = {"vector_stores": [{"file_ids": list(given.thread_store_files)}]}
    elif given.thread_stores:
        resources["file_search"] = {"vector_store_ids": list(given.thread_stores)}
    return resources


def assistant_body(assistant: Assistant, given: Given = NOTHING_GIVEN, *, home: str | None = None) -> dict[str, Any]:
    """The body that creates the remote assistant object."""
    marks = {DIGEST: assistant.digest} | ({HOME: home} if home else {})
    body: dict[str, Any] = {
        "name": assistant.name,
        "description": assistant.description,
        "instructions": assistant.instructions,
        "tools": [_tool(tool) for tool in assistant.tools],
        "tool_resources": _resources(assistant, given),
        "temperature": assistant.temperature,
        "top_p": assistant.top_p,
        "response_format": _response_format(assistant),
        "reasoning_effort": assistant.reasoning_effort,
        "metadata": {**assistant.metadata, **marks},
    }
    return {name: value for name, value in body.items() if value not in (None, [], {})}


def run_body(ask: Ask) -> dict[str, Any]:
    """The body that creates a run, without its assistant: what the assistant object cannot hold, and the row's own
    wishes. Service tiers and completion windows are unknown to this protocol."""
    assistant = ask.assistant
    body: dict[str, Any] = {
        "metadata": ask.run_metadata,
        "model": ask.model,
        "instructions": ask.instructions,
        "max_completion_tokens": assistant.max_output_tokens,
        "max_prompt_tokens": assistant.max_prompt_tokens,
        "truncation_strategy": {"type": "auto"} if assistant.truncation == "auto" else None,
        "tool_choice": _choice(ask.tool_choice),
        "parallel_tool_calls": assistant.parallel_tool_calls,
    }
    return {name: value for name, value in body.items() if value is not None}


def outputs_body(outputs: tuple[ToolOutput, ...]) -> dict[str, Any]:
    """The body that gives a run the outputs of its functions."""
    return {"tool_outputs": [{"tool_call_id": output.call_id, "output": output.output} for output in outputs]}


def _choice(choice: str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A choice in the nested shape of Assistants; None for one that only Responses has."""
    if not isinstance(choice, Mapping):
        return choice
    kind = choice["type"]
    if kind == "function":
        return {"type": kind, kind: {"name": choice["name"]}}
    return {"type": kind} if kind in ("code_interpreter", "file_search") else None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the nested shape of Assistants; profiles keep the flat one of Responses."""
    kind = str(tool["type"])
    rest = {name: value for name, value in tool.items() if name not in ("type", "container", "vector_store_ids")}
    return {"type": kind, kind: rest} if rest and kind in ("file_search", "function") else {"type": kind}


def _resources(assistant: Assistant, given: Given) -> dict[str, Any]:
    resources: dict[str, dict[str, Any]] = {name: dict(value) for name, value in assistant.tool_resources.items()}
    for tool in assistant.tools:
        if tool.get("vector_store_ids"):
            resources.setdefault("file_search", {"vector_store_ids": list(tool["vector_store_ids"])})
        container = tool.get("container")
        if isinstance(container, Mapping) and container.get("file_ids"):
            resources.setdefault("code_interpreter", {"file_ids": list(container["file_ids"])})
    for kind, key, ids in (
        ("code_interpreter", "file_ids", given.code),
        ("file_search", "vector_store_ids", given.stores),
    ):
        if ids:
            known = resources.setdefault(kind, {}).get(key, [])
            resources[kind] = {**resources[kind], key: list(dict.fromkeys([*known, *ids]))}
    return resources


def _response_format(assistant: Assistant) -> Mapping[str, Any] | None:
    wanted = assistant.text_format
    if wanted is None or wanted.get("type") != "json_schema" or "json_schema" in wanted:
        return wanted
    return {"type": "json_schema", "json_schema": {name: part for name, part in wanted.items() if name != "type"}}
