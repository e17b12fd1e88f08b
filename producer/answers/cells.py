"""Values as cells of a spreadsheet.

A cell that begins like a formula is executed by the spreadsheet that opens it, and answers are written by a model:
such cells get an apostrophe in front, which spreadsheets take for "this is text". Blanks before the sign do not help
an attacker, nor do full-width forms, which East Asian versions treat alike. A cell that is nothing but a number
stays as it is: -5 is data, and harmless.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

_FORMULA = frozenset("=+-@|\uff1d\uff0b\uff0d\uff20")
_BREAKS = frozenset("\t\r\n")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?%?")
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"


def defused(text: str) -> str:
    """The text with an apostrophe in front when a spreadsheet could take it for a formula."""
    if not text:
        return text
    first = text[0]
    if first.isalnum():
        return text
    if first not in _BREAKS:
        seen = first if first in _FORMULA else text.lstrip().lstrip(_UNSEEN).lstrip()[:1]
        if seen not in _FORMULA or _NUMBER.fullmatch(text):
            return text
    return f"'{text}"


def cell(value: object) -> str:
    """A value as the text of a cell: null is empty, lists and objects are JSON, numbers have no exponent."""
    if isinstance(value, str):
        text = value
    elif value is None:
        return ""
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, int):
        return str(value)
    elif isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    elif not value:
        return ""
    else:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # No CSV reader agrees with another about NUL.
    return defused(text.replace("\0", "\ufffd"))
