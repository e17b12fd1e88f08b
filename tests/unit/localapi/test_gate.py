"""Bodies that are no JSON as it should be, at the door of the local API."""

from __future__ import annotations

import asyncio

import pytest

from askq.localapi.files.filters import checked_filter, passes

from .stage import stage


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "input": "q", "temperature": NaN}',
        b'{"model": "m", "input": "q", "tools": [{"type": "web_search", "x": 1e999}]}',
        b'{"model": "m", "input": "q", "tools": [{"type": "web_search", "x": -Infinity}]}',
        b'{"model": "m", "input": "half \xed\xa0\xbd"}',
        b'{"model": "m", "input": "half \\ud83d"}',
        '{"model": "m", "input": "half \\ud83d"}'.encode("utf-16"),
        b'{"model": "m", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff",
    ],
)
async def test_what_is_no_json_is_refused_and_stops_nobody(body: bytes) -> None:
    async with asyncio.timeout(60), stage() as it:
        headers = {"Content-Type": "application/json"}
        async with it.http.post(f"{it.server.base_url}/responses", data=body, headers=headers) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (400, "invalid_request_error")
        assert (await it.respond())["status"] in ("queued", "in_progress", "completed")


async def test_a_choice_of_no_name_is_refused() -> None:
    async with asyncio.timeout(60), stage() as it:
        body = {"model": "m", "input": "q", "tool_choice": {"type": "function", "name": {"a": 1}}}
        status, answer = await it.ask("POST", "/responses", body)
        assert (status, answer["error"]["param"]) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("kind", "value", "held"), [("in", 1, "yes"), ("in", 2.5, "no"), ("nin", "one", "yes"), ("in", [1], "yes")]
)
def test_a_filter_with_a_value_alone(kind: str, value: object, held: str) -> None:
    assert passes({"a": 1}, checked_filter({"type": kind, "key": "a", "value": value})) is (held == "yes")
