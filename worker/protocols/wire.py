"""One call over the SDK: its reply as plain JSON, or a `CallError`.

Replies are read as JSON and not as the SDK's objects: a pending poll costs half as much CPU, and servers that leave
fields out, or send statuses nobody has heard of, need no special care (`worker.protocols.fields`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
from openai import AsyncOpenAI, OpenAIError

from worker.protocols.base import Ambiguous
from worker.protocols.fields import JsonObject, a_count, a_text, objects
from worker.protocols.hints import Limits, limits, poll_after
from worker.protocols.repeats import Repeats
from worker.protocols.translate import translate

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that could be understood."""

    body: JsonObject
    headers: Mapping[str, str]

    @property
    def poll_after(self) -> float | None:
        """Seconds the server asks to wait before the next poll."""
        return poll_after(self.headers)

    @property
    def limits(self) -> Limits:
        """What it says of the account's limits."""
        return limits(self.headers)

    def require(self, *names: str) -> None:
        """Raise Ambiguous if every one of these fields is missing: whatever this is, it is not what was asked for."""
        if all(self.body.get(name) is None for name in names):
            raise Ambiguous("unreadable", f"the reply has neither {' nor '.join(names)}")

    def require_deletion(self) -> None:
        """Raise Ambiguous if the service says that it has not deleted what it was to delete."""
        if self.body.get("deleted") is False:
            raise Ambiguous("not_deleted", "the service says that it has not deleted it")


class Wire:
    """The calls of one client. None may take longer than the client's time-outs for a connection and a read together:
    the SDK's own start again with each byte, and a reply that trickles would never end."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.longest_s = _longest_s(client)
        self.repeats = Repeats(client)

    async def call(
        self,
        response: Awaitable[Any],
        *,
        names: str = "",
        needs_id: bool = True,
        needs_body: bool = True,
        longest_s: float | None = None,
    ) -> Reply:
        """Await a `with_raw_response` call. `names` is the object its address names, for a 404; `longest_s` is how long
        it may take where it takes longer than others. Without `needs_body` the reply may be anything but a page of
        HTML, which somebody else has sent: a proxy, say.

        Raises CallError.
        """
        try:
            async with asyncio.timeout(self.longest_s if longest_s is None else longest_s):
                raw = await response
            headers = raw.headers
            if not needs_body and not raw.text.lstrip().startswith(("{", "<")):
                return Reply({}, headers)
            body = parsed(raw.text)
        except (OpenAIError, TimeoutError, ValueError, RecursionError, aiohttp.ClientError, OSError) as exc:
            raise translate(exc, names=names) from exc
        if not isinstance(body, dict) or (needs_id and needs_body and not a_text(body.get("id"))):
            raise Ambiguous("unreadable", "the reply is no object with an id")
        return Reply(body, headers)

    async def newest(self, response: Awaitable[Any], *, names: str) -> JsonObject:
        """The first entry of a list that was asked for newest first; an empty one where the list is empty.

        Raises CallError; Ambiguous where the reply is no list.
        """
        entries = _entries(await self.call(response, names=names, needs_id=False))
        return entries[0] if entries else {}

    async def every(self, listing: Callable[[dict[str, Any]], Awaitable[Any]], *, names: str) -> list[JsonObject]:
        """All entries of a list, oldest first, over all its pages. `listing` makes the call for a query.

        Raises CallError; Ambiguous where the reply is no list, because nobody may conclude from it that it is empty.
        """
        found: list[JsonObject] = []
        seen: set[str] = set()
        query: dict[str, Any] = {"limit": _PAGE, "order": "asc"}
        while True:
            reply = await self.call(listing(query), names=names, needs_id=False)
            new = [entry for entry in _entries(reply) if a_text(entry.get("id")) not in seen]
            found += new
            last = a_text(new[-1].get("id")) if new else ""
            # A server that does not know `after` would repeat its first page for ever.
            if reply.body.get("has_more") is not True or not last:
                break
            seen |= {a_text(entry.get("id")) for entry in new}
            query = {**query, "after": last}
        if found and a_count(found[0].get("created_at")) > a_count(found[-1].get("created_at")):
            # It does not know `order` either.
            found.reverse()
        return found


def _entries(reply: Reply) -> list[JsonObject]:
    data = reply.body.get("data")
    if not isinstance(data, list):
        raise Ambiguous("unreadable", "the reply is no list")
    return objects(data)


def _longest_s(client: AsyncOpenAI) -> float | None:
    timeout = client.timeout
    if isinstance(timeout, httpx2.Timeout):
        return None if timeout.read is None else timeout.read + (timeout.pool or 0.0)
    return timeout if isinstance(timeout, (int, float)) else None


def parsed(text: str) -> Any:
    """JSON without what could not be stored or printed. Raises ValueError."""
    body = json.loads(text)
    if "\\ud" in text or "\\uD" in text:
        # Half of a surrogate pair is valid JSON, but no text that could be stored or printed.
        body = json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    return body
