"""What tokens cost, from the price list that genai-prices carries; unknown models have no price."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import genai_prices

from askq.jobs.model import Usage

WINDOW_FACTOR = {"2h": 0.70, "8h": 0.60}
"""Discount of a completion window (OpenAI, background guide, November 2026); not in the reply's usage."""


def has_known_prices(host: str) -> bool:
    """Whether a server's tokens cost what the price list says: OpenAI's own do."""
    return host == "openai.com" or host.endswith(".openai.com")


def with_cost(usage: Usage, model: str | None, *, window: str | None = None, tier: str | None = None) -> Usage:
    """The usage with its price, where the model has a known one."""
    if model is None or usage.total_tokens == 0:
        return usage
    price = _price(model, usage.input_tokens, usage.cached_tokens, usage.output_tokens, tier)
    if price is None:
        return usage
    return dataclasses.replace(usage, cost_usd=price * WINDOW_FACTOR.get(window or "", 1.0))


@lru_cache(maxsize=4096)
def _price(model: str, input_tokens: int, cached: int, output: int, tier: str | None) -> float | None:
    counted = genai_prices.Usage(input_tokens=input_tokens, cache_read_tokens=cached, output_tokens=output)
    context = {"service_tier": tier} if tier in ("flex", "priority", "batch") else None
    try:
        price = genai_prices.calc_price(counted, model_ref=model, provider_id="openai", price_context=context)
    except LookupError:
        return None
    return float(price.total_price)
