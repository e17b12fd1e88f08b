"""One free call before anything is queued: does the API answer, and does it take the key?"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from askq.errors import ApiUnreachable, ConfigError

OPENAI = "https://api.openai.com/v1"
_TIMEOUT_S = 8.0


@dataclass(frozen=True, slots=True)
class Api:
    """Where runs are asked for, and with which key."""

    base_url: str | None
    api_key: str
    account: str
    """What an idempotency key calls it: the same account under another key is the same."""

    @property
    def address(self) -> str:
        """The address, also where the SDK's default is used."""
        return self.base_url or OPENAI


def check(api: Api) -> None:
    """Raise ConfigError for a rejected key, ApiUnreachable when nothing answers.

    A server without a list of models (404) is reachable all the same.
    """
    request = urllib.request.Request(  # noqa: S310  the settings take http and https only
        f"{api.address.rstrip('/')}/models", headers={"Authorization": f"Bearer {api.api_key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise ConfigError(
                    f"{api.address} rejected the key (HTTP {error.code}): {_said(error)}",
                    remedy="Check OPENAI_API_KEY (and OPENAI_ORG_ID, OPENAI_PROJECT_ID); nothing was queued.",
                ) from error
            if error.code >= 500:
                raise ApiUnreachable(
                    f"{api.address} answers with HTTP {error.code}",
                    remedy="Try again later; nothing was queued.",
                ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ApiUnreachable(
            f"{api.address} does not answer: {reason}",
            remedy="Check the network and OPENAI_BASE_URL; nothing was queued.",
        ) from error


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
