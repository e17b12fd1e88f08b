"""Files, vector stores and containers of an account: the same calls beside both protocols (protocols A.8, B.9).

All of them are free of tokens, and none makes a run. An upload whose reply was lost may have left a file that nobody
knows; a store is found again by its metadata.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import aiohttp
import httpx2
from openai import AsyncOpenAI, OpenAIError

from askq.files.kinds import media_type
from askq.jobs.model import Answer
from worker.protocols.base import Ambiguous, Blocked, CallError, Gone, Refused, Unread
from worker.protocols.fields import JsonObject, a_count, a_status, a_text, an_object
from worker.protocols.forgiving import deleted
from worker.protocols.translate import translate
from worker.protocols.wire import Wire

MOST_PER_BATCH = 500
"""Files put into a store with one call; the service takes more."""
OURS = "askq_item"
"""Metadata of a store: the item it was made for."""
_SLOWEST_BYTES_PER_S = 50_000
"""An upload or download that is slower is given up, and tried again."""
_CHUNK = 64 << 10
_EXPIRED = re.compile(r"expired|not found|no such|does not exist|deleted", re.IGNORECASE)


class TooLarge(Exception):
    """A file has more bytes than it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A file at the service."""

    id: str
    expires_at: int | None = None
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSeen:
    """A vector store as one look found it."""

    status: str
    """`in_progress`, `completed` or `expired`."""
    waiting: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A file that a run has made, where it can be fetched from."""

    kind: str
    """`image` or `file`."""
    file_id: str | None = None
    container_id: str | None = None
    url: str | None = None
    name: str | None = None
    size: int | None = None
    """Bytes, where the service says so."""

    @property
    def key(self) -> str:
        return self.file_id or self.url or ""


class Filing:
    """Speaks to one account through one client. Raises CallErrors."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._wire = Wire(client)
        self._names: dict[str, str] = {}

    # -- files -----------------------------------------------------------------------------------------

    async def upload(self, path: Path, *, name: str, size: int, purpose: str) -> Uploaded:
        """Upload a file under a name. Raises OSError when it cannot be read here."""
        longest_s = 60.0 + size / _SLOWEST_BYTES_PER_S
        with path.open("rb") as stream:
            reply = await self._wire.call(
                self._client.files.with_raw_response.create(
                    file=(name, stream, media_type(name)),
                    purpose="vision" if purpose == "vision" else "assistants",
                    timeout=httpx2.Timeout(longest_s, connect=10.0),
                ),
                longest_s=longest_s,
            )
        if a_text(reply.body.get("status")) == "error":
            raise Refused("bad_request", a_text(reply.body.get("status_details")) or "the service cannot read the file")
        return Uploaded(id=str(reply.body["id"]), expires_at=a_count(reply.body.get("expires_at")) or None)

    async def has_file(self, file_id: str) -> bool:
        """Whether the service knows a file (still)."""
        return await self._is_there(self._client.files.with_raw_response.retrieve(file_id), file_id)

    async def delete_file(self, file_id: str) -> bool:
        """Delete a file; one that is gone is deleted. False where the service cannot delete it."""
        call = self._client.files.with_raw_response.delete(file_id)
        return await deleted(self._wire.call(call, names=file_id, needs_body=False), file_id)

    async def name_of(self, file_id: str) -> str | None:
        """The name of a file, where the service tells it."""
        if file_id not in self._names:
            try:
                reply = await self._wire.call(self._client.files.with_raw_response.retrieve(file_id), names=file_id)
            except (Gone, Refused):
                return None
            while len(self._names) >= 10_000:
                del self._names[next(iter(self._names))]
            self._names[file_id] = a_text(reply.body.get("filename"))
        return self._names[file_id] or None

    async def _is_there(self, call: Any, names: str) -> bool:
        try:
            await self._wire.call(call, names=names, needs_id=False)
        except Gone:
            return False
        return True

    # -- stores ----------------------------------------------------------------------------------------

    async def create_store(self, *, name: str, item: str) -> str:
        """Make an empty store for an item of the library; its id."""
        # A header takes no other letters than those of ASCII, and a store may be called anything.
        key = hashlib.sha256(f"{OURS}-{item}".encode()).hexdigest()
        reply = await self._wire.call(
            self._client.vector_stores.with_raw_response.create(
                name=name, metadata={OURS: item[:512]}, extra_headers={"Idempotency-Key": key}
            )
        )
        return str(reply.body["id"])

    async def find_stores(self, item: str) -> list[str]:
        """The stores that were made for an item, oldest first."""
        stores = self._client.vector_stores.with_raw_response
        found = await self._wire.every(lambda query: stores.list(extra_query=query), names="")
        return [
            a_text(store.get("id"))
            for store in found
            if an_object(store.get("metadata")).get(OURS) == item[:512] and store.get("status") != "expired"
        ]

    async def fill_store(self, store_id: str, file_ids: Sequence[str]) -> None:
        """Put files into a store; the service reads them then."""
        batches = self._client.vector_stores.file_batches.with_raw_response
        await self._wire.call(batches.create(store_id, file_ids=list(file_ids)), names=store_id)

    async def files_of(self, store_id: str) -> dict[str, tuple[str, str]]:
        """The files of a store: id to status and, of a failed one, the reason."""
        listing = self._client.vector_stores.files.with_raw_response
        found = await self._wire.every(lambda query: listing.list(store_id, extra_query=query), names=store_id)
        return {a_text(file.get("id")): (a_status(file.get("status")), _reason(file)) for file in found}

    async def look(self, store_id: str) -> StoreSeen:
        """A store as it is now. Raises Gone."""
        reply = await self._wire.call(
            self._client.vector_stores.with_raw_response.retrieve(store_id), names=store_id, needs_id=False
        )
        reply.require("status", "id")
        counts = an_object(reply.body.get("file_counts"))
        return StoreSeen(
            status=a_status(reply.body.get("status")),
            waiting=a_count(counts.get("in_progress")),
            done=a_count(counts.get("completed")),
            failed=a_count(counts.get("failed")) + a_count(counts.get("cancelled")),
        )

    async def unread(self, store_ids: Sequence[str]) -> Unread:
        """What of the files in stores has not been read. Raises Gone."""
        waiting, failed = 0, []
        for store_id in store_ids:
            seen = await self.look(store_id)
            if seen.status == "expired":
                raise Gone("store_expired", f"the vector store {store_id} has expired")
            waiting += seen.waiting or (1 if seen.status == "in_progress" else 0)
            if seen.failed:
                files = await self.files_of(store_id)
                failed += [(id_, why) for id_, (status, why) in files.items() if status in ("failed", "cancelled")]
        return Unread(waiting=waiting, failed=tuple(failed), stores=tuple(store_ids))

    async def delete_store(self, store_id: str) -> bool:
        """Delete a store; its files stay. One that is gone is deleted. False where the service cannot delete it."""
        call = self._client.vector_stores.with_raw_response.delete(store_id)
        return await deleted(self._wire.call(call, names=store_id, needs_body=False), store_id)

    # -- what runs have made ---------------------------------------------------------------------------

    async def made(self, answer: Answer) -> tuple[list[Made], list[str]]:
        """The files of an answer, also those in its containers that nothing cites; and why a container could not be
        looked into. Questions of a conversation share a container: what is older than this run, another has made."""
        found = {made.key: made for made in (_made(file) for file in answer.files)}
        notes: list[str] = []
        containers = [a_text(part.get("container_id")) for part in (*answer.code, *answer.files)]
        for container_id in filter(None, dict.fromkeys(containers)):
            listing = self._client.containers.files.with_raw_response
            try:
                files = await self._wire.every(
                    lambda query, container_id=container_id, listing=listing: listing.list(  # type: ignore[misc]
                        container_id, extra_query=query
                    ),
                    names=container_id,
                )
            except (Gone, Refused) as error:
                notes.append(f"the container of its code is gone: {error.message}")
                continue
            except Blocked as error:
                if error.code != "endpoint_gone":
                    raise
                continue
            for file in files:
                older = answer.since is not None and 0 < a_count(file.get("created_at")) < answer.since
                if file.get("source") != "user" and (not older or file.get("id") in found):
                    _add(found, _contained(file, container_id))
        images = [made for made in found.values() if made.file_id is None and made.url is not None]
        if any(made.container_id for made in found.values()):
            # The same pictures once more, as addresses that only a browser with a session can open.
            for made in images:
                if not made.key.startswith("data:"):
                    del found[made.key]
        return list(found.values()), notes

    async def named(self, made: Made) -> Made:
        """The file with its name and size as the service tells them. Raises Gone."""
        if made.container_id is not None or made.file_id is None:
            return made
        reply = await self._wire.call(self._client.files.with_raw_response.retrieve(made.file_id), names=made.file_id)
        return Made(
            kind=made.kind,
            file_id=made.file_id,
            name=a_text(reply.body.get("filename")) or made.name,
            size=a_count(reply.body.get("bytes")) or None,
        )

    async def download(self, made: Made, write: Callable[[bytes], None], *, most: int) -> None:
        """Fetch a file, piece by piece. Raises TooLarge, Gone, and Ambiguous for one that came in part only; what was
        written until then is worth nothing."""
        if made.size is not None and made.size > most:
            raise TooLarge
        if made.file_id is None:
            _write_link(made.url or "", write, most)
            return
        got, told = 0, None
        try:
            async with asyncio.timeout(60.0 + most / _SLOWEST_BYTES_PER_S), self._content(made) as reply:
                if _is_page(reply.headers, made):
                    raise Ambiguous("unreadable", "a page came instead of the file")
                if "content-encoding" not in reply.headers:
                    told = _length(reply.headers)
                if told is not None and told > most:
                    raise TooLarge
                async for piece in _pieces(reply):
                    got += len(piece)
                    if got > most:
                        raise TooLarge
                    write(piece)
        except (OpenAIError, TimeoutError, httpx2.HTTPError, aiohttp.ClientError) as exc:
            error = translate(exc, names=made.file_id)
            raise _gone_or(error) from exc
        # Where the service has said how large it is, a page of some proxy is not taken for it either.
        whole = made.size if made.size is not None else told
        if whole is not None and got != whole:
            raise Ambiguous("cut", f"{got} of {whole} bytes came")

    def _content(self, made: Made) -> AbstractAsyncContextManager[Any]:
        if made.container_id is not None:
            files = self._client.containers.files.content.with_streaming_response
            return files.retrieve(made.file_id or "", container_id=made.container_id)
        return self._client.files.with_streaming_response.content(made.file_id or "")


def _gone_or(error: CallError) -> CallError:
    """A container that has expired is refused in words on some servers."""
    if isinstance(error, Refused) and _EXPIRED.search(error.message):
        return Gone("not_found", error.message)
    return error


async def _pieces(reply: Any) -> AsyncIterator[bytes]:
    async for piece in reply.iter_bytes(_CHUNK):
        yield piece


def _is_page(headers: Mapping[str, str], made: Made) -> bool:
    """Whether this is a proxy's page, which may well be as long as the file."""
    return "text/html" in headers.get("content-type", "") and media_type(made.name or "") != "text/html"


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isdigit() else None


def _reason(file: JsonObject) -> str:
    error = an_object(file.get("last_error"))
    return a_text(error.get("message")) or a_text(error.get("code")) or "the service gives no reason"


def _made(file: Mapping[str, Any]) -> Made:
    def told(key: str) -> str | None:
        return str(file[key]) if file.get(key) else None

    return Made(
        kind=told("kind") or "file",
        file_id=told("file_id"),
        container_id=told("container_id"),
        url=told("url"),
        name=told("name"),
    )


def _contained(file: JsonObject, container_id: str) -> Made:
    path = a_text(file.get("path"))
    kind = "image" if media_type(path).startswith("image/") else "file"
    return Made(
        kind=kind,
        file_id=a_text(file.get("id")) or None,
        container_id=container_id,
        name=path.rpartition("/")[2] or None,
        size=a_count(file.get("bytes")) if isinstance(file.get("bytes"), int) else None,
    )


def _add(found: dict[str, Made], made: Made) -> None:
    if made.file_id is None:
        return
    known = found.get(made.file_id)
    # The listing knows the size; the citation knows what the model calls it.
    found[made.file_id] = (
        made
        if known is None
        else Made(
            kind=made.kind,
            file_id=made.file_id,
            container_id=made.container_id,
            name=known.name or made.name,
            size=made.size,
        )
    )


def _write_link(url: str, write: Callable[[bytes], None], most: int) -> None:
    """What a `data:` address holds. Other addresses are the service's own affair: nothing is fetched from wherever a
    reply says."""
    head, comma, body = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise Refused("bad_request", "it is an address outside of the service, and was not fetched")
    try:
        data = base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise Refused("bad_request", "it is no valid data: address") from error
    if len(data) > most:
        raise TooLarge
    write(data)
