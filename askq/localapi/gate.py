"""Between HTTP and the handlers: faults, key, beta header, parsing, idempotency, durability, error envelopes."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import secrets
from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler as WebHandler
from aiohttp.typedefs import Middleware

from askq.localapi.api import Api, Call, Download, Route, Stream
from askq.localapi.errors import (
    ApiError,
    LocalApiError,
    invalid,
    missing_beta_header,
    missing_key,
    not_found,
    server_error,
    wrong_key,
)
from askq.localapi.files import forms
from askq.localapi.idempotency import Idempotency, request_digest
from askq.localapi.mischief import carry_out, client_left, dropped
from askq.localapi.scribes.responses import response_wire
from askq.localapi.streams.course import Teller
from askq.localapi.streams.responses import ResponseTeller
from askq.localapi.streams.runs import RunTeller
from askq.localapi.streams.sse import EventStream
from askq.localapi.wire import JsonObject
from askq.localapi.work import Work

_log = logging.getLogger(__name__)

ADMIN = "/_askq/"
_STREAMS = re.compile(rb'"stream"\s*:\s*true')
AT_ONCE_BYTES = 16 * 1024 * 1024
_WAIT_S = 0.5
"""How often a synchronous response looks whether its client is still there."""


def check_key(api: Api, request: web.Request) -> None:
    """Refuse a request without the bearer key; raises ApiError."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise missing_key()
    given = key.strip().encode("utf-8", "surrogateescape")
    if api.options.key is not None and not secrets.compare_digest(given, api.options.key.encode()):
        raise wrong_key(key.strip())


def make_gate(api: Api) -> Middleware:
    """The one middleware: everything that is the same for all endpoints."""

    @web.middleware
    async def gate(request: web.Request, handler: WebHandler) -> web.StreamResponse:
        if request.path.startswith(ADMIN):
            return await _answered(api, request, handler)
        fault = None
        if api.faults.rules:
            body = await _text(request)
            streams = request.query.get("stream") == "true" or _STREAMS.search(body) is not None
            fault = api.faults.pick(request.method, request.path, body, streams=streams)
        resource = request.match_info.route.resource
        api.stats.requests[f"{request.method} {resource.canonical}" if resource else "unknown"] += 1
        if fault is None:
            reply: web.StreamResponse = await _limited(api, request, handler)
        else:
            api.stats.faults[fault.kind] += 1
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
            right = await _answered(api, request, handler) if fault.performs else None
            reply = await carry_out(fault, request, right, api.closing)
        if isinstance(reply, EventStream):
            reply = await reply.send(request, fault)
        api.stats.statuses["dropped" if client_left(request) else str(reply.status)] += 1
        return reply

    return gate


async def _text(request: web.Request) -> bytes:
    """The body, but for files: they may be large, and are read once, by whom they are for."""
    return b"" if forms.is_form(request) else await request.read()


async def _limited(api: Api, request: web.Request, handler: WebHandler) -> web.Response:
    """The reply of a request that may be one too many."""
    try:
        body = await _text(request) if request.method == "POST" and api.limits.any() else b""
        headers = api.limits.check(request.method, request.path, body)
    except ApiError as exc:
        return _error(exc)
    reply = await _answered(api, request, handler)
    reply.headers.update(headers)
    return reply


async def _answered(api: Api, request: web.Request, handler: WebHandler) -> web.Response:
    """The handler's reply, or the envelope of what it raised."""
    try:
        reply = await handler(request)
        if not isinstance(reply, web.Response):
            raise TypeError(f"a handler answered with {type(reply).__name__}")
        return reply
    except ApiError as exc:
        return _error(exc)
    except web.HTTPException as exc:
        return _error(_translated(request, exc))
    except LocalApiError as exc:
        _log.error("%s %s: %s", request.method, request.path, exc)
        return _error(ApiError(500, str(exc), kind="server_error"))
    except ConnectionError:
        return dropped(request)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return _error(server_error())


def _translated(request: web.Request, exc: web.HTTPException) -> ApiError:
    if exc.status == web.HTTPNotFound.status_code:
        return not_found(f"Invalid URL ({request.method} {request.path})")
    if exc.status == web.HTTPMethodNotAllowed.status_code:
        return ApiError(405, f"Not allowed to {request.method} on {request.path}.", code="method_not_supported")
    if exc.status == web.HTTPRequestEntityTooLarge.status_code:
        return ApiError(413, "The request body is too large for the local API.", code="request_too_large")
    return ApiError(exc.status, exc.reason)


def _error(error: ApiError) -> web.Response:
    return _response(error.envelope(), status=error.status, headers=error.headers)


def _response(body: JsonObject, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    reply = web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(), status=status, content_type="application/json"
    )
    reply.headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
    reply.headers.update(headers or {})
    return reply


def endpoint(api: Api, route: Route, idempotency: Idempotency) -> WebHandler:
    """The HTTP handler for a route."""
    needs_beta = route.path.startswith(("/assistants", "/threads"))

    async def serve(request: web.Request) -> web.Response:
        check_key(api, request)
        if needs_beta and "assistants=v2" not in request.headers.get("OpenAI-Beta", ""):
            raise missing_beta_header()
        raw = await _text(request)
        if forms.is_form(request):
            body = await forms.read_form(request, api.files.blobs, api.options.file_bytes)
        else:
            body = _parsed(raw)
        query = request.query
        call = Call(
            params=request.match_info,
            query=query,
            include=frozenset((*query.getall("include[]", ()), *query.getall("include", ()))),
            body=body,
        )
        key = request.headers.get("Idempotency-Key") if api.options.idempotency else None
        try:
            if key is None or request.method != "POST":
                reply = route.handler(api, call)
            else:
                reply = await idempotency.once(
                    api, route, call, key, request_digest(request.path, raw or forms.summary(body))
                )
        finally:
            forms.discard(body)
        if reply.download is not None:
            return await _sent(reply.download)
        # Worded before the wait: what others do meanwhile is not this request's reply.
        response = _response(reply.body, headers=reply.headers)
        if request.method == "GET":
            # What a look has settled follows from what is durable already.
            api.storage.commit_soon()
        else:
            await api.storage.commit()
        if reply.later is not None:
            response = _response(await reply.later(), headers=reply.headers)
            await api.storage.commit()
        if reply.stream is not None:
            return _event_stream(api, reply.stream)
        if reply.wait_for is not None:
            return _response(await _ended(api, request, reply.wait_for, reply.include))
        return response

    return serve


def _event_stream(api: Api, stream: Stream) -> EventStream:
    teller: Teller
    if stream.work.protocol == "assistants":
        teller = RunTeller(
            stream.work, api.store, api.works.products, list(stream.first), before=stream.before, include=stream.include
        )
    else:
        teller = ResponseTeller(stream.work, api.store, api.works, api.works.products, stream.include)
    return EventStream(api, stream.work, teller, after=stream.after)


async def _sent(download: Download) -> web.Response:
    """The bytes of a file. Small ones at once, so that faults can be done to them."""
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(download.name, safe='')}"}
    try:
        small = download.path.stat().st_size <= AT_ONCE_BYTES
        content = await asyncio.to_thread(download.path.read_bytes) if small else download.path.open("rb")
    except OSError as exc:
        raise not_found(f"The content of '{download.name}' is gone.") from exc
    return web.Response(body=content, headers=headers, content_type="application/octet-stream")


def _parsed(raw: bytes) -> JsonObject:
    if not raw:
        return {}
    try:
        # Decoded here: the parser takes halves of surrogate pairs in bytes, and UTF-16.
        body = _JSON.decode(raw.decode("utf-8-sig"))
        if b"\\ud" in raw.lower():
            # Half of a surrogate pair is valid JSON, but no text that could be stored.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise invalid(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from exc
    if not isinstance(body, dict):
        raise invalid("The JSON body of your request must be an object.")
    return body


def _no_json(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


_JSON = json.JSONDecoder(parse_constant=_no_json, parse_float=_finite)


async def _ended(api: Api, request: web.Request, work: Work, include: frozenset[str]) -> JsonObject:
    """The object of a synchronous response when it has ended; dropping the connection cancels it."""
    while not await api.works.finished(work, at_most=_WAIT_S):
        if api.closing.is_set():  # the next start goes on with it, though nobody will wait
            raise ConnectionResetError
        if client_left(request):
            api.works.cancel(work)
            await api.storage.commit()
            raise ConnectionResetError
    if not api.works.exists(work):
        raise not_found(f"Response with id '{work.id}' not found.")
    body = response_wire(work, api.now(), include)
    if not work.body["store"]:
        api.works.forget(work, asked=False)
    await api.storage.commit()
    return body
