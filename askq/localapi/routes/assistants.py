"""Assistants: create, retrieve, update, list, delete."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import not_found
from askq.localapi.routes.attached import checked_resources, made_resources
from askq.localapi.routes.formats import checked_response_format
from askq.localapi.routes.models import check_model
from askq.localapi.routes.tools import checked_tools
from askq.localapi.wire import JsonObject, new_id, page

NAME_CHARS = 256
DESCRIPTION_CHARS = 512
INSTRUCTIONS_CHARS = 256_000
TOOLS = 128

PARAMETERS = frozenset(
    {
        "model",
        "name",
        "description",
        "instructions",
        "tools",
        "tool_resources",
        "metadata",
        "temperature",
        "top_p",
        "response_format",
        "reasoning_effort",
    }
)


def find_assistant(api: Api, assistant_id: str) -> JsonObject:
    """The assistant; raises ApiError."""
    assistant = api.store.get("assistant", assistant_id)
    if assistant is None:
        raise not_found(f"No assistant found with id '{assistant_id}'.")
    return assistant


def _settings(api: Api, body: JsonObject) -> JsonObject:
    """The checked fields that are present in a create or update."""
    fields.only(body, PARAMETERS)
    checked: JsonObject = {
        "name": fields.text(body, "name", most=NAME_CHARS),
        "description": fields.text(body, "description", most=DESCRIPTION_CHARS),
        "instructions": fields.text(body, "instructions", most=INSTRUCTIONS_CHARS),
        "tools": checked_tools(body, "assistants", most=TOOLS),
        "tool_resources": checked_resources(api, body),
        "metadata": fields.metadata(body),
        "temperature": fields.number(body, "temperature", low=0, high=2),
        "top_p": fields.number(body, "top_p", low=0, high=1),
        "response_format": checked_response_format(body),
        "reasoning_effort": fields.text(body, "reasoning_effort"),
    }
    if body.get("model") is not None:
        checked["model"] = fields.required_text(body, "model")
        check_model(api, checked["model"])
    return {name: value for name, value in checked.items() if name in body}


def _create(api: Api, call: Call) -> Reply:
    fields.required_text(call.body, "model")
    settings = _settings(api, call.body)
    assistant: JsonObject = {
        "id": new_id("asst"),
        "object": "assistant",
        "created_at": int(api.now()),
        "name": None,
        "description": None,
        "instructions": None,
        "tools": [],
        "tool_resources": {},
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "response_format": "auto",
        "reasoning_effort": None,
    }
    assistant.update({name: value for name, value in settings.items() if value is not None})
    assistant["tool_resources"] = made_resources(api, assistant["tool_resources"])
    api.store.add("assistant", assistant)
    return Reply(body=assistant)


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=find_assistant(api, call.params["assistant_id"]))


def _update(api: Api, call: Call) -> Reply:
    assistant = find_assistant(api, call.params["assistant_id"])
    settings = _settings(api, call.body)
    if "tool_resources" in settings:
        settings["tool_resources"] = made_resources(api, settings["tool_resources"])
    return Reply(body=api.store.change(assistant["id"], **settings))


def _list(api: Api, call: Call) -> Reply:
    data, has_more = fields.cut_page(api.store.below("assistant"), fields.page_query(call.query))
    return Reply(body=page(data, has_more=has_more))


def _delete(api: Api, call: Call) -> Reply:
    assistant_id = find_assistant(api, call.params["assistant_id"])["id"]
    api.store.remove(assistant_id)
    return Reply(body={"id": assistant_id, "object": "assistant.deleted", "deleted": True})


ROUTES = (
    Route("POST", "/assistants", _create),
    Route("GET", "/assistants", _list),
    Route("GET", "/assistants/{assistant_id}", _retrieve),
    Route("POST", "/assistants/{assistant_id}", _update),
    Route("DELETE", "/assistants/{assistant_id}", _delete),
)
