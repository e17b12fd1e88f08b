"""Every way a call can fail, and what becomes of it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from aiohttp.http_writer import StreamWriter

from askq.ends import ENDS
from tests.unit.protocols_stage import HTML, KEY, Service, ask
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Ambiguous, Blocked, Busy, CallError, Gone, Limited, Refused
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.translate import translate

BUSY_THREAD = "Thread thread_1 already has an active run run_abc-D_9."


async def failure(service: Service, call: str = "start") -> CallError:
    """The error that a call ends with: a paid create in a conversation, or a look at a response."""
    async with service.client() as client:
        responses, assistants = ResponsesProtocol(client), AssistantsProtocol(client)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "start": lambda: responses.start(ask(), "conv_1", None),
            "start alone": lambda: responses.start(ask(), "", None),
            "start run": lambda: assistants.start(ask(), "thread_1", "asst_1"),
            "poll": lambda: responses.poll("conv_1", "resp_1"),
        }
        with pytest.raises(CallError) as raised:
            await calls[call]()
    assert raised.value.__cause__ is not None, "the foreign exception stays to be seen"
    return raised.value


Row = tuple[int, str, dict[str, Any], type[CallError], str]

REFUSALS: list[Row] = [
    (401, "Incorrect API key provided.", {"code": "invalid_api_key"}, Blocked, "rejected_key"),
    (401, "Your IP is not authorized.", {"code": "ip_not_authorized"}, Blocked, "rejected_key"),
    (402, "Insufficient credits.", {}, Blocked, "quota_exhausted"),
    (403, "Country, region, or territory not supported", {"code": "x"}, Blocked, "forbidden_account"),
    (403, "Our models are not available in your country.", {}, Blocked, "forbidden_account"),
    (403, "Missing scopes: model.request", {}, Blocked, "forbidden_account"),
    (403, "You must be a member of an organization.", {}, Blocked, "forbidden_account"),
    (407, "Proxy authentication required", {}, Blocked, "forbidden_account"),
    (403, "Project does not have access to model gpt-x", {"code": "model_not_found"}, Refused, "forbidden"),
    (403, "Your organization must be verified to use the model `gpt-x`.", {}, Refused, "forbidden"),
    (404, "The model `gpt-x` does not exist.", {"code": "model_not_found"}, Refused, "model_not_found"),
    (404, "The model 'x' does not exist or you do not have access to it.", {}, Refused, "model_not_found"),
    (404, "The API deployment does not exist.", {"code": "DeploymentNotFound"}, Refused, "model_not_found"),
    (404, "Vector store with id 'vs_1' not found.", {}, Refused, "bad_request"),
    (404, "Conversation with id 'conv_1' not found.", {}, Gone, "not_found"),
    (404, "Invalid URL (POST /v1/responses)", {}, Blocked, "endpoint_gone"),
    (404, "Unknown request URL: POST /responses.", {"code": "unknown_url"}, Blocked, "endpoint_gone"),
    (404, "Not Found", {}, Blocked, "endpoint_gone"),
    (404, "Resource not found", {"code": "404"}, Blocked, "endpoint_gone"),
    (405, "Method Not Allowed", {}, Blocked, "endpoint_gone"),
    (501, "Not implemented", {}, Blocked, "endpoint_gone"),
    (408, "Request timeout", {}, Ambiguous, "http_408"),
    (409, "A request with this idempotency key is being processed.", {}, Ambiguous, "http_409"),
    (409, "Thread t already has an active run run_1.", {}, Busy, "active_run"),
    (400, "Another process is currently operating on this conversation.", {}, Busy, "active_run"),
    (400, "Locked.", {"code": "conversation_locked"}, Busy, "conversation_locked"),
    (400, "Too long.", {"code": "context_length_exceeded"}, Refused, "context_length_exceeded"),
    (400, "The requested model does not exist.", {"code": "model_not_found"}, Refused, "model_not_found"),
    (400, "'x' is not supported here.", {"param": "model", "code": "invalid_value"}, Refused, "model_not_found"),
    (400, "Missing 'model'.", {"param": "model", "code": "missing_required_parameter"}, Refused, "bad_request"),
    (400, "Expected an ID that begins with 'asst'.", {"param": "assistant_id"}, Refused, "assistant_not_found"),
    (400, "Unknown parameter: 'x'.", {"code": "unknown_parameter"}, Refused, "bad_request"),
    (400, "Billing hard limit.", {"code": "billing_hard_limit_reached"}, Blocked, "quota_exhausted"),
    (413, "Request too large.", {}, Refused, "bad_request"),
    (422, "Unprocessable.", {}, Refused, "bad_request"),
    (429, "Rate limit reached.", {"code": "rate_limit_exceeded"}, Limited, "rate_limit_exceeded"),
    (429, "Slow down.", {"code": "slow_down"}, Limited, "slow_down"),
    (429, "Resource unavailable.", {}, Limited, "rate_limit_exceeded"),
    (429, "Exceeded.", {"type": "insufficient_quota", "code": "something_new"}, Blocked, "quota_exhausted"),
    *(
        (429, "Exceeded.", {"code": code}, Blocked, "quota_exhausted")
        for code in (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        )
    ),
    (500, "The server had an error.", {"type": "server_error"}, Ambiguous, "http_500"),
    (502, "Bad gateway", {}, Ambiguous, "http_502"),
    (503, "Overloaded.", {"code": "server_is_overloaded"}, Ambiguous, "http_503"),
    (503, "Slow down.", {"code": "slow_down"}, Ambiguous, "http_503"),
    (504, "Gateway timeout", {}, Ambiguous, "http_504"),
    (529, "Overloaded", {}, Ambiguous, "http_529"),
]


@pytest.mark.parametrize(("status", "message", "fields", "kind", "code"), REFUSALS)
async def test_a_refused_create(
    status: int, message: str, fields: dict[str, Any], kind: type[CallError], code: str
) -> None:
    service = Service()
    service.refuses(status, message, **fields)
    error = await failure(service)
    assert (type(error), error.code) == (kind, code)
    assert message in error.message
    if kind is Refused:
        assert code in ENDS


@pytest.mark.parametrize(
    ("status", "message", "kind", "code"),
    [
        (404, "Response with id 'resp_1' not found.", Gone, "not_found"),
        # Some services say no more than this of an object that is gone.
        (404, "Not Found", Gone, "not_found"),
        (410, "Gone", Gone, "not_found"),
        (404, "Invalid URL (GET /v1/responses/resp_1)", Blocked, "endpoint_gone"),
        (405, "Method Not Allowed", Blocked, "endpoint_gone"),
        (500, "The server had an error.", Ambiguous, "http_500"),
        (401, "Incorrect API key provided.", Blocked, "rejected_key"),
        (429, "Rate limit reached.", Limited, "rate_limit_exceeded"),
    ],
)
async def test_a_refused_look(status: int, message: str, kind: type[CallError], code: str) -> None:
    service = Service()
    service.refuses(status, message)
    error = await failure(service, "poll")
    assert (type(error), error.code) == (kind, code)


@pytest.mark.parametrize(
    ("call", "kind", "code"),
    [
        ("start", Blocked, "endpoint_gone"),
        ("start alone", Blocked, "endpoint_gone"),
        ("start run", Blocked, "endpoint_gone"),
        # A proxy's page proves nothing about the object.
        ("poll", Ambiguous, "http_404"),
    ],
)
async def test_a_page_instead_of_a_404(call: str, kind: type[CallError], code: str) -> None:
    service = Service()
    service.says(status=404, text="404 page not found")
    error = await failure(service, call)
    assert (type(error), error.code) == (kind, code)


async def test_a_create_that_names_no_object_finds_no_endpoint() -> None:
    service = Service()
    service.refuses(404, "There is no such thing.")
    error = await failure(service, "start alone")
    assert (type(error), error.code) == (Blocked, "endpoint_gone")
    assert error.message == "this server has no such endpoint: There is no such thing."


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("No assistant found with id 'asst_1'.", Refused, "assistant_not_found"),
        ("No thread found with id 'thread_1'.", Gone, "not_found"),
        ("Thread with file reference thread_1 not found.", Gone, "not_found"),
    ],
)
async def test_what_a_run_misses(message: str, kind: type[CallError], code: str) -> None:
    service = Service()
    service.refuses(404, message)
    error = await failure(service, "start run")
    assert (type(error), error.code) == (kind, code)


@pytest.mark.parametrize(
    ("message", "run_id"),
    [
        (BUSY_THREAD, "run_abc-D_9"),
        ("Can't add messages to thread_1 while a run run_7 is active.", "run_7"),
        ("Thread t already has an active run 0195-ab.", "0195-ab"),
        ("Thread t already has an active run.", None),
        ("Another process is currently operating on this conversation. Please retry in a few seconds.", None),
    ],
)
async def test_the_run_that_occupies_a_thread_is_named(message: str, run_id: str | None) -> None:
    service = Service()
    service.refuses(400, message)
    error = await failure(service)
    assert (type(error), error.run_id) == (Busy, run_id)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "model is loading"}, "model is loading"),
        ({"detail": "Sorry"}, "Sorry"),
        ({"message": "Sorry"}, "Sorry"),
        ({"error": {"detail": "Sorry"}}, "Sorry"),
        (
            {"detail": [{"loc": ["body", "input"], "msg": "field required"}, {"msg": "no"}]},
            "body.input: field required; no",
        ),
        ({"error": {"message": None, "code": 7}}, "status 422 without a message"),
        ({"error": None}, "status 422 without a message"),
        (["what"], 'status 422 and no JSON: ["what"]'),
    ],
)
async def test_every_usual_envelope_is_read(body: object, message: str) -> None:
    service = Service()
    service.says(body, status=422)
    error = await failure(service)
    assert (type(error), error.code, error.message) == (Refused, "bad_request", message)


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        (502, HTML, Ambiguous, "status 502 and no JSON: 502 Bad Gateway"),
        (500, "", Ambiguous, "status 500 and no JSON:"),
        (503, "x" * 9000, Ambiguous, "status 503 and no JSON: " + "x" * (500 - 24)),
        (403, "<title>Access\n denied by\tmodel firewall</title>", Blocked, None),
        (400, "[" * 100_000, Refused, None),
    ],
)
async def test_pages_and_rubbish_instead_of_an_envelope(
    status: int, text: str, kind: type[CallError], message: str | None
) -> None:
    service = Service()
    service.says(status=status, text=text)
    error = await failure(service)
    assert type(error) is kind
    assert len(error.message) <= 500
    assert "\n" not in error.message
    if message is not None:
        assert error.message == message


async def test_waiting_is_as_long_as_the_service_asks() -> None:
    service = Service()
    service.refuses(429, "Rate limit reached.", headers={"retry-after": "7"})
    assert (await failure(service)).retry_after == 7.0
    service.refuses(
        429,
        "Rate limit reached.",
        headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2s"},
    )
    assert (await failure(service)).retry_after == 62.0
    service.refuses(429, "Rate limit reached.")
    assert (await failure(service)).retry_after is None
    service.refuses(503, "Overloaded.", headers={"retry-after": "3"})
    assert (await failure(service, "poll")).retry_after == 3.0


@pytest.mark.parametrize(
    "told", [f"Incorrect key {KEY}.", "Incorrect key sk-proj-abcdefgh12345.", f"Authorization: Bearer {KEY} is wrong."]
)
async def test_no_key_gets_into_a_message(told: str) -> None:
    service = Service()
    service.refuses(401, told)
    error = await failure(service)
    assert "[key]" in error.message
    assert KEY not in str(error)
    assert "sk-" not in str(error)


@pytest.mark.parametrize("text", [HTML, "", "{", '{"id": ', "null", '"run_1"', "[]", "{}", '{"id": 7}', '{"id": ""}'])
async def test_a_create_answered_with_anything_but_an_object_with_an_id_is_ambiguous(text: str) -> None:
    for call in ("start", "start run"):
        service = Service()
        service.says(text=text)
        async with service.client() as client:
            protocol = ResponsesProtocol(client) if call == "start" else AssistantsProtocol(client)
            with pytest.raises(Ambiguous) as raised:
                await protocol.start(ask(), "conv_1", "asst_1")
        assert raised.value.code == "unreadable"


# The SDK's own exceptions

REQUEST = httpx2.Request("POST", "http://service.test/v1/responses", headers={"authorization": f"Bearer {KEY}"})


def reply(status: int) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": "no"}}, request=REQUEST)


def of_status(kind: type[openai.APIStatusError], status: int) -> Exception:
    return kind("no", response=reply(status), body=None)


EXCEPTIONS: dict[str, tuple[Exception, type[CallError]]] = {
    "OpenAIError": (openai.OpenAIError("x"), Ambiguous),
    "APIError": (openai.APIError("x", REQUEST, body=None), Ambiguous),
    "APIStatusError": (of_status(openai.APIStatusError, 418), Refused),
    "APIConnectionError": (openai.APIConnectionError(request=REQUEST), Ambiguous),
    "APITimeoutError": (openai.APITimeoutError(REQUEST), Ambiguous),
    "APIResponseValidationError": (openai.APIResponseValidationError(reply(200), None), Ambiguous),
    "BadRequestError": (of_status(openai.BadRequestError, 400), Refused),
    "AuthenticationError": (of_status(openai.AuthenticationError, 401), Blocked),
    "OAuthError": (openai.OAuthError(response=reply(401), body=None), Blocked),
    "PermissionDeniedError": (of_status(openai.PermissionDeniedError, 403), Blocked),
    "NotFoundError": (of_status(openai.NotFoundError, 404), Blocked),
    "ConflictError": (of_status(openai.ConflictError, 409), Ambiguous),
    "UnprocessableEntityError": (of_status(openai.UnprocessableEntityError, 422), Refused),
    "RateLimitError": (of_status(openai.RateLimitError, 429), Limited),
    "InternalServerError": (of_status(openai.InternalServerError, 500), Ambiguous),
}
"""Exceptions that a call may raise, and what becomes of them."""

NEVER_RAISED = {
    "ContentFilterFinishReasonError": "chat completions' parse helper",
    "LengthFinishReasonError": "chat completions' parse helper",
    "InvalidWebhookSignatureError": "webhooks",
    "WebSocketConnectionClosedError": "realtime",
    "WebSocketQueueFullError": "realtime",
    "SubjectTokenProviderError": "workload identity, which askq has no setting for",
    "_AmbiguousModuleClientUsageError": "the module's own client",
}
"""Why no call of the adapters can raise these. Those that are OpenAIErrors would be Ambiguous all the same."""


def descendants(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_exception_of_the_sdk_has_its_meaning() -> None:
    """When this fails, the SDK has grown an exception: decide what it means and add it to one of the tables."""
    defined = {**vars(importlib.import_module("openai._exceptions")), **vars(openai)}
    kinds = {value for value in defined.values() if isinstance(value, type) and issubclass(value, Exception)}
    kinds |= {kind for kind in descendants(openai.APIError) if kind.__module__.split(".")[0] == "openai"}
    names = {kind.__name__ for kind in kinds}
    assert {"RateLimitError", "InvalidWebhookSignatureError"} <= names, "the search finds what it should"
    assert names == {*EXCEPTIONS, *NEVER_RAISED}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_of_the_sdk_becomes(name: str) -> None:
    exception, kind = EXCEPTIONS[name]
    assert type(exception).__name__ == name
    assert type(translate(exception)) is kind


@pytest.mark.parametrize(
    ("exception", "kind", "code"),
    [
        (TimeoutError(), Ambiguous, "timeout"),
        (ValueError("Expecting value"), Ambiguous, "unreadable"),
        (RecursionError(), Ambiguous, "unreadable"),
        (aiohttp.ClientPayloadError(), Ambiguous, "unreadable"),
        (OSError("broken"), Ambiguous, "unreadable"),
    ],
)
def test_what_the_sdk_lets_through(exception: Exception, kind: type[CallError], code: str) -> None:
    error = translate(exception)
    assert (type(error), error.code) == (kind, code)


def through_the_sdk(*causes: Exception) -> openai.APIConnectionError:
    """An exception of the transport as the SDK passes it on: behind one of its own."""
    outer: Exception = openai.APITimeoutError(REQUEST)
    top = outer
    for cause in causes:
        outer.__cause__ = cause
        outer = cause
    assert isinstance(top, openai.APIConnectionError)
    return top


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        (aiohttp.ConnectionTimeoutError("no connection"), Limited, "unreachable"),
        (aiohttp.SocketTimeoutError("no data"), Ambiguous, "no_reply"),
        (aiohttp.ServerDisconnectedError(), Ambiguous, "no_reply"),
        (aiohttp.ClientOSError(104, "reset"), Ambiguous, "no_reply"),
        (httpx2.ReadTimeout("x"), Ambiguous, "no_reply"),
        # What another transport says of a connection is not relied on.
        (httpx2.ConnectError("x"), Ambiguous, "no_reply"),
        (httpx2.UnsupportedProtocol("ftp://x"), Blocked, "bad_address"),
    ],
)
def test_whether_anything_was_sent(cause: Exception, kind: type[CallError], code: str) -> None:
    error = translate(through_the_sdk(httpx2.ConnectTimeout("as the SDK's transport maps all of them"), cause))
    assert (type(error), error.code) == (kind, code)


def test_a_request_that_could_not_be_written_was_not_sent() -> None:
    closing = SimpleNamespace(transport=SimpleNamespace(is_closing=lambda: True))
    loop = asyncio.new_event_loop()
    try:
        writer = StreamWriter(closing, loop)  # type: ignore[arg-type]
        with pytest.raises(aiohttp.ClientConnectionResetError) as raised:
            writer._write(b"POST / HTTP/1.1")
    finally:
        loop.close()
    refused = aiohttp.ClientOSError(None, "Can not write request body for http://service.test")
    error = translate(through_the_sdk(httpx2.ConnectTimeout("x"), refused, raised.value))
    assert (type(error), error.code, error.retry_after) == (Limited, "unreachable", 0.1)
    assert error.message == "the connection was closed before it was used: http://service.test/v1/responses"
    # Lost while waiting for the rest to leave: all of it may have left.
    lost = aiohttp.ClientConnectionResetError("Connection lost")
    assert type(translate(through_the_sdk(httpx2.ConnectTimeout("x"), refused, lost))) is Ambiguous


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert type(translate(through_the_sdk(one))) is Ambiguous
