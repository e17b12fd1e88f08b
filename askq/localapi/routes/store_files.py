"""Files of vector stores, one by one and in batches."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import invalid, not_found
from askq.localapi.files.filters import checked_attributes
from askq.localapi.files.stores import STATUSES
from askq.localapi.routes.vector_stores import check_files, checked_chunking
from askq.localapi.wire import JsonObject, page

BATCH = 2000
POLL_AFTER = {"openai-poll-after-ms": "100"}
"""Indexing takes moments here: the SDK's helpers need not wait a second for it."""


def store_file_wire(api: Api, store_id: str, body: JsonObject) -> JsonObject:
    """A file of a store as it is given out."""
    status = api.stores.status(body)
    return {
        "id": body["file_id"],
        "object": "vector_store.file",
        "created_at": body["created_at"],
        "vector_store_id": store_id,
        "status": status,
        "last_error": body["last_error"] if status == "failed" else None,
        "usage_bytes": body["usage_bytes"] if status == "completed" else 0,
        "attributes": body["attributes"],
        "chunking_strategy": body["chunking_strategy"],
    }


def _batch_wire(api: Api, batch: JsonObject) -> JsonObject:
    counts = api.stores.counts(api.stores.batch_files(batch))
    status = "cancelled" if batch["cancelled"] else "in_progress" if counts["in_progress"] else "completed"
    wire = {name: value for name, value in batch.items() if name not in ("file_ids", "cancelled")}
    return {**wire, "status": status, "file_counts": counts}


def _store(api: Api, call: Call) -> str:
    """The id of a store that takes files; raises ApiError."""
    store = api.stores.find(call.params["vector_store_id"])
    if store["status"] == "expired" and call.body:
        raise invalid(f"Vector store with id '{store['id']}' is expired.")
    return str(store["id"])


def _create(api: Api, call: Call) -> Reply:
    store_id = _store(api, call)
    fields.only(call.body, frozenset({"file_id", "attributes", "chunking_strategy"}))
    [file] = check_files(api, [fields.required_text(call.body, "file_id")], "file_id")
    attributes, chunking = checked_attributes(call.body), checked_chunking(call.body)
    made = api.stores.add_file(store_id, file, attributes=attributes, chunking=chunking)
    return Reply(body=store_file_wire(api, store_id, made), headers=POLL_AFTER)


def _paged(api: Api, call: Call, store_id: str, bodies: list[JsonObject]) -> Reply:
    wanted = call.query.get("filter")
    if wanted is not None and wanted not in STATUSES:
        raise invalid(f"Invalid value: '{wanted}'. Supported values are: {', '.join(STATUSES)}.", param="filter")
    wires = [store_file_wire(api, store_id, body) for body in bodies]
    chosen = [wire for wire in wires if wanted in (None, wire["status"])]
    data, has_more = fields.cut_page(chosen, fields.page_query(call.query))
    return Reply(body=page(data, has_more=has_more))


def _list(api: Api, call: Call) -> Reply:
    store_id = _store(api, call)
    return _paged(api, call, store_id, api.stores.files(store_id))


def _file(api: Api, call: Call) -> tuple[str, JsonObject]:
    store_id, file_id = _store(api, call), call.params["file_id"]
    body = api.stores.file(store_id, file_id)
    if body is None:
        raise not_found(f"No file found with id '{file_id}' in vector store '{store_id}'.")
    return store_id, body


def _retrieve(api: Api, call: Call) -> Reply:
    store_id, body = _file(api, call)
    return Reply(body=store_file_wire(api, store_id, body), headers=POLL_AFTER)


def _update(api: Api, call: Call) -> Reply:
    store_id, body = _file(api, call)
    fields.only(call.body, frozenset({"attributes"}))
    changed = api.stores.change_file(body, attributes=checked_attributes(call.body))
    return Reply(body=store_file_wire(api, store_id, changed))


def _delete(api: Api, call: Call) -> Reply:
    store_id, body = _file(api, call)
    file_id = body["file_id"]

    async def removed() -> JsonObject:
        await api.stores.remove_file(store_id, file_id)
        return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}

    return Reply(later=removed)


def _content(api: Api, call: Call) -> Reply:
    store_id, body = _file(api, call)

    async def content() -> JsonObject:
        texts = await api.stores.content(store_id, body["file_id"])
        return {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": text} for text in texts],
            "has_more": False,
            "next_page": None,
        }

    return Reply(later=content)


def _create_batch(api: Api, call: Call) -> Reply:
    store_id, body = _store(api, call), call.body
    fields.only(body, frozenset({"file_ids", "files", "attributes", "chunking_strategy"}))
    if (body.get("file_ids") is None) == (body.get("files") is None):
        raise invalid("Exactly one of 'file_ids' and 'files' must be provided.", param="file_ids")
    if body.get("files") is None:
        file_ids = fields.strings(body, "file_ids")
        fields.check_count(file_ids, "file_ids", BATCH)
        settings = [(checked_attributes(body), checked_chunking(body))] * len(file_ids)
    else:
        given = fields.objects(body, "files", most=BATCH)
        file_ids = [fields.required_text(one, "file_id") for one in given]
        settings = [(checked_attributes(one), checked_chunking(one)) for one in given]
    if not file_ids:
        raise invalid("Invalid 'file_ids': empty array. Expected an array with minimum length 1.", param="file_ids")
    by_id = dict(zip(file_ids, settings, strict=True))
    files = check_files(api, file_ids, "file_ids")
    for file in files:
        attributes, chunking = by_id[file["id"]]
        api.stores.add_file(store_id, file, attributes=attributes, chunking=chunking)
    batch = api.stores.add_batch(store_id, [file["id"] for file in files])
    return Reply(body=_batch_wire(api, batch), headers=POLL_AFTER)


def _batch(api: Api, call: Call) -> JsonObject:
    return api.stores.batch(_store(api, call), call.params["batch_id"])


def _retrieve_batch(api: Api, call: Call) -> Reply:
    return Reply(body=_batch_wire(api, _batch(api, call)), headers=POLL_AFTER)


def _cancel_batch(api: Api, call: Call) -> Reply:
    batch = _batch(api, call)
    api.stores.cancel_batch(batch)
    return Reply(body=_batch_wire(api, batch))


def _list_batch(api: Api, call: Call) -> Reply:
    batch = _batch(api, call)
    return _paged(api, call, batch["vector_store_id"], api.stores.batch_files(batch))


_STORE = "/vector_stores/{vector_store_id}"
ROUTES = (
    Route("POST", f"{_STORE}/files", _create),
    Route("GET", f"{_STORE}/files", _list),
    Route("GET", f"{_STORE}/files/{{file_id}}", _retrieve),
    Route("POST", f"{_STORE}/files/{{file_id}}", _update),
    Route("DELETE", f"{_STORE}/files/{{file_id}}", _delete),
    Route("GET", f"{_STORE}/files/{{file_id}}/content", _content),
    Route("POST", f"{_STORE}/file_batches", _create_batch),
    Route("GET", f"{_STORE}/file_batches/{{batch_id}}", _retrieve_batch),
    Route("POST", f"{_STORE}/file_batches/{{batch_id}}/cancel", _cancel_batch),
    Route("GET", f"{_STORE}/file_batches/{{batch_id}}/files", _list_batch),
)
