"""Foreign exceptions as `CallError`s, most specific first: the only place that knows them.

What decides (protocols C.3, C.4; failure model 2.3):

| seen | becomes |
|---|---|
| no connection, or one that was closed before the request was written | `Limited`: certainly nothing happened |
| the address cannot be used at all | `Blocked("bad_address")` |
| timeout, reset, cut or unreadable reply, 408, 5xx | `Ambiguous` |
| 402, or an error of the quota family | `Blocked("quota_exhausted")` |
| 429 | `Limited`: nothing was charged |
| 401 | `Blocked("rejected_key")` |
| 403 | `Refused("forbidden")` if it is about the model, else `Blocked("forbidden_account")` |
| 404, 405, 410, 501 | see `_from_not_found` |
| 400, 409, 423 "active run", `conversation_locked` | `Busy` |
| other 409 | `Ambiguous` |
| other 4xx | `Refused` |

Why so: a 503, even `server_is_overloaded`, comes from somewhere in the service, and nobody promises that nothing was
begun; of a 429 the documents do say that nothing is charged. A 409 is what servers that honour an idempotency key
answer while the first request of that key is still at work (IETF draft-ietf-httpapi-idempotency-key-header, 2.6): the
run it speaks of may be ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from worker.protocols.base import Ambiguous, Blocked, Busy, CallError, Gone, Limited, Refused
from worker.protocols.codes import code_of_refusal
from worker.protocols.fields import a_text, an_object, objects
from worker.protocols.hints import Limits, limits, retry_after

_QUOTA = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
}
_NO_MODEL = {"model_not_found", "DeploymentNotFound"}
"""OpenAI's code, and Azure's."""
_NO_ROUTE = re.compile(
    r"invalid url|unknown (request )?url|unknown endpoint|cannot (get|post) /|no route|method not allowed",
    re.IGNORECASE,
)
_BARE_NOT_FOUND = re.compile(r"(404 )?((page|resource) )?not found\.?", re.IGNORECASE)
"""What frameworks answer where nothing is mounted; some services say it of their objects too."""
_MODEL_MISSING = re.compile(r"\bmodel\b.*(does not exist|do(es)? not have access|not found)", re.IGNORECASE | re.DOTALL)
_ASSISTANT_MISSING = re.compile(r"\bassistant\b.*(found|does not exist)", re.IGNORECASE | re.DOTALL)
_OTHER_OBJECT = re.compile(r"vector.?store|\bvs_|\bfile\b|\bfile-|container|\bcntr_|\bprompt\b", re.IGNORECASE)
_ABOUT_MODEL = re.compile(r"\bmodels?\b", re.IGNORECASE)
_ABOUT_ACCOUNT = re.compile(r"country|region|territor|scope", re.IGNORECASE)
_BUSY = re.compile(
    r"already has an active run(?: (?P<run>[\w-]+))?"
    r"|while a run (?P<other>[\w-]+) is active"
    r"|another process is currently operating on this conversation",
    re.IGNORECASE,
)
_TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"\bsk-[\w*.-]{8,}|\bBearer\s+\S+", re.IGNORECASE)
_CLOSED_BEFORE = "Cannot write to closing transport"
"""aiohttp says so before it writes (a part of) a request: of a body that is not complete nothing can come."""
_LONGEST_MESSAGE = 500


def translate(exc: Exception, *, names: str = "") -> CallError:
    """What a failed call means. `names` is the object its address named, empty where it named none."""
    if isinstance(exc, APIStatusError):
        return _from_status(_said(exc), names)
    if isinstance(exc, APIConnectionError):
        return _from_connection(exc)
    if isinstance(exc, TimeoutError):
        return Ambiguous("timeout", "the reply did not end in the time a call may take")
    return Ambiguous("unreadable", f"the reply could not be read: {_clean(exc, exc)}")


def _from_connection(exc: APIConnectionError) -> CallError:
    """Whether anything was sent. The SDK calls even a refused connection a time-out; aiohttp's own error is exact."""
    causes: list[BaseException] = []
    cause: BaseException | None = exc.__cause__
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__
    url = exc.request.url
    for cause in causes:
        if isinstance(
            cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
        ):
            return Limited("unreachable", f"no connection could be made: {_clean(cause, exc)}")
        if isinstance(cause, aiohttp.ClientConnectionResetError) and _CLOSED_BEFORE in str(cause):
            # An idle connection that the server has just closed; the next call gets a new one.
            return Limited("unreachable", f"the connection was closed before it was used: {url}", retry_after=0.1)
        if isinstance(cause, (httpx2.UnsupportedProtocol, httpx2.InvalidURL, aiohttp.InvalidURL)):
            return Blocked("bad_address", f"the base URL cannot be used: {_clean(cause, exc)}")
    return Ambiguous("no_reply", f"the request was sent and no reply came: {_clean(causes[0] if causes else exc, exc)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A reply with an error status, in whichever of the usual envelopes it came."""

    status: int
    method: str
    code: str
    kind: str
    param: str
    message: str
    structured: bool
    """JSON: the service's own word. Anything else may come from whatever stands in between."""
    retry_after: float | None
    limits: Limits


def _said(exc: APIStatusError) -> _Said:
    reply = exc.response
    try:
        body = json.loads(reply.text)
    except (ValueError, RecursionError):
        body = None
    outer = an_object(body)
    error = outer.get("error", outer)
    inner = an_object(error)
    message = _message(error) or _message(outer)
    if not outer:
        title = _TITLE.search(reply.text)
        page = title.group(1) if title else reply.text
        message = f"status {exc.status_code} and no JSON: {page[:_LONGEST_MESSAGE]}"
    return _Said(
        status=exc.status_code,
        method=exc.request.method,
        code=str(inner.get("code") or ""),
        kind=str(inner.get("type") or ""),
        param=a_text(inner.get("param")),
        message=_clean(message or f"status {exc.status_code} without a message", exc),
        structured=bool(outer),
        retry_after=retry_after(reply.headers),
        limits=limits(reply.headers),
    )


def _message(error: object) -> str:
    """The text of `{"message": …}` (OpenAI), `"…"`, `{"detail": "…"}` or `{"detail": [{"msg": …}]}` (FastAPI)."""
    if isinstance(error, str):
        return error
    fields = an_object(error)
    for name in ("message", "error", "detail"):
        text = a_text(fields.get(name))
        if text:
            return text
    return "; ".join(_complaint(entry) for entry in objects(fields.get("detail")))


def _complaint(entry: Mapping[str, Any]) -> str:
    place = entry.get("loc")
    where = ".".join(str(part) for part in place) if isinstance(place, list) else ""
    return f"{where}: {entry.get('msg')}" if where else str(entry.get("msg"))


def _from_status(said: _Said, names: str) -> CallError:
    status, code, message = said.status, said.code, said.message
    if status == 402 or (status < 500 and (code in _QUOTA or said.kind == "insufficient_quota")):
        return Blocked("quota_exhausted", message)
    if status == 429:
        return Limited(code or "rate_limit_exceeded", message, retry_after=said.retry_after, limits=said.limits)
    if status == 401:
        return Blocked("rejected_key", message)
    if status in (403, 407):
        return _from_forbidden(said)
    if status in (404, 405, 410, 501):
        return _from_not_found(said, names)
    if status in (400, 409, 423):
        busy = _BUSY.search(message)
        if busy or code == "conversation_locked":
            run_id = busy and (busy["run"] or busy["other"])
            return Busy(code or "active_run", message, run_id=run_id or None)
    if status in (408, 409) or status >= 500:
        return Ambiguous(f"http_{status}", message, retry_after=said.retry_after)
    end = code_of_refusal(code, message)
    if end == "bad_request" and not code.startswith("missing_"):
        if code in _NO_MODEL or said.param == "model":
            end = "model_not_found"
        elif said.param == "assistant_id":
            end = "assistant_not_found"
    return Refused(end, message)


def _from_forbidden(said: _Said) -> CallError:
    """A model that the account may not use is the request's fault; everything else is the account's."""
    about_account = _ABOUT_ACCOUNT.search(f"{said.code} {said.message}")
    about_model = "model" in said.code or _ABOUT_MODEL.search(said.message)
    if said.structured and about_model and not about_account:
        return Refused("forbidden", said.message)
    return Blocked("forbidden_account", said.message)


def _from_not_found(said: _Said, names: str) -> CallError:
    """Which of five things is missing: the model, the assistant, the endpoint, a resource, or the object named.

    "Not Found" without another word is what a framework says of an address that nobody serves, so on a create it
    means the endpoint. On a look at an object that exists by our records it may well mean the object; and a page
    that is no JSON may come from a proxy, and proves nothing about the object.
    """
    message, creates = said.message, said.method == "POST"
    if said.code in _NO_MODEL or _MODEL_MISSING.search(message):
        return Refused("model_not_found", message)
    if creates and _ASSISTANT_MISSING.search(message):
        return Refused("assistant_not_found", message)
    # 405 and 501 speak of the address itself; so does a 404 in these words, or one where no object was named.
    no_route = (
        said.status in (405, 501)
        or not names
        or said.code == "unknown_url"
        or (said.structured and _NO_ROUTE.match(message))
        or (creates and (not said.structured or _BARE_NOT_FOUND.fullmatch(message)))
    )
    if no_route:
        return Blocked("endpoint_gone", f"this server has no such endpoint: {message}")
    if not said.structured:
        return Ambiguous(f"http_{said.status}", message)
    if creates and names not in message and _OTHER_OBJECT.search(message):
        return Refused("bad_request", message)
    return Gone("not_found", message)


def _clean(text: object, exc: Exception) -> str:
    """One line without the key: it goes into Redis, logs and results."""
    line = " ".join(str(text).split()) or type(text).__name__
    if isinstance(exc, APIError):
        key = exc.request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if len(key) >= 8:
            line = line.replace(key, "[key]")
    return _SECRET.sub("[key]", line)[:_LONGEST_MESSAGE]
