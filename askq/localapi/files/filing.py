"""File objects: what `/v1/files` shows. Their bytes are blobs."""

from __future__ import annotations

from collections.abc import Callable

from askq.localapi.errors import ApiError, not_found
from askq.localapi.files.blobs import Blob, Blobs
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject

SECRET = ("blob",)
"""Fields of stored objects that are not given out."""


def file_wire(body: JsonObject) -> JsonObject:
    """A file (of `/v1/files` or of a container) as it is given out."""
    return {name: value for name, value in body.items() if name not in SECRET}


class Files:
    """The files there are. Expired ones vanish when they are looked for, and with `sweep`."""

    def __init__(self, store: Store, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self.blobs = blobs
        self.on_remove: list[Callable[[str], None]] = []
        """Called with the id of a file that goes."""

    def add(self, file_id: str, name: str, blob: Blob, *, purpose: str, expires_at: int | None = None) -> JsonObject:
        """A new file; the caller's reference to the blob becomes the file's."""
        known = self._store.get("file", file_id)
        if known is not None:  # a run that is settled again after a crash makes the same files
            self.blobs.let_go(known["blob"])
        body: JsonObject = {
            "id": file_id,
            "object": "file",
            "bytes": blob.size,
            "created_at": int(self._clock()),
            "expires_at": expires_at,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
            "blob": blob.digest,
        }
        self._store.add("file", body)
        return body

    def get(self, file_id: str) -> JsonObject | None:
        """The file, unless there is none or it has expired."""
        body = self._store.get("file", file_id)
        if body is not None and body["expires_at"] is not None and body["expires_at"] <= self._clock():
            self.remove(file_id)
            return None
        return body

    def all(self) -> list[JsonObject]:
        """Every file, oldest first."""
        self.sweep()
        return self._store.below("file")

    def share(self, body: JsonObject) -> Blob:
        """A file's bytes, with one reference more for the caller."""
        self.blobs.hold(body["blob"])
        return Blob(body["blob"], body["bytes"])

    def remove(self, file_id: str) -> None:
        """Delete a file that exists, with its bytes."""
        body = self._store.get("file", file_id)
        if body is not None:
            self._store.remove(file_id)
            self.blobs.let_go(body["blob"])
            for told in self.on_remove:
                told(file_id)

    def sweep(self) -> None:
        """Delete what has expired."""
        for body in self._store.below("file"):
            self.get(body["id"])


def no_such_file(file_id: str) -> ApiError:
    """404: what OpenAI answers where a file's own address is asked for."""
    error = not_found(f"No such File object: {file_id}")
    error.param = "id"
    return error
