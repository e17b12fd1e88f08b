"""The folder that keeps contents: what is sent along with questions, and what runs have made.

    sent/ab/ab12…         what is sent along with questions: each content once, under its SHA-256
    made/cd/cd34…         what runs have made, likewise
    <batch>/<row>/<name>  what a run has made, under its own name: a hard link to the content
    .identity             what tells this folder from others

A file appears whole or not at all: it is written without a name (or, where the system cannot, under `partial/`),
brought to the disk, and only then named. Folders may be shared by machines; nobody else writes into them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from askq.files.model import FileRef
from askq.files.names import numbered, safe_folder, safe_name

_CHUNK = 1 << 20
_SENT, _MADE = "sent", "made"
_IDENTITY = ".identity"
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
_FORGOTTEN_S = 3600.0
"""No file takes so long to be written: one that is older was left by a process that died."""


class FileChanged(OSError):
    """A file that was written to while it was copied."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A content that a run has made, in the folder."""

    sha256: str
    size: int


class Incoming:
    """A file while it is written. Nothing of it stays unless `keep` was called."""

    def __init__(self, folder: Folder, part: str) -> None:
        self._folder = folder
        self._part = part
        self._file, self._partial = folder._nameless()
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add data. Raises OSError."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def keep(self) -> Kept:
        """Bring it to the disk and give it its place. Raises OSError."""
        kept = Kept(self._hash.hexdigest(), self.size)
        place = self._folder._place(self._part, kept.sha256)
        _make(place.parent)
        try:
            self.keep_as(place)
        except FileExistsError:
            # The same content: whoever looks for what nobody needs any more sees that it is.
            os.utime(place)
            _sync(place.parent)
        return kept

    def keep_as(self, place: Path) -> None:
        """Bring it to the disk and give it this name. Raises OSError; FileExistsError where the system can tell."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._partial is None:
            # Only with a folder's descriptor does Python ask the kernel to follow the link.
            os.link(f"/proc/self/fd/{self._file.fileno()}", place, src_dir_fd=self._file.fileno())
        else:
            try:
                os.link(self._partial, place)
            except FileExistsError:
                raise
            except OSError:
                # No links there, either.
                self._partial.replace(place)
        _sync(place.parent)

    def close(self) -> None:
        self._file.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)


class Folder:
    """One folder of files. It is made when something is first kept in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._identity: str | None = None

    def identity(self) -> str:
        """What tells this folder from every other, wherever it is mounted; it is noted in it. Raises OSError."""
        path = self.root / _IDENTITY
        if not path.exists():
            self._name_itself(path)
        self._identity = path.read_text("ascii")
        return self._identity

    def place(self) -> str:
        """Where it is, for people."""
        return f"{socket.gethostname()}:{self.root.resolve()}"

    def _name_itself(self, path: Path) -> None:
        with self.incoming() as file, contextlib.suppress(FileExistsError):
            # A folder that somebody has emptied is the same to those who know it.
            file.write((self._identity or uuid.uuid4().hex).encode("ascii"))
            # Whoever comes second takes what the first has written.
            file.keep_as(path)

    def path(self, sha256: str) -> Path:
        """Where a content to be sent is, or would be."""
        return self._place(_SENT, sha256)

    def has(self, sha256: str) -> bool:
        """Whether a content to be sent is there."""
        return self.path(sha256).is_file()

    def used(self, sha256: str) -> None:
        """Note that a content to be sent is needed now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))

    def _place(self, part: str, sha256: str) -> Path:
        return self.root / part / sha256[:2] / sha256

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new file to write to, for what a run has made. Raises OSError."""
        file = Incoming(self, _MADE)
        try:
            yield file
        finally:
            file.close()

    def keep(self, source: Path) -> FileRef:
        """Copy a file into the folder, under its content. Raises OSError; FileChanged when it is being written to."""
        with source.open("rb") as stream, contextlib.closing(Incoming(self, _SENT)) as copy:
            before = os.fstat(stream.fileno())
            while data := stream.read(_CHUNK):
                copy.write(data)
            after = os.fstat(stream.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or copy.size != after.st_size:
                raise FileChanged(errno.EBUSY, "it changed while it was read", str(source))
            kept = copy.keep()
        return FileRef(name=source.name, sha256=kept.sha256, size=kept.size)

    def name(self, kept: Kept, wanted: str, *, batch: str, row: str) -> str:
        """Give a content a name among the files of a job; its path, relative to the folder, with `/`.

        The same content under the same wish gets the same name, however often it is asked. Raises OSError.
        """
        place = self.job(batch, row)
        _make(place)
        base = safe_name(wanted)
        for number in range(1, 10_000):
            name = base if number == 1 else numbered(base, number)
            target = place / name
            try:
                self._link(self._place(_MADE, kept.sha256), target)
            except FileExistsError:
                if not _same(target, kept):
                    continue
            _sync(place)
            return target.relative_to(self.root).as_posix()
        raise OSError(errno.EEXIST, "there are too many files of this name", str(place / base))

    def job(self, batch: str, row: str) -> Path:
        """Where the files of a job are."""
        return self.root / safe_folder(batch) / safe_folder(row)

    def forget(self, batch: str, row: str | None = None) -> int:
        """Delete what the runs of a batch, or of one job, have made; how many files. Raises OSError.

        A content that nothing else is called by goes with its last name.
        """
        place = self.root / safe_folder(batch) if row is None else self.job(batch, row)
        deleted = 0
        for path in sorted(place.rglob("*")) if place.is_dir() else []:
            if path.is_file() and not path.is_symlink():
                content = self._place(_MADE, _sha256(path))
                path.unlink()
                deleted += 1
                with contextlib.suppress(FileNotFoundError):
                    if content.stat().st_nlink == 1:
                        content.unlink()
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # the batch's, after its last job
        return deleted

    def batches(self) -> list[str]:
        """The batches of which something was kept, by the names of their folders."""
        try:
            return sorted(entry.name for entry in self.root.iterdir() if entry.name.startswith("b_"))
        except OSError:
            return []

    def drop(self, sha256: str) -> bool:
        """Delete a content that was sent along; whether it was there. Raises OSError."""
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def sweep(self, *, keep_s: float) -> int:
        """Delete what writers that died have left, and contents that nobody has used or named for `keep_s` seconds;
        how many."""
        now, deleted = time.time(), 0
        places = {"partial": now - _FORGOTTEN_S, _SENT: now - keep_s, _MADE: now - keep_s}
        for folder, oldest in ((self.root / name, oldest) for name, oldest in places.items()):
            for path in folder.rglob("*") if folder.is_dir() else ():
                with contextlib.suppress(OSError):
                    found = path.stat()
                    if path.is_file() and found.st_nlink == 1 and found.st_mtime < oldest:
                        path.unlink()
                        deleted += 1
        return deleted

    def partial(self) -> list[Path]:
        """Files that are being written, or were left by a process that died."""
        folder = self.root / "partial"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _nameless(self) -> tuple[BinaryIO, Path | None]:
        folder = self.root / "partial"
        _make(folder)
        flag = getattr(os, "O_TMPFILE", None)
        if flag is not None and Path("/proc/self/fd").is_dir():
            try:
                return os.fdopen(os.open(folder, flag | os.O_RDWR, 0o600), "w+b"), None
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
        path = folder / uuid.uuid4().hex
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b"), path

    def _link(self, content: Path, target: Path) -> None:
        try:
            os.link(content, target)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS):
                raise
            # No hard links here: a copy does as well, and costs its size.
            if target.exists():
                raise FileExistsError(errno.EEXIST, "it exists", str(target)) from error
            partial = self.root / "partial" / uuid.uuid4().hex
            try:
                shutil.copyfile(content, partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)


def hashed(source: Path) -> FileRef:
    """A file by its content, copied nowhere. Raises OSError."""
    return FileRef(name=source.name, sha256=_sha256(source), size=source.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _same(path: Path, kept: Kept) -> bool:
    try:
        found = path.lstat()
        return found.st_size == kept.size and path.is_file() and not path.is_symlink() and _sha256(path) == kept.sha256
    except OSError:
        return False


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _sync(folder: Path) -> None:
    """What was named in a folder stays named through a power cut, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
