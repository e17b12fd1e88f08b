"""What tokens cost."""

from __future__ import annotations

import pytest

from askq.jobs.model import Usage
from askq.prices import has_known_prices, with_cost

MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000, total_tokens=2_000_000)
# The list changes with its releases: these are proportions, and one figure that OpenAI published in August 2025.
FULL = 1.25 + 10.0


def test_a_known_model_has_a_price() -> None:
    assert with_cost(MILLION, "gpt-5").cost_usd == pytest.approx(FULL)


def test_cached_tokens_cost_less() -> None:
    cached = Usage(input_tokens=1_000_000, cached_tokens=1_000_000, output_tokens=1_000_000, total_tokens=2_000_000)
    assert with_cost(cached, "gpt-5").cost_usd == pytest.approx(10.0 + 0.125)


@pytest.mark.parametrize(("window", "factor"), [("2h", 0.7), ("8h", 0.6), ("soonest", 1.0), (None, 1.0)])
def test_a_completion_window_has_its_discount(window: str | None, factor: float) -> None:
    assert with_cost(MILLION, "gpt-5", window=window).cost_usd == pytest.approx(FULL * factor)


@pytest.mark.parametrize(("tier", "factor"), [("flex", 0.5), ("priority", 2.0), ("fast", 2.0), ("default", 1.0)])
def test_the_granted_tier_has_its_price(tier: str, factor: float) -> None:
    assert with_cost(MILLION, "gpt-5", tier=tier).cost_usd == pytest.approx(FULL * factor)


def test_a_wrong_price_is_worse_than_none() -> None:
    assert with_cost(MILLION, "gpt-5", tier="ultrafast").cost_usd is None
    assert with_cost(MILLION, "house-model-7b").cost_usd is None
    assert with_cost(MILLION, None).cost_usd is None
    assert with_cost(Usage(), "gpt-5").cost_usd is None


def test_counts_that_contradict_each_other_have_no_price() -> None:
    nonsense = Usage(input_tokens=5, cached_tokens=9, output_tokens=1, total_tokens=6)
    assert with_cost(nonsense, "gpt-5") == nonsense


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.openai.com", "known"),
        ("eu.api.openai.com", "known"),
        ("openai.com", "known"),
        ("127.0.0.1", "unknown"),
        ("notopenai.com", "unknown"),
        ("openai.com.example.org", "unknown"),
    ],
)
def test_only_openai_charges_what_the_list_says(host: str, expected: str) -> None:
    assert ("known" if has_known_prices(host) else "unknown") == expected
