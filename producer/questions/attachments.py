"""The files and images that rows of a list name: found beside the list, checked with it, and kept before anything is
queued.

A cell holds one path, or several separated by `;` or line breaks (a cell that is the name of a file as a whole is one
path, whatever it contains); JSON may have a list. Paths are relative to the list's folder. The column `image` takes
addresses (https://…) besides.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from askq.files import kinds
from askq.files.folder import Folder, hashed
from askq.files.kinds import IMAGE, Unfit
from askq.files.model import Attachment, FileRef
from producer.questions.reading import Draft, Fault, quoted
from producer.questions.source import unreadable

_SEPARATORS = re.compile(r"[;\n\r]+")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_LONGEST_ADDRESS = 2_048

ToolsOf = Callable[[str | None], Collection[str] | None]
"""The tools of the assistant of this name (None: of the batch's own); None when there is no such assistant."""


@dataclass(slots=True)
class _Seen:
    """A path, as it was looked at first."""

    path: Path
    line: int
    column: str | None
    size: int = 0
    ref: FileRef | None = None


class Attachments:
    """What the rows of one list attach. Paths are looked at once, whatever the number of rows that name them."""

    def __init__(self, base: Path, *, folder: Folder | None = None, tools_of: ToolsOf | None = None) -> None:
        self._base = base
        self._folder = folder
        self._tools_of = tools_of
        self._seen: dict[str, _Seen] = {}

    @property
    def count(self) -> int:
        """Different files."""
        return len(self._seen)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(seen.size for seen in self._seen.values())

    def digest(self) -> str | None:
        """The same for the same files under the same paths; None where there are none. They must be kept already."""
        if not self._seen:
            return None
        found = hashlib.sha256()
        for path, seen in sorted(self._seen.items()):
            assert seen.ref is not None, "files are kept before their digest is asked for"
            found.update(f"{path}\0{seen.ref.sha256}\0".encode(errors="surrogatepass"))
        return found.hexdigest()

    def of(self, draft: Draft, assistant: str | None, faults: list[Fault]) -> tuple[Attachment, ...]:
        """What a row attaches; what is wrong with it goes to `faults`. Until `keep`, hashes are empty."""
        if draft.files is None and draft.images is None:
            return ()
        found: list[Attachment] = []
        for cell, column, images in (
            (draft.files, draft.file_column, False),
            (draft.images, draft.image_column, True),
        ):
            for text in self._entries(cell, draft.line, column, faults):
                try:
                    one = self._image(text, draft, column) if images else self._file(text, draft, column, assistant)
                except Unfit as wrong:
                    faults.append(Fault(draft.line, f"{quoted(text)}: {wrong.message}", column, wrong.remedy))
                    continue
                if one not in found:
                    found.append(one)
        if len(found) > kinds.MOST_FILES:
            faults.append(
                Fault(
                    draft.line,
                    f"the row attaches {len(found)} files; at most {kinds.MOST_FILES} are taken",
                    draft.file_column or draft.image_column,
                )
            )
        return tuple(found)

    def keep(self) -> Iterator[Fault]:
        """Copy every file into the folder (or only hash it, where there is none); what became wrong meanwhile."""
        for text, seen in self._seen.items():
            try:
                ref = hashed(seen.path) if self._folder is None else self._folder.keep(seen.path)
                kinds.check_size(ref.size, None)
            except Unfit as wrong:
                yield Fault(seen.line, f"{quoted(text)}: {wrong.message}", seen.column, wrong.remedy)
            except OSError as error:
                remedy = "Wait until it is complete, and check that there is room for a copy; nothing was queued."
                yield Fault(
                    seen.line, f"{quoted(text)} cannot be copied: {error.strerror or error}", seen.column, remedy
                )
            else:
                seen.ref, seen.size = ref, ref.size

    def _entries(self, cell: object, line: int, column: str | None, faults: list[Fault]) -> Iterator[str]:
        if cell is None:
            return
        if isinstance(cell, list) and all(isinstance(part, str) for part in cell):
            yield from filter(None, (part.strip() for part in cell))
            return
        if not isinstance(cell, str):
            faults.append(Fault(line, "a path, or a list of paths, is expected", column))
            return
        whole = cell.strip()
        if not whole:
            return
        if not _SEPARATORS.search(whole) or self._is_there(whole):
            yield whole
            return
        yield from filter(None, (part.strip() for part in _SEPARATORS.split(whole)))

    def _is_there(self, text: str) -> bool:
        try:
            return (self._base / text).is_file()
        except (OSError, ValueError):
            return False

    def _file(self, text: str, draft: Draft, column: str | None, assistant: str | None) -> Attachment:
        if _ADDRESS.match(text):
            raise Unfit(
                "this is an address, not a file",
                "Download it first and name the file; addresses of images go into a column `image`.",
            )
        seen = self._look(text, draft.line, column)
        tools = None if self._tools_of is None else self._tools_of(assistant)
        # Nobody knows the assistant (yet): whoever asks it says that it is missing.
        tool = kinds.CODE if tools is None else kinds.tool_for(seen.path.name, tools)
        kinds.check_size(seen.size, tool)
        return Attachment(tool=tool, file=seen.ref or _unkept(seen))

    def _image(self, text: str, draft: Draft, column: str | None) -> Attachment:
        if _ADDRESS.match(text):
            parts = urlsplit(text)
            if parts.scheme.lower() not in ("http", "https") or not parts.hostname or " " in text:
                raise Unfit("only addresses that begin with https:// or http:// are taken", "Name a file instead.")
            if len(text) > _LONGEST_ADDRESS:
                raise Unfit("the address is too long", "Download the image, and name the file.")
            return Attachment(tool=IMAGE, url=text)
        kinds.check_image(text)
        seen = self._look(text, draft.line, column)
        kinds.check_size(seen.size, IMAGE)
        return Attachment(tool=IMAGE, file=seen.ref or _unkept(seen))

    def _look(self, text: str, line: int, column: str | None) -> _Seen:
        seen = self._seen.get(text)
        if seen is None:
            seen = _Seen(self._base / text, line, column)
            seen.size = _size_of(seen.path, None if Path(text).is_absolute() else self._base)
            self._seen[text] = seen
        return seen


def _unkept(seen: _Seen) -> FileRef:
    return FileRef(name=seen.path.name, sha256="", size=seen.size)


def _size_of(path: Path, base: Path | None) -> int:
    """The size of a file that can be read, named relative to `base`. Raises Unfit."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise Unfit("this is a folder", "Name the files in it instead (in a list, separated by ;).")
        if not stat.S_ISREG(found.st_mode):
            raise Unfit("this is no ordinary file", "Copy what it gives into a file, and name that.")
        # Opened, because permissions alone do not tell (access lists, network drives).
        os.close(os.open(path, os.O_RDONLY))
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise Unfit("this cannot be the name of a file", "Check the path.") from error
        told = unreadable(path, error)
        remedy = told.remedy or ""
        if base is not None:
            folder = "current folder" if base == Path() else f"folder {base}"
            remedy = f"Relative paths begin in the {folder}. {remedy}".strip()
        raise Unfit(told.problems[0].message, remedy) from error
    return found.st_size
