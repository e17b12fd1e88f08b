"""What readers hand on: rows as they stand in the file, drafts of questions, and what is wrong with a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

QUESTION_MARKS = ("?", "\uff1f", "\u061f")
"""What a question may end with: also full-width and Arabic."""


class Fault(NamedTuple):
    """Something wrong at a line (None: with the list as a whole)."""

    line: int | None
    message: str
    column: str | None = None
    remedy: str | None = None


class Row(NamedTuple):
    """One row as it stands: values under the names of their columns. Rows of one table share one `names` tuple."""

    line: int
    names: tuple[str, ...]
    values: Sequence[object]
    size: int
    """Characters of the whole row; an upper bound of its parts."""


@dataclass(slots=True)
class Draft:
    """A row whose parts are known but not yet checked."""

    line: int
    row_id: object
    text: object
    assistant: object
    model: object
    instructions: object
    input: Mapping[str, object]
    size: int
    text_column: str | None = None
    """The column the text came from, for messages."""
    id_column: str | None = None
    files: object = None
    images: object = None
    file_column: str | None = None
    image_column: str | None = None
    thread: object = None
    thread_column: str | None = None


class Notes:
    """Things a person should know that are not wrong; each is said once, in order of appearance."""

    _MOST_NAMES = 100

    def __init__(self) -> None:
        self._said: dict[str, dict[str, None]] = {}

    def say(self, note: str, name: str | None = None) -> None:
        """Add a note, unless it was said already. Names given with the same note are gathered where it has `{}`."""
        names = self._said.setdefault(note, {})
        if name is not None and len(names) < self._MOST_NAMES:
            names.setdefault(name)

    def all(self) -> tuple[str, ...]:
        """Every note, in order."""
        return tuple(note.replace("{}", listed(tuple(names))) if names else note for note, names in self._said.items())


def quoted(name: str) -> str:
    """A name from a file for use in a message: in quotes, on one line, not too long."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return f'"{shown[:59]}…"' if len(shown) > 60 else f'"{shown}"'


def listed(names: Sequence[str], *, most: int = 12) -> str:
    """Several names for a message; a long list is cut."""
    shown = ", ".join(quoted(name) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
