"""Carrying faults out on a reply (`askq.localapi.faults` says which there are)."""

from __future__ import annotations

import asyncio
import contextlib
import json

from aiohttp import web

from askq.localapi.faults import Fault
from askq.localapi.streams.sse import EventStream

_HTML = b"<html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>"
_PIECES = 10
_LEFT_CHECK_S = 0.05


def dropped(request: web.Request) -> web.Response:
    """Break the connection; aiohttp wants a response all the same, and cannot send it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def client_left(request: web.Request) -> bool:
    """Whether nobody listens any more."""
    return request.transport is None or request.transport.is_closing()


async def carry_out(
    fault: Fault, request: web.Request, right: web.Response | None, closing: asyncio.Event
) -> web.StreamResponse:
    """The reply the client gets. `right` is the reply it should have got, if the request was carried out."""
    match fault.kind:
        case "drop" | "drop_after":
            return dropped(request)
        case "timeout":
            return await _hang(fault, request, closing)
        case "status" | "status_after":
            error = fault.error()
            await asyncio.sleep(fault.given.get("seconds", 0))
            return web.json_response(error.envelope(), status=error.status, headers=error.headers)
        case "html_200":
            return web.Response(body=_HTML, content_type="text/html")
    right = web.json_response({}) if right is None else right
    if isinstance(right, EventStream):
        return right  # what can go wrong with a stream, goes wrong while it is sent
    body = right.body if isinstance(right.body, bytes) else b""
    match fault.kind:
        case "slow_body":
            return await _send_slowly(fault, request, right, body)
        case "truncated_json":
            right.body = body[: len(body) // 2]
            return right
        case "cut_body":
            return await _cut(request, right, body)
        case "patch":
            right.body = _patched(fault, body)
            return right
        case _:  # `delay` has been waited for
            return right


async def _hang(fault: Fault, request: web.Request, closing: asyncio.Event) -> web.Response:
    loop = asyncio.get_running_loop()
    until = loop.time() + fault.seconds
    # Nothing signals that the client has gone while a handler runs, so this looks every now and then.
    while not (closing.is_set() or client_left(request)) and (left := until - loop.time()) > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), min(_LEFT_CHECK_S, left))
    return dropped(request)


def _opened(right: web.Response, length: int) -> web.StreamResponse:
    reply = web.StreamResponse(status=right.status, headers=right.headers)
    reply.content_length = length
    return reply


async def _send_slowly(fault: Fault, request: web.Request, right: web.Response, body: bytes) -> web.StreamResponse:
    reply = _opened(right, len(body))
    await reply.prepare(request)
    size = max(len(body) // _PIECES, 1)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for piece in pieces:
        await asyncio.sleep(fault.seconds / len(pieces))
        await reply.write(piece)
    await reply.write_eof()
    return reply


async def _cut(request: web.Request, right: web.Response, body: bytes) -> web.StreamResponse:
    reply = _opened(right, len(body))
    await reply.prepare(request)
    await reply.write(body[: len(body) // 2])
    if request.transport is not None:
        # Not `abort`: the half that was written is to arrive.
        request.transport.close()
    return reply


def _patched(fault: Fault, body: bytes) -> bytes:
    value = json.loads(body or b"{}")
    value.update(fault.given.get("set", {}))
    for name in fault.given.get("remove", []):
        value.pop(name, None)
    return json.dumps(value).encode()
