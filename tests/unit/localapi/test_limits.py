"""Rate limits of the local API: what is refused, what replies say of it, and changes while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from askq.localapi.errors import ApiError, LocalApiError
from askq.localapi.limits import Limits, checked
from askq.localapi.options import Options

from .stage import Stage, stage

CREATE = ("POST", "/v1/responses")


class Ticks:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(**limits: object) -> tuple[Limits, Ticks]:
    clock = Ticks()
    made = Limits(clock=clock)
    made.change(limits)
    return made, clock


def refused(limits: Limits, method: str = "POST", path: str = "/v1/responses", body: bytes = b"") -> ApiError:
    with pytest.raises(ApiError) as told:
        limits.check(method, path, body)
    return told.value


def test_a_bucket_fills_at_its_rate_and_holds_its_burst() -> None:
    limits, clock = made(requests_per_second=2, burst=3)
    for _ in range(3):
        limits.check(*CREATE, b"{}")
    assert (refused(limits).status, refused(limits).code) == (429, "rate_limit_exceeded")
    clock.now += 0.5
    limits.check(*CREATE, b"{}")
    refused(limits)
    clock.now += 100
    for _ in range(3):
        limits.check(*CREATE, b"{}")
    assert limits.to_wire()["refused"] == {"requests": 3}


def test_headers_tell_limit_remaining_and_when_it_is_full_again() -> None:
    limits, _ = made(requests_per_second=2, burst=3, tokens_per_minute=600)
    told = limits.check(*CREATE, b'{"input": "12345678", "max_output_tokens": 8}')
    assert told == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "590",
        "x-ratelimit-reset-tokens": "1000ms",
    }
    limits.change({"headers": False, "retry_after": 2.5})
    assert limits.check(*CREATE, b"{}") == {}
    limits.check(*CREATE, b"{}")
    assert refused(limits).headers == {"Retry-After": "2.5"}
    limits.change({"retry_after": None})
    assert refused(limits).headers == {}


def test_tokens_are_refused_before_anything_is_counted() -> None:
    limits, clock = made(requests_per_second=1, burst=2, tokens_per_minute=60)
    assert "tokens" in refused(limits, body=b'{"max_output_tokens": 61}').message
    limits.check(*CREATE, b'{"max_output_tokens": 60}')
    refused(limits, body=b'{"max_output_tokens": 1}')
    clock.now += 1
    limits.check(*CREATE, b'{"max_output_tokens": 1}')
    assert limits.to_wire()["tokens_accepted"] == 61


def test_threads_and_polls_are_no_creates_and_gets_have_a_limit_of_their_own() -> None:
    limits, _ = made(requests_per_second=1, burst=1, gets_per_second=2)
    limits.check("POST", "/v1/threads/t/runs", b"{}")
    for path in ("/v1/threads", "/v1/conversations", "/v1/responses/r/cancel"):
        limits.check("POST", path, b"{}")
    limits.check("GET", "/v1/responses/r", b"")
    limits.check("GET", "/v1/responses/r", b"")
    assert refused(limits, "GET", "/v1/responses/r").status == 429


def test_a_limit_changed_in_mid_run_gives_nothing_away() -> None:
    limits, _ = made(requests_per_second=10, burst=10)
    for _ in range(10):
        limits.check(*CREATE, b"{}")
    limits.change({"requests_per_second": 5, "burst": 5})
    refused(limits)
    limits.change({"requests_per_second": None})
    for _ in range(50):
        limits.check(*CREATE, b"{}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": 1},
        {"requests_per_second": 0},
        {"requests_per_second": -1},
        {"requests_per_second": True},
        {"burst": "many"},
        {"headers": 1},
        {"retry_after": -1},
        {"tokens_per_minute": float("inf")},
        {"tokens_per_minute": float("nan")},
    ],
)
def test_wrong_limits_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=next(iter(wrong))):
        checked(wrong)
    with pytest.raises(LocalApiError, match="--limit"):
        Options(limits=wrong).check()


async def test_it_is_refused_over_http_and_counted() -> None:
    options = Options(engine="script", limits={"requests_per_second": 0.001, "burst": 1})
    async with stage(options) as it:
        first = await it.respond()
        assert first["object"] == "response"
        status, body = await it.ask("POST", "/responses", {"model": "m", "input": "x", "background": True})
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert len(await it.ledger()) == 1
        assert (await it.good("GET", "/_askq/stats"))["statuses"] == {"200": 1, "429": 1}
        await _change(it, requests_per_second=1000)
        await it.good("POST", "/_askq/limits", {"requests_per_second": None})
        await it.respond()
        told = await it.good("GET", "/_askq/limits")
        assert (told["requests_per_second"], told["refused"]) == (None, {"requests": 1})
        for wrong in ([1], {"burst": 0}):
            assert (await it.ask("POST", "/_askq/limits", wrong))[0] == 400
        assert (await it.ask("POST", "/_askq/limits", data=b"no JSON"))[0] == 400


async def _change(it: Stage, **limits: object) -> None:
    assert (await it.good("POST", "/_askq/limits", limits))["requests_per_second"] == 1000
