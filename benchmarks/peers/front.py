"""`python -m benchmarks.peers.front --api URL --endpoint-file FILE [--rate N --burst N]`: the server contenders see.

Everything is passed on to a local API, whose ledger, engine and latencies are thus the same for all, but for

- creates of runs (POST to /responses, /chat/completions, /threads/…/runs), which meet the limit if there is one: 429
  with `Retry-After: 1`. Their replies carry `x-ratelimit-*` headers as OpenAI's do, unless told not to. Nothing else
  is limited;
- /chat/completions, which the local API does not have: asked of it as a synchronous response that is not stored;
- /_front/stats: what was asked and refused, and when the first create came and the last answer was read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.peers.bucket import Bucket

_CREATES = re.compile(r"/v1/(responses|chat/completions|threads/[^/]+/runs)")
_POLLS = re.compile(r"/v1/(responses/[^/]+|threads/[^/]+/runs/[^/]+)")
_COMPLETED = re.compile(rb'"status"\s*:\s*"completed"')
_HOP = {"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade", "content-encoding"}
_AHEAD_S = 900.0
"""No call may take longer: the longest time-out among the contenders."""
_RETRY_AFTER_S = 1


class Front:
    """The handlers, and what they saw."""

    def __init__(self, api: str, bucket: Bucket | None, *, hints: bool = True) -> None:
        self._api = api
        self._bucket = bucket
        self._tells = hints and bucket is not None
        self._requests: Counter[str] = Counter()
        self._first_create: float | None = None
        self._last_answer: float | None = None
        self._session: aiohttp.ClientSession | None = None

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Keep connections to the local API while the application runs."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_AHEAD_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            self._session = session
            yield

    async def stats(self, _request: web.Request) -> web.Response:
        """GET /_front/stats."""
        return web.json_response(
            {
                "requests": dict(self._requests),
                "first_create": self._first_create,
                "last_answer": self._last_answer,
            }
        )

    async def pass_on(self, request: web.Request) -> web.Response:
        """Everything else."""
        body = await request.read()
        creates = request.method == "POST" and _CREATES.fullmatch(request.path) is not None
        chat = creates and request.path.endswith("/chat/completions")
        asked: dict[str, Any] | None = json.loads(body) if chat else None
        if asked is not None and not asked.get("messages"):
            # Who asks so wants the headers only (bespokelabs-curator does): as at OpenAI, invalid, and not limited.
            return web.json_response(
                _error("Empty messages.", "invalid_request_error"), status=400, headers=self._hints()
            )
        if creates:
            self._requests["creates"] += 1
            if self._first_create is None:
                self._first_create = time.time()
            if self._bucket is not None and not self._bucket.take(time.monotonic()):
                self._requests["refused"] += 1
                headers = {"Retry-After": str(_RETRY_AFTER_S), **self._hints()}
                told = _error("Rate limit reached for requests.", "requests", "rate_limit_exceeded")
                return web.json_response(told, status=429, headers=headers)
        elif request.path.startswith("/v1/"):
            self._requests["others"] += 1
        if asked is not None:
            body = json.dumps(_as_response(asked)).encode()
            status, headers, reply = await self._ask("POST", "/v1/responses", request, body)
            if status == 200:
                reply = json.dumps(_as_completion(json.loads(reply))).encode()
        else:
            status, headers, reply = await self._ask(request.method, request.path_qs, request, body)
        ended = creates or (request.method == "GET" and _POLLS.fullmatch(request.path))
        if ended and (chat or _COMPLETED.search(reply)):
            self._last_answer = time.time()
        return web.Response(body=reply, status=status, headers={**headers, **(self._hints() if creates else {})})

    async def _ask(
        self, method: str, path: str, request: web.Request, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(method, self._api + path, data=body or None, headers=headers) as reply:
            passed = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP}
            return reply.status, passed, await reply.read()

    def _hints(self) -> dict[str, str]:
        """Per minute, as OpenAI words its limits."""
        if self._bucket is None or not self._tells:
            return {}
        left = self._bucket.left(time.monotonic())
        return {
            "x-ratelimit-limit-requests": str(int(self._bucket.rate * 60)),
            "x-ratelimit-remaining-requests": str(int(left)),
            "x-ratelimit-reset-requests": f"{(self._bucket.burst - left) / self._bucket.rate:.3f}s",
            "x-ratelimit-limit-tokens": "100000000",
            "x-ratelimit-remaining-tokens": "100000000",
            "x-ratelimit-reset-tokens": "0s",
        }


def _error(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _as_response(chat: dict[str, Any]) -> dict[str, Any]:
    """What the local API is asked for: a role and a text is all the contenders send."""
    messages = [{"role": message["role"], "content": _text(message["content"])} for message in chat["messages"]]
    return {"model": chat["model"], "input": messages, "store": False}


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _as_completion(response: dict[str, Any]) -> dict[str, Any]:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    usage = response["usage"]
    return {
        "id": response["id"].replace("resp_", "chatcmpl-", 1),
        "object": "chat.completion",
        "created": int(response["created_at"]),
        "model": response["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        },
    }


async def _serve(options: argparse.Namespace) -> None:
    bucket = None
    if options.rate is not None:
        bucket = Bucket(rate=options.rate, burst=options.burst, now=time.monotonic())
    front = Front(options.api, bucket, hints=not options.no_hints)
    app = web.Application(client_max_size=2**26)
    app.cleanup_ctx.append(front.running)
    app.router.add_get("/_front/stats", front.stats)
    app.router.add_route("*", "/{path:.*}", front.pass_on)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    port = runner.addresses[0][1]
    written = options.endpoint_file.with_suffix(".new")
    written.write_text(json.dumps({"url": f"http://127.0.0.1:{port}"}), "utf-8")
    written.replace(options.endpoint_file)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.front", description=__doc__)
    parser.add_argument("--api", required=True, metavar="URL", help="the local API, without /v1")
    parser.add_argument(
        "--endpoint-file", type=Path, required=True, metavar="FILE", help="write the URL there when ready"
    )
    parser.add_argument("--rate", type=float, help="creates per second (default: no limit)")
    parser.add_argument("--no-hints", action="store_true", help="do not tell the limit in headers")
    parser.add_argument("--burst", type=float, default=1.0, help="creates at once")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
