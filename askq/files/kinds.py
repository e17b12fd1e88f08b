"""What may be attached, and what for: the service's own limits and types, checked before anything is queued.

| the assistant has | a file goes to |
|---|---|
| code interpreter alone | code interpreter |
| file search alone | file search, if it takes the type |
| both | file search for documents (`DOCUMENTS`), code interpreter for everything else |
| neither | the message itself for images; anything else is refused |

Images of the column `image` always go into the message itself.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Collection
from pathlib import PurePath

CODE, SEARCH, IMAGE = "code_interpreter", "file_search", "image"
"""What a file can be for."""

MOST_BYTES = 512 << 20
"""The service's limit for one file."""
MOST_IMAGE_BYTES = 20 << 20
"""For an image in a message."""
MOST_FILES = 20
"""Of one row, and of code interpreter on one level: the service's limit."""
MOST_STORE_FILES = 10_000

IMAGES = frozenset({".gif", ".jpeg", ".jpg", ".png", ".webp"})
SEARCHED = frozenset(
    {
        *(".c", ".cpp", ".cs", ".css", ".doc", ".docx", ".go", ".html", ".java", ".js", ".json", ".md", ".pdf", ".php"),
        *(".pptx", ".py", ".rb", ".sh", ".tex", ".ts", ".txt"),
    }
)
"""What file search can read, by the service's documents."""
DOCUMENTS = frozenset({".doc", ".docx", ".html", ".md", ".pdf", ".pptx", ".tex", ".txt"})
"""What is read rather than computed with: these go to file search where the assistant has both tools."""

_MEDIA_TYPES = {".csv": "text/csv", ".md": "text/markdown", ".webp": "image/webp", ".parquet": "application/x-parquet"}
"""Where the system's table differs from machine to machine."""


class Unfit(Exception):
    """A file that cannot be attached; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def media_type(name: str) -> str:
    """The media type a name's suffix stands for."""
    suffix = PurePath(name).suffix.lower()
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"


def purpose_of(tool: str) -> str:
    """What the service is told that an upload is for."""
    return "vision" if tool == IMAGE else "assistants"


def check_size(size: int, tool: str | None) -> None:
    """Raise Unfit for a file the service would refuse for its size in bytes."""
    most = MOST_IMAGE_BYTES if tool == IMAGE else MOST_BYTES
    if size == 0:
        raise Unfit("the file is empty", "Fill it, or leave it out.")
    if size > most:
        what = "an image" if tool == IMAGE else "a file"
        raise Unfit(
            f"the file has {size:,} bytes; {what} may have {most:,}",
            "Make it smaller, or split it.",
        )


def check_image(name: str) -> None:
    """Raise Unfit for what cannot be looked at."""
    if PurePath(name).suffix.lower() not in IMAGES:
        raise Unfit(
            f"{_suffix(name)} is no type of image the service takes",
            f"Convert it to one of {', '.join(sorted(IMAGES))}.",
        )


def check_searched(name: str) -> None:
    """Raise Unfit for what file search cannot read."""
    suffix = PurePath(name).suffix.lower()
    if suffix in SEARCHED:
        return
    if suffix in (".csv", ".tsv", ".xlsx", ".xls"):
        raise Unfit(
            f"file search cannot read {suffix}",
            "Tables are for code interpreter: add it to the assistant's tools, or save the table as .txt or .json.",
        )
    raise Unfit(f"file search cannot read {_suffix(name)}", f"Convert it to one of {', '.join(sorted(DOCUMENTS))}.")


def tool_for(name: str, tools: Collection[str]) -> str:
    """What a file of the column `file` is for, with an assistant that has these tools. Raises Unfit."""
    suffix = PurePath(name).suffix.lower()
    if CODE in tools and SEARCH in tools:
        return SEARCH if suffix in DOCUMENTS else CODE
    if CODE in tools:
        return CODE
    if SEARCH in tools:
        if suffix in IMAGES:
            return IMAGE
        check_searched(name)
        return SEARCH
    if suffix in IMAGES:
        return IMAGE
    raise Unfit(
        "the assistant has no tool that reads files",
        'Add tools = ["code_interpreter"] or tools = ["file_search"] to the assistant\'s file.',
    )


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower() or "a file without a suffix"
