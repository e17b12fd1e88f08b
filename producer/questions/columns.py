"""Which column means what: names people use, names they say with an option, and everything else carried through."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from producer.questions.reading import QUESTION_MARKS, Draft, Notes, Row, listed, quoted
from producer.questions.template import Template

QUESTION_NAMES = ("question", "input", "prompt", "text", "query")
"""The first of these that a table has is the question; the others are carried through."""
ID_NAMES = ("id", "custom_id", "key")
FILE_NAMES = ("file", "files")
IMAGE_NAMES = ("image", "images")
"""The first of these that a table has names what goes along with the question; it is carried through, too."""
THREAD_NAMES = ("thread", "conversation")
"""Rows with the same value here are one conversation."""
_ASIDE = ("assistant", "model", "instructions")
_OTHER_ENDS = (".", "!", "\u3002", "\uff01")

MAX_COLUMNS = 2_000
"""Different columns of a whole list; an object per row with ever new keys would not fit a table or the memory."""
_SHAPES_KEPT = 1_000

_PUNCTUATION = re.compile(r"[\s_:?*]+")


def key_of(name: str) -> str:
    """A column's name as it is compared: without case, blanks, underscores and trailing marks.

    >>> key_of(" Custom ID:") == key_of("custom_id")
    True
    """
    return _PUNCTUATION.sub("", name.casefold())


_QUESTION_KEYS = tuple(map(key_of, QUESTION_NAMES))
_ID_KEYS = tuple(map(key_of, ID_NAMES))
_FILE_KEYS = tuple(map(key_of, FILE_NAMES))
_IMAGE_KEYS = tuple(map(key_of, IMAGE_NAMES))
_THREAD_KEYS = tuple(map(key_of, THREAD_NAMES))
_KNOWN_KEYS = frozenset((*_QUESTION_KEYS, *_ID_KEYS, *_THREAD_KEYS, *_ASIDE))


class ColumnFault(Exception):
    """No question can be found in columns of these names."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where in a row each part is."""

    names: tuple[str, ...]
    parts: tuple[int, ...]
    """The question, or the values the template names, in its order."""
    question: int | None
    """What must not be blank; None when the template does without the question."""
    row_id: int | None
    thread: int | None
    assistant: int | None
    model: int | None
    instructions: int | None
    file: int | None
    image: int | None
    carried: tuple[tuple[str, int], ...]


class Columns:
    """The columns of one list: decides a layout for each set of names and remembers what it saw."""

    def __init__(
        self,
        *,
        column: str | None,
        id_column: str | None,
        template: Template | None,
        notes: Notes,
        file_column: str | None = None,
        image_column: str | None = None,
        attach: bool = True,
        thread_column: str | None = None,
    ) -> None:
        self._column = column
        self._id_column = id_column
        self._thread_column = thread_column
        self._file_column = file_column
        self._image_column = image_column
        self._attach = attach
        self._template = template
        self._notes = notes
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self.seen: dict[str, str | None] = {}
        """Every name in order of appearance, with the part it is (`question`, `id`, `thread` …) or None."""
        self.delimiter: str | None = None
        """What separates the cells, where the list is a table that has any."""

    def layout(self, names: tuple[str, ...]) -> Layout:
        """The layout of rows with these names. Raises ColumnFault."""
        known = self._layouts.get(names)
        if known is None:
            known = self._resolve(names)
            if len(self._layouts) >= _SHAPES_KEPT:
                self._layouts.clear()
            self._layouts[names] = known
        return known

    def headless(self, names: Sequence[str]) -> bool:
        """Whether a table's first line is a question rather than the name of its only column."""
        if len(names) != 1 or self._column is not None or key_of(names[0]) in _KNOWN_KEYS:
            return False
        name = names[0].strip()
        return name.endswith((*QUESTION_MARKS, *_OTHER_ENDS)) or len(name.split()) >= 5 or len(name) > 60

    def remember(self, name: str, role: str | None) -> None:
        """Note that the list has this column. Raises ColumnFault when there are too many."""
        self.seen.setdefault(name, role)
        if len(self.seen) > MAX_COLUMNS:
            raise ColumnFault(
                f"the list has more than {MAX_COLUMNS:,} different columns",
                "Put values, not names, into keys that differ from row to row.",
            )

    def _resolve(self, names: tuple[str, ...]) -> Layout:
        positions: dict[str, int] = {}
        for index, name in enumerate(names):
            positions.setdefault(key_of(name), index)

        def first(keys: Sequence[str]) -> int | None:
            return next((positions[key] for key in keys if key in positions and positions[key] not in taken), None)

        taken: set[int | None] = set()
        question = self._named(self._column, names, positions, option="--column")
        taken.add(question)
        row_id = self._named(self._id_column, names, positions, option="--id-column")
        if row_id is not None and row_id == question:
            raise ColumnFault(f"{quoted(names[row_id])} cannot be both the question and the id")
        thread = self._named(self._thread_column, names, positions, option="--thread-column")
        if thread is not None and thread in (question, row_id):
            other = "question" if thread == question else "id"
            raise ColumnFault(f"{quoted(names[thread])} cannot be both the {other} and the conversation")
        taken.add(thread)
        if question is None:
            taken.add(row_id)
            question = first(_QUESTION_KEYS)
            taken.add(question)
        if row_id is None:
            row_id = first(_ID_KEYS)
        taken.add(row_id)
        if thread is None:
            thread = first(_THREAD_KEYS)
        taken.add(thread)
        if self._template is None:
            if question is None:
                question = self._only(names)
                taken.add(question)
            parts: tuple[int, ...] = (question,)
        else:
            parts = tuple(self._fill(field, names, positions, question) for field in self._template.fields)
        assistant, model, instructions = (first((key,)) for key in _ASIDE)
        file, image = self._attached(names, positions, first)
        roles = {
            index: role
            for index, role in (
                # Paths stay among the user's columns: they come back as they were.
                (file, "file"),
                (image, "image"),
                (None if self._template else question, "question"),
                (row_id, "id"),
                (thread, "thread"),
                (assistant, "assistant"),
                (model, "model"),
                (instructions, "instructions"),
            )
            if index is not None
        }
        for index, name in enumerate(names):
            self.remember(name, roles.get(index))
        return Layout(
            names=names,
            parts=parts,
            question=question if question in parts else None,
            row_id=row_id,
            thread=thread,
            assistant=assistant,
            model=model,
            instructions=instructions,
            file=file,
            image=image,
            carried=tuple(
                (name, index) for index, name in enumerate(names) if roles.get(index) in (None, "file", "image")
            ),
        )

    def _attached(
        self,
        names: tuple[str, ...],
        positions: dict[str, int],
        first: Callable[[Sequence[str]], int | None],
    ) -> tuple[int | None, int | None]:
        """Where the files and the images of a row are named."""
        if not self._attach:
            return None, None
        file = self._named(self._file_column, names, positions, option="--file-column")
        image = self._named(self._image_column, names, positions, option="--image-column")
        return (
            first(_FILE_KEYS) if file is None else file,
            first(_IMAGE_KEYS) if image is None else image,
        )

    def _named(
        self, wanted: str | None, names: tuple[str, ...], positions: dict[str, int], *, option: str
    ) -> int | None:
        """The position of the column an option names; None when the option is not used."""
        if wanted is None:
            return None
        if wanted in names:
            return names.index(wanted)
        if (found := positions.get(key_of(wanted))) is not None:
            return found
        near = _nearest(wanted, names)
        raise ColumnFault(
            f"there is no column {quoted(wanted)}; there is {listed(names)}",
            f"Did you mean {option} {quoted(near)}?" if near else f"Name one of these with {option}.",
        )

    def _only(self, names: tuple[str, ...]) -> int:
        """The question when no name is known: the only column there is."""
        if len(names) == 1 and key_of(names[0]) not in _KNOWN_KEYS:
            self._notes.say(
                f"no column is called {QUESTION_NAMES[0]}: the only one, {quoted(names[0])}, was taken as the question"
            )
            return 0
        near = next((found for known in QUESTION_NAMES if (found := _nearest(known, names))), None)
        example = f"e.g. --column {quoted(near)}" if near else f"one of {listed(names)}"
        raise ColumnFault(
            f"no column is called {', '.join(QUESTION_NAMES[:-1])} or {QUESTION_NAMES[-1]}; "
            + (f"there is {listed(names)}" if names else "the object is empty"),
            f"Say which column holds the question with --column, {example}." if names else None,
        )

    def _fill(self, field: str, names: tuple[str, ...], positions: dict[str, int], question: int | None) -> int:
        if field in names:
            return names.index(field)
        if (found := positions.get(key_of(field))) is not None:
            return found
        if question is not None and key_of(field) == QUESTION_NAMES[0]:
            return question
        near = _nearest(field, names)
        raise ColumnFault(
            f"the template names {{{field}}}, but there is no such column; there is {listed(names)}",
            f"Did you mean {{{near}}}?" if near else "Use the names of columns in the template.",
        )

    def draft(self, row: Row, layout: Layout) -> Draft:
        """Take a row apart."""
        values = row.values
        text: object
        if self._template is None:
            text = values[layout.parts[0]]
        elif layout.question is not None and _blank(values[layout.question]):
            text = ""
        else:
            text = self._template.fill([values[index] for index in layout.parts])
        return Draft(
            line=row.line,
            row_id=None if layout.row_id is None else values[layout.row_id],
            text=text,
            assistant=None if layout.assistant is None else values[layout.assistant],
            model=None if layout.model is None else values[layout.model],
            instructions=None if layout.instructions is None else values[layout.instructions],
            input={name: values[index] for name, index in layout.carried},
            size=row.size,
            text_column=None if layout.question is None else layout.names[layout.question],
            id_column=None if layout.row_id is None else layout.names[layout.row_id],
            files=None if layout.file is None else values[layout.file],
            images=None if layout.image is None else values[layout.image],
            file_column=None if layout.file is None else layout.names[layout.file],
            image_column=None if layout.image is None else layout.names[layout.image],
            thread=None if layout.thread is None else values[layout.thread],
            thread_column=None if layout.thread is None else layout.names[layout.thread],
        )


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _nearest(wanted: str, names: Sequence[str]) -> str | None:
    # Letter by letter: a syllable of Korean is up to three of them.
    keys = {unicodedata.normalize("NFD", key_of(name)): name for name in reversed(names)}
    near = difflib.get_close_matches(unicodedata.normalize("NFD", key_of(wanted)), list(keys), n=1, cutoff=0.6)
    return keys[near[0]] if near else None
