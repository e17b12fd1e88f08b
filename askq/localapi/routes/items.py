"""Items of a conversation, and the checking of items wherever a client sends them."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import conversation_locked, invalid, not_found, unsupported
from askq.localapi.scribes.responses import item_wire
from askq.localapi.wire import JsonObject, new_id, page

ITEMS_AT_ONCE = 20
TEXT_CHARS = 10_485_760
"""Of a string input, and of a tool output."""
CALL_ID_CHARS = 64
ROLES = ("user", "assistant", "system", "developer")

_PREFIXES = {"function_call": "fc", "function_call_output": "fco", "code_interpreter_call": "ci", "reasoning": "rs"}


def checked_item(item: JsonObject, param: str) -> JsonObject:
    """An item as it is stored, with an id and a status; raises ApiError."""
    kind = fields.text(item, "type") or ("message" if "role" in item else None)
    if kind is None:
        raise invalid(f"Missing required parameter: '{param}.type'.", param=param, code="missing_required_parameter")
    if kind == "item_reference":
        raise unsupported("references to items; send the item itself", param=param)
    if kind == "message":
        return _message(item)
    checked: JsonObject = {**item, "id": new_id(_PREFIXES.get(kind, "item")), "type": kind, "status": "completed"}
    if kind in ("function_call", "function_call_output"):
        fields.required_text(item, "call_id", most=CALL_ID_CHARS)
    if kind == "function_call":
        fields.required_text(item, "name")
        checked["arguments"] = fields.text(item, "arguments", most=TEXT_CHARS) or ""
    if kind == "function_call_output":
        if isinstance(item.get("output"), list):
            checked["output"] = fields.objects(item, "output", most=1000)
        else:
            checked["output"] = fields.text(item, "output", most=TEXT_CHARS) or ""
    return checked


def user_message(text: str) -> JsonObject:
    """The item a plain string stands for."""
    return _message({"role": "user", "content": text})


def _message(item: JsonObject) -> JsonObject:
    fields.required_text(item, "role")
    role = fields.one_of(item, "role", ROLES)
    if isinstance(item.get("content"), list):
        content = fields.objects(item, "content", most=1000)
        for part in content:
            fields.required_text(part, "type")
            fields.text(part, "text", most=TEXT_CHARS)
    else:
        text = fields.required_text(item, "content", most=TEXT_CHARS)
        content = [
            {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            if role == "assistant"
            else {"type": "input_text", "text": text}
        ]
    return {"id": new_id("msg"), "type": "message", "role": role, "status": "completed", "content": content}


def find_conversation(api: Api, conversation_id: str) -> JsonObject:
    """The conversation, with what is due in it settled; raises ApiError."""
    conversation = api.store.get("conversation", conversation_id)
    if conversation is None:
        raise not_found(f"Conversation with id '{conversation_id}' not found.")
    api.works.active_in(conversation_id)
    return conversation


def _item(api: Api, call: Call) -> JsonObject:
    conversation_id, item_id = find_conversation(api, call.params["conversation_id"])["id"], call.params["item_id"]
    item = api.store.get("item", item_id, parent=conversation_id)
    if item is None:
        raise not_found(f"Item with id '{item_id}' not found in conversation '{conversation_id}'.")
    return item


def _create(api: Api, call: Call) -> Reply:
    conversation_id = find_conversation(api, call.params["conversation_id"])["id"]
    fields.only(call.body, frozenset({"items"}))
    if not call.body.get("items"):
        raise invalid("Missing required parameter: 'items'.", param="items", code="missing_required_parameter")
    items = [checked_item(item, "items") for item in fields.objects(call.body, "items", most=ITEMS_AT_ONCE)]
    if api.works.active_in(conversation_id) is not None:
        raise conversation_locked()
    for item in items:
        api.store.add("item", item, parent=conversation_id)
    return Reply(body=page([item_wire(item, call.include) for item in items], has_more=False))


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=item_wire(_item(api, call), call.include))


def _list(api: Api, call: Call) -> Reply:
    conversation_id = find_conversation(api, call.params["conversation_id"])["id"]
    asked = fields.page_query(call.query)
    data, has_more = fields.cut_page(api.store.below("item", conversation_id), asked)
    return Reply(body=page([item_wire(item, call.include) for item in data], has_more=has_more))


def _delete(api: Api, call: Call) -> Reply:
    item_id = _item(api, call)["id"]
    if api.works.active_in(call.params["conversation_id"]) is not None:
        raise conversation_locked()
    api.store.remove(item_id)
    return Reply(body=find_conversation(api, call.params["conversation_id"]))


ROUTES = (
    Route("POST", "/conversations/{conversation_id}/items", _create),
    Route("GET", "/conversations/{conversation_id}/items", _list),
    Route("GET", "/conversations/{conversation_id}/items/{item_id}", _retrieve),
    Route("DELETE", "/conversations/{conversation_id}/items/{item_id}", _delete),
)
