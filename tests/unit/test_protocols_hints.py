"""How long to wait, as headers say it."""

from __future__ import annotations

import email.utils
import time

import pytest

from worker.protocols.hints import LONGEST_WAIT_S, go_duration, poll_after, retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3s", 3723.0),
        ("1.5s", 1.5),
        ("2m59.56s", 179.56),
        ("30", 30.0),
        (" 4s ", 4.0),
        ("", None),
        ("soon", None),
        ("1s and a bit", None),
        ("1790000000000", None),
    ],
)
def test_go_durations(text: str, seconds: float | None) -> None:
    assert go_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "9"}, 9.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "99999"}, LONGEST_WAIT_S),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Tue, 24 Nov 2026 10:00:30 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 10:00:00 GMT", "date": "Tue, 24 Nov 2026 10:00:30 GMT"}, 0.0),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Tue, 99 Nov 99999 10:00:00 GMT"}, None),
        ({}, None),
        # The reset of what is exhausted counts, not that of what is left.
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6s",
            },
            6.0,
        ),
        ({"x-ratelimit-remaining-project-tokens": "0", "x-ratelimit-reset-project-tokens": "7s"}, 7.0),
        # A request can be too big for what is left: nothing says which limit it met.
        ({"x-ratelimit-remaining-tokens": "40", "x-ratelimit-reset-tokens": "3s"}, 3.0),
        ({"x-ratelimit-reset-tokens": "rubbish"}, None),
        ({"retry-after": "2", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6s"}, 2.0),
    ],
)
def test_until_a_refused_call_may_be_repeated(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_without_a_clock_beside_it_is_read_by_ours() -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"openai-poll-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"openai-poll-after-ms": "-1"}, None),
        ({"openai-poll-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"openai-poll-after-ms": "0"}, 0.0),
        ({"openai-poll-after-ms": "often", "retry-after": "9"}, 9.0),
        ({"retry-after": "9"}, 9.0),
        # How full the limits are is no word about this run.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, None),
        ({}, None),
    ],
)
def test_until_the_next_poll(headers: dict[str, str], seconds: float | None) -> None:
    assert poll_after(headers) == seconds
