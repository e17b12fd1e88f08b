"""Calls that are made over and over: the SDK makes the first of a kind, and those after it are made like that one.

A thread, a run and polls that find it still at work are most of what askq asks of a service. Of their CPU the larger
part went into building the SDK's request objects anew, which differ in nothing but an id, a key and a body. Address,
headers (key, organization, beta), query and time-outs are taken from the request the SDK made; connections, proxies,
TLS and errors are the SDK's.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI

BySdk = Callable[[], Awaitable[Any]]
_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class _How:
    """What all requests of a kind have in common."""

    prefix: str
    query: str
    headers: httpx2.Headers
    extensions: Mapping[str, Any]


class Repeats:
    """The repeated calls of one client. Each makes one request and returns its raw reply (`headers`, `text`); each
    raises what the SDK raises.

    `path` (see `path_of`) is the one `by_sdk` asks. Where the SDK's address cannot be told from its path (a base URL
    with a query of its own), it goes on making them.
    """

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._how: dict[str, _How] = {}

    async def get(self, kind: str, path: str, by_sdk: BySdk, *, query: Mapping[str, str | int] | None = None) -> Any:
        """A GET. `query`, where it differs from call to call, is what `by_sdk` asks for."""
        how = self._known(kind, path)
        if how is None:
            return await self._learned(kind, path, by_sdk)
        asked = how.query if query is None else "?" + urlencode(query)
        return await self._send(
            httpx2.Request("GET", how.prefix + path + asked, headers=how.headers, extensions=dict(how.extensions))
        )

    async def post(
        self, kind: str, path: str, create: Callable[..., Awaitable[Any]], *, body: Mapping[str, Any], key: str
    ) -> Any:
        """A POST of the whole `body` under an idempotency key. `create` is the SDK's method."""
        how = self._known(kind, path)
        if how is None:
            return await self._learned(kind, path, lambda: create(extra_body=body, extra_headers={_KEY: key}))
        headers = how.headers.copy()
        headers[_KEY] = key
        return await self._send(
            httpx2.Request(
                "POST",
                how.prefix + path + how.query,
                headers=headers,
                # As the SDK writes it.
                content=json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(),
                extensions=dict(how.extensions),
            )
        )

    async def _send(self, request: httpx2.Request) -> Any:
        try:
            # The SDK has no public way to its HTTP client, which we gave it: proxies and connections are in there.
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
        raw = await by_sdk()
        request = raw.http_request
        address, mark, query = str(request.url).partition("?")
        if address.endswith(path):
            headers = request.headers.copy()
            for own in (_KEY, "Content-Length"):
                headers.pop(own, None)
            self._how[kind] = _How(address.removesuffix(path), mark + query, headers, request.extensions)
        return raw


def path_of(*parts: str) -> str:
    """A path of an address: ids come from the service, and may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
