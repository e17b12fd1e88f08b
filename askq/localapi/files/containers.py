"""Containers and their files: the folders that code of responses works in. They expire when nobody uses them."""

from __future__ import annotations

from collections.abc import Callable

from askq.localapi.errors import ApiError, invalid, not_found
from askq.localapi.files.blobs import Blob, Blobs
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject

IDLE_MINUTES = 20
FOLDER = "/mnt/data"


class Containers:
    """The containers there are. An expired one is still known, but its files are gone."""

    def __init__(self, store: Store, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock

    def add(self, container_id: str, **settings: object) -> JsonObject:
        """A new container, or the one that has this id already."""
        known = self._store.get("container", container_id)
        if known is not None:
            return known
        now = int(self._clock())
        body: JsonObject = {
            "id": container_id,
            "object": "container",
            "created_at": now,
            "status": "running",
            "expires_after": {"anchor": "last_active_at", "minutes": IDLE_MINUTES},
            "last_active_at": now,
            "memory_limit": "1g",
            "name": container_id,
            **settings,
        }
        self._store.add("container", body)
        return body

    def look(self, container_id: str) -> JsonObject | None:
        """The container as of now."""
        body = self._store.get("container", container_id)
        if body is not None and body["status"] == "running":
            ends = body.get("gone_at")
            if ends is None:
                ends = body["last_active_at"] + 60 * body["expires_after"]["minutes"]
            if ends <= self._clock():
                self.expire(container_id)
        return body

    def use(self, container_id: str) -> JsonObject:
        """The container, whose idle time begins anew; raises ApiError when it is gone."""
        body = self.look(container_id)
        if body is None:
            raise no_such_container(container_id)
        if body["status"] == "expired":
            raise not_found(f"Container with id '{container_id}' has expired.")
        now = int(self._clock())
        return body if body["last_active_at"] == now else self._store.change(container_id, last_active_at=now)

    def expire(self, container_id: str, *, after: float | None = None) -> None:
        """Let a container expire, now or `after` seconds whatever is done with it."""
        if after is not None and after > 0:
            self._store.change(container_id, gone_at=self._clock() + after)
            return
        for file in self._store.below("container_file", container_id):
            self.remove_file(file["id"])
        self._store.change(container_id, status="expired")

    def remove(self, container_id: str) -> None:
        """Delete a container that exists, with its files."""
        for file in self._store.below("container_file", container_id):
            self.remove_file(file["id"])
        self._store.remove(container_id)

    def all(self) -> list[JsonObject]:
        """Every container, oldest first."""
        self.sweep()
        return self._store.below("container")

    def sweep(self) -> None:
        """Expire what nobody has used."""
        for body in self._store.below("container"):
            self.look(body["id"])

    def add_file(self, container_id: str, file_id: str, name: str, blob: Blob, *, source: str) -> JsonObject:
        """Put a file into a container, in the place of one of the same name; the reference becomes the file's."""
        path = f"{FOLDER}/{name}"
        for other in self.files(container_id):
            if other["path"] == path or other["id"] == file_id:
                self.remove_file(other["id"])
        body: JsonObject = {
            "id": file_id,
            "object": "container.file",
            "container_id": container_id,
            "created_at": int(self._clock()),
            "bytes": blob.size,
            "path": path,
            "source": source,
            "blob": blob.digest,
        }
        self._store.add("container_file", body, parent=container_id)
        return body

    def files(self, container_id: str) -> list[JsonObject]:
        """The files of a container, oldest first."""
        return self._store.below("container_file", container_id)

    def file(self, container_id: str, file_id: str) -> JsonObject | None:
        """A file of a container."""
        return self._store.get("container_file", file_id, parent=container_id)

    def remove_file(self, file_id: str) -> None:
        """Delete a container's file that exists, with its bytes."""
        body = self._store.get("container_file", file_id)
        if body is not None:
            self._store.remove(file_id)
            self._blobs.let_go(body["blob"])


def container_wire(body: JsonObject) -> JsonObject:
    """A container as it is given out."""
    return {name: value for name, value in body.items() if name != "gone_at"}


def no_such_container(container_id: str) -> ApiError:
    """404."""
    return not_found(f"Container with id '{container_id}' not found.")


def container_gone() -> ApiError:
    """400: a response cannot work in a container that has expired."""
    return invalid("Container is expired.")
