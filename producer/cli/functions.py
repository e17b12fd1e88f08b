"""The functions that an answer calls: what each has returned, shown once, as soon as it is on record.

Calls are seen live as the model writes them, where there is a stream. What comes of them is known to the store alone,
and so are the calls themselves where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from askq.jobs.live import Kind, LiveEntry, Piece
from producer.answers.plain import plain
from producer.cli.screen import Screen

_LINES = 12
_CHARACTERS = 1000

_WRITTEN = frozenset({Kind.TEXT, Kind.ASIDE, Kind.CODE})

Shown = Mapping[str, Any]
"""A call as results show it (`KeptCall.shown`)."""


class Functions:
    """One question's calls, as far as a person has seen them."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._written: dict[tuple[str, str], tuple[str, str]] = {}
        """Name and arguments, without blanks, of calls that were seen live, by their runs and keys."""
        self._returned: set[int] = set()
        """Places, among all calls of the question, of those whose outputs were shown."""
        self._kept = 0

    @property
    def owed(self) -> bool:
        """Whether a call is known whose output was not shown."""
        return max(self._kept, len(self._written)) > len(self._returned)

    def precede(self, entry: LiveEntry) -> bool:
        """Whether outputs that were not shown may be what comes before this: a model writes on when it has them."""
        return self.owed and any(
            piece.kind in _WRITTEN or (piece.kind is Kind.CALL and (entry.run, piece.key) not in self._written)
            for piece in entry.pieces
        )

    def see(self, run: str, piece: Piece) -> None:
        """Note a part of a call that was shown live."""
        if piece.kind is Kind.CALL:
            name, arguments = self._written.get((run, piece.key), ("", ""))
            self._written[run, piece.key] = name or piece.name, arguments + _bare(piece.text)

    def show(self, calls: Sequence[Shown], *, seen_only: bool = False) -> None:
        """Show what of all calls, oldest first, has returned; of one that was not seen, what was called, too. With
        `seen_only` those wait, as they may still be seen live."""
        self._kept = len(calls)
        live = Counter(self._written.values())
        for place, call in enumerate(calls):
            name, arguments = str(call.get("name") or ""), str(call.get("arguments") or "")
            written = name, _bare(arguments)
            seen = live[written] > 0
            live[written] -= seen
            if call.get("output") is None or place in self._returned or (seen_only and not seen):
                continue
            self._returned.add(place)
            shown = plain(name, one_line=True)
            if not seen:
                self._screen.block(f"calls {shown}", shortened(arguments))
            error = call.get("error")
            told = f"{shown} failed: {plain(str(error), one_line=True)}" if error else f"{shown} returned"
            self._screen.block(told, shortened(str(call["output"])))


def shortened(text: str) -> str:
    """The beginning of a long text, and how much more there is."""
    lines = text.splitlines(keepends=True)
    kept = "".join(lines[:_LINES])[:_CHARACTERS]
    left_out = len(text) - len(kept)
    return f"{kept.rstrip()}\n… {left_out:,} more characters" if left_out > 0 else text


def _bare(arguments: str) -> str:
    """Arguments as they are compared: a service may show the same JSON with other blanks."""
    return "".join(arguments.split())
