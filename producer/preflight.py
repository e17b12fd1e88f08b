"""One free call before anything is queued: does the API answer, and does it take the key?"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from askq.errors import ApiUnreachable, ConfigError
from producer.api import Api

_TIMEOUT_S = 8.0
_MOST_BYTES = 16 << 20
_MOST_SAID = 500
"""Characters of what a server gives as its reason."""


def check(api: Api) -> None:
    """Raise ConfigError for a rejected key, ApiUnreachable when nothing answers.

    A server without a list of models (404) is reachable all the same. One that answers with a page is not the API: as
    a rule the address lacks its `/v1`, or a login page stands in between.
    """
    opener = urllib.request.build_opener(_KeyStays)
    try:
        with opener.open(_request(api), timeout=_TIMEOUT_S) as reply:
            if not _is_json(reply.read(_MOST_BYTES)):
                raise ApiUnreachable(
                    f"{api.shown} answers, but not as an API does: its list of models is no JSON",
                    remedy=f"Check {api.address_setting} (it mostly ends in /v1) and proxies; nothing was queued.",
                )
            return
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise ConfigError(
                    f"{api.shown} rejected the key (HTTP {error.code}): {_said(error, api.api_key)}",
                    remedy=f"Check {api.key_settings}; nothing was queued.",
                ) from error
            if error.code >= 500:
                raise ApiUnreachable(
                    f"{api.shown} answers with HTTP {error.code}",
                    remedy="Try again later; nothing was queued.",
                ) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ApiUnreachable(
            f"{api.shown} does not answer: {' '.join(str(reason).split())}",
            remedy=f"Check the network and {api.address_setting}; nothing was queued.",
        ) from error


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        # A list longer than what was read is one all the same.
        return len(body) == _MOST_BYTES and body.lstrip()[:1] in (b"{", b"[")
    return True


def _request(api: Api) -> urllib.request.Request:
    parts = urlsplit(f"{api.address.rstrip('/')}/models")
    user, before, host = parts.netloc.rpartition("@")
    headers = {"Authorization": f"Bearer {api.api_key}"} if api.api_key else {}
    if before:
        # As the SDK has it: a user and a password in the address take the place of the key.
        headers = {"Authorization": f"Basic {base64.b64encode(unquote(user).encode()).decode()}"}
    address = urlunsplit(parts._replace(netloc=host))
    return urllib.request.Request(address, headers=headers)  # noqa: S310  the settings take http and https only


class _KeyStays(urllib.request.HTTPRedirectHandler):
    """Follows a redirection, but gives the key to nobody else: urllib by itself sends it along anywhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None:
            old, new = urlsplit(req.full_url), urlsplit(made.full_url)
            encrypted = (old.hostname, old.scheme, new.scheme) == (new.hostname, "http", "https")
            if (old.scheme, old.netloc) != (new.scheme, new.netloc) and not encrypted:
                made.remove_header("Authorization")
        return made


def _said(error: urllib.error.HTTPError, key: str) -> str:
    try:
        said = " ".join(str(json.load(error)["error"]["message"]).split())
        # Some servers repeat the whole key.
        return (said.replace(key, "…") if key else said)[:_MOST_SAID]
    except (ValueError, KeyError, TypeError, HTTPException):
        return "no reason given"
