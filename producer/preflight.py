"""One free call before anything is queued: does the API answer, and does it take the key?"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException

from askq.errors import ApiUnreachable, ConfigError
from producer.api import Api

_TIMEOUT_S = 8.0
_MOST_BYTES = 16 << 20


def check(api: Api) -> None:
    """Raise ConfigError for a rejected key, ApiUnreachable when nothing answers.

    A server without a list of models (404) is reachable all the same. One that answers with a page is not the API: as
    a rule the address lacks its `/v1`, or a login page stands in between.
    """
    request = urllib.request.Request(  # noqa: S310  the settings take http and https only
        f"{api.address.rstrip('/')}/models",
        headers={"Authorization": f"Bearer {api.api_key}"} if api.api_key else {},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
            if not _is_json(reply.read(_MOST_BYTES)):
                raise ApiUnreachable(
                    f"{api.address} answers, but not as an API does: its list of models is no JSON",
                    remedy=f"Check {api.address_setting} (it mostly ends in /v1) and proxies; nothing was queued.",
                )
            return
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise ConfigError(
                    f"{api.address} rejected the key (HTTP {error.code}): {_said(error)}",
                    remedy=f"Check {api.key_settings}; nothing was queued.",
                ) from error
            if error.code >= 500:
                raise ApiUnreachable(
                    f"{api.address} answers with HTTP {error.code}",
                    remedy="Try again later; nothing was queued.",
                ) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ApiUnreachable(
            f"{api.address} does not answer: {' '.join(str(reason).split())}",
            remedy=f"Check the network and {api.address_setting}; nothing was queued.",
        ) from error


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        # A list longer than what was read is one all the same.
        return len(body) == _MOST_BYTES and body.lstrip()[:1] in (b"{", b"[")
    return True


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError, HTTPException):
        return "no reason given"
