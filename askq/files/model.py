"""Files and stores as records hold them: names and hashes, never contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from askq.files.kinds import IMAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file by its content, and what it is called."""

    name: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(name=value["name"], sha256=value["sha256"], size=value["size"])

    @property
    def identity(self) -> str:
        """The same for the same content under the same name: code opens files by their names, and citations tell
        them, so a copy under another name is another file."""
        return hashlib.sha256(f"{self.sha256}|{self.name}".encode(errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What goes with one question: a file, or the address of an image."""

    tool: str
    """`code_interpreter`, `file_search` or `image`."""
    file: FileRef | None = None
    url: str | None = None
    """Of an image that the service fetches itself."""

    def to_json(self) -> dict[str, Any]:
        if self.file is None:
            return {"tool": self.tool, "url": self.url}
        return {"tool": self.tool, **self.file.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        if "url" in value:
            return cls(tool=value["tool"], url=value["url"])
        return cls(tool=value["tool"], file=FileRef.from_json(value))

    @property
    def is_image(self) -> bool:
        return self.tool == IMAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRef:
    """A vector store: by the name it was made under (`askq stores create`), or by the files in it."""

    name: str | None = None
    files: tuple[FileRef, ...] | None = None
    """None: whatever is in the store of this name."""

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if self.name is not None:
            value["name"] = self.name
        if self.files is not None:
            value["files"] = [file.to_json() for file in self.files]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        files = value.get("files")
        return cls(
            name=value.get("name"),
            files=None if files is None else tuple(FileRef.from_json(file) for file in files),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an assistant, or each of its threads, may read: local files and stores beside ids that exist already."""

    code: tuple[FileRef, ...] = ()
    """Files for code interpreter."""
    store: StoreRef | None = None
    """The store for file search."""
    file_ids: tuple[str, ...] = ()
    vector_store_ids: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if self.code:
            value["code"] = [file.to_json() for file in self.code]
        if self.store is not None:
            value["store"] = self.store.to_json()
        if self.file_ids:
            value["file_ids"] = list(self.file_ids)
        if self.vector_store_ids:
            value["vector_store_ids"] = list(self.vector_store_ids)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            code=tuple(FileRef.from_json(file) for file in value.get("code", ())),
            store=StoreRef.from_json(value["store"]) if "store" in value else None,
            file_ids=tuple(value.get("file_ids", ())),
            vector_store_ids=tuple(value.get("vector_store_ids", ())),
        )


def content_digest(files: Sequence[FileRef]) -> str:
    """The same for the same files, in whatever order."""
    parts = sorted({file.identity for file in files})
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
