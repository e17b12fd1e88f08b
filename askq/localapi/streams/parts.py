"""The pieces that a stream tells, whatever the protocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from askq.localapi.store import Kind, Store
from askq.localapi.wire import JsonObject

Event = tuple[str, JsonObject]
"""Name and data of a server-sent event."""

_PIECE = re.compile(r"\S{1,16}\s?|\s+")
_MOST_PIECES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An output as a stream tells it: it is opened, said piece by piece, and closed."""

    opened: list[Event]
    said: list[Event]
    closed: list[Event]
    say: Callable[[str], Event]
    """The event of a further piece, for what is not known as a whole yet."""

    @property
    def events(self) -> list[Event]:
        """All of them."""
        return [*self.opened, *self.said, *self.closed]


def pieces(text: str) -> list[str]:
    """A text in words with the blanks behind them, as a model would say it; at most a thousand pieces."""
    found = _PIECE.findall(text)
    together = -(-len(found) // _MOST_PIECES)
    if together <= 1:
        return found
    return ["".join(found[start : start + together]) for start in range(0, len(found), together)]


class DraftStore(Store):
    """A store in which messages can be drafted without anybody seeing them."""

    def __init__(self, real: Store) -> None:
        self._real = real
        self.drafted: dict[str, JsonObject] = {}

    def add(self, kind: Kind, body: JsonObject, *, parent: str | None = None) -> None:
        """Keep it here only."""
        self.drafted[body["id"]] = body

    def get(self, kind: Kind, object_id: str, *, parent: str | None = None) -> JsonObject | None:
        """What was drafted, else nothing: a draft adds to no conversation."""
        return self.drafted.get(object_id)

    def below(self, kind: Kind, parent: str | None = None) -> list[JsonObject]:
        """What there really is."""
        return self._real.below(kind, parent)
