"""Containers and their files."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Download, Reply, Route
from askq.localapi.errors import invalid, not_found
from askq.localapi.files.containers import IDLE_MINUTES, container_wire, no_such_container
from askq.localapi.files.filing import file_wire
from askq.localapi.files.forms import Upload
from askq.localapi.routes.files import find_file, given_upload
from askq.localapi.wire import JsonObject, new_id, page

MEMORY_LIMITS = ("1g", "4g", "16g", "64g")
FILES = 1000


def copy_files(api: Api, container_id: str, file_ids: list[str]) -> None:
    """Put copies of uploaded files into a container; raises ApiError when one does not exist."""
    for file in [find_file(api, file_id) for file_id in file_ids]:
        blob = api.files.share(file)
        api.containers.add_file(container_id, new_id("cfile"), file["filename"], blob, source="user")


def _create(api: Api, call: Call) -> Reply:
    body = call.body
    fields.only(body, frozenset({"name", "file_ids", "expires_after", "memory_limit", "network_policy", "skills"}))
    name = fields.required_text(body, "name")
    file_ids = fields.strings(body, "file_ids")
    fields.check_count(file_ids, "file_ids", FILES)
    expiry = fields.obj(body, "expires_after") or {}
    minutes = fields.whole(expiry, "minutes", least=1) or IDLE_MINUTES
    if minutes > IDLE_MINUTES:
        raise invalid(
            f"Invalid 'expires_after.minutes': expected a value <= {IDLE_MINUTES}, but got {minutes} instead.",
            param="expires_after.minutes",
            code="integer_above_max_value",
        )
    for file_id in file_ids:
        find_file(api, file_id)
    container = api.containers.add(
        new_id("cntr"),
        name=name,
        expires_after={"anchor": "last_active_at", "minutes": minutes},
        memory_limit=fields.one_of(body, "memory_limit", MEMORY_LIMITS) or "1g",
    )
    copy_files(api, container["id"], file_ids)
    return Reply(body=container_wire(container))


def _container(api: Api, call: Call) -> JsonObject:
    """The container, to be worked with; raises ApiError."""
    return api.containers.use(call.params["container_id"])


def _list(api: Api, call: Call) -> Reply:
    containers = api.containers.all()
    if call.query.get("name") is not None:
        containers = [container for container in containers if container["name"] == call.query["name"]]
    data, has_more = fields.cut_page(containers, fields.page_query(call.query))
    return Reply(body=page([container_wire(container) for container in data], has_more=has_more))


def _retrieve(api: Api, call: Call) -> Reply:
    container = api.containers.look(call.params["container_id"])
    if container is None:
        raise no_such_container(call.params["container_id"])
    if container["status"] == "running":
        api.containers.use(container["id"])
    return Reply(body=container_wire(container))


def _delete(api: Api, call: Call) -> Reply:
    container_id = call.params["container_id"]
    if api.containers.look(container_id) is None:
        raise no_such_container(container_id)
    api.containers.remove(container_id)
    return Reply(body={"id": container_id, "object": "container.deleted", "deleted": True})


def _create_file(api: Api, call: Call) -> Reply:
    container_id = _container(api, call)["id"]
    fields.only(call.body, frozenset({"file", "file_id"}))
    if isinstance(call.body.get("file"), Upload):
        upload = given_upload(call.body)
        blob, name = api.files.blobs.take(upload.draft), upload.name
    else:
        file = find_file(api, fields.required_text(call.body, "file_id"))
        blob, name = api.files.share(file), file["filename"]
    made = api.containers.add_file(container_id, new_id("cfile"), name, blob, source="user")
    return Reply(body=file_wire(made))


def _file(api: Api, call: Call) -> JsonObject:
    container_id, file_id = _container(api, call)["id"], call.params["file_id"]
    file = api.containers.file(container_id, file_id)
    if file is None:
        raise not_found(f"Container file with id '{file_id}' not found.")
    return file


def _list_files(api: Api, call: Call) -> Reply:
    files = api.containers.files(_container(api, call)["id"])
    data, has_more = fields.cut_page(files, fields.page_query(call.query))
    return Reply(body=page([file_wire(file) for file in data], has_more=has_more))


def _retrieve_file(api: Api, call: Call) -> Reply:
    return Reply(body=file_wire(_file(api, call)))


def _content(api: Api, call: Call) -> Reply:
    file = _file(api, call)
    return Reply(download=Download(api.files.blobs.path(file["blob"]), file["path"].rpartition("/")[2]))


def _delete_file(api: Api, call: Call) -> Reply:
    file_id = _file(api, call)["id"]
    api.containers.remove_file(file_id)
    return Reply(body={"id": file_id, "object": "container.file.deleted", "deleted": True})


ROUTES = (
    Route("POST", "/containers", _create),
    Route("GET", "/containers", _list),
    Route("GET", "/containers/{container_id}", _retrieve),
    Route("DELETE", "/containers/{container_id}", _delete),
    Route("POST", "/containers/{container_id}/files", _create_file),
    Route("GET", "/containers/{container_id}/files", _list_files),
    Route("GET", "/containers/{container_id}/files/{file_id}", _retrieve_file),
    Route("GET", "/containers/{container_id}/files/{file_id}/content", _content),
    Route("DELETE", "/containers/{container_id}/files/{file_id}", _delete_file),
)
