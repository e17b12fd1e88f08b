"""Conversations: create, retrieve, update, delete. There is no list of conversations, here as at OpenAI."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.routes.items import ITEMS_AT_ONCE, checked_item, find_conversation
from askq.localapi.wire import JsonObject, new_id


def _create(api: Api, call: Call) -> Reply:
    fields.only(call.body, frozenset({"items", "metadata"}))
    items = [checked_item(item, "items") for item in fields.objects(call.body, "items", most=ITEMS_AT_ONCE)]
    conversation: JsonObject = {
        "id": new_id("conv"),
        "object": "conversation",
        "created_at": int(api.now()),
        "metadata": fields.metadata(call.body),
    }
    api.store.add("conversation", conversation)
    for item in items:
        api.store.add("item", item, parent=conversation["id"])
    return Reply(body=conversation)


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=find_conversation(api, call.params["conversation_id"]))


def _update(api: Api, call: Call) -> Reply:
    conversation = find_conversation(api, call.params["conversation_id"])
    fields.only(call.body, frozenset({"metadata"}))
    metadata = fields.merged_metadata(conversation["metadata"], call.body)
    return Reply(body=api.store.change(conversation["id"], metadata=metadata))


def _delete(api: Api, call: Call) -> Reply:
    # OpenAI keeps the items of a deleted conversation. So does this: `objects.item` of the statistics
    # shows what a client has left behind.
    conversation_id = find_conversation(api, call.params["conversation_id"])["id"]
    api.store.remove(conversation_id)
    return Reply(body={"id": conversation_id, "object": "conversation.deleted", "deleted": True})


ROUTES = (
    Route("POST", "/conversations", _create),
    Route("GET", "/conversations/{conversation_id}", _retrieve),
    Route("POST", "/conversations/{conversation_id}", _update),
    Route("DELETE", "/conversations/{conversation_id}", _delete),
)
