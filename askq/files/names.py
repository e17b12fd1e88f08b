"""File names from outside: a model, a service or a list may say anything; what is written to disk is harmless."""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST_NAME = 120
"""Bytes of a name in UTF-8: file systems take 255, and something may have to be added."""
_NOT_TAKEN = re.compile(r'[<>:"|?*/\\]')
"""What some file system cannot have in a name."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_LONGEST_SUFFIX = 16


def safe_name(wanted: str, *, fallback: str = "file") -> str:
    """A name that can be written anywhere and leads nowhere else.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\temp\\\\NUL.txt"), safe_name("요금표 2026.csv")
    ('passwd', '_NUL.txt', '요금표 2026.csv')
    """
    last = wanted.replace("\\", "/").rstrip("/").rpartition("/")[2]
    # Controls, marks that turn the direction of writing, halves of characters, and what is no character at all.
    printable = "".join(char for char in unicodedata.normalize("NFC", last) if unicodedata.category(char)[0] != "C")
    name = _NOT_TAKEN.sub("_", " ".join(printable.split())).strip(" .")
    if not name:
        return fallback
    if _DEVICES.fullmatch(name) or name.startswith(("-", "~")):
        name = f"_{name}"
    return _shortened(name)


def safe_folder(wanted: str) -> str:
    """The name of a folder for an id. Ids that would get the same name get different ones."""
    name = safe_name(wanted, fallback="_")
    return name if name == wanted else f"{name}~{hashlib.sha256(wanted.encode(errors='replace')).hexdigest()[:8]}"


def numbered(name: str, number: int) -> str:
    """The name for another file that wants the same one.

    >>> numbered("chart.png", 2)
    'chart (2).png'
    """
    stem, dot, suffix = name.rpartition(".")
    return f"{stem} ({number}).{suffix}" if dot and stem else f"{name} ({number})"


def _shortened(name: str) -> str:
    if len(name.encode()) <= LONGEST_NAME:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix.encode()) > _LONGEST_SUFFIX:
        stem, suffix = name, ""
    end = f"{dot}{suffix}" if suffix else ""
    room = LONGEST_NAME - len(end.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + end
