"""A list of questions: checked as a whole before anything is queued, then read as often as wanted.

Memory does not grow with the list: rows stream, and of the ids only 8-byte hashes are kept until the check is done
(two ids of equal hash are then compared by a second reading).
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from askq.closing import Closing
from askq.errors import InputError, Problem
from askq.files.folder import Folder
from askq.jobs.model import Question
from producer.questions import delimited, formats, json_rows, lines
from producer.questions.attachments import Attachments, ToolsOf
from producer.questions.columns import ColumnFault, Columns, Layout
from producer.questions.encoding import Inspection, inspect, known_encoding
from producer.questions.reading import Draft, Fault, Notes, Row
from producer.questions.row_checks import RowChecks
from producer.questions.source import Source, open_path, spool, spool_lines
from producer.questions.template import Template

MAX_ROWS = 1_000_000
MAX_QUESTION_BYTES = 256 * 1024
CORRECT_THE_LIST = "Nothing was queued; correct the list and try again."
"""The remedy where no problem has one of its own."""
_LONGEST_LINE = 64 << 20
_PROBLEMS_KEPT = 10_000
_PARTITIONS = 256
_SPLITS = ("line", "blank-line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What checking a list found."""

    rows: int
    bytes: int
    """Size of the list as it was given."""
    notes: tuple[str, ...]
    """What a person should know, though nothing is wrong."""
    columns: tuple[str, ...]
    """Every column in order of appearance, the question and the id included."""
    roles: Mapping[str, str]
    """Columns with a meaning: name to `question`, `id`, `thread`, `assistant`, `model` or `instructions`."""
    assistants: Mapping[str, int]
    """Assistants that rows ask for themselves, each with the line that does so first."""
    format: str
    digest: str
    """SHA-256 of the bytes, hexadecimal."""
    files: int = 0
    """Different files that rows attach."""
    file_bytes: int = 0
    files_digest: str | None = None
    """Differs when a file that is attached has another content; None where none is."""
    conversations: int = 0
    """How many different conversations its rows belong to; 0 where each stands alone."""
    delimiter: str | None = None
    """What separates the cells of a table: the answers' table is written so that the same program opens it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a list is to be read. None means: find it out."""

    format: str | None = None
    column: str | None = None
    id_column: str | None = None
    file_column: str | None = None
    image_column: str | None = None
    attach: bool = True
    """Whether columns named `file` and `image` are more than text."""
    thread_column: str | None = None
    template: Template | None = None
    split: str = "line"
    encoding: str | None = None
    max_rows: int = MAX_ROWS
    max_question_bytes: int = MAX_QUESTION_BYTES


class QuestionList(Closing):
    """The questions of a file, of a stream or of Python values. Close it (or use `with`) when done."""

    def __init__(self, source: Source, options: Options, *, base: Path | None = None) -> None:
        self._source = source
        self._options = options
        self._base = Path() if base is None else base
        """What paths in it are relative to."""
        self._attachments = Attachments(self._base)
        self._found: Inspection | None = None
        self._format = options.format
        self._summary: Summary | None = None

    @property
    def name(self) -> str:
        """The file's name as it was given, `stdin`, or `item` for Python values."""
        return self._source.name

    def attach(self, *, folder: Folder | None, tools_of: ToolsOf) -> Self:
        """Say where files that rows attach are copied to (None: they are only looked at), and what tools the assistants
        have that may read them. Before the list is checked."""
        self._attachments = Attachments(self._base, folder=folder, tools_of=tools_of)
        return self

    def check(self) -> Summary:
        """Read everything once. Raises InputError with all problems, each with its line; nothing is kept then.

        A second call costs nothing.
        """
        if self._summary is not None:
            return self._summary
        longest = max(_LONGEST_LINE, 4 * self._options.max_question_bytes)
        self._found = inspect(self._source, longest_line=longest, encoding=self._options.encoding)
        self._format = self._options.format or self._sniff(self._found.encoding)
        notes = Notes()
        if self._found.note:
            notes.say(self._found.note)
        columns = self._columns(notes)
        faults: list[Fault] = []
        assistants: dict[str, int] = {}
        threads: set[int] = set()
        ids = [array("q") for _ in range(_PARTITIONS)]
        rows = 0
        for line, found in self._read(columns, notes):
            if isinstance(found, Fault):
                faults.append(found)
                if len(faults) >= _PROBLEMS_KEPT:
                    faults.append(Fault(None, f"there are more than {_PROBLEMS_KEPT:,} problems; reading stopped"))
                    break
                continue
            rows += 1
            number = hash(found.row_id)
            ids[number % _PARTITIONS].append(number)
            if found.thread is not None:
                threads.add(hash(same_thread(found.thread)))
            if found.assistant is not None and found.assistant not in assistants:
                assistants[found.assistant] = line
        else:
            faults += self._twice(ids)
            if rows == 0 and not faults:
                faults.append(Fault(None, "there is no question in it"))
            if not faults:
                faults += self._attachments.keep()
        if faults:
            faults.sort(key=lambda fault: (fault.line is None, fault.line or 0))
            raise self._error(faults)
        self._summary = Summary(
            rows=rows,
            bytes=self._found.size,
            notes=notes.all(),
            columns=tuple(columns.seen),
            roles={name: role for name, role in columns.seen.items() if role is not None},
            assistants=assistants,
            format=self._format,
            conversations=len(threads),
            digest=self._found.digest,
            files=self._attachments.count,
            file_bytes=self._attachments.size,
            files_digest=self._attachments.digest(),
            delimiter=columns.delimiter,
        )
        return self._summary

    def __iter__(self) -> Iterator[Question]:
        """The questions in order; the list is checked first, if it was not yet.

        Raises InputError as `check` does.
        """
        self.check()
        for _, found in self._read(self._columns(Notes()), Notes()):
            assert isinstance(found, Question), "a list that was checked holds nothing else"
            yield found

    def close(self) -> None:
        """Give back the temporary file of a stream. May be called twice."""
        self._source.close()

    def _columns(self, notes: Notes) -> Columns:
        options = self._options
        return Columns(
            column=options.column,
            id_column=options.id_column,
            thread_column=options.thread_column,
            template=options.template,
            notes=notes,
            file_column=options.file_column,
            image_column=options.image_column,
            attach=options.attach,
        )

    def _text(self, encoding: str, *, newline: str | None) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._source.open(), encoding=encoding, newline=newline)

    def _sniff(self, encoding: str) -> str:
        options = self._options
        asked = [name for name in (options.column, options.id_column, options.thread_column) if name is not None]
        asked += () if options.template is None else options.template.fields
        with self._text(encoding, newline=None) as text:
            return formats.sniff(text, columns=asked)

    def _read(self, columns: Columns, notes: Notes) -> Iterator[tuple[int, Question] | tuple[int, Fault]]:
        """Every question or fault with its line."""
        assert self._found is not None
        assert self._format is not None
        table = self._format in (formats.CSV, formats.TSV)
        checks = RowChecks(max_question_bytes=self._options.max_question_bytes, attachments=self._attachments)
        index = 0
        shape: tuple[str, ...] | None = None
        layout: Layout | None = None
        with self._text(self._found.encoding, newline="" if table else None) as text:
            for item in self._rows(text, columns, notes):
                if isinstance(item, Fault):
                    yield item.line or 0, item
                    continue
                if index == self._options.max_rows:
                    yield (
                        item.line,
                        Fault(
                            item.line,
                            f"here the list exceeds {self._options.max_rows:,} questions, the most that is allowed",
                            None,
                            "Split the list, or raise ASKQ_MAX_ROWS.",
                        ),
                    )
                    return
                try:
                    if isinstance(item, Row):
                        if item.names is not shape:
                            layout = columns.layout(item.names)
                            shape = item.names
                        assert layout is not None
                        draft = columns.draft(item, layout)
                    else:
                        draft = item
                        _remember(draft, columns)
                except ColumnFault as exc:
                    shape = None
                    index += 1
                    yield item.line, Fault(item.line, exc.message, None, exc.remedy)
                    continue
                question = checks.question(draft, index)
                index += 1
                if isinstance(question, Question):
                    yield item.line, question
                else:
                    for fault in question:
                        yield item.line, fault

    def _rows(self, text: io.TextIOWrapper, columns: Columns, notes: Notes) -> Iterator[Row | Draft | Fault]:
        if self._format == formats.CSV:
            return delimited.read(text, delimiter=None, columns=columns, notes=notes)
        if self._format == formats.TSV:
            return delimited.read(text, delimiter="\t", columns=columns, notes=notes)
        if self._format == formats.JSON:
            return json_rows.read_list(text, notes=notes)
        if self._format in (formats.JSONL, formats.OPENAI):
            return json_rows.read_lines(text, batch_only=self._format == formats.OPENAI, notes=notes)
        if self._options.split == "blank-line":
            return lines.read_paragraphs(text)
        return lines.read(text, notes=notes)

    def _twice(self, ids: list[array[int]]) -> list[Fault]:
        """Ids that are there more than once."""
        suspects: set[int] = set()
        for partition in ids:
            last = None
            for number in sorted(partition):
                if number == last:
                    suspects.add(number)
                last = number
        if not suspects:
            return []
        first: dict[str, int] = {}
        faults: list[Fault] = []
        for line, found in self._read(self._columns(Notes()), Notes()):
            if isinstance(found, Fault) or hash(found.row_id) not in suspects:
                continue
            if (earlier := first.get(found.row_id)) is not None:
                faults.append(Fault(line, f'the id "{found.row_id}" is used already in line {earlier}', None, _OWN_IDS))
            first.setdefault(found.row_id, line)
            if len(faults) >= _PROBLEMS_KEPT:
                break
        return faults

    def _error(self, faults: list[Fault]) -> InputError:
        remedies = dict.fromkeys(fault.remedy for fault in faults if fault.remedy)
        return InputError(
            [
                Problem(file=self._source.name, line=fault.line, message=fault.message, column=fault.column)
                for fault in faults
            ],
            remedy="\n".join(list(remedies)[:3]) or CORRECT_THE_LIST,
        )


_OWN_IDS = "Give every row an id of its own, or name another column with --id-column."


def same_thread(name: str) -> str:
    """The name of a conversation as it is compared: the same text may be composed in two ways, and Korean from a Mac
    often is in the longer one."""
    return unicodedata.normalize("NFC", name)


def _remember(draft: Draft, columns: Columns) -> None:
    if draft.id_column is not None:
        columns.remember(draft.id_column, "id")
    for name in draft.input:
        columns.remember(name, None)


def open_list(
    source: Path | str,
    *,
    column: str | None = None,
    id_column: str | None = None,
    file_column: str | None = None,
    image_column: str | None = None,
    attach: bool = True,
    thread_column: str | None = None,
    format: str | None = None,  # noqa: A002 (the option's name)
    template: str | None = None,
    split: str | None = None,
    encoding: str | None = None,
    max_rows: int = MAX_ROWS,
    max_question_bytes: int = MAX_QUESTION_BYTES,
    stdin: BinaryIO | None = None,
) -> QuestionList:
    """The list in a file, or on standard input for "-" (read to its end here).

    `column`, `id_column` and `thread_column` name the columns to use, `file_column` and `image_column` those that name
    files to go along (`attach=False`: none does, whatever the columns are called), `format` is one of
    `formats.FORMATS`, `template` makes the question from several columns, `split="blank-line"` takes paragraphs of a
    text instead of lines, `encoding` is not found out then. Raises InputError for a wrong option and for a file that
    is not there, not readable or of no known kind; what is in it is looked at by `QuestionList.check`.
    """
    if split not in (None, *_SPLITS):
        raise InputError(f'"{split}" is no way to split a text', remedy=f"Known: {', '.join(_SPLITS)}.")
    options = Options(
        format=None if format is None else formats.known_format(format),
        column=column,
        id_column=id_column,
        file_column=file_column,
        image_column=image_column,
        attach=attach,
        thread_column=thread_column,
        template=None if template is None else Template(template),
        split=split or "line",
        encoding=None if encoding is None else known_encoding(encoding),
        max_rows=max_rows,
        max_question_bytes=max_question_bytes,
    )
    if str(source) == "-":
        return QuestionList(spool("stdin", sys.stdin.buffer if stdin is None else stdin), options)
    path = Path(source)
    opened = open_path(path)
    if options.format is None and path.is_file():
        options = dataclasses.replace(options, format=formats.format_of(path))
    return QuestionList(opened, options, base=path.parent)


def open_items(
    items: Iterable[str | Mapping[str, object]],
    *,
    column: str | None = None,
    id_column: str | None = None,
    thread_column: str | None = None,
    template: str | None = None,
    max_rows: int = MAX_ROWS,
    max_question_bytes: int = MAX_QUESTION_BYTES,
) -> QuestionList:
    """The list in Python values: strings, or mappings with the keys a file would have as columns.

    The items are taken to the end and kept in a temporary file, so that a generator too is checked as a whole before
    its first question is queued. Raises InputError when an item is neither, or holds what JSON cannot.
    """
    if isinstance(items, str | bytes | Mapping):
        raise InputError(
            "a list of questions is expected, not a single one", remedy='Write ["…"] around a single question.'
        )
    if hasattr(items, "columns"):
        # Iterating over a data frame gives the names of its columns: they would be asked.
        raise InputError(
            f"a {type(items).__name__} is no list of questions",
            remedy='Pass its rows: frame.to_dict("records") of pandas, frame.to_dicts() of polars.',
        )
    options = Options(
        format=formats.JSONL,
        column=column,
        id_column=id_column,
        thread_column=thread_column,
        template=None if template is None else Template(template),
        max_rows=max_rows,
        max_question_bytes=max_question_bytes,
    )
    return QuestionList(spool_lines("item", _items_as_lines(items, max_rows=max_rows)), options)


def from_items(
    items: Iterable[str | Mapping[str, object]],
    *,
    column: str | None = None,
    id_column: str | None = None,
    thread_column: str | None = None,
    template: str | None = None,
    max_rows: int = MAX_ROWS,
    max_question_bytes: int = MAX_QUESTION_BYTES,
) -> Iterator[Question]:
    """The questions in Python values, all of them checked before this returns. See `open_items`."""
    opened = open_items(
        items,
        column=column,
        id_column=id_column,
        thread_column=thread_column,
        template=template,
        max_rows=max_rows,
        max_question_bytes=max_question_bytes,
    )
    try:
        opened.check()
    except BaseException:
        opened.close()
        raise
    return _closing(opened)


def _closing(opened: QuestionList) -> Iterator[Question]:
    with opened:
        yield from opened


def _items_as_lines(items: Iterable[object], *, max_rows: int) -> Iterator[bytes]:
    problems: list[Problem] = []
    for number, item in enumerate(items, 1):
        if number > max_rows + 1:
            # The check will say that there are too many; an endless generator must end before the disk does.
            break
        if not isinstance(item, str | Mapping):
            what = f"a string or a mapping is expected, not {type(item).__name__}"
        else:
            try:
                line = json.dumps(item if isinstance(item, str) else dict(item), allow_nan=False)
            except (TypeError, ValueError, RecursionError) as exc:
                what = f"it cannot be kept as JSON: {exc}"
            else:
                yield line.encode() + b"\n"
                continue
        problems.append(Problem(file="item", line=number, message=what))
        if len(problems) >= _PROBLEMS_KEPT:
            break
        # Keeps the numbers of the items after it; never read, because the problems are raised.
        yield b"\n"
    if problems:
        raise InputError(problems, remedy="Nothing was queued; use text, numbers, lists and mappings only.")
