"""GETs that are made over and over: the SDK makes the first of a kind, and those after it are made like that one.

A poll that finds its run still at work is most of what askq asks of a service. Of its CPU three quarters went into
building the SDK's request objects anew, which differ in nothing but an id. Address, headers (key, organization, beta),
query and time-outs are taken from the request the SDK made; connections, proxies, TLS and errors are the SDK's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI


@dataclass(frozen=True, slots=True)
class _How:
    """What all requests of a kind have in common."""

    prefix: str
    query: str
    headers: httpx2.Headers
    extensions: Mapping[str, Any]


class Rereads:
    """The repeated GETs of one client. Raises what the SDK raises."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._how: dict[str, _How] = {}

    async def get(
        self,
        kind: str,
        path: str,
        by_sdk: Callable[[], Awaitable[Any]],
        *,
        query: Mapping[str, str | int] | None = None,
    ) -> Any:
        """The raw reply (`headers`, `text`) of one GET.

        `path` (see `path_of`) and `query`, where it differs from call to call, are what `by_sdk` asks for. Where the
        SDK's address cannot be told from its path (a base URL with a query of its own), it goes on making them.
        """
        how = self._how.get(kind)
        if how is None or "//" in path or path.endswith("/"):
            # An id that is missing is refused by the SDK; left out, it would ask for something else.
            raw = await by_sdk()
            self._learn(kind, path, raw)
            return raw
        asked = how.query if query is None else "?" + urlencode(query)
        request = httpx2.Request("GET", how.prefix + path + asked, headers=how.headers, extensions=dict(how.extensions))
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

    def _learn(self, kind: str, path: str, raw: Any) -> None:
        request = raw.http_request
        address, mark, query = str(request.url).partition("?")
        if address.endswith(path):
            prefix = address.removesuffix(path)
            self._how[kind] = _How(prefix, mark + query, request.headers.copy(), request.extensions)


def path_of(*parts: str) -> str:
    """A path of an address: ids come from the service, and may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
