"""A local API in this process, and a bare HTTP client for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from askq.localapi.engines.script_file import Script, parse_script
from askq.localapi.options import Options
from askq.localapi.server import Server, running

HEADERS = {"Authorization": "Bearer any", "OpenAI-Beta": "assistants=v2"}


@dataclass
class Stage:
    server: Server
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON of a request below `/v1`, or of an `/_askq` path."""
        root = self.server.base_url.removesuffix("/v1") if path.startswith("/_askq") else self.server.base_url
        async with self.http.request(method, root + path, json=body, **options) as reply:
            return reply.status, await reply.json()

    async def good(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        status, answer = await self.ask(method, path, body, **options)
        assert status == 200, answer
        return answer

    async def fault(self, **rule: Any) -> str:
        answer = await self.good("POST", "/_askq/faults", rule)
        made: str = answer["data"][0]["id"]
        return made

    async def respond(self, question: str = "Why?", **fields: Any) -> Any:
        body = {"model": "m", "input": question, "background": True, **fields}
        return await self.good("POST", "/responses", body)

    async def ledger(self) -> list[Any]:
        return list((await self.good("GET", "/_askq/ledger"))["data"])


@contextlib.asynccontextmanager
async def stage(options: Options | None = None, script: Script | None = None) -> AsyncIterator[Stage]:
    script = script or parse_script({"default": {"duration": 0}})
    async with (
        running(options or Options(engine="script"), script=script) as server,
        aiohttp.ClientSession(headers=HEADERS) as http,
    ):
        yield Stage(server, http)
