"""Threads: create (with messages), retrieve, update, delete. There is no list of threads, here as at OpenAI."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import not_found
from askq.localapi.routes.attached import checked_resources, made_resources
from askq.localapi.routes.messages import add_message, checked_message
from askq.localapi.wire import JsonObject, new_id

MESSAGES = 100_000


def find_thread(api: Api, thread_id: str) -> JsonObject:
    """The thread; raises ApiError."""
    thread = api.store.get("thread", thread_id)
    if thread is None:
        raise not_found(f"No thread found with id '{thread_id}'.")
    return thread


def create_thread(api: Api, body: JsonObject) -> JsonObject:
    """A new thread with its messages; raises ApiError and then leaves nothing behind."""
    fields.only(body, frozenset({"messages", "metadata", "tool_resources"}))
    thread: JsonObject = {
        "id": new_id("thread"),
        "object": "thread",
        "created_at": int(api.now()),
        "metadata": fields.metadata(body),
        "tool_resources": checked_resources(api, body),
    }
    messages = [checked_message(api, message) for message in fields.objects(body, "messages", most=MESSAGES)]
    thread["tool_resources"] = made_resources(api, thread["tool_resources"])
    api.store.add("thread", thread)
    for message in messages:
        add_message(api, thread["id"], message)
    return thread


def _create(api: Api, call: Call) -> Reply:
    return Reply(body=create_thread(api, call.body))


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=find_thread(api, call.params["thread_id"]))


def _update(api: Api, call: Call) -> Reply:
    thread = find_thread(api, call.params["thread_id"])
    fields.only(call.body, frozenset({"metadata", "tool_resources"}))
    given = call.body.get("tool_resources")
    resources = None if given is None else made_resources(api, checked_resources(api, call.body))
    changed = api.store.change(
        thread["id"],
        metadata=fields.merged_metadata(thread["metadata"], call.body),
        tool_resources=thread["tool_resources"] if resources is None else resources,
    )
    return Reply(body=changed)


def _delete(api: Api, call: Call) -> Reply:
    thread_id = find_thread(api, call.params["thread_id"])["id"]
    for work in api.works.in_scope(thread_id):
        api.works.forget(work)
    for message in api.store.below("message", thread_id):
        api.store.remove(message["id"])
    api.store.remove(thread_id)
    return Reply(body={"id": thread_id, "object": "thread.deleted", "deleted": True})


ROUTES = (
    Route("POST", "/threads", _create),
    Route("GET", "/threads/{thread_id}", _retrieve),
    Route("POST", "/threads/{thread_id}", _update),
    Route("DELETE", "/threads/{thread_id}", _delete),
)
