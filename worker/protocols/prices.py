"""What tokens cost, from the price list that genai-prices carries; unknown models have no price."""

from __future__ import annotations

from functools import lru_cache

import genai_prices

from askq.jobs.model import Usage

WINDOW_FACTOR = {"2h": 0.70, "8h": 0.60}
"""Discount of a completion window (OpenAI, background guide, November 2026); not in the reply's usage."""


def cost_usd(model: str | None, usage: Usage, *, window: str | None = None, tier: str | None = None) -> float | None:
    """US dollars for these tokens, or None where the model has no known price."""
    if model is None or usage.total_tokens == 0:
        return None
    rates = _price(model, usage.input_tokens, usage.cached_tokens, usage.output_tokens, tier)
    return None if rates is None else rates * WINDOW_FACTOR.get(window or "", 1.0)


@lru_cache(maxsize=4096)
def _price(model: str, input_tokens: int, cached: int, output: int, tier: str | None) -> float | None:
    counted = genai_prices.Usage(input_tokens=input_tokens, cache_read_tokens=cached, output_tokens=output)
    context = {"service_tier": tier} if tier in ("flex", "priority", "batch") else None
    try:
        price = genai_prices.calc_price(counted, model_ref=model, provider_id="openai", price_context=context)
    except LookupError:
        return None
    return float(price.total_price)
