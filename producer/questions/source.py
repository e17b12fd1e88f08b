"""Where the bytes of a list come from, and where they are kept while it is read."""

from __future__ import annotations

import difflib
import errno
import io
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from askq.errors import InputError, Problem

_FOLDER_ENTRIES_LOOKED_AT = 5_000


class Source:
    """The bytes of a list, as they were when it was opened, to be read from the beginning any number of times.

    They are kept in a nameless temporary file, which vanishes with the process, however that ends, and is given back
    when the source is closed or forgotten. A file is kept like a stream: it may change while the list is submitted,
    and half of one list and half of another would be paid for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        """How messages call it."""
        self.file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the source)
        self.close = weakref.finalize(self, self.file.close)

    def open(self) -> BinaryIO:
        """A reader with a position of its own: two may read at the same time."""
        self.file.flush()
        return io.BufferedReader(_Positioned(self.file.fileno()))


class _Positioned(io.RawIOBase):
    """Reads a descriptor it does not own, from a position nobody else moves."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer has no len()
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def spool(name: str, stream: BinaryIO) -> Source:
    """Keep a stream that can be read only once."""
    source = Source(name)
    try:
        shutil.copyfileobj(stream, source.file, 1 << 20)
    except OSError as exc:
        source.close()
        full = (
            f"It is kept in {tempfile.gettempdir()} while it is submitted; make room there." if _is_full(exc) else None
        )
        raise InputError(f"cannot read {name}: {exc.strerror or exc}", remedy=full) from exc
    return source


def _is_full(exc: OSError) -> bool:
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def spool_lines(name: str, lines: Iterable[bytes]) -> Source:
    """Keep lines that are made while reading; what making them raises passes through."""
    source = Source(name)
    try:
        source.file.writelines(lines)
    except BaseException:
        source.close()
        raise
    return source


def open_path(path: Path) -> Source:
    """The source for a file, a pipe or a device. Raises InputError."""
    try:
        if path.is_dir():
            raise InputError(
                [Problem(file=str(path), message="this is a folder, not a list of questions")],
                remedy="Name a file in it.",
            )
        with path.open("rb") as stream:
            before = _version(stream)
            source = spool(str(path), stream)
            if _version(stream) != before:
                source.close()
                raise InputError(
                    [Problem(file=str(path), message="the file changed while it was being read")],
                    remedy="Wait until it is complete and try again.",
                )
            return source
    except OSError as exc:
        raise unreadable(path, exc) from exc


def _version(stream: BinaryIO) -> tuple[int, ...]:
    """Differs when a file may have been written to in between; always the same for what can be read only once."""
    found = os.fstat(stream.fileno())
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else ()


def unreadable(path: Path, exc: OSError) -> InputError:
    """The error for a path that cannot be opened, with names that look like it."""
    if isinstance(exc, FileNotFoundError | NotADirectoryError):
        folder = path.parent
        if not folder.is_dir():
            return InputError(
                [Problem(file=str(path), message=f"there is no folder {folder}")], remedy="Check the path."
            )
        near = _alike(path.name, _files(folder))
        advice = f"Did you mean {' or '.join(str(folder / name) for name in near)}?" if near else "Check the path."
        return InputError([Problem(file=str(path), message="there is no such file")], remedy=advice)
    remedy = "Give yourself permission to read it." if isinstance(exc, PermissionError) else None
    return InputError([Problem(file=str(path), message=f"it cannot be read: {exc.strerror or exc}")], remedy=remedy)


def _alike(wanted: str, names: list[str]) -> list[str]:
    """Names much like the wanted one. The suffix tells nothing: most lists have the same."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(Path(name).stem, []).append(name)
    near = difflib.get_close_matches(Path(wanted).stem, stems, n=3, cutoff=0.6)
    return [name for stem in near for name in sorted(stems[stem])][:3]


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, _FOLDER_ENTRIES_LOOKED_AT) if entry.is_file()]
    except OSError:  # a folder we may not list has no names to suggest
        return []
