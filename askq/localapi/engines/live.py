"""What an engine has said so far, for those who listen while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from askq.localapi.engines.base import Call, Output, Text


@dataclass(slots=True)
class Piecemeal:
    """A text, or the arguments of a call, in the pieces it came in."""

    pieces: list[str] = field(default_factory=list)
    call_id: str | None = None
    """None: it is a text."""
    name: str = ""

    def output(self) -> Output:
        """As far as it goes."""
        said = "".join(self.pieces)
        return Text(value=said) if self.call_id is None else Call(call_id=self.call_id, name=self.name, arguments=said)


class Live:
    """The outputs of one leg as they grow: a text, then calls. Each change rings the bell."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.outputs: list[Piecemeal] = []
        self._ring = ring

    def text(self, piece: str) -> None:
        """The text goes on. What comes after the first call is not told piece by piece: the outcome has it."""
        if not piece or (self.outputs and self.outputs[-1].call_id is not None):
            return
        if not self.outputs:
            self.outputs.append(Piecemeal())
        self.outputs[-1].pieces.append(piece)
        self._ring()

    def call(self, call_id: str, name: str, piece: str) -> None:
        """A call begins or goes on. One call at a time: what comes for an earlier one is not told piece by piece."""
        if not self.outputs or self.outputs[-1].call_id != call_id:
            if any(output.call_id == call_id for output in self.outputs):
                return
            self.outputs.append(Piecemeal(call_id=call_id, name=name))
        if piece:
            self.outputs[-1].pieces.append(piece)
        self._ring()
