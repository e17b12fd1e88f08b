"""One call over the SDK: its reply as plain JSON, or a `CallError`. The only place that knows foreign exceptions.

Replies are read as JSON and not as the SDK's objects: a pending poll costs half as much CPU, and servers that leave
fields out, or send statuses nobody has heard of, need no special care.

What decides about a failed call (protocols C.3, C.4; failure model 2.3):

| seen | raised |
|---|---|
| no connection was made | `Limited`: certainly nothing happened, waiting helps |
| timeout, reset, cut or unreadable reply, 5xx, 408 | `Ambiguous` |
| 503 `server_is_overloaded` and 409 on free calls | `Ambiguous`, which on a free call means: try again |
| 429 | `Limited`; with a quota code `Blocked` |
| 401 | `Blocked`; 403 too, unless it speaks of the model |
| 404 | `Gone` where an object was named, `Blocked` where the endpoint itself is missing |
| 400 "active run", `conversation_locked` | `Busy` |
| other 4xx | `Refused` |
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from openai import APIConnectionError, APIStatusError, OpenAIError

from askq.ends import ENDS
from worker.protocols.base import Ambiguous, Blocked, Busy, CallError, Gone, Limited, Refused

JsonObject = Mapping[str, Any]

_QUOTA = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
}
_ACTIVE_RUN = re.compile(r"already has an active run|while a run \S+ is active", re.IGNORECASE)
_RUN_ID = re.compile(r"run_[A-Za-z0-9]+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that could be understood."""

    body: JsonObject
    headers: Mapping[str, str]

    @property
    def poll_after(self) -> float | None:
        """Seconds the server asks to wait before the next poll."""
        hint = self.headers.get("openai-poll-after-ms")
        try:
            return None if hint is None else max(0.0, float(hint) / 1000)
        except ValueError:
            return None


async def call(response: Awaitable[Any], *, names: str = "", needs_id: bool = True) -> Reply:
    """Await a `with_raw_response` call. `names` says what object the request named, for a 404.

    Raises CallError.
    """
    try:
        raw = await response
        body = json.loads(raw.text)
        headers = raw.headers
    except APIStatusError as exc:
        raise _from_status(exc, names) from exc
    except APIConnectionError as exc:
        raise _from_connection(exc) from exc
    except (OpenAIError, ValueError, aiohttp.ClientError, OSError) as exc:
        raise Ambiguous("unreadable", f"the reply could not be read: {_one_line(exc)}") from exc
    if not isinstance(body, dict) or (needs_id and not isinstance(body.get("id"), str)):
        raise Ambiguous("unreadable", "the reply is not an object with an id")
    return Reply(body, headers)


def _from_connection(exc: APIConnectionError) -> CallError:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError):
            return Limited("unreachable", f"no connection could be made: {_one_line(cause)}")
        cause = cause.__cause__
    reason = _one_line(exc.__cause__ or exc)
    return Ambiguous("no_reply", f"the request was sent and no reply came: {reason}")


def _from_status(exc: APIStatusError, names: str) -> CallError:
    status, text = exc.status_code, str(exc.message)
    error = exc.body if isinstance(exc.body, dict) else {}
    code = str(error.get("code") or "")
    kind = str(error.get("type") or "")
    message = str(error.get("message") or "") or _one_line(text)
    wait = retry_after(exc.response.headers)
    if status == 429:
        if code in _QUOTA or kind == "insufficient_quota":
            return Blocked("quota_exhausted", message)
        return Limited(code or "rate_limit_exceeded", message, retry_after=wait)
    if status in (408, 409) or status >= 500:
        return Ambiguous(f"http_{status}", message, retry_after=wait)
    if status == 401:
        return Blocked("rejected_key", message)
    if status == 403:
        if "model" in code or "model" in message.lower():
            return Refused("forbidden", message)
        return Blocked("forbidden_account", message)
    if status == 404:
        return _from_not_found(code, message, error, names)
    if code == "conversation_locked" or _ACTIVE_RUN.search(message):
        run = _RUN_ID.search(message)
        return Busy(code or "active_run", message, run_id=run.group() if run else None)
    if code == "model_not_found":
        return Refused("model_not_found", message)
    return Refused(code if code in ENDS else "bad_request", message)


def _from_not_found(code: str, message: str, error: JsonObject, names: str) -> CallError:
    if code == "model_not_found" or ("does not exist" in message and "model" in message):
        return Refused("model_not_found", message)
    if "assistant" in message.lower() and "asst_" in message:
        return Refused("assistant_not_found", message)
    if names and error:
        return Gone("not_found", message)
    if names:
        # A proxy's page, not the service's word: it proves nothing about the object.
        return Ambiguous("http_404", message)
    return Blocked("endpoint_gone", f"this server has no such endpoint: {message}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a reply asks to wait: `retry-after-ms`, `retry-after` (seconds or a date), else the reset times."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return min(max(0.0, float(text) * factor), _LONGEST_WAIT_S)
        except ValueError:
            pass
        date = email.utils.parsedate_tz(text)
        if date is not None:
            return min(max(0.0, email.utils.mktime_tz(date) - time.time()), _LONGEST_WAIT_S)
    resets = [
        go_duration(headers[f"x-ratelimit-reset-{what}"])
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0" and f"x-ratelimit-reset-{what}" in headers
    ]
    return min(max(resets), _LONGEST_WAIT_S) if resets else None


def go_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h2m3s`, `6m0s`, `20ms`."""
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
