"""What can go wrong with a stream on demand, as a client that reads any JSON sees it; the run goes on in each case."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncStream

from tests.contract.test_localapi_sdk_streams import ANSWER, Stage, ended, stage

BREAKS = openai.APIConnectionError
LIES = (ValueError, openai.APIError)


async def opened(it: Stage, protocol: str) -> tuple[AsyncStream[object], Any]:
    """A stream, and how to look at its run."""
    if protocol == "responses":
        path, body = "/responses", {"model": "m", "input": "Why?", "stream": True, "background": True}
    else:
        given = await it.thread()
        path = f"/threads/{given['thread_id']}/runs"
        body = {"assistant_id": given["assistant_id"], "stream": True}
    stream = await it.client.post(
        path,
        cast_to=object,
        body=body,
        options={"headers": {"OpenAI-Beta": "assistants=v2"}},
        stream=True,
        stream_cls=AsyncStream[object],
    )

    async def run() -> Any:
        if protocol == "responses":
            (work,) = await it.server.api.storage.ledger(0, 10)
            return await it.client.responses.retrieve(work.id)
        (made,) = (await it.beta.threads.runs.list(given["thread_id"])).data
        return made

    return stream, run


@pytest.mark.parametrize("protocol", ["responses", "assistants"])
@pytest.mark.parametrize(
    ("kind", "raises"),
    [
        ("cut_stream", BREAKS),
        ("cut_event", BREAKS),
        ("end_stream", None),
        ("error_event", LIES),
        ("garbage_line", LIES),
        ("bad_event", LIES),
    ],
)
async def test_a_stream_that_is_not_told_to_its_end(protocol: str, kind: str, raises: Any) -> None:
    async with stage({"duration": 0.2}) as it:
        await it.fault(kind=kind, events=9, times=1)
        stream, run = await opened(it, protocol)
        seen: list[Any] = []

        async def read() -> None:
            async for event in stream:
                seen.append(event)

        if raises is None or (kind, protocol) == ("error_event", "responses"):
            await read()  # an error is an event like any other there
        else:
            with pytest.raises(raises):
                await read()
        told = [event for event in seen if event.get("type") != "error"]
        assert len(told) == 9
        assert ANSWER not in json.dumps(told, ensure_ascii=False)
        await ended(run, "completed")


@pytest.mark.parametrize("protocol", ["responses", "assistants"])
async def test_events_that_make_no_sense_come_between_those_that_do(protocol: str) -> None:
    async with stage({"duration": 0.2}) as it:
        await it.fault(kind="odd_events", events=9, times=1)
        stream, _ = await opened(it, protocol)
        seen = [event async for event in stream]
    assert 17 in seen
    assert [] in seen
    assert "completed" in json.dumps(seen[-1])


async def test_an_error_within_a_stream_says_what_is_wished() -> None:
    async with stage({"duration": 0.2}) as it:
        await it.fault(kind="error_event", events=0, code="overloaded", message="Try later.", times=1)
        given = await it.thread()
        with pytest.raises(openai.APIError, match="Try later"):
            async for _ in await it.beta.threads.runs.create(**given, stream=True):
                pass
