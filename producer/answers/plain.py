"""Text from outside made harmless for a terminal or a log.

An answer is written by a model, a question by anybody: both may hold escape sequences that recolour, move, rename or
overwrite what the terminal shows, or characters that turn the direction of the text around.
"""

from __future__ import annotations

import re
import unicodedata

_INTRODUCERS = "\x90\x98\x9d\x9e\x9f"
_SEQUENCE = re.compile(
    # CSI: colours, movement, clearing.
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    # OSC, DCS, SOS, PM, APC: titles, links, clipboard. Only with their end: else the rest of the text would vanish.
    rf"|(?:\x1b[\]PX^_]|[{_INTRODUCERS}])[^\x07\x1b\x9c{_INTRODUCERS}]*(?:\x07|\x1b\\|\x9c)"
    # Any other escape.
    r"|\x1b[ -/]*[0-~]"
)
_LINE_END = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    # C0 without tab and newline, DEL, C1; marks that turn the direction of text; the byte order mark.
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SUSPICIOUS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def plain(text: str, *, one_line: bool = False) -> str:
    """The text without escape sequences, control characters and direction marks; tabs and line breaks stay.

    `one_line` makes every run of blanks and line breaks a single blank.

    >>> plain("\\x1b[31mred\\x1b[0m\\r\\n")
    'red\\n'
    """
    if _SUSPICIOUS.search(text):
        text = _LINE_END.sub("\n", _SEQUENCE.sub("", text))
        text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    return " ".join(text.split()) if one_line else text


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`, `1,000 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: letters of Korean, Chinese and Japanese take two each, and marks
    that are put on top of others none.

    >>> cells("ab"), cells("한글"), cells("e\u0301")
    (2, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    # The vowels and final consonants of a Korean syllable in pieces are shown within the first one.
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, width: int) -> str:
    """The text with blanks after it, so that what follows begins in the same column on every line."""
    return text + " " * (width - cells(text))
