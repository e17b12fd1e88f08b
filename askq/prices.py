"""What tokens cost, from the price list that genai-prices carries; what it does not know has no price."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import genai_prices

from askq.assistants.model import Assistant
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


_OVERHEAD_TOKENS = 500
"""What a service adds to a request by itself: roles, separators, the descriptions of tools."""


def priced(usage: Usage, assistant: Assistant) -> Usage:
    """The usage with the price the assistant's file names for its model, where the service's own is not known."""
    if usage.cost_usd is not None or assistant.price is None:
        return usage
    fresh, cached = usage.input_tokens - usage.cached_tokens, usage.cached_tokens
    cost = fresh * assistant.price["input"] + usage.output_tokens * assistant.price["output"]
    cost += cached * assistant.price.get("cached_input", assistant.price["input"])
    return dataclasses.replace(usage, cost_usd=cost / 1e6)


def at_worst(
    assistant: Assistant,
    model: str,
    host: str,
    texts: tuple[str, ...],
    *,
    history: int = 0,
    images: bool = False,
) -> float | None:
    """What one run can cost at most, in US dollars: every byte a token, and an answer as long as it may be.

    `history` is the tokens of the conversation before the question.

    None where no bound is known: the assistant sets no `max_output_tokens`, or the model has no known price, or there
    are images, or tools (file search, code interpreter) with which the service reads as much as it likes, and no
    `max_prompt_tokens`. The Responses protocol has no such limit: there it is what the assistant's author vouches for.
    """
    reads_more = bool(assistant.tools) or images
    if assistant.max_output_tokens is None or (reads_more and assistant.max_prompt_tokens is None):
        return None
    read = history + _OVERHEAD_TOKENS + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    read = max(read, assistant.max_prompt_tokens or 0) if reads_more else read
    usage = Usage(
        input_tokens=read, output_tokens=assistant.max_output_tokens, total_tokens=read + assistant.max_output_tokens
    )
    if has_known_prices(host) and assistant.price is None:
        usage = with_cost(usage, model, window=assistant.completion_window, tier=assistant.service_tier)
    return priced(usage, assistant).cost_usd
