"""Calls that are made over and over: the SDK makes the first of a kind, and those after it are made like that one.

A thread, a run and polls that find it still at work are most of what askq asks of a service. Of their CPU the larger
part went into building the request and response objects of the SDK and of its HTTP client anew, which differ in nothing
but an id, a key and a body. Address, headers (key, organization, beta), query and time-outs are taken from the request
the SDK made, connections and TLS are those of its session of aiohttp, and errors are the SDK's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import httpx2
from multidict import CIMultiDict
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI
from yarl import URL

BySdk = Callable[[], Awaitable[Any]]
_KEY = "Idempotency-Key"
_OF_ONE_CALL = (_KEY, "Content-Length", "Cookie")
_OF_ITS_CLIENT = {"host", "accept-encoding", "connection"}
"""Headers that aiohttp sets itself: not every way to compress that the SDK's client knows is known to it."""
_LEARNED_S = 1.0
"""How long calls wait for the first of their kind at most. Their own time runs meanwhile, and none has been sent."""
_OF_A_BODY = {"content-encoding", "content-length", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class _How:
    """What all requests of a kind have in common."""

    prefix: str
    base: httpx2.URL
    query: str
    headers: httpx2.Headers
    extensions: Mapping[str, Any]
    bare_headers: CIMultiDict[str]
    timeout: aiohttp.ClientTimeout


@dataclass(frozen=True, slots=True)
class _Raw:
    """A reply, as much of it as is used."""

    headers: Mapping[str, str]
    text: str


class Repeats:
    """The repeated calls of one client. Each makes one request and returns its raw reply (`headers`, `text`); each
    raises what the SDK raises.

    `path` (see `path_of`) is the one `by_sdk` asks. Where the SDK's address cannot be told from its path (a base URL
    with a query of its own), it goes on making them.
    """

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._how: dict[str, _How] = {}
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._never: set[str] = set()
        """Kinds that are left to the SDK."""

    async def _how_to(self, kind: str, path: str) -> _How | None:
        """How calls of a kind are made; None where the SDK is to make this one."""
        how = self._known(kind, path)
        learning = self._learning.get(kind)
        if how is None and learning is not None:
            # Many begin together: they wait a moment for the first, which costs three times as much.
            await asyncio.wait({learning}, timeout=_LEARNED_S)
            how = self._known(kind, path)
        return how

    async def get(self, kind: str, path: str, by_sdk: BySdk, *, query: Mapping[str, str | int] | None = None) -> Any:
        """A GET. `query`, where it differs from call to call, is what `by_sdk` asks for."""
        how = await self._how_to(kind, path)
        if how is None:
            return await self._learned(kind, path, by_sdk)
        asked = how.query if query is None else "?" + urlencode(query)
        return await self._send("GET", how.prefix + path + asked, how)

    async def post(
        self, kind: str, path: str, create: Callable[..., Awaitable[Any]], *, body: Mapping[str, Any], key: str
    ) -> Any:
        """A POST of the whole `body` under an idempotency key. `create` is the SDK's method."""
        how = await self._how_to(kind, path)
        if how is None:
            return await self._learned(kind, path, lambda: create(extra_body=body, extra_headers={_KEY: key}))
        # As the SDK writes it.
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        return await self._send("POST", how.prefix + path + how.query, how, key=key, content=content)

    async def _send(
        self, method: str, address: str, how: _How, *, key: str | None = None, content: bytes | None = None
    ) -> Any:
        session = self._session(how)
        if session is None:
            return await self._send_by_client(method, address, how, key=key, content=content)
        headers = how.bare_headers
        if key is not None:
            headers = headers.copy()
            headers[_KEY] = key
        try:
            async with session.request(
                method,
                URL(address, encoded=True),
                headers=headers,
                data=content,
                timeout=how.timeout,
                allow_redirects=False,
            ) as reply:
                body = await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise APIConnectionError(request=httpx2.Request(method, address, headers=how.headers)) from exc
        if 200 <= reply.status < 300:
            return _Raw(reply.headers, _text(body, reply))
        request = httpx2.Request(method, address, headers=how.headers)
        if 300 <= reply.status < 400:
            if method != "GET" and reply.status not in (307, 308):
                # It may have been carried out.
                raise APIConnectionError(message=f"answered {reply.status}: look elsewhere", request=request)
            # Nothing has come of it yet; the client finds out where it leads.
            return await self._send_by_client(method, address, how, key=key, content=content)
        told = [(name, value) for name, value in reply.headers.items() if name.lower() not in _OF_A_BODY]
        response = httpx2.Response(reply.status, headers=told, content=body, request=request)
        raise self._client._make_status_error_from_response(response)

    def _session(self, how: _How) -> aiohttp.ClientSession | None:
        """The session of aiohttp below the client, where nothing stands in between; None for any other client."""
        # The SDK has no public way to its HTTP client, which we gave it: proxies and connections are in there.
        transport = self._client._client._transport_for_url(how.base)
        session = getattr(transport, "client", None)
        direct = isinstance(session, aiohttp.ClientSession) and not session.closed
        return session if direct and getattr(transport, "proxy", None) is None else None

    async def _send_by_client(
        self, method: str, address: str, how: _How, *, key: str | None = None, content: bytes | None = None
    ) -> Any:
        headers = how.headers
        if key is not None:
            headers = headers.copy()
            headers[_KEY] = key
        request = httpx2.Request(method, address, headers=headers, content=content, extensions=dict(how.extensions))
        try:
            response = await self._client._client.send(request)
        except httpx2.TimeoutException as exc:
            raise APITimeoutError(request=request) from exc
        except httpx2.RequestError as exc:
            raise APIConnectionError(request=request) from exc
        if not response.is_success:
            raise self._client._make_status_error_from_response(response)
        return response

    def _known(self, kind: str, path: str) -> _How | None:
        # An id that is missing is refused by the SDK; left out, it would ask for something else.
        return None if "//" in path or path.endswith("/") else self._how.get(kind)

    async def _learned(self, kind: str, path: str, by_sdk: BySdk) -> Any:
        first = asyncio.get_running_loop().create_future()
        if kind in self._never or self._learning.setdefault(kind, first) is not first:
            return await by_sdk()
        try:
            raw = await by_sdk()
            self._learn(kind, path, raw.http_request)
            return raw
        finally:
            del self._learning[kind]
            first.set_result(None)

    def _learn(self, kind: str, path: str, request: httpx2.Request) -> None:
        address, mark, query = str(request.url).partition("?")
        if not address.endswith(path):
            self._never.add(kind)
        else:
            headers = request.headers.copy()
            for own in _OF_ONE_CALL:
                headers.pop(own, None)
            waits = request.extensions.get("timeout") or {}
            self._how[kind] = _How(
                address.removesuffix(path),
                request.url,
                mark + query,
                headers,
                request.extensions,
                CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _OF_ITS_CLIENT),
                # As the SDK's transport tells them to aiohttp: a free connection may be waited for, too.
                aiohttp.ClientTimeout(
                    connect=waits.get("pool"), sock_connect=waits.get("connect"), sock_read=waits.get("read")
                ),
            )


def _text(body: bytes, reply: aiohttp.ClientResponse) -> str:
    try:
        return body.decode(reply.charset or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def path_of(*parts: str) -> str:
    """A path of an address: ids come from the service, and may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
