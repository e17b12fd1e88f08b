"""A service whose replies are prepared one by one, and the adapters as they see it; no socket is opened."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from worker.protocols.base import Ask

HTML = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
KEY = "secret-key-of-the-account"


def assistant(**fields: Any) -> Assistant:
    """An assistant with only the fields a test is about."""
    return Assistant(**{"name": "tutor", "protocol": "assistants", "model": "gpt-test", **fields})


def ask(**fields: Any) -> Ask:
    """What to ask, with only the fields a test is about."""
    return Ask(**{"job_id": "b_1.r1", "text": "Why?", "assistant": assistant(), **fields})


class _Trickle(httpx2.AsyncByteStream):
    """A body that comes in small pieces, which end anywhere, and may break."""

    def __init__(self, content: bytes, error: Exception | None) -> None:
        self._content = content
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 7):
            yield self._content[start : start + 7]
        if self._error is not None:
            raise self._error


class Service:
    """Answers each request with the next prepared reply, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.owner: str | None = "system"
        """Whose the models are, as the list says that the adapter reads once by itself; None = it is prepared, too."""
        self._replies: list[httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]] = []

    def says(
        self,
        body: object = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        """Prepare the next reply: JSON, or a text that is sent as it is."""
        content = (json.dumps(body) if text is None else text).encode()
        kind = "application/json" if text is None else "text/html"
        self._replies.append(
            httpx2.Response(status, content=content, headers={"content-type": kind, **(headers or {})})
        )

    def streams(
        self,
        *events: object,
        error: Exception | None = None,
        raw: bytes = b"",
        status: int = 200,
        kind_of_content: str = "text/event-stream",
    ) -> None:
        """Prepare a reply that is a stream: events (a name and its data for Assistants, else data), then bytes as they
        are, then an error in the middle of it."""
        told = b""
        for event in events:
            name, data = event if isinstance(event, tuple) else (None, event)
            kind = data.get("type") if isinstance(data, dict) and name is None else name
            text = data if isinstance(data, str) else json.dumps(data)
            told += (f"event: {kind}\n" if kind else "").encode() + f"data: {text}\n\n".encode()
        stream = _Trickle(told + raw, error)
        self._replies.append(httpx2.Response(status, stream=stream, headers={"content-type": kind_of_content}))

    def refuses(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **error: Any) -> None:
        """Prepare a refusal in OpenAI's envelope."""
        envelope = {"message": message, "type": None, "param": None, "code": None, **error}
        self.says({"error": envelope}, status=status, headers=headers)

    def lists(self, *entries: object, more: bool = False) -> None:
        """Prepare a page of a list."""
        self.says({"object": "list", "data": list(entries), "has_more": more})

    def fails(self, error: Exception) -> None:
        """Let the transport raise."""
        self._replies.append(error)

    def body(self, number: int = -1) -> dict[str, Any]:
        """The JSON of a request."""
        sent = json.loads(self.requests[number].content)
        assert isinstance(sent, dict)
        return sent

    @property
    def calls(self) -> list[str]:
        """Method and path of each request, without `/v1`."""
        return [f"{each.method} {each.url.path.removeprefix('/v1')}" for each in self.requests]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if self.owner is not None and request.method == "GET" and request.url.path == "/v1/models":
            return httpx2.Response(200, json={"object": "list", "data": [{"id": "m", "owned_by": self.owner}]})
        self.requests.append(request)
        assert self._replies, f"nothing is prepared for {request.method} {request.url}"
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    @asynccontextmanager
    async def client(self, base_url: str = "http://service.test/v1") -> AsyncIterator[AsyncOpenAI]:
        """A client of this service; all that was prepared must have been asked for in the end."""
        transport = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        async with AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0, http_client=transport) as client:
            yield client
        assert not self._replies, f"{len(self._replies)} prepared replies were never asked for"
