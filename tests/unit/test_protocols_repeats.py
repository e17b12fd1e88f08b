"""Calls that are made like the SDK's first one: the same request, the same errors."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
import httpx2
import pytest
from openai import AsyncOpenAI

from tests.unit.protocols_stage import KEY, Service, ask
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Ambiguous, Blocked, CallError, Limited, Protocol, RunState
from worker.protocols.responses import ResponsesProtocol

PENDING = {"id": "run_x", "status": "in_progress"}
KINDS: dict[str, Callable[[AsyncOpenAI], Protocol]] = {
    "assistants": AssistantsProtocol,
    "responses": ResponsesProtocol,
}
pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def service() -> Service:
    return Service()


async def test_the_second_poll_is_the_same_request_but_for_its_ids(service: Service, kind: str) -> None:
    async with service.client() as client:
        protocol = KINDS[kind](client)
        for number in range(3):
            service.says(PENDING)
            status = await protocol.poll(f"thread_{number}", f"run_{number}")
            assert status.state is RunState.PENDING
    first, second, third = service.requests
    assert str(second.url) == str(first.url).replace("thread_0", "thread_1").replace("run_0", "run_1")
    assert str(third.url) == str(first.url).replace("thread_0", "thread_2").replace("run_0", "run_2")
    assert dict(second.headers) == dict(third.headers) == dict(first.headers)
    assert second.headers["authorization"] == f"Bearer {KEY}"
    assert second.extensions["timeout"] == first.extensions["timeout"]


async def test_what_creates_is_the_same_request_but_for_its_ids_key_and_body(service: Service, kind: str) -> None:
    asks = [ask(job_id=f"b_1.r{number}", text=f'왜? "{number}" ' + "é" * number) for number in range(3)]
    by_sdk: list[httpx2.Request] = []
    for of_this_client in (1, 3):
        async with service.client() as client:
            protocol = KINDS[kind](client)
            for number in range(3):
                if of_this_client == 1:
                    # A client that has made nothing yet leaves all of it to the SDK.
                    protocol = KINDS[kind](client)
                service.says({"id": f"thread_{number}"})
                service.says(PENDING)
                thread = await protocol.prepare(asks[number], "asst_1")
                assert (await protocol.start(asks[number], thread, "asst_1")).run_id == "run_x"
        if of_this_client == 1:
            by_sdk, service.requests = service.requests, []
    assert len(by_sdk) == len(service.requests) == 6
    for theirs, ours in zip(by_sdk, service.requests, strict=True):
        assert (ours.method, ours.url, ours.content) == (theirs.method, theirs.url, theirs.content)
        assert dict(ours.headers) == dict(theirs.headers)
        assert ours.extensions["timeout"] == theirs.extensions["timeout"]
    assert len({request.headers["idempotency-key"] for request in service.requests}) == 6


async def test_a_create_that_fails_means_what_it_means_to_the_sdk(service: Service, kind: str) -> None:
    told = []
    async with service.client() as client:
        protocol = KINDS[kind](client)
        for again in (False, True):
            if again:
                service.says(PENDING)
                await protocol.start(ask(), "thread_0", "asst_1")
            service.refuses(429, "No.", code="rate_limit_exceeded", headers={"retry-after": "3"})
            with pytest.raises(Limited) as limited:
                await protocol.start(ask(), "thread_0", "asst_1")
            service.fails(httpx2.ReadError("cut"))
            with pytest.raises(Ambiguous) as lost:
                await protocol.start(ask(), "thread_0", "asst_1")
            told.append((limited.value.retry_after, limited.value.limits, lost.value.code, lost.value.message))
    assert told[0] == told[1]


async def test_an_id_cannot_lead_to_another_address(service: Service, kind: str) -> None:
    async with service.client() as client:
        protocol = KINDS[kind](client)
        for run in ("run_0", "run_1/../x?y#z"):
            service.says(PENDING)
            await protocol.poll("thread_0", run)
        first, second = service.requests
        assert second.url.raw_path == first.url.raw_path.replace(b"run_0", b"run_1%2F..%2Fx%3Fy%23z")
        with pytest.raises(Ambiguous, match="unreadable"):
            await protocol.poll("thread_0", "")
    assert len(service.requests) == 2, "a poll without an id is not sent"


@pytest.mark.parametrize(
    ("status", "code", "expected", "named"),
    [
        (401, "invalid_api_key", Blocked, "rejected_key"),
        (429, "rate_limit_exceeded", Limited, "rate_limit_exceeded"),
        (429, "insufficient_quota", Blocked, "quota_exhausted"),
        (500, None, Ambiguous, "http_500"),
    ],
)
async def test_a_refusal_means_what_it_means_to_the_sdk(
    service: Service, kind: str, status: int, code: str | None, expected: type[CallError], named: str
) -> None:
    told = []
    async with service.client() as client:
        protocol = KINDS[kind](client)
        for again in (False, True):
            if again:
                service.says(PENDING)
                await protocol.poll("thread_0", "run_0")
            service.refuses(status, "No.", code=code, headers={"retry-after": "3"})
            with pytest.raises(expected) as caught:
                await protocol.poll("thread_0", "run_0")
            told.append((caught.value.code, caught.value.message, caught.value.retry_after))
    assert told[0] == told[1]
    assert told[1][0] == named


@pytest.mark.parametrize(
    ("error", "expected", "named"),
    [
        (httpx2.ReadTimeout("too slow"), Ambiguous, "no_reply"),
        (httpx2.ConnectTimeout("no connection"), Limited, "unreachable"),
        (httpx2.ReadError("cut"), Ambiguous, "no_reply"),
    ],
)
async def test_a_broken_connection_means_what_it_means_to_the_sdk(
    service: Service, kind: str, error: Exception, expected: type[CallError], named: str
) -> None:
    async with service.client() as client:
        protocol = KINDS[kind](client)
        codes = []
        for again in (False, True):
            if again:
                service.says(PENDING)
                await protocol.poll("thread_0", "run_0")
            if isinstance(error, httpx2.ConnectTimeout):
                # As the transport raises it.
                error.__cause__ = aiohttp.ConnectionTimeoutError("no connection")
            service.fails(error)
            with pytest.raises(expected) as caught:
                await protocol.poll("thread_0", "run_0")
            codes.append(caught.value.code)
    assert codes == [named, named]


async def test_where_the_base_url_has_a_query_the_sdk_goes_on_making_them(service: Service, kind: str) -> None:
    async with service.client("http://service.test/v1?deployment=d") as client:
        protocol = KINDS[kind](client)
        for number in range(2):
            service.says(PENDING)
            await protocol.poll("thread_0", f"run_{number}")
    first, second = service.requests
    assert second.url == str(first.url).replace("run_0", "run_1")
