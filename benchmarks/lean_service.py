"""A service that answers at next to no cost, for measuring what waiting takes of everybody else: its runs never end.

It speaks as much of Responses and Conversations as a run that waits is asked for. The local API does more for each
request than the worker whose polls it answers; the service of real life has machines of its own.

    python -m benchmarks.lean_service PORT POLL_AFTER_MS
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import Counter

_numbers = itertools.count(1)
_RESPONSE = {
    "object": "response",
    "created_at": 1_795_000_000,
    "background": True,
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {"askq_job": "b_06bpjx0d1k8wqz6m.q0001", "askq_attempt": "1"},
    "model": "gpt-test",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
}
"""What a response has besides its id and status, so that replies are as long as those of the service."""
_HEADERS = (
    "date: Sat, 28 Nov 2026 10:00:00 GMT\r\ncontent-type: application/json\r\nopenai-version: 2020-10-01\r\n"
    "x-request-id: req_5f0c4b7a9d2e4f1b8a6c3d2e1f0a9b8c\r\nopenai-processing-ms: 12\r\n"
)


class Conversation(asyncio.Protocol):
    """One connection that is kept open; requests may come in pieces, or several at once."""

    def __init__(self, poll_after_ms: int, counted: Counter[str]) -> None:
        self._hint = f"openai-poll-after-ms: {poll_after_ms}\r\n"
        self._counted = counted
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end]
            whole = end + 4 + _length(head)
            if len(self._held) < whole:
                return
            self._held = self._held[whole:]
            method, target, _ = head.split(b" ", 2)
            self._transport.write(self._reply(method.decode(), target.decode().partition("?")[0]))

    def _reply(self, method: str, path: str) -> bytes:
        kind = f"{method} {'/'.join(path.split('/')[:3])}"
        self._counted[kind] += 1
        match kind:
            case "POST /v1/conversations":
                body: object = {"id": f"conv_{next(_numbers)}", "object": "conversation"}
            case "POST /v1/responses":
                body = {"id": f"resp_{next(_numbers)}", **_RESPONSE, "status": "queued"}
            case "GET /v1/responses":
                body = {"id": path.rpartition("/")[2], **_RESPONSE, "status": "in_progress"}
            case "GET /v1/models":
                body = {"object": "list", "data": []}
            case "GET /counted":
                body = dict(self._counted)
            case _:
                body = {"error": {"message": f"{kind} is not spoken here"}}
        text = json.dumps(body)
        status = "404 Not Found" if "error" in text[:10] else "200 OK"
        head = f"HTTP/1.1 {status}\r\n{_HEADERS}{self._hint}content-length: {len(text)}\r\n\r\n"
        return (head + text).encode()


def _length(head: bytes) -> int:
    """Bytes of a request's body."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(port: int, poll_after_ms: int) -> None:
    """Answer on this port of the loopback interface until the process ends."""
    counted: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(poll_after_ms, counted), "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
