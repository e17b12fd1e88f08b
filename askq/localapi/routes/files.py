"""Files: upload, list, retrieve, content, delete."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Download, Reply, Route
from askq.localapi.errors import ApiError, invalid
from askq.localapi.files.filing import file_wire, no_such_file
from askq.localapi.files.forms import Upload
from askq.localapi.wire import JsonObject, new_file_id, page

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
NOT_FOR_DOWNLOAD = ("assistants", "user_data")
"""OpenAI gives these back to nobody."""
NAME_CHARS = 255
LEAST_LIFE_S, MOST_LIFE_S = 3600, 2_592_000


def find_file(api: Api, file_id: str) -> JsonObject:
    """The file; raises ApiError."""
    file = api.files.get(file_id)
    if file is None:
        raise no_such_file(file_id)
    return file


def given_upload(body: JsonObject) -> Upload:
    """The uploaded file of a form; raises ApiError."""
    upload = body.get("file")
    if not isinstance(upload, Upload):
        raise invalid("'file' is a required property", param="file")
    if len(upload.name) > NAME_CHARS:
        raise invalid(f"The file name is too long: at most {NAME_CHARS} characters.", param="file")
    if upload.draft.size == 0:
        raise invalid("File is empty.", param="file", code="invalid_file")
    return upload


def _life(body: JsonObject, now: float) -> int | None:
    given = fields.obj(body, "expires_after")
    if given is None:
        return None
    fields.one_of(given, "anchor", ("created_at",))
    seconds = str(given.get("seconds", ""))
    if not seconds.isascii() or not seconds.isdigit() or not LEAST_LIFE_S <= int(seconds) <= MOST_LIFE_S:
        raise invalid(
            f"Invalid 'expires_after.seconds': expected a number from {LEAST_LIFE_S} to {MOST_LIFE_S}.",
            param="expires_after",
        )
    return int(now) + int(seconds)


def _create(api: Api, call: Call) -> Reply:
    fields.only(call.body, frozenset({"file", "purpose", "expires_after"}))
    upload = given_upload(call.body)
    fields.required_text(call.body, "purpose")
    purpose = fields.one_of(call.body, "purpose", PURPOSES)
    if purpose in ("batch", "fine-tune") and not upload.name.endswith(".jsonl"):
        raise invalid(
            f"Invalid file format for {purpose}: expected a file named *.jsonl, but got '{upload.name}'.",
            param="file",
            code="invalid_file_format",
        )
    expires_at = _life(call.body, api.now())
    blob = api.files.blobs.take(upload.draft)
    file = api.files.add(new_file_id(), upload.name, blob, purpose=purpose or "", expires_at=expires_at)
    return Reply(body=file_wire(file))


def _list(api: Api, call: Call) -> Reply:
    files = api.files.all()
    purpose = call.query.get("purpose")
    if purpose is not None:
        files = [file for file in files if file["purpose"] == purpose]
    data, has_more = fields.cut_page(files, fields.page_query(call.query, most=10_000, default=10_000))
    return Reply(body=page([file_wire(file) for file in data], has_more=has_more))


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=file_wire(find_file(api, call.params["file_id"])))


def _content(api: Api, call: Call) -> Reply:
    file = find_file(api, call.params["file_id"])
    if file["purpose"] in NOT_FOR_DOWNLOAD:
        raise ApiError(400, f"Not allowed to download files of purpose: {file['purpose']}")
    return Reply(download=Download(api.files.blobs.path(file["blob"]), file["filename"]))


def _delete(api: Api, call: Call) -> Reply:
    file_id = find_file(api, call.params["file_id"])["id"]
    api.files.remove(file_id)

    async def gone() -> JsonObject:
        await api.stores.settled()
        return {"id": file_id, "object": "file", "deleted": True}

    return Reply(later=gone)


ROUTES = (
    Route("POST", "/files", _create),
    Route("GET", "/files", _list),
    Route("GET", "/files/{file_id}", _retrieve),
    Route("GET", "/files/{file_id}/content", _content),
    Route("DELETE", "/files/{file_id}", _delete),
)
