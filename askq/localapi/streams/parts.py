"""The pieces that a stream tells, whatever the protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from askq.localapi.engines.base import Product
from askq.localapi.files.products import Products
from askq.localapi.store import Kind, Store
from askq.localapi.wire import JsonObject, derived_id

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


class DraftProducts(Products):
    """Names the files that code has made as they will be named, and files nothing."""

    def __init__(self, real: Products) -> None:
        self._blobs = real.blobs

    def file_all(self, owner: str, number: int, products: Iterable[Product]) -> list[JsonObject]:
        """The files of a run."""
        return [
            {"id": derived_id("file", owner, number * 1000 + index).replace("_", "-"), "filename": product.name}
            for index, product in enumerate(products)
        ]

    def contain_all(self, container_id: str, owner: str, number: int, products: Iterable[Product]) -> list[JsonObject]:
        """The files of a response."""
        return [{"id": derived_id("cfile", owner, number * 1000 + index)} for index, _ in enumerate(products)]

    def contain_given(self, container_id: str, owner: str, file_ids: Iterable[str]) -> None:
        """They are there when the response ends."""

    def container(self, container_id: str, *, gone_after: float | None = None) -> None:
        """It is made when the response ends."""
