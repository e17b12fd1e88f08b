"""Which columns of a table a question is about, in English and Korean."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_BYTES = 256 << 10
_BLANK = {"", "na", "n/a", "nan", "null", "none", "-"}

_KOREAN = (
    ("생존", "survived survival alive"),
    ("사망", "died death dead"),
    ("성별", "sex gender"),
    ("연령|나이", "age"),
    ("요금|운임", "fare"),
    ("가격", "price"),
    ("등급|객실", "pclass class"),
    ("이름", "name"),
    ("부서", "department"),
    ("급여|월급|연봉", "salary wage"),
    ("점수|성적", "score grade"),
    ("도시", "city"),
    ("나라|국가", "country"),
    ("매출", "sales revenue"),
    ("수량", "quantity"),
)
"""Words for columns that English tables often have."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, as a sample of the table shows it."""

    name: str
    numeric: bool
    flag: bool
    """Only two values, such as 0 and 1: a rate can be had of it."""
    values: int
    """How many different ones."""
    signs: str = ""
    """What its values are written with beside ASCII."""


@dataclass(frozen=True, slots=True)
class Table:
    """How to read a CSV file, and what its columns are."""

    name: str
    encoding: str
    delimiter: str
    columns: tuple[Column, ...]


def sampled(name: str, content: bytes) -> Table | None:
    """The table that these first bytes of a file begin; None if they do not look like one."""
    for encoding in (
        ("utf-16", "utf-8-sig", "cp949")
        if content[:2] in (b"\xff\xfe", b"\xfe\xff")
        else (
            "utf-8-sig",
            "cp949",
        )
    ):
        try:
            # The sample may end within a character.
            text = content.decode(encoding, "strict" if len(content) < SAMPLE_BYTES else "ignore")
            break
        except UnicodeError:
            continue
    else:
        return None
    try:
        delimiter = csv.Sniffer().sniff(text[:8192], ",;\t|").delimiter
    except csv.Error:
        delimiter = ","
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return None
    if len(content) >= SAMPLE_BYTES:
        rows = rows[:-1]  # cut short
    if len(rows) < 2 or len(set(rows[0])) != len(rows[0]) or not all(cell.strip() for cell in rows[0]):
        return None
    columns = [_column(head, [row[at] for row in rows[1:] if at < len(row)]) for at, head in enumerate(rows[0])]
    return Table(name, encoding, delimiter, tuple(columns))


def _column(name: str, cells: Sequence[str]) -> Column:
    filled = [cell.strip() for cell in cells if cell.strip().lower() not in _BLANK]
    different = set(filled)
    numeric = bool(filled) and all(_is_number(cell) for cell in different)
    flag = len(different) == 2 and {cell.lower() for cell in different} in _FLAGS
    signs = sorted({sign for cell in different for sign in cell if not sign.isascii()})
    return Column(name, numeric, flag, len(different), "".join(signs))


_FLAGS = ({"0", "1"}, {"yes", "no"}, {"true", "false"}, {"y", "n"}, {"0.0", "1.0"}, {"예", "아니오"})


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d+)?", text) is not None


def mentioned(question: str, table: Table) -> list[tuple[int, Column]]:
    """The columns that a question names, and where, in the order of the question."""
    text = question.lower()
    for korean, english in _KOREAN:
        # In the place of the word, so that the order stays.
        text = re.sub(korean, f" {english} ", text)
    words = [(found.start(), found[0]) for found in re.finditer(r"[^\W_]+", text)]
    found: dict[str, tuple[int, Column]] = {}
    for column in table.columns:
        places = [at for at, word in words if any(_alike(word, part) for part in _parts(column.name))]
        whole = re.fullmatch(r"[a-z0-9]+", column.name.lower())  # `age` is in `average`, but not meant
        if not places and not whole and (at := text.find(column.name.lower())) >= 0:
            places = [at]
        if places:
            found[column.name] = (places[0], column)
    return sorted(found.values(), key=lambda one: one[0])


def _parts(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    parts = re.findall(r"[^\W_]+", spaced.lower())
    return [name.lower(), *parts] if len(parts) > 1 else parts or [name.lower()]


def _alike(word: str, part: str) -> bool:
    """`survival` and `survived`, `passengers` and `passenger`, `성별로` and `성별`."""
    if word == part or word.rstrip("s") == part.rstrip("s"):
        return True
    if not part.isascii():
        return len(part) >= 2 and word.startswith(part)
    if len(word) < 5 or len(part) < 5:
        return False
    common = next((at for at, (a, b) in enumerate(zip(word, part, strict=False)) if a != b), min(len(word), len(part)))
    return common >= max(5, min(len(word), len(part)) - 3)
