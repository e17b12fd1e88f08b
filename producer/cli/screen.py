"""An answer while it is written: its text on standard output, all that is beside it on standard error."""

from __future__ import annotations

import sys
from typing import TextIO

from askq.jobs.live import Kind, Piece
from producer.answers.plain import plain

_DIM, _BOLD, _OFF = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_BAR = "  │ "


class Screen:
    """Shows pieces as they come. `quiet` leaves out everything but the answer."""

    def __init__(
        self, *, quiet: bool = False, color: bool = True, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._quiet = quiet
        self._color = color and self._err.isatty()
        self._one = self._out.isatty() and self._err.isatty()
        """Whether both are seen at one place, so that each must know where the other's line ends."""
        self._fresh = {self._out: True, self._err: True}
        """Whether the next character begins a line."""
        self._last_message: str | None = None
        self._block: tuple[Kind, str] | None = None

    def begin(self) -> None:
        """Another answer comes."""
        self._last_message, self._block = None, None

    def show(self, piece: Piece) -> None:
        """One piece that continues what was shown."""
        text = plain(piece.text)
        match piece.kind:
            case Kind.TEXT:
                self._leave_block()
                if self._last_message not in (None, piece.key):
                    self._write(self._out, "\n\n")
                self._last_message = piece.key
                self._write(self._out, text)
            case Kind.CODE:
                self._in_block(piece, "code")
                self._indented(text)
            case Kind.OUTPUT:
                self._in_block(piece, "output")
                self._indented(text)
            case Kind.CALL:
                self._in_block(piece, f"calls {plain(piece.name, one_line=True)}" if piece.name else "calls a function")
                self._indented(text)
            case Kind.ASIDE:
                self._in_block(piece, "on its way")
                self._indented(text)
            case Kind.SEARCH:
                self.note(f"── searches {piece.name}")
            case Kind.FILE:
                self.note(f"── made {plain(piece.name or 'a file', one_line=True)}")
            case Kind.IMAGE:
                self.note("── made an image")
            case Kind.STATUS | Kind.CUT | Kind.END:
                pass

    def rest(self, text: str) -> None:
        """The part of the answer that was not shown."""
        self._leave_block()
        self._write(self._out, plain(text))

    def instead(self, text: str) -> None:
        """The answer as it was stored, where something else was shown before."""
        self.note("askq: what came live is not what was stored; the answer:")
        self._write(self._out, plain(text))

    def finish(self) -> None:
        """The answer is whole: its line ends here."""
        self._leave_block()
        if not self._fresh[self._out]:
            self._write(self._out, "\n")

    def note(self, text: str) -> None:
        """A line beside the answer."""
        if self._quiet:
            return
        self._leave_block()
        self._line_of_its_own()
        self._write(self._err, f"{self._dim(plain(text))}\n")

    def block(self, title: str, text: str) -> None:
        """A text beside the answer, under a title."""
        self.note(f"── {title}")
        self._indented(plain(text))
        self._line_of_its_own()

    def _in_block(self, piece: Piece, title: str) -> None:
        if self._block != (piece.kind, piece.key):
            self.note(f"── {title}")
            self._block = (piece.kind, piece.key)

    def _leave_block(self) -> None:
        if self._block is not None:
            self._block = None
            if not self._fresh[self._err]:
                self._write(self._err, "\n")

    def _line_of_its_own(self) -> None:
        if not self._fresh[self._err]:
            self._write(self._err, "\n")

    def _indented(self, text: str) -> None:
        if self._quiet:
            return
        for line in text.splitlines(keepends=True):
            lead = _BAR if self._fresh[self._err] else ""
            body = line.rstrip("\n")
            self._write(self._err, f"{self._dim(lead + body)}{line[len(body) :]}")

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_OFF}" if self._color and text else text

    def _write(self, stream: TextIO, text: str) -> None:
        if not text:
            return
        stream.write(text)
        stream.flush()
        fresh = text.removesuffix(_OFF).endswith("\n")
        for seen in (self._out, self._err) if self._one else (stream,):
            self._fresh[seen] = fresh
