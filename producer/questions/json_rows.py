"""JSON Lines and JSON lists, read without holding more than one row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

from producer.questions import openai_batch
from producer.questions.lines import NAMES as ONE_QUESTION
from producer.questions.reading import Draft, Fault, Notes, Row
from producer.strict_json import JsonFault, parse, parse_at, skip_at

_CHUNK = 1 << 16
ELEMENT_LIMIT = 64 << 20
"""Characters of one element of a list; a list that is broken in the middle ends here and not in the memory."""
_BLANK = re.compile(r"[ \t\n\r]*")


def read_lines(text: TextIO, *, batch_only: bool, notes: Notes) -> Iterator[Row | Draft | Fault]:
    """A string or an object per line; blank lines are skipped. `batch_only`: each must be a request of OpenAI's
    Batch API, which is otherwise recognised line by line."""
    for line, raw in enumerate(text, 1):
        if not (stripped := raw.strip()):
            continue
        if line == 1 and stripped.startswith("["):
            yield Fault(1, "a line starts with [", None, "If the file is one JSON list, say --format json.")
            return
        try:
            value = parse(stripped)
        except JsonFault as exc:
            yield Fault(line, str(exc))
            continue
        yield _element(value, line, len(stripped), batch_only=batch_only, notes=notes)


def read_list(text: TextIO, *, notes: Notes) -> Iterator[Row | Draft | Fault]:
    """The elements of one JSON list."""
    window = _Window(text)
    opening = window.peek()
    if opening == "":
        return
    if opening != "[":
        yield Fault(
            window.line,
            "a JSON list ([ … ]) is expected",
            None,
            "If the file has a string or an object per line, name it .jsonl or say --format jsonl.",
        )
        return
    window.take()
    if window.peek() == "]":
        window.take()
    else:
        while True:
            window.peek()
            line = window.line
            try:
                value, size = window.value()
            except JsonFault as exc:
                yield Fault(line, f"{exc}; nothing after it was read" if exc.structural else str(exc))
                if exc.structural:
                    return
            else:
                yield _element(value, line, size, batch_only=False, notes=notes)
            after = window.peek()
            if after not in (",", "]"):
                what = f'"{after}"' if after else "the end of the file"
                yield Fault(window.line, f"a comma or ] is expected, not {what}; nothing after it was read")
                return
            window.take()
            if after == "]":
                break
    if window.peek():
        yield Fault(window.line, "there is something after the end of the list")


def _element(value: object, line: int, size: int, *, batch_only: bool, notes: Notes) -> Row | Draft | Fault:
    if isinstance(value, dict):
        if openai_batch.recognised(value):
            return openai_batch.draft(value, line=line, size=size, notes=notes)
        if batch_only:
            return Fault(line, "this is no request of the Batch API: custom_id and body are expected")
        return Row(line, tuple(value), tuple(value.values()), size)
    if isinstance(value, str) and not batch_only:
        return Row(line, ONE_QUESTION, (value,), size)
    kind = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return Fault(line, f"{'an object' if batch_only else 'a string or an object'} is expected, not {kind}")


class _Window:
    """A part of the text with a position in it, moved on as elements are taken."""

    def __init__(self, text: TextIO) -> None:
        self._stream = text
        self._text = ""
        self._position = 0
        self._ended = False
        self.line = 1
        """The line of the position."""

    def peek(self) -> str:
        """The next character that is not blank, or "" at the end; moves to it."""
        while True:
            blank = _BLANK.match(self._text, self._position)
            self._move(blank.end() if blank else self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._fill(_CHUNK):
                return ""

    def take(self) -> None:
        """Move past the character `peek` gave."""
        self._position += 1

    def value(self) -> tuple[object, int]:
        """The value at the position and its length; moves past it.

        Raises JsonFault; unless that is structural, the value was skipped.
        """
        more = _CHUNK
        while True:
            fault = None
            value: object = None
            try:
                try:
                    value, end = parse_at(self._text, self._position)
                except JsonFault as exc:
                    if exc.structural:
                        raise
                    fault = exc
                    end = skip_at(self._text, self._position)
            except json.JSONDecodeError as exc:
                if len(self._text) - self._position > ELEMENT_LIMIT:
                    raise JsonFault(f"an element is longer than {ELEMENT_LIMIT >> 20} MiB", structural=True) from exc
                if not self._fill(more):
                    line = self.line + self._text.count("\n", self._position, exc.pos)
                    raise JsonFault(f"not valid JSON: {exc.msg} (in line {line})", structural=True) from exc
                more *= 2
                continue
            if end == len(self._text) and self._fill(more):
                # A number may go on.
                continue
            size = end - self._position
            self._move(end)
            if fault is not None:
                raise fault
            return value, size

    def _move(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _fill(self, size: int) -> bool:
        if self._ended:
            return False
        chunk = self._stream.read(size)
        self._ended = not chunk
        self._text = self._text[self._position :] + chunk
        self._position = 0
        return bool(chunk)
