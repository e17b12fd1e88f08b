"""Looks that many want at the same moment: one is made, and all get what it brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Belongs to one event loop. Remembers nothing: whoever comes when a look is over makes another."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[T]] = {}

    async def get(self, key: str, look: Callable[[], Awaitable[T]]) -> T:
        """What a look under this key brings, or raises."""
        known = self._under_way.get(key)
        if known is None:
            known = self._under_way[key] = asyncio.ensure_future(look())
            known.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(known)
