"""What tokens cost."""

from __future__ import annotations

import dataclasses

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import Usage
from askq.prices import at_worst, has_known_prices, priced, with_cost

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


# -- what a run may cost at worst ----------------------------------------------------------------------------

KNOWN = Assistant(name="a", protocol="responses", model="gpt-5", max_output_tokens=1000)
OURS = dataclasses.replace(KNOWN, model="house", price={"input": 1.0, "output": 10.0})


def worst(assistant: Assistant, *texts: str, host: str = "api.openai.com") -> float | None:
    return at_worst(assistant, assistant.model, host, texts)


def test_the_worst_is_every_byte_a_token_and_the_longest_answer() -> None:
    assert worst(KNOWN) == pytest.approx((500 * 1.25 + 1000 * 10.0) / 1e6)
    assert worst(KNOWN, "x" * 1000, "é" * 500) == pytest.approx((2500 * 1.25 + 1000 * 10.0) / 1e6)
    assert worst(KNOWN, "half a pair: \ud83e") is not None


@pytest.mark.parametrize(
    ("assistant", "host"),
    [
        (dataclasses.replace(KNOWN, max_output_tokens=None), "api.openai.com"),
        (dataclasses.replace(KNOWN, model="house-model-7b"), "api.openai.com"),
        (KNOWN, "127.0.0.1"),
        (dataclasses.replace(KNOWN, service_tier="ultrafast"), "api.openai.com"),
        (dataclasses.replace(KNOWN, tools=({"type": "code_interpreter"},)), "api.openai.com"),
        (dataclasses.replace(OURS, tools=({"type": "file_search"},)), "api.openai.com"),
    ],
)
def test_where_nothing_bounds_a_run_there_is_no_worst(assistant: Assistant, host: str) -> None:
    assert worst(assistant, "Why?", host=host) is None


def test_a_price_of_ones_own_wins_and_is_good_anywhere() -> None:
    for host in ("api.openai.com", "127.0.0.1"):
        assert worst(OURS, host=host) == pytest.approx((500 * 1.0 + 1000 * 10.0) / 1e6)
        mine = dataclasses.replace(KNOWN, price={"input": 100.0, "output": 0.0})
        assert worst(mine, host=host) == pytest.approx(0.05)


def test_tools_may_read_as_much_as_the_assistant_allows() -> None:
    reading = dataclasses.replace(OURS, tools=({"type": "file_search"},), max_prompt_tokens=20_000)
    assert worst(reading, "x" * 100) == pytest.approx((20_000 * 1.0 + 1000 * 10.0) / 1e6)
    assert worst(reading, "x" * 50_000) == pytest.approx((50_500 * 1.0 + 1000 * 10.0) / 1e6), "or as is sent"


def test_a_window_and_a_tier_have_their_price_at_worst_too() -> None:
    usual = worst(KNOWN)
    assert usual is not None
    assert worst(dataclasses.replace(KNOWN, completion_window="8h")) == pytest.approx(0.6 * usual)
    assert worst(dataclasses.replace(KNOWN, service_tier="priority")) == pytest.approx(2 * usual)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(input_tokens=1000, output_tokens=100, total_tokens=1100), 0.002),
        (Usage(input_tokens=1000, cached_tokens=400, output_tokens=100, total_tokens=1100), 0.002),
        (Usage(), 0.0),
        (Usage(input_tokens=1000, total_tokens=1000, cost_usd=5.0), 5.0),
    ],
)
def test_the_price_of_a_file_fills_in_what_is_not_known(usage: Usage, cost: float) -> None:
    assert priced(usage, OURS).cost_usd == pytest.approx(cost)


def test_cached_tokens_have_their_own_price_where_the_file_says_so() -> None:
    cheaper = dataclasses.replace(OURS, price={"input": 1.0, "output": 10.0, "cached_input": 0.25})
    usage = Usage(input_tokens=1000, cached_tokens=400, output_tokens=100, total_tokens=1100)
    assert priced(usage, cheaper).cost_usd == pytest.approx((600 * 1.0 + 400 * 0.25 + 100 * 10.0) / 1e6)
    assert priced(usage, KNOWN) == usage
