"""Idempotency keys, for servers that honour them (`--idempotency`); OpenAI does not."""

from __future__ import annotations

import asyncio
import hashlib
from weakref import WeakValueDictionary

from askq.localapi.api import Api, Call, Reply, Route, Stream
from askq.localapi.errors import invalid, not_found
from askq.localapi.scribes.assistants import run_wire
from askq.localapi.storage import KeptReply


def request_digest(path: str, body: bytes) -> str:
    """What has to be equal for a key to be used again."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()


class Idempotency:
    """Remembers the reply to each key in the data folder."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def once(self, api: Api, route: Route, call: Call, key: str, digest: str) -> Reply:
        """Carry the call out, or repeat the reply its key was answered with; raises ApiError.

        Handler and note are one step of the loop, hence one transaction: no crash can come between them.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            kept = await api.storage.kept_reply(key)
            if kept is None:
                reply = route.handler(api, call)
                waiting = reply.wait_for if reply.stream is None else reply.stream.work
                api.storage.keep_reply(
                    key,
                    KeptReply(
                        request=digest,
                        body=reply.body if waiting is None else None,
                        work=None if waiting is None else waiting.id,
                    ),
                )
                return reply
        if kept.request != digest:
            raise invalid(
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                code="idempotency_key_reused",
            )
        if kept.work is None:
            return Reply(body=kept.body or {})
        run = api.works.get("assistants", kept.work)
        if run is not None:  # only a stream of a run is kept by its id; what it says of the beginning is the present
            first = ("thread.run.created", run_wire(run, api.now()))
            return Reply(stream=Stream(work=run, first=(first,)))
        work = api.works.get("responses", kept.work)
        if work is None:
            raise not_found(f"Response with id '{kept.work}' not found.")
        if work.streamed:
            return Reply(stream=Stream(work=work, include=frozenset(call.body.get("include") or ())))
        return Reply(wait_for=work, include=frozenset(call.body.get("include") or ()))
