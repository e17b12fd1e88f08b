"""How the bytes of a list are to be read as text, found out from all of them before any row is read.

UTF-8 (with or without a byte order mark) first, then UTF-16 by its mark, then CP949 where the text is Korean beyond
doubt, then Windows-1252, these two with a note, because spreadsheets still write them. What is none of these is refused
with the lines, unless somebody says which encoding it is: a question read in the wrong one would be paid for all the
same.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from askq.errors import InputError, Problem
from producer.questions.reading import quoted
from producer.questions.source import Source

_CHUNK = 1 << 20
_FAULTS_SHOWN = 100
_UNDEFINED_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_HIGH = bytes(range(0x80, 0x100))
_UTF8_SEQUENCES = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH_RUNS = re.compile(rb"[\x80-\xff]{4,}")
"""Western European text has such runs next to never; Cyrillic, Greek, Chinese … in other 8-bit encodings are made
of them."""

_COMMON_SYLLABLES = frozenset(
    "이다는의에가을하고은를도한지로사서기어나아자리해인니그수시라들있것대요스정보과부장일주만제전구여게상오까습면안성"
)
"""More than half of any Korean text, and next to nothing of Chinese or Japanese bytes that are read as if they were."""
_ENOUGH_SYLLABLES = 6

_FOREIGN = (
    (b"PK\x03\x04", "this is an Excel workbook or another zip archive", "Export the sheet as CSV (UTF-8)."),
    (b"\xd0\xcf\x11\xe0", "this is an old Excel or Office file", "Export the sheet as CSV (UTF-8)."),
    (b"PAR1", "this is a Parquet file", "Export it as JSON Lines or CSV."),
    (b"\x1f\x8b", "this is compressed with gzip", "Decompress it first: gunzip -k FILE."),
    (b"%PDF", "this is a PDF", "Copy the questions into a text file, one per line."),
)
_SAVE_AS_UTF8 = (
    "Save the file as UTF-8 and try again (in a spreadsheet: export as CSV UTF-8), or name its encoding: --encoding."
)
_NO_FILES = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_MARKS = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
"""Encodings that leave the mark in the text, where it would become part of a column's name."""
_NAMES = {"cp949": "Korean (CP949)", "cp1252": "Windows-1252"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one pass over the bytes tells."""

    encoding: str
    size: int
    digest: str
    """SHA-256 of the bytes, hexadecimal."""
    note: str | None = None


def known_encoding(name: str) -> str:
    """The encoding of this name, as Python calls it. Raises InputError."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    # Python's own codecs that make bytes of bytes are none of a text, and some others are none of a file.
    if found is None or not getattr(found, "_is_text_encoding", True) or found.name in _NO_FILES:
        raise InputError(
            f"there is no encoding {quoted(name)}",
            remedy="For example utf-8, utf-16, cp949 (Korean), shift_jis (Japanese), gb18030 (Chinese) or cp1251.",
        )
    return "utf-8-sig" if found.name == "utf-8" else found.name


def inspect(source: Source, *, longest_line: int, encoding: str | None = None) -> Inspection:
    """Read everything once; `encoding` is not to be found out. Raises InputError for bytes that are no text, with their
    lines, and for lines of more than `longest_line` bytes, which could not be read in constant memory."""
    told = encoding
    digest = hashlib.sha256()
    size = run = longest = 0
    decodable, nul = True, False
    encoding = told or "utf-8-sig"
    decoder = codecs.getincrementaldecoder(encoding)()
    with source.open() as file:
        while chunk := _read(source, file):
            if size == 0:
                _refuse_foreign(source, chunk)
                if told is None and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    encoding = "utf-16"
                    decoder = codecs.getincrementaldecoder(encoding)()
                elif told in ("utf-16", "utf-32") and not chunk.startswith(tuple(_MARKS.values())):
                    raise _without_mark(source, told)
                elif told in _MARKS and chunk.startswith(_MARKS[told]):
                    encoding = told[: len("utf-16")]
                    decoder = codecs.getincrementaldecoder(encoding)()
            size += len(chunk)
            digest.update(chunk)
            if (first := chunk.find(b"\n")) < 0:
                run += len(chunk)
            else:
                longest = max(longest, run + first)
                run = len(chunk) - chunk.rfind(b"\n") - 1
            if decodable:
                try:
                    nul = "\0" in decoder.decode(chunk) or nul
                except UnicodeDecodeError:
                    decodable = False
        if decodable:
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                decodable = False
    if max(longest, run) > longest_line:
        raise _too_long(source, longest_line)
    if decodable and nul:
        raise _with_nul(source, encoding)
    note = None
    if not decodable:
        if told is not None or encoding == "utf-16":
            raise _undecodable(source, encoding)
        encoding = "cp949" if _is_korean(source) else _eight_bit(source)
        note = (
            f"{source.name} is not UTF-8; it was read as {_NAMES[encoding]}. If letters look wrong, save it as UTF-8 "
            "and submit it again."
        )
    return Inspection(encoding=encoding, size=size, digest=digest.hexdigest(), note=note)


def _read(source: Source, file: BinaryIO) -> bytes:
    try:
        return file.read(_CHUNK)
    except OSError as exc:
        raise InputError(
            [Problem(file=source.name, message=f"reading it failed: {exc.strerror or exc}")],
            remedy="Copy the file to a local disk and try again.",
        ) from exc


def _refuse_foreign(source: Source, head: bytes) -> None:
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise InputError([Problem(file=source.name, message=f"{what}, not text")], remedy=remedy)


def _is_korean(source: Source) -> bool:
    """Whether the bytes are CP949, which Korean spreadsheets write, and the text is Korean and nothing else."""
    decoder = codecs.getincrementaldecoder("cp949")()
    high = hangul = common = 0
    with source.open() as file:
        while True:
            chunk = file.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                return False
            for char in text:
                if char >= "\u3000":
                    high += 1
                    if "\uac00" <= char <= "\ud7a3":
                        hangul += 1
                        common += char in _COMMON_SYLLABLES
            if not chunk:
                break
    return hangul >= _ENOUGH_SYLLABLES and hangul >= 0.9 * high and common >= 0.3 * hangul


def _eight_bit(source: Source) -> str:
    """`cp1252` when bytes that are not UTF-8 can be that; raises InputError with lines otherwise."""
    high = in_sequences = in_runs = 0
    undefined: list[Problem] = []
    for line, piece in _pieces(source):
        if piece.isascii():
            continue
        high += len(piece) - len(piece.translate(None, _HIGH))
        in_sequences += sum(map(len, _UTF8_SEQUENCES.findall(piece)))
        in_runs += sum(map(len, _HIGH_RUNS.findall(piece)))
        if len(undefined) < _FAULTS_SHOWN and (found := _UNDEFINED_IN_CP1252.search(piece)):
            undefined.append(
                Problem(
                    file=source.name,
                    line=line,
                    message=f"byte 0x{found[0].hex()} is neither UTF-8 nor Windows-1252",
                )
            )
    if 2 * in_sequences >= high:
        # Most of it is UTF-8: the rest is damage, not another encoding.
        raise InputError(list(islice(_bad_utf8(source), _FAULTS_SHOWN)), remedy=_SAVE_AS_UTF8)
    if undefined:
        raise InputError(undefined, remedy=_SAVE_AS_UTF8)
    if 2 * in_runs >= high:
        problem = next(_bad_utf8(source))
        raise InputError(
            [
                problem,
                Problem(
                    file=source.name,
                    message="its letters do not look like Windows-1252 either (an encoding of Cyrillic, Greek or "
                    "East Asian text?), so nothing was guessed",
                ),
            ],
            remedy=_SAVE_AS_UTF8,
        )
    return "cp1252"


def _bad_utf8(source: Source) -> Iterator[Problem]:
    """One problem for each line that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    told = 0
    for line, piece in _pieces(source):
        try:
            decoder.decode(piece, final=piece.endswith(b"\n"))
        except UnicodeDecodeError as exc:
            decoder.reset()
            if line != told:
                told = line
                byte = exc.object[exc.start]
                yield Problem(file=source.name, line=line, message=f"byte 0x{byte:02x} is not valid UTF-8")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        yield Problem(file=source.name, message="the last character is cut off (not valid UTF-8)")


def _without_mark(source: Source, encoding: str) -> InputError:
    name = encoding.upper()
    return InputError(
        [Problem(file=source.name, line=1, message=f"no byte order mark tells which of the two {name} this is")],
        remedy=f"Say it: --encoding {encoding}-le (Windows writes that one) or --encoding {encoding}-be.",
    )


def _undecodable(source: Source, encoding: str) -> InputError:
    line, order, name = 1, encoding, encoding.upper()
    with source.open() as file:
        if encoding == "utf-16":
            order = "utf-16-le" if file.read(2) == codecs.BOM_UTF16_LE else "utf-16-be"
        decoder = codecs.getincrementaldecoder(order)()
        try:
            while chunk := file.read(_CHUNK):
                line += decoder.decode(chunk).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as exc:
            line += exc.object[: exc.start].decode(order).count("\n")
    return InputError(
        [Problem(file=source.name, line=line, message=f"the bytes here are not valid {name}")], remedy=_SAVE_AS_UTF8
    )


def _with_nul(source: Source, encoding: str) -> InputError:
    problems: list[Problem] = []
    with source.open() as file:
        lines = codecs.iterdecode(iter(lambda: file.read(_CHUNK), b""), encoding)
        line, told = 1, 0
        for text in lines:
            position = 0
            while len(problems) < _FAULTS_SHOWN and (found := text.find("\0", position)) >= 0:
                line += text.count("\n", position, found)
                position = found + 1
                if line != told:
                    told = line
                    problems.append(Problem(file=source.name, line=line, message="there is a NUL character"))
            line += text.count("\n", position)
    return InputError(
        problems,
        remedy="Remove it. If every second byte is NUL, the file is UTF-16 without a byte order mark: "
        "save it as UTF-8.",
    )


def _too_long(source: Source, limit: int) -> InputError:
    lines: list[Problem] = []
    length, current = 0, 1
    for line, piece in _pieces(source):
        length = length + len(piece) if line == current else len(piece)
        current = line
        if length > limit and (not lines or lines[-1].line != line):
            lines.append(Problem(file=source.name, line=line, message=f"the line is longer than {limit >> 20} MiB"))
    return InputError(lines[:_FAULTS_SHOWN], remedy="Is this a text file with one row per line?")


def _pieces(source: Source) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; a very long line comes in several pieces with the same number."""
    line = 1
    with source.open() as file:
        while piece := file.readline(_CHUNK):
            yield line, piece
            line += piece.endswith(b"\n")
