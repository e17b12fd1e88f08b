"""Messages of a thread: create, retrieve, update, list, delete."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import invalid, messages_closed, not_found
from askq.localapi.routes.attached import attach, checked_attachments, checked_picture
from askq.localapi.wire import JsonObject, new_id, page

CONTENT_CHARS = 256_000
ATTACHMENTS = 10_000
PARTS = 100


def checked_message(api: Api, body: JsonObject) -> JsonObject:
    """The parts of a message create that are stored; raises ApiError."""
    fields.only(body, frozenset({"role", "content", "attachments", "metadata"}))
    fields.required_text(body, "role")
    return {
        "role": fields.one_of(body, "role", ("user", "assistant")),
        "content": _content(api, body),
        "attachments": checked_attachments(api, body, most=ATTACHMENTS),
        "metadata": fields.metadata(body),
    }


def _content(api: Api, body: JsonObject) -> list[JsonObject]:
    if not isinstance(body.get("content"), list):
        return [_text_part(fields.required_text(body, "content", most=CONTENT_CHARS))]
    parts = fields.objects(body, "content", most=PARTS)
    if not parts:
        raise invalid(
            "Invalid 'content': empty array. Expected an array with minimum length 1.",
            param="content",
            code="empty_array",
        )
    content = []
    for place, part in enumerate(parts):
        kind = fields.one_of(part, "type", ("text", "image_file", "image_url"))
        if kind == "text":
            content.append(_text_part(fields.required_text(part, "text", most=CONTENT_CHARS)))
        elif kind is None or fields.obj(part, kind) is None:
            raise invalid(
                "Missing required parameter: 'content[].type' with the field it names.",
                param="content",
                code="missing_required_parameter",
            )
        else:
            content.append(checked_picture(api, part, kind, f"content[{place}]"))
    return content


def _text_part(value: str) -> JsonObject:
    return {"type": "text", "text": {"value": value, "annotations": []}}


def add_message(api: Api, thread_id: str, checked: JsonObject) -> JsonObject:
    """Append what `checked_message` returned to a thread."""
    now = int(api.now())
    message: JsonObject = {
        "id": new_id("msg"),
        "object": "thread.message",
        "created_at": now,
        "thread_id": thread_id,
        "assistant_id": None,
        "run_id": None,
        "status": "completed",
        "completed_at": now,
        "incomplete_at": None,
        "incomplete_details": None,
        **checked,
    }
    api.store.add("message", message, parent=thread_id)
    attach(api, thread_id, message["attachments"])
    return message


def _thread(api: Api, call: Call) -> str:
    thread_id = call.params["thread_id"]
    if api.store.get("thread", thread_id) is None:
        raise not_found(f"No thread found with id '{thread_id}'.")
    return thread_id


def _message(api: Api, call: Call) -> JsonObject:
    thread_id, message_id = _thread(api, call), call.params["message_id"]
    api.works.active_in(thread_id)  # settles what is due: the message may be its answer
    message = api.store.get("message", message_id, parent=thread_id)
    if message is None:
        raise not_found(f"No message found with id '{message_id}'.")
    return message


def _create(api: Api, call: Call) -> Reply:
    thread_id = _thread(api, call)
    checked = checked_message(api, call.body)
    active = api.works.active_in(thread_id)
    if active is not None:
        raise messages_closed(thread_id, active.id)
    return Reply(body=add_message(api, thread_id, checked))


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=_message(api, call))


def _update(api: Api, call: Call) -> Reply:
    message = _message(api, call)
    fields.only(call.body, frozenset({"metadata"}))
    metadata = fields.merged_metadata(message["metadata"], call.body)
    return Reply(body=api.store.change(message["id"], metadata=metadata))


def _list(api: Api, call: Call) -> Reply:
    thread_id = _thread(api, call)
    asked = fields.page_query(call.query)
    api.works.active_in(thread_id)
    messages = api.store.below("message", thread_id)
    run_id = call.query.get("run_id")
    if run_id is not None:
        messages = [message for message in messages if message["run_id"] == run_id]
    data, has_more = fields.cut_page(messages, asked)
    return Reply(body=page(data, has_more=has_more))


def _delete(api: Api, call: Call) -> Reply:
    message_id = _message(api, call)["id"]
    api.store.remove(message_id)
    return Reply(body={"id": message_id, "object": "thread.message.deleted", "deleted": True})


ROUTES = (
    Route("POST", "/threads/{thread_id}/messages", _create),
    Route("GET", "/threads/{thread_id}/messages", _list),
    Route("GET", "/threads/{thread_id}/messages/{message_id}", _retrieve),
    Route("POST", "/threads/{thread_id}/messages/{message_id}", _update),
    Route("DELETE", "/threads/{thread_id}/messages/{message_id}", _delete),
)
