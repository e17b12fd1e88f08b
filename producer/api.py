"""Where runs are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from config.settings import without_secrets

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Api:
    """Where runs are asked for, and with which key."""

    base_url: str | None
    api_key: str
    account: str
    """What an idempotency key calls it: the same account under another key is the same."""
    address_setting: str = "OPENAI_BASE_URL"
    key_settings: str = "OPENAI_API_KEY (and OPENAI_ORG_ID, OPENAI_PROJECT_ID)"
    """What a person corrects when one of the two is wrong."""

    @property
    def address(self) -> str:
        """The address, also where the SDK's default is used."""
        return self.base_url or OPENAI

    @property
    def shown(self) -> str:
        """The address as messages may have it: without a password that is part of it."""
        return without_secrets(self.address)
