"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from askq.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well, and leaves it as it was otherwise.

    It is written beside it, forced to disk and renamed; a link keeps pointing to its file, and an existing file's
    permissions stay. A device or a pipe is written as it is. Raises OutputError.
    """
    target, mode = _target(path)
    if mode is not None and not stat.S_ISREG(mode):
        with _told(path), target.open("wb") as device:
            yield device
        return
    part = _part(target)
    with _told(path):
        descriptor = _create(part)
    try:
        with _told(path):
            with os.fdopen(descriptor, "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def check_place(path: Path) -> None:
    """Raise OutputError unless `path` can be written now; leaves nothing behind and an existing file alone."""
    target, mode = _target(path)
    if mode is not None and not stat.S_ISREG(mode):
        return
    part = _part(target)
    with _told(path):
        os.close(_create(part))
        part.unlink()


def _target(path: Path) -> tuple[Path, int | None]:
    """Where a path leads, and the mode of what is there (None: nothing yet)."""
    with _told(path):
        target = path.resolve()
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            return target, None
        if stat.S_ISREG(mode) and not os.access(target, os.W_OK):
            # The folder would let it be replaced, but somebody protected the file.
            raise PermissionError(errno.EACCES, "the file is write-protected")
    if stat.S_ISDIR(mode):
        raise OutputError(
            f"the answers cannot be written to {path}: it is a folder",
            remedy=f"Name a file, e.g. {path / 'answers.csv'}.",
        )
    return target, mode


def _part(target: Path) -> Path:
    """A name of our own in the same folder, short whatever the file is called."""
    return target.with_name(f".askq-{secrets.token_hex(6)}.part")


def _create(part: Path) -> int:
    # O_EXCL: nobody else's file is written into. The mode is cut by the umask, as for any new file.
    return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_REMEDIES = {
    errno.ENOSPC: "The disk is full: make room, or name a file on another disk. The answers are safe in the store.",
    errno.EDQUOT: "The quota is used up: make room, or name another place. The answers are safe in the store.",
    errno.EROFS: "The file system is read-only: name a file in a folder you may write to.",
    errno.EACCES: "Name a file in a folder you may write to.",
    errno.EPERM: "Name a file in a folder you may write to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the operating system says into an OutputError; a closed pipe stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise output_error(str(path), exc) from exc


def output_error(name: str, exc: OSError) -> OutputError:
    """The error for a place that cannot be written."""
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        folder = Path(name).parent
        return OutputError(
            f"the answers cannot be written to {name}: there is no folder {folder}",
            remedy=f"Create it (mkdir -p {folder}), or name another place.",
        )
    remedy = _REMEDIES.get(exc.errno or 0, "Name another place. The answers are safe in the store.")
    return OutputError(f"the answers cannot be written to {name}: {exc.strerror or exc}", remedy=remedy)
