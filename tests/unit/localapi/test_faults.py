"""Faults on demand: which requests they hit, and what the client gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from askq.localapi.engines.script_file import parse_script
from askq.localapi.errors import ApiError
from askq.localapi.faults import KINDS, Faults
from askq.localapi.options import Options
from askq.localapi.server import running

from .stage import HEADERS, Stage, stage

CREATE: dict[str, Any] = {"method": "POST", "path": "/responses$"}
BODY = {"model": "m", "input": "Why?", "background": True}


@pytest.fixture
async def it() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def test_status_answers_before_anything_is_done(it: Stage) -> None:
    await it.fault(
        **CREATE,
        kind="status",
        status=429,
        code="insufficient_quota",
        type="insufficient_quota",
        message="Pay first.",
        headers={"Retry-After": "300"},
        times=1,
    )
    async with it.http.post(f"{it.server.base_url}/responses", json=BODY) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (429, "300")
        assert await reply.json() == {
            "error": {
                "message": "Pay first.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        }
    assert await it.ledger() == []
    assert (await it.respond())["status"] == "queued"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
async def test_status_has_a_fitting_type(it: Stage, status: int, kind: str) -> None:
    await it.fault(kind="status", status=status)
    answered, body = await it.ask("GET", "/models")
    assert (answered, body["error"]["type"]) == (status, kind)
    assert f"told to answer {status} (fault fault_1)" in body["error"]["message"]


async def test_status_after_is_the_double_pay_trap(it: Stage) -> None:
    await it.fault(**CREATE, kind="status_after", times=1)
    status, _ = await it.ask("POST", "/responses", BODY)
    assert status == 500
    assert len(await it.ledger()) == 1


@pytest.mark.parametrize(("kind", "created"), [("drop", 0), ("drop_after", 1)])
async def test_a_dropped_connection(it: Stage, kind: str, created: int) -> None:
    await it.fault(**CREATE, kind=kind)
    with pytest.raises(aiohttp.ClientConnectionError):
        await it.ask("POST", "/responses", BODY)
    assert len(await it.ledger()) == created
    stats = await it.good("GET", "/_askq/stats")
    # aiohttp's client retries nothing that is not idempotent.
    assert (stats["faults"], stats["statuses"]) == ({kind: 1}, {"dropped": 1})


async def test_delay_is_late_but_right(it: Stage) -> None:
    await it.fault(kind="delay", seconds=0.2)
    began = time.monotonic()
    assert (await it.respond())["object"] == "response"
    assert time.monotonic() - began >= 0.2


async def test_slow_body_trickles(it: Stage) -> None:
    await it.fault(kind="slow_body", seconds=0.2)
    began = time.monotonic()
    async with it.http.get(f"{it.server.base_url}/models") as reply:
        assert not reply.content.is_eof(), "the headers come at once"
        assert (await reply.json())["object"] == "list"
    assert time.monotonic() - began >= 0.2


async def test_truncated_json_is_a_proper_reply_with_half_a_body(it: Stage) -> None:
    await it.fault(kind="truncated_json")
    async with it.http.get(f"{it.server.base_url}/models") as reply:
        text = await reply.text()
    assert reply.status == 200
    assert text.startswith('{"object"')
    assert not text.endswith("}")


async def test_cut_body_breaks_in_the_middle(it: Stage) -> None:
    await it.fault(kind="cut_body")
    async with it.http.get(f"{it.server.base_url}/models") as reply:
        assert reply.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()


async def test_html_200(it: Stage) -> None:
    await it.fault(**CREATE, kind="html_200")
    async with it.http.post(f"{it.server.base_url}/responses", json=BODY) as reply:
        assert (reply.status, reply.content_type) == (200, "text/html")
        assert "<html>" in await reply.text()
    assert await it.ledger() == []


@pytest.mark.parametrize("perform", [False, True])
async def test_timeout_hangs_before_or_after(it: Stage, perform: bool) -> None:  # noqa: FBT001
    await it.fault(**CREATE, kind="timeout", perform=perform)
    with pytest.raises(TimeoutError):
        await it.ask("POST", "/responses", BODY, timeout=aiohttp.ClientTimeout(total=0.2))
    assert len(await it.ledger()) == int(perform)


async def test_timeout_ends_with_a_broken_connection(it: Stage) -> None:
    await it.fault(kind="timeout", seconds=0.1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await it.ask("POST", "/responses", BODY)


async def test_patch_overwrites_and_removes_fields(it: Stage) -> None:
    await it.fault(**CREATE, kind="patch", set={"status": "dreaming"}, remove=["output", "no such field"])
    made = await it.respond()
    assert made["status"] == "dreaming"
    assert "output" not in made


async def test_perform_changes_the_habit_of_a_kind(it: Stage) -> None:
    await it.fault(**CREATE, kind="html_200", perform=True)
    async with it.http.post(f"{it.server.base_url}/responses", json=BODY) as reply:
        assert reply.content_type == "text/html"
    assert len(await it.ledger()) == 1


async def test_a_fault_hits_what_it_matches(it: Stage) -> None:
    await it.fault(kind="status", status=418, method="post", path="^/v1/responses$", contains="Paris")
    assert (await it.ask("POST", "/responses", BODY))[0] == 200
    assert (await it.ask("POST", "/responses", {**BODY, "input": "Is Paris big?"}))[0] == 418
    assert (await it.ask("GET", "/models"))[0] == 200


async def test_faults_are_listed_counted_and_removed(it: Stage) -> None:
    first = await it.fault(kind="status", path="/models", skip=1)
    second = await it.fault(kind="status", path="/threads")
    assert [(await it.ask("GET", "/models"))[0] for _ in range(3)] == [200, 500, 500]
    listed = (await it.good("GET", "/_askq/faults"))["data"]
    assert [(rule["id"], rule["seen"], rule["hits"]) for rule in listed] == [(first, 3, 2), (second, 0, 0)]
    assert await it.good("DELETE", f"/_askq/faults/{first}") == {"deleted": 1}
    status, body = await it.ask("DELETE", f"/_askq/faults/{first}")
    assert (status, body["error"]["message"]) == (404, f"No fault found with id '{first}'.")
    assert (await it.ask("GET", "/models"))[0] == 200
    assert await it.good("DELETE", "/_askq/faults") == {"deleted": 1}


async def test_several_faults_at_once_are_all_or_none(it: Stage) -> None:
    rules = [{"kind": "drop", "path": "/a"}, {"kind": "status", "path": "/b"}]
    assert len((await it.good("POST", "/_askq/faults", {"faults": rules}))["data"]) == 2
    assert len((await it.good("POST", "/_askq/faults", rules))["data"]) == 2
    status, _ = await it.ask("POST", "/_askq/faults", [*rules, {"kind": "explode"}])
    assert status == 400
    assert len((await it.good("GET", "/_askq/faults"))["data"]) == 4
    for nonsense in ({"faults": "many"}, "text", [1]):
        status, body = await it.ask("POST", "/_askq/faults", nonsense)
        assert (status, "must be a fault" in body["error"]["message"]) == (400, True)
    async with it.http.post(f"{it.server.admin_url}/faults", data=b"{") as reply:
        assert reply.status == 400


async def test_a_script_file_brings_faults() -> None:
    script = parse_script({"fault": [{"kind": "status", "status": 503, "path": "/models"}]})
    async with stage(script=script) as it:
        assert (await it.ask("GET", "/models"))[0] == 503


@pytest.mark.parametrize("waits_for", ["a fault", "a response"])
async def test_a_request_that_hangs_does_not_keep_the_server_from_stopping(waits_for: str) -> None:
    script = parse_script({"rule": [{"status": "stuck"}]})
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        async with running(Options(engine="script"), script=script) as server:
            it = Stage(server, http)
            if waits_for == "a fault":
                await it.fault(kind="timeout")
            hanging = asyncio.create_task(it.ask("POST", "/responses", {"model": "m", "input": "x"}))
            async with asyncio.timeout(60):
                while not server.api.stats.requests:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < 30, "a server waits a minute for requests that are open"
        with pytest.raises(aiohttp.ClientConnectionError):
            await hanging


def test_probability_is_a_seeded_share() -> None:
    def hits(seed: int) -> list[bool]:
        faults = Faults()
        faults.add({"kind": "drop", "probability": 0.3, "seed": seed})
        return [faults.pick("GET", "/v1/models", b"") is not None for _ in range(1000)]

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert 250 < sum(hits(1)) < 350


def test_the_first_rule_that_goes_off_is_applied_and_the_rest_do_not_count() -> None:
    faults = Faults()
    first = faults.add({"kind": "drop", "times": 1})
    second = faults.add({"kind": "status"})
    assert [faults.pick("GET", "/v1/x", b"") for _ in range(2)] == [first, second]
    assert (second.seen, second.hits) == (1, 1)
    third = faults.add({"kind": "delay", "times": 0})
    assert (first.hits, third.hits) == (1, 0)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({}, f"needs a 'kind', one of: {', '.join(KINDS)}"),
        ({"kind": "explode"}, "needs a 'kind'"),
        ({"kind": "drop", "often": True}, "Unknown field of a fault: 'often'"),
        ({"kind": "drop", "times": "one"}, "Wrong type for 'times' of a fault: a string"),
        ({"kind": "drop", "times": True}, "Wrong type for 'times' of a fault: a boolean"),
        ({"kind": "drop", "path": "("}, "'path' of a fault is no regular expression"),
        ({"kind": "status", "status": 200}, "from 400 to 599"),
        ({"kind": "drop", "probability": 1.5}, "from 0 to 1"),
        ({"kind": "drop", "skip": -1}, "'skip' of a fault must not be negative"),
        ({"kind": "status", "headers": {"Retry-After": 3}}, "strings for values"),
    ],
)
def test_a_wrong_rule_is_refused(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as refused:
        Faults().add(rule)
    assert words in str(refused.value)
    assert refused.value.status == 400
