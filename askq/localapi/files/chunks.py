"""Texts cut into passages that overlap, at the ends of lines and sentences where there are any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SIZE, OVERLAP = 800, 400
"""Tokens, as OpenAI cuts where nothing else is asked for."""
LEAST_SIZE, MOST_SIZE = 100, 4096

_ENDS = re.compile(r"\n+|(?<=[.!?。！？])\s+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: its text, and where in the whole text it begins and ends (characters)."""

    start: int
    end: int
    text: str


def cut(text: str, *, size: int = SIZE, overlap: int = OVERLAP) -> Iterator[Chunk]:
    """Passages of at most about `size` tokens, each beginning about `overlap` tokens before the last one's end."""
    pieces = list(_pieces(text, size))
    first = 0
    while first < len(pieces):
        last, tokens = first, 0
        while last < len(pieces) and (last == first or tokens + pieces[last][2] <= size):
            tokens += pieces[last][2]
            last += 1
        start, end = pieces[first][0], pieces[last - 1][1]
        if text[start:end].strip():
            yield Chunk(start, end, text[start:end])
        if last == len(pieces):
            return
        back, shared = last, 0
        while back - 1 > first and shared + pieces[back - 1][2] <= overlap:
            back -= 1
            shared += pieces[back][2]
        first = back


def _pieces(text: str, size: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and tokens of lines and sentences; longer ones than a chunk are cut wherever that is."""
    at = 0
    for end in [*(found.end() for found in _ENDS.finditer(text)), len(text)]:
        while at < end:
            stop = min(end, at + size)  # a token is at least one character
            yield at, stop, _tokens(text[at:stop])
            at = stop


def _tokens(text: str) -> int:
    return max(-(-len(text.encode("utf-8", "surrogatepass")) // 4), 1)
