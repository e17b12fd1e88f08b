"""What tokens cost, from the price list that genai-prices carries; what it does not know has no price."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import genai_prices

from askq.jobs.model import Usage

WINDOW_FACTOR: Mapping[str, float] = MappingProxyType({"2h": 0.70, "8h": 0.60})
"""Discount of a completion window (OpenAI, background guide, November 2026); the reply does not speak of it."""

_TIERS = frozenset({"auto", "default", "standard", "scale", "flex", "priority", "fast"})
"""Tiers the list has prices for, or that cost what the list says. `ultrafast` costs three to six times as much."""


def has_known_prices(host: str) -> bool:
    """Whether a server's tokens cost what the price list says: OpenAI's own do."""
    return host == "openai.com" or host.endswith(".openai.com")


def with_cost(usage: Usage, model: str | None, *, window: str | None = None, tier: str | None = None) -> Usage:
    """The usage with its price in US dollars, where the model and the tier have a known one.

    `window` is the completion window that was asked for, `tier` the service tier that was granted.
    """
    if model is None or usage.total_tokens == 0 or (tier is not None and tier not in _TIERS):
        return usage
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens, cache_read_tokens=usage.cached_tokens, output_tokens=usage.output_tokens
    )
    context = None if tier is None else {"service_tier": tier}
    try:
        price = genai_prices.calc_price(counted, model_ref=model, provider_id="openai", price_context=context)
    except (LookupError, ValueError):
        # No such model in the list, or counts that contradict each other.
        return usage
    return dataclasses.replace(usage, cost_usd=float(price.total_price) * WINDOW_FACTOR.get(window or "", 1.0))
