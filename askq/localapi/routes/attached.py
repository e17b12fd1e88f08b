"""Files and stores that assistants, threads, messages and responses name: checked, and put where they belong."""

from __future__ import annotations

import base64
import binascii
import re

from askq.localapi import fields
from askq.localapi.api import Api
from askq.localapi.errors import ApiError, invalid, not_found
from askq.localapi.files.containers import container_gone
from askq.localapi.files.filters import checked_filter
from askq.localapi.routes.vector_stores import check_files, create_store
from askq.localapi.wire import JsonObject

CODE_FILES = 20
CONTAINER_FILES = 50
STORES = 1
SEARCHED_STORES = 2
THREAD_STORE_DAYS = 7
"""A store that an attachment makes expires after so many days without use."""

_WEB = re.compile(r"https?://[^\s]+", re.IGNORECASE)
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,(.+)", re.DOTALL)
_DETAILS = ("auto", "low", "high", "original")


def _files(api: Api, file_ids: list[str], param: str) -> None:
    """Refuse a request that names files which do not exist: a missing part of it, not a missing address."""
    try:
        check_files(api, file_ids, param)
    except ApiError as exc:
        raise invalid(exc.message, param=param, code=exc.code) from exc


# Assistants and threads


def checked_resources(api: Api, body: JsonObject) -> JsonObject:
    """`tool_resources`, not yet carried out (`made_resources` does that); raises ApiError."""
    given = fields.obj(body, "tool_resources") or {}
    fields.only(given, frozenset({"code_interpreter", "file_search"}))
    code = fields.obj(given, "code_interpreter") or {}
    file_ids = fields.strings(code, "file_ids")
    fields.check_count(file_ids, "tool_resources.code_interpreter.file_ids", CODE_FILES)
    _files(api, file_ids, "tool_resources.code_interpreter.file_ids")
    search = fields.obj(given, "file_search") or {}
    store_ids = fields.strings(search, "vector_store_ids")
    fields.check_count(store_ids, "tool_resources.file_search.vector_store_ids", STORES)
    for store_id in store_ids:
        api.stores.find(store_id)
    helpers = fields.objects(search, "vector_stores", most=STORES)
    if helpers and store_ids:
        raise invalid(
            "You can only provide one of 'vector_store_ids' and 'vector_stores'.",
            param="tool_resources.file_search",
        )
    for helper in helpers:
        fields.only(helper, frozenset({"file_ids", "chunking_strategy", "metadata"}))
        _files(api, fields.strings(helper, "file_ids"), "tool_resources.file_search.vector_stores.file_ids")
    return given


def made_resources(api: Api, given: JsonObject) -> JsonObject:
    """Resources as they are stored: stores that were asked for are made."""
    made = dict(given)
    search = dict(given.get("file_search") or {})
    helpers = search.pop("vector_stores", None)
    if helpers:
        search["vector_store_ids"] = [create_store(api, dict(helper))["id"] for helper in helpers]
    if search:
        made["file_search"] = search
    return made


def checked_attachments(api: Api, body: JsonObject, *, most: int) -> list[JsonObject]:
    """The `attachments` of a message; raises ApiError."""
    attachments = fields.objects(body, "attachments", most=most)
    for index, attachment in enumerate(attachments):
        fields.only(attachment, frozenset({"file_id", "tools"}))
        file_id = fields.text(attachment, "file_id")
        if file_id is not None:
            _files(api, [file_id], f"attachments[{index}].file_id")
        for tool in fields.objects(attachment, "tools", most=2):
            fields.required_text(tool, "type")
            fields.one_of(tool, "type", ("code_interpreter", "file_search"))
    return attachments


def attach(api: Api, thread_id: str, attachments: list[JsonObject]) -> None:
    """Put the files of a message where the thread's runs find them."""
    thread = api.store.get("thread", thread_id)
    for attachment in attachments if thread is not None else []:
        file = api.files.get(attachment.get("file_id") or "")
        if file is None:
            continue
        kinds = {tool["type"] for tool in attachment.get("tools") or []}
        resources = {**(api.store.get("thread", thread_id) or {}).get("tool_resources", {})}
        if "code_interpreter" in kinds:
            known = (resources.get("code_interpreter") or {}).get("file_ids") or []
            if file["id"] not in known:
                resources["code_interpreter"] = {"file_ids": [*known, file["id"]]}
        if "file_search" in kinds:
            store_ids = (resources.get("file_search") or {}).get("vector_store_ids") or []
            if not store_ids:
                expiry = {"anchor": "last_active_at", "days": THREAD_STORE_DAYS}
                store_ids = [api.stores.add(expires_after=expiry)["id"]]
                resources["file_search"] = {"vector_store_ids": store_ids}
            if api.stores.look(store_ids[0]) is not None and api.stores.file(store_ids[0], file["id"]) is None:
                api.stores.add_file(store_ids[0], file)
        api.store.change(thread_id, tool_resources=resources)


def checked_picture(api: Api, part: JsonObject, kind: str, where: str) -> JsonObject:
    """An `image_file` or `image_url` part of a message; raises ApiError."""
    picture = fields.obj(part, kind) or {}
    detail = fields.one_of(picture, "detail", _DETAILS) or "auto"
    if kind == "image_file":
        file_id = fields.required_text(picture, "file_id")
        _files(api, [file_id], f"{where}.image_file.file_id")
        return {"type": kind, kind: {"file_id": file_id, "detail": detail}}
    url = fields.required_text(picture, "url", most=8192)
    if _WEB.fullmatch(url) is None:
        raise _no_url(f"{where}.image_url.url")
    return {"type": kind, kind: {"url": url, "detail": detail}}


def _no_url(param: str) -> ApiError:
    return invalid(
        f"Invalid '{param}'. Expected a valid URL, but got a value with an invalid format.",
        param=param,
        code="invalid_value",
    )


# Responses


def check_parts(api: Api, items: list[JsonObject]) -> None:
    """Pictures and files in the messages of an input; raises ApiError."""
    for number, item in enumerate(items):
        content = item.get("content")
        if item["type"] != "message" or not isinstance(content, list):
            continue
        for place, part in enumerate(content):
            where = f"input[{number}].content[{place}]"
            if part["type"] == "input_image":
                _check_image(api, part, where)
            elif part["type"] == "input_file":
                _check_file(api, part, where)


def _check_image(api: Api, part: JsonObject, where: str) -> None:
    fields.one_of(part, "detail", _DETAILS)
    file_id, url = fields.text(part, "file_id"), fields.text(part, "image_url", most=64 * 1024 * 1024)
    if (file_id is None) == (url is None):
        raise invalid(f"Exactly one of 'image_url' and 'file_id' must be given in '{where}'.", param=where)
    if file_id is not None:
        _files(api, [file_id], f"{where}.file_id")
    elif url is not None and _WEB.fullmatch(url) is None:
        media, content = _decoded(url, f"{where}.image_url")
        if not media.startswith("image/"):
            raise invalid(
                f"Invalid '{where}.image_url': unsupported media type '{media}'.",
                param=f"{where}.image_url",
                code="unsupported_image_media_type",
            )
        if not content:
            raise invalid(f"Invalid '{where}.image_url': it is empty.", param=f"{where}.image_url")


def _check_file(api: Api, part: JsonObject, where: str) -> None:
    given = [name for name in ("file_id", "file_data", "file_url") if part.get(name) is not None]
    if len(given) != 1:
        raise invalid(f"Exactly one of 'file_id', 'file_data' and 'file_url' must be given in '{where}'.", param=where)
    if given == ["file_id"]:
        _files(api, [fields.required_text(part, "file_id")], f"{where}.file_id")
    elif given == ["file_data"]:
        fields.required_text(part, "filename")
        _decoded(fields.required_text(part, "file_data", most=64 * 1024 * 1024), f"{where}.file_data")
    else:
        raise invalid(
            "The local API fetches nothing from the web. Upload the file, or send it as 'file_data'.",
            param=f"{where}.file_url",
            code="unsupported_parameter",
        )


def _decoded(url: str, param: str) -> tuple[str, bytes]:
    found = _DATA.fullmatch(url)
    if found is None:
        raise _no_url(param)
    try:
        return found[1] or "text/plain", base64.b64decode(found[2], validate=True)
    except (ValueError, binascii.Error) as exc:
        raise invalid(f"Invalid '{param}': no valid base64.", param=param, code="invalid_base64") from exc


def check_tool_files(api: Api, tools: list[JsonObject]) -> str | None:
    """Containers and stores that the tools of a response name; the named container, if any; raises ApiError."""
    named = None
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if tool.get("type") == "code_interpreter":
            named = _check_container(api, tool, where)
        elif tool.get("type") == "file_search":
            store_ids = fields.strings(tool, "vector_store_ids")
            if not store_ids:
                raise invalid(
                    f"Missing required parameter: '{where}.vector_store_ids'.",
                    param=f"{where}.vector_store_ids",
                    code="missing_required_parameter",
                )
            fields.check_count(store_ids, f"{where}.vector_store_ids", SEARCHED_STORES)
            for store_id in store_ids:
                if api.stores.find(store_id)["status"] == "expired":
                    raise invalid(f"Vector store with id '{store_id}' is expired.", param=f"{where}.vector_store_ids")
            checked_filter(fields.obj(tool, "filters"))
    return named


def last_container(api: Api, items: list[JsonObject]) -> str | None:
    """The container that code has used before in this conversation, if it is still there: work goes on in it."""
    for item in reversed(items):
        if item["type"] == "code_interpreter_call":
            found = api.containers.look(item["container_id"])
            return found["id"] if found is not None and found["status"] == "running" else None
    return None


def _check_container(api: Api, tool: JsonObject, where: str) -> str | None:
    container = tool.get("container")
    if isinstance(container, str):
        found = api.containers.look(container)
        if found is None:
            raise not_found(f"Container with id '{container}' not found.")
        if found["status"] == "expired":
            raise container_gone()
        return container
    if not isinstance(container, dict):
        raise invalid(
            f"Missing required parameter: '{where}.container'.",
            param=f"{where}.container",
            code="missing_required_parameter",
        )
    fields.required_text(container, "type")
    fields.one_of(container, "type", ("auto",))
    file_ids = fields.strings(container, "file_ids")
    fields.check_count(file_ids, f"{where}.container.file_ids", CONTAINER_FILES)
    _files(api, file_ids, f"{where}.container.file_ids")
    return None
