"""What both protocols do alike, with one client of one account."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from openai import AsyncOpenAI

from askq.jobs.objects import Kind
from askq.prices import has_known_prices
from worker.protocols.base import Listing, RunState, Status
from worker.protocols.deletion import Deletion
from worker.protocols.fields import JsonObject, a_status
from worker.protocols.forgiving import reached
from worker.protocols.repeats import BySdk
from worker.protocols.streams import Events, Reader, Watched, watched
from worker.protocols.wire import Reply, Wire


class Adapter(ABC):
    """The calls and the readings of `Protocol` that do not differ from one protocol to the other."""

    _states: ClassVar[Mapping[str, RunState]]
    """What the words of the service for a run's status mean."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._wire = Wire(client)
        self._deletion = Deletion(client, self._wire)
        self._priced = has_known_prices(client.base_url.host)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return await self._deletion.delete(kind, id_)

    async def listed(self, kind: Kind) -> list[Listing]:
        return await self._deletion.listed(kind)

    async def check(self) -> None:
        await reached(self._wire.call(self._client.models.with_raw_response.list(), needs_id=False))

    async def _create(
        self,
        kind: str,
        path: str,
        create: Callable[..., Awaitable[Any]],
        *,
        body: JsonObject,
        key: str,
        names: str = "",
    ) -> Reply:
        """POST a body that makes an object, under an idempotency key."""
        call = self._wire.repeats.post(kind, path, create, body=body, key=key)
        return await self._wire.call(call, names=names)

    async def _read_run(self, kind: str, path: str, by_sdk: BySdk, *, run_id: str) -> Reply:
        """GET a run. It needs no id of its own to be understood, but something must show that it is one."""
        reply = await self._wire.call(self._wire.repeats.get(kind, path, by_sdk), names=run_id, needs_id=False)
        reply.require("status", "id")
        return reply

    async def _post_watched(
        self, path: str, body: JsonObject, reader: Reader, *, names: str, headers: Mapping[str, str]
    ) -> tuple[Status, Watched | None]:
        """The call that lets a run begin or go on, with a stream of it; None where the stream is over already."""
        opened = self._client.post(
            path,
            cast_to=object,
            body={**body, "stream": True},
            options={"headers": headers},
            stream=True,
            stream_cls=Events,
        )
        live, reply = await watched(opened, reader, names=names, longest_s=self._wire.longest_s)
        status = self._status(reply, str(reply.body["id"]))
        if status.state is RunState.PENDING and not live.ended:
            return status, live
        await live.close()
        return status, None

    def _status(self, reply: Reply, run_id: str) -> Status:
        raw = a_status(reply.body.get("status"))
        state = self._states.get(raw, RunState.PENDING)
        if state is RunState.PENDING:
            return Status(state=state, raw=raw, run_id=run_id, poll_after=reply.poll_after, limits=reply.limits)
        return self._stopped(reply, run_id, state=state, raw=raw)

    @abstractmethod
    def _stopped(self, reply: Reply, run_id: str, *, state: RunState, raw: str) -> Status:
        """What is said of a run that has ended, or waits for the client."""
