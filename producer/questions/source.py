"""Where the bytes of a list come from: a file that is opened anew each time, or a stream kept in a temporary file."""

from __future__ import annotations

import difflib
import io
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from askq.errors import InputError, Problem

_FOLDER_ENTRIES_LOOKED_AT = 5_000


class Source(Protocol):
    """Bytes that can be read from the beginning any number of times."""

    name: str
    """How messages call it."""

    def open(self) -> BinaryIO:
        """A new reader at the first byte."""

    def stamp(self) -> tuple[int, ...]:
        """Differs when the bytes may have changed since."""

    def close(self) -> None:
        """Give back what is held."""


class FileSource:
    """A file on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def open(self) -> BinaryIO:
        """Raises InputError when it cannot be opened (any more)."""
        try:
            return self.path.open("rb")
        except OSError as exc:
            raise unreadable(self.path, exc) from exc

    def stamp(self) -> tuple[int, ...]:
        """Raises InputError when it is gone."""
        try:
            found = self.path.stat()
        except OSError as exc:
            raise unreadable(self.path, exc) from exc
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def close(self) -> None:
        """Nothing is held between readings."""


class SpooledSource:
    """Bytes that can be had only once, kept in a nameless temporary file: it vanishes with the process, however that
    ends. Given back when the source is closed or forgotten."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the source)
        self.close = weakref.finalize(self, self.file.close)

    def open(self) -> BinaryIO:
        """A reader with a position of its own: two may read at the same time."""
        self.file.flush()
        return io.BufferedReader(_Positioned(self.file.fileno()))

    def stamp(self) -> tuple[int, ...]:
        """Nobody else can change it."""
        return ()


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


def spool(name: str, stream: BinaryIO) -> SpooledSource:
    """Keep a stream that can be read only once."""
    source = SpooledSource(name)
    try:
        shutil.copyfileobj(stream, source.file, 1 << 20)
    except OSError as exc:
        source.close()
        raise InputError(f"cannot read {name}: {exc.strerror or exc}") from exc
    return source


def spool_lines(name: str, lines: Iterable[bytes]) -> SpooledSource:
    """Keep lines that are made while reading; what making them raises passes through."""
    source = SpooledSource(name)
    try:
        source.file.writelines(lines)
    except BaseException:
        source.close()
        raise
    return source


def open_path(path: Path) -> Source:
    """The source for a path: pipes and devices are kept, files opened. Raises InputError."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if stat.S_ISDIR(mode):
        raise InputError(
            [Problem(file=str(path), message="this is a folder, not a list of questions")],
            remedy="Name a file in it.",
        )
    source = FileSource(path)
    if stat.S_ISREG(mode):
        source.open().close()
        return source
    with source.open() as stream:
        return spool(str(path), stream)


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
