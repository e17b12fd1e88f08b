"""Plain text: a question per line, or per paragraph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from producer.questions.reading import Notes, Row

NAMES = ("question",)


def read(text: TextIO, *, notes: Notes) -> Iterator[Row]:
    """One row per line that is not blank."""
    tabs = False
    for line, raw in enumerate(text, 1):
        if question := raw.strip():
            tabs = tabs or "\t" in question
            yield Row(line, NAMES, (question,), len(question))
    if tabs:
        notes.say("lines hold tabs and were taken as they are; if this is a table, read it with --format tsv")


def read_paragraphs(text: TextIO) -> Iterator[Row]:
    """One row per paragraph: lines between blank lines, line breaks kept."""
    paragraph: list[str] = []
    start = 1
    for line, raw in enumerate(text, 1):
        if raw.strip():
            if not paragraph:
                start = line
            paragraph.append(raw.rstrip())
        elif paragraph:
            yield _joined(start, paragraph)
            paragraph = []
    if paragraph:
        yield _joined(start, paragraph)


def _joined(line: int, paragraph: list[str]) -> Row:
    question = "\n".join(paragraph).strip()
    return Row(line, NAMES, (question,), len(question))
