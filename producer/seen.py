"""What of an answer has been seen live, and what of it is still to be shown when the whole answer is there."""

from __future__ import annotations

from askq.jobs.live import GROWING, Kind, LiveEntry, Piece


class Seen:
    """One question's answer, as far as its live log has shown it."""

    def __init__(self) -> None:
        self.run: str | None = None
        self._lengths: dict[tuple[Kind, str], int] = {}
        self._texts: dict[str, str] = {}
        """By message, in the order in which they began."""
        self._missing: set[tuple[Kind, str]] = set()
        """Texts of which a part has not come: what follows would not fit."""
        self._things: set[tuple[Kind, str]] = set()

    @property
    def text(self) -> str:
        """What was shown of the answer."""
        return "\n\n".join(self._texts.values())

    def take(self, entry: LiveEntry) -> list[Piece]:
        """What of an entry is new, in parts that continue what was seen. The first of another run begins anew."""
        if entry.run != self.run:
            self.__init__()  # type: ignore[misc]  # as if nothing had been seen
            self.run = entry.run
        return [new for piece in entry.pieces if (new := self._new(piece)) is not None]

    def _new(self, piece: Piece) -> Piece | None:
        where = (piece.kind, piece.key)
        if piece.kind not in GROWING:
            if piece.kind in (Kind.FILE, Kind.IMAGE, Kind.SEARCH):
                if where in self._things:
                    return None
                self._things.add(where)
            return piece
        known = self._lengths.get(where, 0)
        if piece.at > known:
            self._missing.add(where)
        part = piece.text[known - piece.at :]
        if where in self._missing or (not part and where in self._lengths):
            return None
        self._lengths[where] = known + len(part)
        if piece.kind is Kind.TEXT:
            self._texts[piece.key] = self._texts.get(piece.key, "") + part
        return Piece(kind=piece.kind, key=piece.key, at=known, text=part, name=piece.name)

    def rest(self, answer: str) -> str | None:
        """What of the whole answer was not seen; None where what was seen is not its beginning."""
        shown = self.text
        if answer.startswith(shown):
            return answer[len(shown) :]
        # Blanks beside a mark that was taken out, or between messages, may differ.
        at = 0
        for wanted in shown:
            if wanted.isspace():
                continue
            while at < len(answer) and answer[at].isspace():
                at += 1
            if at == len(answer) or answer[at] != wanted:
                return None
            at += 1
        rest = answer[at:]
        return rest if rest.strip() else ""
