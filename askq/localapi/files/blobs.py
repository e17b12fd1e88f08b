"""Bytes by their content: one file for each, beside the ledger, for as long as an object refers to it.

A blob is written under a draft's name and renamed when it is whole, so there are no halves of blobs. References are
counted in memory, from the objects that were loaded; the bytes go once the deletion of the last reference is durable.
What a crash leaves in between belongs to nobody, and `sweep` removes it at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from askq.localapi.errors import LocalApiError
from askq.localapi.storage import MEMORY, Storage

_TEMPORARY = re.compile(r"askq-localapi-(\d+)-")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes that are kept: SHA-256 in hexadecimal, and how many."""

    digest: str
    size: int


class Place:
    """The folder that files, search indexes and working folders are in: part of the data folder, or temporary."""

    def __init__(self, data: str) -> None:
        """Raises LocalApiError when the folder cannot be made."""
        self._temporary = data == MEMORY
        try:
            if self._temporary:
                _remove_orphans()
                self.root = Path(tempfile.mkdtemp(prefix=f"askq-localapi-{os.getpid()}-"))
            else:
                self.root = Path(data)
            self.blobs = self._made("blobs")
            self.stores = self._made("stores")
            self.work = self._made("work")
        except OSError as exc:
            raise LocalApiError(
                f"The data folder {data} cannot hold files: {exc.strerror}. Name another folder with --data."
            ) from exc

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def leave(self) -> None:
        """Remove what is temporary."""
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)


def _remove_orphans() -> None:
    """Remove the temporary folders of servers that were killed."""
    for path in Path(tempfile.gettempdir()).glob("askq-localapi-*"):
        owner = _TEMPORARY.match(path.name)
        try:
            if owner is None or path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            os.kill(int(owner[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # somebody else's, or somebody else has just removed it


class Draft:
    """Bytes on their way in: write them, then `seal`; give it to `Blobs.take`, or `discard` it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"draft-{secrets.token_hex(8)}"
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self._file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)

    def seal(self, *, durable: bool) -> None:
        """No more bytes come. `durable`: wait for the disk."""
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the draft, unless it was taken."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Blobs:
    """The blobs of one data folder."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self._folder = folder
        self._storage = storage
        self._references: Counter[str] = Counter()

    def path(self, digest: str) -> Path:
        """Where a blob's bytes are."""
        return self._folder / digest[:2] / digest

    def read(self, digest: str) -> bytes:
        """A blob's bytes."""
        return self.path(digest).read_bytes()

    def draft(self) -> Draft:
        """A place to write new bytes to."""
        return Draft(self._folder)

    def put(self, content: bytes) -> Blob:
        """Keep these bytes; one reference is the caller's."""
        digest = hashlib.sha256(content).hexdigest()
        if not self.path(digest).exists():
            draft = self.draft()
            draft.write(content)
            draft.seal(durable=False)
            return self.take(draft)
        self.hold(digest)
        return Blob(digest, len(content))

    def add(self, path: Path) -> Blob:
        """Keep a copy of a file; one reference is the caller's."""
        draft = self.draft()
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    draft.write(piece)
            draft.seal(durable=False)
            return self.take(draft)
        finally:
            draft.discard()

    def take(self, draft: Draft) -> Blob:
        """Keep a sealed draft; one reference is the caller's."""
        target = self.path(draft.digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        draft.path.replace(target)
        self.hold(draft.digest)
        return Blob(draft.digest, draft.size)

    def hold(self, digest: str) -> None:
        """One reference more."""
        self._references[digest] += 1

    def let_go(self, digest: str) -> None:
        """One reference less; with the last one go the bytes, once everything noted so far is durable."""
        self._references[digest] -= 1
        self._storage.after_commit(lambda: self._remove(digest))

    def _remove(self, digest: str) -> None:
        if self._references[digest] <= 0:
            del self._references[digest]
            path = self.path(digest)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()

    def sweep(self) -> None:
        """Remove drafts, and blobs nothing refers to. Only at start, when everything is loaded."""
        for path in self._folder.rglob("*"):
            if path.is_file() and self._references[path.name] <= 0:
                path.unlink()
        self._references = +self._references
