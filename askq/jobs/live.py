"""What can be seen of a run while it is at work: pieces of its stream, in one small vocabulary for both protocols.

A live log is a convenience and no part of the truth: it is bounded, it expires, and it may end in the middle. The
answer comes from the job's record, as always; whoever has followed the log compares it with what was seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_ENTRIES = 2000
"""A longer log loses its oldest entries."""
MOST_BYTES = 1 << 20
"""More than this of one run is not told live: the rest comes with the answer."""
KEPT_S = 600
"""How long a log stays after its last entry, in seconds."""
TELLS_S = 4.0
"""How long after its last word a teller is waited for, in seconds."""
LONGEST_WAIT_S = 1.0
"""Below the time-out of a reply: a reader that waits must not look like a server that is gone."""
_LONGEST_PIECE = 16_384


class Kind(StrEnum):
    """What a piece is about."""

    TEXT = "text"
    """A part of the answer."""
    ASIDE = "aside"
    """A part of a text that is no part of the answer: what the model says on its way."""
    CODE = "code"
    """A part of a program for the code interpreter."""
    OUTPUT = "output"
    """What a program has printed."""
    CALL = "call"
    """A part of the arguments (JSON) of a function call; `name` is the function."""
    SEARCH = "search"
    """The model searches; `name` is where."""
    FILE = "file"
    """The run made a file; `name` is its name, where it has one."""
    IMAGE = "image"
    STATUS = "status"
    """What the run is doing, in the service's word."""
    CUT = "cut"
    """The stream broke, or more is not told: the rest comes with the answer."""
    END = "end"
    """The run has ended; the answer is about to be stored."""


GROWING = frozenset({Kind.TEXT, Kind.ASIDE, Kind.CODE, Kind.OUTPUT, Kind.CALL})
"""Kinds whose pieces with the same key make up one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One thing to see. Of a text that grows it says where it belongs, so that nothing is seen twice."""

    kind: Kind
    text: str = ""
    key: str = ""
    """Which text this is a part of, or which file."""
    at: int = 0
    """Characters of that text before this piece."""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEntry:
    """What was told at one moment."""

    id: str
    """Entries that come later have greater ids; where to go on reading."""
    run: str
    """The run these pieces are of: a job may have had more than one."""
    pieces: tuple[Piece, ...]


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces, those put together that follow each other in one text; none is longer than a bound."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if (
            last is not None
            and piece.kind in GROWING
            and (last.kind, last.key, last.at + len(last.text)) == (piece.kind, piece.key, piece.at)
            and len(last.text) + len(piece.text) <= _LONGEST_PIECE
        ):
            found[-1] = Piece(
                kind=last.kind,
                key=last.key,
                at=last.at,
                text=last.text + piece.text,
                name=last.name or piece.name,
            )
        else:
            found.append(piece)
    return found


def dump(pieces: Sequence[Piece]) -> bytes:
    """Pieces as they are kept."""
    rows = [[piece.kind.value, piece.key, piece.at, piece.text, piece.name] for piece in pieces]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


def load(data: bytes) -> tuple[Piece, ...]:
    """What `dump` wrote; a kind that this version does not know is left out."""
    known = {kind.value for kind in Kind}
    return tuple(
        Piece(kind=Kind(kind), key=key, at=at, text=text, name=name)
        for kind, key, at, text, name in json.loads(data)
        if kind in known
    )
