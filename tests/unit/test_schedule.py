"""When a run is polled next."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest

from askq.assistants.model import Assistant
from askq.jobs.took import Counts, counted, durations, seen_between, summed
from worker.schedule import LONGEST_WINDOW_POLL_S, Pace, backoff, before_deadline, crowd_s, until_poll

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


# -- what runs have taken ------------------------------------------------------------------------------------


def ended(*seconds: float) -> Counts:
    """Runs that were seen from their beginning to their end."""
    return summed(one for taken in seconds for one in seen_between(0.0, taken, ended=True))


def learned(*seconds: float, times: int = 20) -> Pace:
    return Pace(durations(ended(*seconds * times)))


def polls(pace: Pace, duration: float, draw: random.Random) -> tuple[list[float], float]:
    """The ages at which a run of this duration is seen to be at work, and its age at the last poll."""
    seen = [0.0]
    while (age := seen[-1] + until_poll(PLAIN, seen[-1], None, draw.uniform(-1, 1), pace)) < duration:
        seen.append(age)
    return seen, age


def test_a_few_runs_are_nothing_to_go_by() -> None:
    assert until_poll(PLAIN, 0, None, 0.0, learned(30.0, times=2)) == 0.7


def test_runs_that_are_still_at_work_count_for_those_that_come_after_them() -> None:
    """The first to end are the shortest of all: others would be looked at as if they were to end any moment."""
    alive = summed(seen_between(0.0, 4.0, ended=False))
    many = dict.fromkeys(alive, 100.0)
    assert until_poll(PLAIN, 0, None, 0.0, Pace(durations(many))) > 4.0
    few_ended = counted(many, ended(2.0, 2.0, 2.2))
    misled, taught = Pace(durations(ended(2.0, 2.0, 2.2))), Pace(durations(few_ended))
    assert until_poll(PLAIN, 0, None, 0.0, misled) < 3.0 < until_poll(PLAIN, 0, None, 0.0, taught)
    assert until_poll(PLAIN, 5.0, None, 0.0, taught) < 10.0, "nothing is known of this age"


def test_the_first_poll_comes_when_an_answer_is_likely() -> None:
    assert 15 < until_poll(PLAIN, 0, None, 0.0, learned(30.0, times=200)) < 36
    assert 5 < until_poll(PLAIN, 0, None, 0.0, learned(30.0, times=10)) < 36, "less is known, and less is risked"
    assert until_poll(PLAIN, 0, None, 0.0, learned(1.0)) < 1.5
    # Ten minutes are polled once in between, because somebody may have cancelled it.
    assert 60 < until_poll(PLAIN, 0, None, 0.0, learned(600.0, times=300)) <= 300


def test_polls_are_dense_where_runs_end_and_rare_where_they_do_not() -> None:
    pace = learned(2.0, 30.0)
    assert until_poll(PLAIN, 1.9, None, 0.0, pace) < 1.5
    assert until_poll(PLAIN, 5.0, None, 0.0, pace) > 8


def test_one_run_that_took_a_day_moves_nothing() -> None:
    usual, odd = learned(5.0), Pace(durations(ended(*[5.0] * 20, 86_400.0)))
    for age in (0.0, 3.0, 5.0):
        assert until_poll(PLAIN, age, None, 0.0, odd) == pytest.approx(until_poll(PLAIN, age, None, 0.0, usual), 0.25)


def test_a_run_that_outlives_all_others_is_still_looked_after() -> None:
    for age in (6.0, 60.0, 600.0, 86_400.0):
        assert 0.1 <= until_poll(PLAIN, age, None, 0.0, learned(5.0)) <= 300


def test_runs_of_2_to_20_seconds_cost_few_polls_and_little_time() -> None:
    """The figures no schedule can beat together are in docs/understand/limits.md."""
    draw = random.Random(5)
    counts: Counts = {}
    found = []
    for number in range(1500):
        duration = draw.uniform(2, 20)
        seen, age = polls(Pace(durations(counts)), duration, draw)
        # All the engine knows is that it ended between the last two polls.
        counts = counted(counts, ended(draw.uniform(seen[-1], age)))
        if number >= 500:
            found.append((len(seen), age - duration))
    lateness = sorted(late for _, late in found)
    assert sum(made for made, _ in found) / len(found) <= 5
    assert lateness[len(found) // 2] <= 1.1
    assert lateness[int(0.95 * len(found))] <= 2.6


def test_ten_thousand_runs_created_together_do_not_come_due_together() -> None:
    draw = random.Random(3)
    pace = Pace(learned(5.0).runs, crowd_s(10_000, None))
    dues = [until_poll(PLAIN, 0, None, draw.uniform(-1, 1), pace) for _ in range(10_000)]
    busiest = max(Counter(int(due) for due in dues).values())
    assert busiest <= 1200, "about a thousand a second, each second"
    hinted = [until_poll(PLAIN, 0, 2.0, draw.uniform(-1, 1), pace) for _ in range(10_000)]
    assert max(Counter(int(due) for due in hinted).values()) <= 1200
    assert min(hinted) >= 2.0, "never before the server's hint"


def test_what_the_account_allows_stretches_the_polls() -> None:
    assert crowd_s(500, 1000 / 60) == pytest.approx(37.5)
    assert crowd_s(0, 0.0) == 0
    pace = Pace(learned(5.0).runs, crowd_s(500, 1000 / 60))
    assert until_poll(PLAIN, 0, None, 0.0, pace) == pytest.approx(37.5)
    assert until_poll(PLAIN, 0, None, 1.0, Pace(crowd_s=1e9)) == 300


def test_however_rarely_runs_are_polled_a_deadline_is_noticed() -> None:
    assert before_deadline(200.0, 25.0, 0.5) == 27.0
    assert before_deadline(3.0, 25.0, 0.5) == 3.0
    assert before_deadline(200.0, -1.0, 0.5) == 200.0, "it was noticed"
