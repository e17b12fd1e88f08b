"""Deleting what was made at a service, and listing it: the same calls whichever protocol is spoken.

What is in an object goes first: the words are the user's.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from openai import AsyncOpenAI

from askq.jobs.objects import Kind, assistant_thing
from worker.protocols.base import Blocked, Gone, Listing
from worker.protocols.fields import a_count, a_text, an_object
from worker.protocols.wire import Wire

HOME = "askq_home"
"""Metadata: which askq made an object."""
OWNER = "askq_owner"
"""Metadata: under which owner an object is on record (`askq.jobs.objects`)."""
DIGEST = "askq_digest"
"""Metadata of an assistant: the definition it was made of, which names its owner, too."""


class Deletion:
    """The deletions of one client."""

    def __init__(self, client: AsyncOpenAI, wire: Wire) -> None:
        self._client = client
        self._wire = wire

    async def delete(self, kind: Kind, id_: str) -> bool:
        """What `Protocol.delete` says."""
        if kind is Kind.CONVERSATION and not await self._empty_conversation(id_):
            return False
        return await self._one(self._call(kind, id_), id_)

    def _call(self, kind: Kind, id_: str) -> Awaitable[Any]:
        client = self._client
        match kind:
            case Kind.ASSISTANT:
                return client.beta.assistants.with_raw_response.delete(id_)
            case Kind.THREAD:
                return client.beta.threads.with_raw_response.delete(id_)
            case Kind.CONVERSATION:
                return client.conversations.with_raw_response.delete(id_)
            case Kind.RESPONSE:
                return client.responses.with_raw_response.delete(id_)
            case Kind.FILE:
                return client.files.with_raw_response.delete(id_)
            case Kind.VECTOR_STORE:
                return client.vector_stores.with_raw_response.delete(id_)
            case Kind.CONTAINER:
                return client.containers.with_raw_response.delete(id_)

    async def _empty_conversation(self, id_: str) -> bool:
        """Deleting a conversation leaves its items (protocols F.1); False when the conversation is not there."""
        items = self._client.conversations.items.with_raw_response
        try:
            found = await self._wire.every(lambda query: items.list(id_, extra_query=query), names=id_)
        except Gone:
            return False
        for item in filter(None, (a_text(entry.get("id")) for entry in found)):
            await self._one(items.delete(item, conversation_id=id_), item)
        return True

    async def _one(self, call: Awaitable[Any], id_: str) -> bool:
        try:
            reply = await self._wire.call(call, names=id_, needs_body=False)
        except Gone:
            return False
        reply.require_deletion()
        return True

    async def listed(self, kind: Kind) -> list[Listing]:
        """What `Protocol.listed` says."""
        client = self._client
        if kind is Kind.ASSISTANT:
            lists = client.beta.assistants.with_raw_response
            entries = await self._wire.every(lambda query: lists.list(extra_query=query), names="")
        elif kind is Kind.VECTOR_STORE:
            stores = client.vector_stores.with_raw_response
            entries = await self._wire.every(lambda query: stores.list(extra_query=query), names="")
        else:
            raise Blocked("endpoint_gone", f"no service lists objects of kind {kind} by who made them")
        found = []
        for entry in entries:
            marks = an_object(entry.get("metadata"))
            if any(name.startswith("askq_") for name in marks) and (id_ := a_text(entry.get("id"))):
                digest = a_text(marks.get(DIGEST))
                found.append(
                    Listing(
                        kind=kind,
                        id=id_,
                        home=a_text(marks.get(HOME)) or None,
                        owner=a_text(marks.get(OWNER)) or (assistant_thing(digest) if digest else None),
                        created_at=float(a_count(entry.get("created_at"))),
                    )
                )
        return found
