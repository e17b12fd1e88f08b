"""Sending the events of a work over one connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable

from aiohttp import web

from askq.localapi.api import Api
from askq.localapi.faults import Fault
from askq.localapi.streams.course import Course, Left, Teller
from askq.localapi.work import Work

_log = logging.getLogger(__name__)

_GARBAGE = b"\x00\xff{ this is no event\n"
_BREAKING = frozenset({"cut_stream", "cut_event"})
_ENDING = frozenset({"end_stream", "error_event"})
_ODD_DATA: tuple[object, ...] = (
    None,
    17,
    "text",
    [],
    {},
    {"type": 5, "delta": ["a"], "item": "x", "item_id": {}, "response": 3, "sequence_number": "one"},
    {"id": 7, "delta": {"content": {"a": 1}, "step_details": [1]}, "status": ["completed"], "object": None},
    {"type": "response.output_item.done", "item": {"type": "message", "id": None, "content": "none"}},
    {"type": "response.in_progress", "response": {"id": None, "status": "warming_up", "output": 5}},
)


class EventStream(web.Response):
    """A reply that is streamed once the gate has decided that it shall be sent."""

    def __init__(self, api: Api, work: Work, teller: Teller, *, after: int = -1) -> None:
        super().__init__()
        self._api = api
        self._work = work
        self._teller = teller
        self._after = after

    async def send(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        """Tell everything behind number `after`, and suffer the fault."""
        reply = web.StreamResponse(headers=self.headers)
        reply.content_type = "text/event-stream"
        reply.charset = "utf-8"
        reply.headers["Cache-Control"] = "no-cache"
        reply.headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
        await reply.prepare(request)
        try:
            await self._tell(request, reply, fault)
        except (Left, ConnectionError, asyncio.CancelledError):
            await self._left(request)
        except Exception:
            _log.exception("%s %s failed in its stream", request.method, request.path)
            for name, data in self._teller.trouble("server_error", "The local API failed; its log says more."):
                await reply.write(_worded(name, data, -1, self._work))
        if request.transport is not None and not request.transport.is_closing():
            await reply.write_eof()
        return reply

    async def _tell(self, request: web.Request, reply: web.StreamResponse, fault: Fault | None) -> None:
        def listening() -> bool:
            return request.transport is not None and not request.transport.is_closing()

        sent = 0
        events = Course(self._api, self._work, self._teller, listening).events()
        async with contextlib.aclosing(events):
            number = -1
            async for name, data in events:
                number += 1
                if number <= self._after:
                    continue
                worded = _worded(name, data, number, self._work)
                if fault is not None and sent == fault.given.get("events", 3):
                    if fault.kind == "stall_stream":
                        await self._stall(fault.seconds, listening)
                    await reply.write(self._instead(fault, name, number, worded))
                    if fault.kind in _BREAKING and request.transport is not None:
                        request.transport.close()  # not `abort`: what was written is to arrive
                    if fault.kind in _BREAKING | _ENDING:
                        return
                await reply.write(worded)
                sent += 1
        if self._work.protocol == "assistants":
            await reply.write(b"event: done\ndata: [DONE]\n\n")
        elif not self._work.body["background"] and not self._work.body["store"] and self._api.works.exists(self._work):
            self._api.works.forget(self._work, asked=False)
        await self._api.storage.commit()

    def _instead(self, fault: Fault, name: str, number: int, worded: bytes) -> bytes:
        """What a fault puts in front of an event."""
        match fault.kind:
            case "cut_event":
                return worded[: len(worded) // 2]
            case "garbage_line":
                return _GARBAGE
            case "bad_event":
                return worded[: len(worded) // 2].rstrip(b"\n") + b"\n\n"
            case "odd_events":
                return _odd(name)
            case "error_event":
                code, message = fault.given.get("code", "server_error"), fault.error().message
                told = self._teller.trouble(code, message)
                # The number of the event before: whoever resumes the stream after this one misses nothing.
                return b"".join(_worded(*event, number - 1, self._work) for event in told)
        return b""

    async def _stall(self, seconds: float, listening: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            if self._api.closing.is_set() or not listening():
                raise Left
            await asyncio.sleep(min(left, 0.05))

    async def _left(self, request: web.Request) -> None:
        """The run goes on, but for a synchronous response: dropping its connection cancels it."""
        if request.transport is not None:
            request.transport.abort()
        synchronous = self._work.protocol == "responses" and not self._work.body["background"]
        if synchronous and not self._api.closing.is_set() and self._api.works.exists(self._work):
            self._api.works.cancel(self._work)
            await self._api.storage.commit()


def _odd(name: str) -> bytes:
    """Events of sound JSON that make no sense, under the name of one that would, and under others."""
    names = (name, "nobody.knows", "thread.run.warming_up", "")
    return b"".join(f"event: {each}\ndata: {json.dumps(data)}\n\n".encode() for each in names for data in _ODD_DATA)


def _worded(name: str, data: object, number: int, work: Work) -> bytes:
    if work.protocol == "responses" and isinstance(data, dict):
        data = {"type": name, "sequence_number": number, **data}
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
