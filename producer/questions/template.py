"""A template makes the question from several columns: `Translate to {lang}: {question}`.

It looks like `str.format`, but names columns only. No attributes, no indices, no conversions: a template may come
from somebody else, and `{question.__class__}` must not reach into the program.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence

from askq.errors import InputError

_REMEDY = "Write column names in braces, e.g. 'Translate to {lang}: {question}'; a brace itself is written twice."


class Template:
    """A checked template. `fields` are the names in it, in order, as often as they stand there."""

    def __init__(self, text: str) -> None:
        """Raises InputError when it cannot be understood."""
        literals: list[str] = []
        fields: list[str] = []
        pending = ""
        try:
            for literal, field, spec, conversion in string.Formatter().parse(text):
                pending += literal
                if field is None:
                    continue
                if not field.strip():
                    raise InputError(f"the template {text!r} has empty braces", remedy=_REMEDY)
                if spec or conversion:
                    raise InputError(f"the template {text!r} formats {{{field}}}", remedy=_REMEDY)
                literals.append(pending)
                fields.append(field)
                pending = ""
        except ValueError as exc:
            raise InputError(f"the template {text!r} cannot be read: {exc}", remedy=_REMEDY) from exc
        if not fields:
            raise InputError(f"the template {text!r} names no column: every row would ask the same", remedy=_REMEDY)
        self._literals = literals
        self._last = pending
        self.fields = tuple(fields)

    def fill(self, values: Sequence[object]) -> str:
        """The text with the values of `fields`, in their order."""
        parts: list[str] = []
        for literal, value in zip(self._literals, values, strict=True):
            parts += (literal, _text(value))
        return "".join(parts) + self._last


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
