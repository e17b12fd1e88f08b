"""Health, ledger, statistics, and what the gate does to malformed requests."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.engines.script_file import parse_script
from askq.localapi.errors import LocalApiError
from askq.localapi.options import Options
from askq.localapi.routes import models

from .stage import Stage, stage


@pytest.fixture
async def it() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def test_health(it: Stage) -> None:
    assert await it.good("GET", "/_askq/health") == {"status": "ok", "engine": "script"}


async def test_the_ledger_is_read_in_pages(it: Stage) -> None:
    made = [(await it.respond(f"Question {n}?", metadata={"job": str(n)}))["id"] for n in range(5)]
    page = await it.good("GET", "/_askq/ledger?limit=2")
    assert [entry["id"] for entry in page["data"]] == made[:2]
    assert (page["last"], page["has_more"]) == (2, True)
    page = await it.good("GET", f"/_askq/ledger?after={page['last']}")
    assert [entry["id"] for entry in page["data"]] == made[2:]
    assert (page["last"], page["has_more"]) == (5, False)
    entry = page["data"][-1]
    assert {name: entry[name] for name in ("n", "protocol", "model", "metadata", "round", "question")} == {
        "n": 5,
        "protocol": "responses",
        "model": "m",
        "metadata": {"job": "4"},
        "round": 0,
        "question": "Question 4?",
    }
    assert len(entry["input_digest"]) == 64
    assert entry["created_at"] > 0
    empty = await it.good("GET", "/_askq/ledger?after=5")
    assert (empty["data"], empty["last"], empty["has_more"]) == ([], 5, False)
    status, body = await it.ask("GET", "/_askq/ledger?after=-1")
    assert (status, body["error"]["message"]) == (400, "'after' must be a number from 0, but is '-1'.")


async def test_the_ledger_outlives_what_it_names(it: Stage) -> None:
    made = await it.respond()
    await it.good("DELETE", f"/responses/{made['id']}")
    assert [entry["id"] for entry in await it.ledger()] == [made["id"]]


async def test_equal_input_has_an_equal_digest(it: Stage) -> None:
    for question in ("a", "a", "b"):
        await it.respond(question)
    first, second, third = [entry["input_digest"] for entry in await it.ledger()]
    assert first == second != third


async def test_statistics_count_requests_objects_and_runs(it: Stage) -> None:
    made = await it.respond()
    await it.good("GET", f"/responses/{made['id']}")
    await it.ask("GET", "/responses/none")
    await it.ask("GET", "/no/such/path")
    thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": "x"}]})
    assistant = await it.good("POST", "/assistants", {"model": "m"})
    await it.good("POST", f"/threads/{thread['id']}/runs", {"assistant_id": assistant["id"]})
    stats = await it.good("GET", "/_askq/stats")
    assert stats["requests"] == {
        "GET /v1/responses/{response_id}": 2,
        "POST /v1/assistants": 1,
        "POST /v1/responses": 1,
        "POST /v1/threads": 1,
        "POST /v1/threads/{thread_id}/runs": 1,
        "unknown": 1,
    }
    assert stats["statuses"] == {"200": 5, "404": 2}
    assert stats["created"] == {"assistants": 1, "responses": 1}
    assert (stats["ledger"], stats["in_flight"], stats["engine"]) == (2, 0, "script")
    # The run is over, so its message is there too.
    assert stats["objects"] == {
        "assistant": 1,
        "thread": 1,
        "message": 2,
        "conversation": 0,
        "item": 0,
        "run": 1,
        "response": 1,
        "file": 0,
        "vector_store": 0,
        "vector_store_file": 0,
        "file_batch": 0,
        "container": 0,
        "container_file": 0,
    }


async def test_with_a_key_all_but_health_asks_for_it() -> None:
    async with stage(Options(engine="script", key="the-right-key-of-this-server")) as it:
        await it.good("GET", "/_askq/health")
        for path in ("/_askq/stats", "/_askq/ledger", "/_askq/faults", "/models"):
            status, body = await it.ask("GET", path)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
            assert body["error"]["message"] == "Incorrect API key provided: ***."
            long = {"Authorization": "Bearer sk-a-wrong-but-long-key"}
            _, body = await it.ask("GET", path, headers=long)
            assert body["error"]["message"] == "Incorrect API key provided: sk-a********-key."
            await it.good("GET", path, headers={"Authorization": "Bearer the-right-key-of-this-server"})


async def test_a_request_without_a_key_is_refused(it: Stage) -> None:
    async with aiohttp.ClientSession() as http:
        for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer "}):
            async with http.get(f"{it.server.base_url}/models", headers=headers) as reply:
                assert reply.status == 401
                assert "You didn't provide an API key" in (await reply.json())["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "could not parse the JSON body"),
        (b"[]", "must be an object"),
        (b'{"model": "m", "input": "\\ud800"}', "could not parse the JSON body"),
        (b'\xff{"model": "m"}', "could not parse the JSON body"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(it: Stage, body: bytes, words: str) -> None:
    async with it.http.post(f"{it.server.base_url}/responses", data=body) as reply:
        assert reply.status == 400
        assert words in (await reply.json())["error"]["message"]


async def test_text_of_all_kinds_comes_back_as_it_was(it: Stage) -> None:
    text = "snow ☃ 𝄞 \u0000 \r\n \u2028"
    made = await it.respond(text)
    items = await it.good("GET", f"/responses/{made['id']}/input_items")
    assert items["data"][0]["content"][0]["text"] == text
    assert (await it.ledger())[0]["question"] == text


async def send_long(it: Stage, chars: int) -> tuple[int, Any]:
    text = json.dumps({"model": "m", "input": "x" * chars, "background": True})
    async with it.http.post(f"{it.server.base_url}/responses", data=io.BytesIO(text.encode())) as reply:
        return reply.status, await reply.json()


async def test_a_ten_megabyte_question_is_taken_and_a_longer_one_refused(it: Stage) -> None:
    status, made = await send_long(it, 10_485_760)
    assert (status, made["status"]) == (200, "queued")
    got = await it.good("GET", f"/responses/{made['id']}")
    assert len(got["output"][0]["content"][0]["text"]) == 10_485_760 + len("Answer to: ")
    status, body = await send_long(it, 10_485_761)
    assert (status, body["error"]["code"]) == (400, "string_above_max_length")


async def test_a_body_beyond_all_limits_is_refused(it: Stage) -> None:
    status, body = await send_long(it, 64 * 1024 * 1024)
    assert (status, body["error"]["code"]) == (413, "request_too_large")


async def test_a_method_that_is_not_there(it: Stage) -> None:
    status, body = await it.ask("PUT", "/responses", {})
    assert (status, body["error"]["message"]) == (405, "Not allowed to PUT on /v1/responses.")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": 1}, "Invalid type for 'model': expected a string, but got an integer instead."),
        ({"model": ""}, "Invalid 'model': empty string"),
        ({"model": "m", "background": "yes"}, "Invalid type for 'background': expected a boolean, but got a string"),
        ({"model": "m", "tools": {}}, "Invalid type for 'tools': expected an array of objects"),
        ({"model": "m", "tools": [1]}, "Invalid type for 'tools[0]': expected an object, but got an integer"),
        ({"model": "m", "text": []}, "Invalid type for 'text': expected an object, but got an array"),
        ({"model": "m", "temperature": "hot"}, "Invalid type for 'temperature': expected a decimal, but got a string"),
        ({"model": "m", "temperature": -1}, "decimal below minimum value"),
        ({"model": "m", "max_output_tokens": 1.5}, "expected an integer, but got a decimal"),
        ({"model": "m", "max_output_tokens": 1}, "integer below minimum value. Expected a value >= 16"),
        ({"model": "m", "truncation": "some"}, "Supported values are: 'auto', 'disabled'."),
        ({"model": "m", "include": "all"}, "Invalid type for 'include': expected an array of strings"),
        ({"model": "m", "input": 5}, "Invalid type for 'input': expected a string, but got an integer"),
        ({"model": "m", "colour": 1}, "Unknown parameter: 'colour'."),
    ],
)
async def test_wrong_parameters_are_refused_in_openais_words(it: Stage, body: Any, words: str) -> None:
    status, answer = await it.ask("POST", "/responses", {"input": "x", **body})
    assert status == 400
    assert words in answer["error"]["message"]


async def test_a_limit_that_is_no_number(it: Stage) -> None:
    status, body = await it.ask("GET", "/assistants?limit=many")
    assert (status, body["error"]["code"]) == (400, "invalid_type")


async def test_a_stream_of_a_finished_response_is_refused(it: Stage) -> None:
    made = await it.respond()
    status, body = await it.ask("GET", f"/responses/{made['id']}?stream=true")
    assert (status, body["error"]["param"]) == (400, "stream")


async def test_a_fault_of_the_server_itself_is_a_500_and_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_api: Api, _call: Call) -> Reply:
        raise ZeroDivisionError

    monkeypatch.setattr(models, "ROUTES", (Route("GET", "/models", broken),))
    async with stage() as it:
        status, body = await it.ask("GET", "/models")
    assert (status, body["error"]["type"]) == (500, "server_error")
    assert "GET /v1/models failed" in caplog.text


async def test_a_disk_that_is_full_is_a_500_that_says_so(
    it: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full() -> None:
        raise LocalApiError("The data folder x cannot be written: full.")

    with monkeypatch.context() as patch:
        patch.setattr(it.server.api.storage, "commit", full)
        status, body = await it.ask("POST", "/threads", {})
    assert (status, body["error"]["message"]) == (500, "The data folder x cannot be written: full.")
    assert "cannot be written" in caplog.text


async def test_concurrent_requests_with_one_idempotency_key_create_one_run() -> None:
    async with stage(Options(engine="script", idempotency=True)) as it:
        body = {"model": "m", "input": "x", "background": True}
        headers = {"Idempotency-Key": "k"}
        made = await asyncio.gather(*(it.good("POST", "/responses", body, headers=headers) for _ in range(10)))
        assert len({each["id"] for each in made}) == 1
        waited = {**body, "background": False}
        headers = {"Idempotency-Key": "sync"}
        done = [await it.good("POST", "/responses", waited, headers=headers) for _ in range(2)]
        assert done[0] == done[1]
        assert done[0]["status"] == "completed"
        await it.good("DELETE", f"/responses/{done[0]['id']}")
        assert (await it.ask("POST", "/responses", waited, headers=headers))[0] == 404
        assert len(await it.ledger()) == 2


async def test_twenty_creates_at_once_make_one_run_in_a_thread() -> None:
    async with stage(script=parse_script({"rule": [{"status": "stuck"}]})) as it:
        await it.fault(kind="delay", seconds=0.05, path="/runs$")
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": "x"}]})
        assistant = await it.good("POST", "/assistants", {"model": "m"})
        path, body = f"/threads/{thread['id']}/runs", {"assistant_id": assistant["id"]}
        replies = await asyncio.gather(*(it.ask("POST", path, body) for _ in range(20)))
        assert sorted(status for status, _ in replies) == [200] + [400] * 19
