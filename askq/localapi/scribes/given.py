"""What a request brings with it: files to work on, stores to search, pictures and files in messages."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from askq.localapi.engines.base import GivenFile
from askq.localapi.files.containers import Containers
from askq.localapi.files.filing import Files
from askq.localapi.files.stores import Stores
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject
from askq.localapi.work import Work


class Belongings:
    """Finds them; what was deleted meanwhile is left out."""

    def __init__(self, store: Store, files: Files, containers: Containers, stores: Stores) -> None:
        self._store = store
        self._files = files
        self._containers = containers
        self._stores = stores

    def of_run(self, work: Work, messages: list[JsonObject]) -> dict[str, Any]:
        """The fields of a run's request: the assistant's resources and the thread's, and what was made before."""
        tools = {tool.get("type") for tool in work.body["tools"]}
        resources = [
            owner["tool_resources"]
            for owner in (
                self._store.get("assistant", work.body["assistant_id"]),
                self._store.get("thread", work.scope or ""),
            )
            if owner is not None
        ]
        pictured = [part["image_file"]["file_id"] for part in _parts(messages) if part["type"] == "image_file"]
        files: list[GivenFile] = list(self._given(pictured, "input"))
        if "code_interpreter" in tools:
            wanted = [
                file_id
                for resource in resources
                for file_id in (resource.get("code_interpreter") or {}).get("file_ids") or []
            ]
            made = [
                attachment["file_id"]
                for message in messages
                if message["role"] == "assistant"
                for attachment in message["attachments"]
            ]
            files += self._given([file_id for file_id in wanted if file_id not in made], "code")
            files += (dataclasses.replace(given, made=True) for given in self._given(made, "code"))
        stores: list[str] = []
        if "file_search" in tools:
            stores = [
                store_id
                for resource in resources
                for store_id in (resource.get("file_search") or {}).get("vector_store_ids") or []
            ]
            files += self._searchable(stores)
        return {"files": tuple(files), "stores": tuple(stores), "flaw": self._flaw(stores)}

    def of_response(self, work: Work, items: Iterable[JsonObject]) -> dict[str, Any]:
        """The fields of a response's request: what its tools name, and the files in its messages."""
        inputs = list(self._inputs(items))
        files: list[GivenFile] = list(inputs)
        stores: list[str] = []
        for tool in work.body["tools"]:
            if tool.get("type") == "code_interpreter":
                container = tool.get("container")
                wanted = container.get("file_ids") or [] if isinstance(container, dict) else []
                files += self._given(wanted, "code")
                # OpenAI puts the files of messages into the container too.
                files += [_as_code(given) for given in inputs]
                if work.container is not None:
                    files += self._contained(work.container)
            elif tool.get("type") == "file_search":
                stores += tool["vector_store_ids"]
        files += self._searchable(stores)
        return {"files": tuple(files), "stores": tuple(stores), "flaw": self._flaw(stores)}

    def _flaw(self, stores: Iterable[str]) -> str:
        for store_id in stores:
            store = self._stores.look(store_id)
            if store is None:
                return f"Vector store with id '{store_id}' not found."
            if store["status"] == "expired":
                return f"Vector store with id '{store_id}' is expired."
        return ""

    def _given(self, file_ids: Iterable[str], use: Literal["code", "search", "input"]) -> Iterator[GivenFile]:
        for file_id in dict.fromkeys(file_ids):
            file = self._files.get(file_id)
            if file is not None:
                path = self._files.blobs.path(file["blob"])
                yield GivenFile(file_id=file_id, name=file["filename"], size=file["bytes"], path=path, use=use)

    def _searchable(self, stores: Iterable[str]) -> Iterator[GivenFile]:
        for store_id in dict.fromkeys(stores):
            yield from self._given((body["file_id"] for body in self._stores.files(store_id)), "search")

    def _contained(self, container_id: str) -> Iterator[GivenFile]:
        for file in self._containers.files(container_id):
            path = self._files.blobs.path(file["blob"])
            name = file["path"].rpartition("/")[2]
            made = file["source"] == "assistant"
            yield GivenFile(file_id=file["id"], name=name, size=file["bytes"], path=path, use="code", made=made)

    def _inputs(self, items: Iterable[JsonObject]) -> Iterator[GivenFile]:
        for item in items:
            for place, part in enumerate(_parts([item])):
                if part.get("type") == "input_image":
                    yield from self._given([part.get("file_id") or ""], "input")
                if part.get("type") != "input_file":
                    continue
                if part.get("file_data") is not None:
                    data = base64.b64decode(part["file_data"].partition("base64,")[2])
                    name, own_id = part["filename"], f"{item['id']}/{place}"
                    yield GivenFile(file_id=own_id, name=name, size=len(data), content=data, use="input")
                else:
                    yield from self._given([part.get("file_id") or ""], "input")


def _parts(messages: Iterable[JsonObject]) -> Iterator[JsonObject]:
    for message in messages:
        content = message.get("content")
        yield from content if isinstance(content, list) else []


def _as_code(given: GivenFile) -> GivenFile:
    return GivenFile(
        file_id=given.file_id, name=given.name, size=given.size, path=given.path, content=given.content, use="code"
    )
