"""When a run is polled next."""

from __future__ import annotations

import dataclasses

import pytest

from askq.assistants.model import Assistant
from worker.schedule import LONGEST_WINDOW_POLL_S, backoff, until_poll

PLAIN = Assistant(name="plain", protocol="responses", model="m")
CHEAP = dataclasses.replace(PLAIN, completion_window="8h")


def test_polls_grow_rarer_with_the_age_of_a_run_up_to_a_bound() -> None:
    delays = [until_poll(PLAIN, age, None, 0.0) for age in (0, 1, 2, 4, 8, 1000)]
    assert delays == [0.7, 0.7, 0.7, 1.2, 2.4, 10.0]


def test_the_servers_hint_wins_within_bounds() -> None:
    assert until_poll(PLAIN, 100, 0.2, 1.0) == 0.2
    assert until_poll(PLAIN, 100, 86_400, 0.0) == LONGEST_WINDOW_POLL_S
    assert until_poll(PLAIN, 100, -3, 0.0) > 0


def test_discounted_windows_are_polled_rarely_but_never_beyond_five_minutes() -> None:
    assert until_poll(CHEAP, 0, None, 0.0) == 60.0
    assert until_poll(CHEAP, 86_400, None, 0.0) == 300.0


def test_jitter_spreads_evenly_around_the_delay() -> None:
    assert until_poll(PLAIN, 8, None, -1.0) == pytest.approx(1.92)
    assert until_poll(PLAIN, 8, None, 1.0) == pytest.approx(2.88)


def test_backoff_doubles_to_a_minute() -> None:
    assert [backoff(n, 0.0) for n in (0, 1, 2, 3, 7, 900)] == [1, 1, 2, 4, 60, 60]
