"""How the rule of limits fares against servers of many kinds, in a time that is reckoned and not waited for."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest

from askq.jobs.limit_rule import LONGEST_BACKOFF_S, LimitRecord
from askq.jobs.limits import FIRST_WINDOW, NO_WINDOW, Bound, Heard, Told

STEP_S = 0.005


@dataclass
class Server:
    """A bucket that answers 429 when it is empty, as most services do."""

    rate: float
    burst: float
    headers: bool = False
    retry_after_s: float | None = 1.0
    level: float = field(init=False)
    at: float = 0.0
    accepted: int = 0
    refused: int = 0
    tells: float | None = None
    """The limit it tells, where that is not what its bucket holds."""

    def __post_init__(self) -> None:
        self.level = self.burst

    def ask(self, now: float, *, cost: float = 1.0) -> tuple[bool, Told]:
        self.level = min(self.burst, self.level + self.rate * (now - self.at))
        self.at = now
        good = self.level >= cost
        if good:
            self.level -= cost
            self.accepted += 1
        else:
            self.refused += 1
        told = Told()
        if self.headers:
            lacks = self.burst - self.level
            told = Told(limit=self.tells or self.burst, remaining=float(int(self.level)), reset_s=lacks / self.rate)
        return good, told


@dataclass
class Run:
    """Questions put to a server through one record by a few processes."""

    server: Server
    latency_s: float = 0.01
    bound: Bound = field(default_factory=Bound)
    record: LimitRecord = field(default_factory=LimitRecord)
    window: int = FIRST_WINDOW
    now: float = 0.0
    start: float = 1_800_000_000.0

    def answer(self, questions: int, *, at_most_s: float) -> float:
        """When the last one was accepted."""
        left, last = questions, self.now
        replies: list[tuple[float, int, float, float, bool, Told]] = []
        order = itertools.count()
        draw = random.Random(1)
        ready_at = self.now
        until = self.now + at_most_s
        while left or replies:
            assert self.now < until, f"{left} questions left after {at_most_s} s, {self.server.refused} refusals"
            while replies and replies[0][0] <= self.now:
                _, _, granted_at, serial, good, told = heapq.heappop(replies)
                heard = Heard(
                    window=self.window,
                    closed=1,
                    accepted=int(good),
                    refused=int(not good),
                    granted_at=granted_at,
                    retry_after_s=None if good else self.server.retry_after_s,
                    requests=told,
                    serial=serial,
                )
                self.record.learn(self.start + self.now, heard)
                ready_at = self.now
                if good:
                    last = self.now
                else:
                    left += 1
            if left and ready_at <= self.now:
                asks = [0.0] * min(left, 100)
                permit = self.record.take(self.start + self.now, asks, bound=self.bound, window=self.window)
                left -= permit.granted
                ready_at = self.now + permit.wait_s
                for number in range(permit.granted):
                    good, told = self.server.ask(self.now + self.latency_s / 2)
                    serial = permit.serial - permit.granted + number + 1
                    back = self.now + self.latency_s * draw.uniform(0.8, 1.3)
                    heapq.heappush(replies, (back, next(order), self.start + self.now, serial, good, told))
            self.now += STEP_S
        return last


@pytest.mark.parametrize("latency_s", [0.01, 0.3])
def test_with_headers_nothing_is_refused_and_nothing_is_left(latency_s: float) -> None:
    run = Run(Server(rate=20, burst=20, headers=True), latency_s)
    took = run.answer(300, at_most_s=30)
    assert run.server.refused == 0
    assert took <= 14 + 0.5 + 3 * latency_s


@pytest.mark.parametrize("latency_s", [0.01, 0.8])
def test_a_bucket_of_a_minutes_worth_is_used_whole(latency_s: float) -> None:
    run = Run(Server(rate=500 / 60, burst=500, headers=True), latency_s)
    took = run.answer(1000, at_most_s=100)
    assert run.server.refused == 0
    assert took <= 60 + 3


@pytest.mark.parametrize("latency_s", [0.01, 0.3])
def test_a_limit_told_for_a_minute_and_counted_by_the_second_is_kept_to(latency_s: float) -> None:
    """1,200 a minute, of which 20 are had at once: what the headers say of the reset is that of the small bucket."""
    server = Server(rate=20, burst=20, headers=True, tells=1200)
    last = Run(server, latency_s=latency_s).answer(300, at_most_s=60)
    assert server.refused <= 5
    assert last <= 1.1 * 14 + 2 * latency_s


def test_a_limit_of_a_second_is_not_taken_for_that_of_a_minute() -> None:
    """Also by those who come when it is nearly used up."""
    server = Server(rate=100, burst=100, headers=True)
    server.level = 5
    assert Run(server).answer(500, at_most_s=30) <= 1.2 * 5


@pytest.mark.parametrize("retry_after_s", [1.0, None])
def test_without_headers_the_rate_is_found_from_two_refusals(retry_after_s: float | None) -> None:
    run = Run(Server(rate=20, burst=20, retry_after_s=retry_after_s))
    took = run.answer(300, at_most_s=30)
    assert run.server.refused <= 10
    assert took <= 1.1 * 14


def test_without_headers_slow_replies_cost_a_window_of_refusals_and_little_time() -> None:
    run = Run(Server(rate=20, burst=20), 0.3)
    took = run.answer(300, at_most_s=40)
    assert run.server.refused <= 50
    assert took <= 1.4 * 14


@pytest.mark.parametrize("headers", [True, False])
def test_a_limit_that_is_halved_is_found_again(*, headers: bool) -> None:
    run = Run(Server(rate=20, burst=20, headers=headers))
    run.answer(150, at_most_s=30)
    before, began = run.server.refused, run.now
    run.server.rate = run.server.burst = 10
    took = run.answer(150, at_most_s=60) - began
    assert run.server.refused - before <= 15
    assert took <= 1.2 * 15


def test_a_limit_that_is_raised_is_found_too() -> None:
    run = Run(Server(rate=5, burst=5))
    run.answer(100, at_most_s=60)
    run.server.rate = run.server.burst = 50
    began = run.now
    run.answer(1000, at_most_s=100)
    assert run.now - began <= 60, "at the old rate it would have been 200 s"


def test_a_few_requests_a_minute_are_found_without_haste() -> None:
    run = Run(Server(rate=3 / 60, burst=3), 0.5)
    assert run.answer(10, at_most_s=600) <= 1.3 * 140
    assert run.server.refused <= 30


def test_a_server_without_limits_is_not_held_back_for_long() -> None:
    run = Run(Server(rate=1e9, burst=1e9), 0.5)
    took = run.answer(5000, at_most_s=60)
    assert (run.server.refused, run.record.how) == (0, 0)
    assert took <= 10, "100 at a time, it would have been 25 s"


def test_a_bound_holds_whatever_the_server_grants() -> None:
    run = Run(Server(rate=1e9, burst=1e9, headers=True), bound=Bound(requests=10))
    assert 29 <= run.answer(300, at_most_s=60) <= 33, "in steps of 5 ms"


# -- bad input -----------------------------------------------------------------------------------------------


def heard(told: Told, *, token: Told = Told(), **more: float) -> Heard:  # noqa: B008  frozen
    return Heard(closed=1, accepted=1, requests=told, token=token, **more)  # type: ignore[arg-type]


def takes(record: LimitRecord, now: float, *, tokens: float = 0.0, bound: Bound | None = None) -> tuple[int, float]:
    permit = record.take(now, [tokens], bound=bound or Bound(), window=FIRST_WINDOW)
    return permit.granted, permit.wait_s


@pytest.mark.parametrize(
    "told",
    [
        Told(limit=0, remaining=0, reset_s=0),
        Told(limit=1, remaining=0, reset_s=3600),
        Told(limit=10, remaining=500, reset_s=60),
        Told(limit=1000, remaining=0, reset_s=None),
        Told(limit=None, remaining=0, reset_s=None),
        Told(limit=1e9, remaining=0, reset_s=1e9),
        Told(limit=0.001, remaining=0.0, reset_s=0.0001),
    ],
)
def test_whatever_headers_say_a_call_is_tried_within_about_a_minute(told: Told) -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    for _ in range(5):
        waited = 0.0
        while takes(record, now, tokens=100)[0] == 0:
            wait = takes(record, now, tokens=100)[1]
            assert wait > 0, "no permit and no time to wait is a stall"
            now, waited = now + wait, waited + wait
            assert waited <= 61
        record.learn(now + 0.01, heard(told, token=told))


def test_where_more_remains_than_the_limit_the_bucket_holds_what_remains() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    takes(record, now)
    record.learn(now, heard(Told(limit=10, remaining=500, reset_s=60)))
    assert record.burst == 500
    assert record.take(now + 0.1, [0.0] * 300, bound=Bound(), window=FIRST_WINDOW).granted == 300


def test_headers_that_change_from_reply_to_reply_do_no_harm() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    draw = random.Random(7)
    granted = 0
    for _ in range(2000):
        now += 0.05
        granted += takes(record, now)[0]
        told = Told(
            limit=draw.choice([None, 0, 1, 100, 1e6]),
            remaining=draw.choice([None, 0, 1, 50, 1e6]),
            reset_s=draw.choice([None, 0, 0.01, 1, 3600]),
        )
        record.learn(now, heard(told))
    assert granted > 100


def test_a_refusal_against_the_headers_makes_them_unbelieved_for_a_while() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    lie = Told(limit=1000, remaining=999, reset_s=0.06)
    record.take(now, [0.0], bound=Bound(), window=FIRST_WINDOW)
    record.learn(now, heard(lie))
    assert record.how == 2
    refusal = Heard(closed=1, refused=1, granted_at=now, retry_after_s=1.0, contradicted=True, requests=lie)
    record.learn(now + 0.1, refusal)
    record.learn(now + 0.2, heard(lie))
    assert record.how == 1
    assert record.level < 2, "its own bookkeeping goes on"
    record.learn(now + 0.2 + 31, heard(lie))
    assert record.how == 2


def test_retry_after_of_ten_minutes_is_waited_for_and_then_over() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    takes(record, now)
    record.learn(now, Heard(closed=1, refused=1, granted_at=now, retry_after_s=600.0))
    assert takes(record, now + 599) == (0, pytest.approx(1))
    assert takes(record, now + 600.1)[0] == 1


def test_nobody_waits_longer_than_an_hour_and_refusals_without_a_word_are_waited_for_ever_longer() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    takes(record, now)
    record.learn(now, Heard(closed=1, refused=1, granted_at=now, retry_after_s=1e12))
    assert takes(record, now)[1] == 3600
    now += 3601
    waits = []
    for _ in range(12):
        assert takes(record, now)[0] == 1
        record.learn(now, Heard(closed=1, refused=1, granted_at=now))
        waits.append(takes(record, now)[1])
        now += waits[-1] + 0.001
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST_BACKOFF_S)


def test_a_clock_that_is_set_back_takes_the_record_along() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    takes(record, now)
    record.learn(now, Heard(closed=1, refused=1, granted_at=now, retry_after_s=5.0))
    assert takes(record, now - 7200)[1] == pytest.approx(5)
    assert takes(record, now - 7200 + 5.1)[0] == 1


def test_tokens_nobody_could_estimate_are_owed() -> None:
    """Given a run that used a hundred times what was put aside, then the bound in tokens holds on average."""
    record, now = LimitRecord(), 1_800_000_000.0
    bound = Bound(tokens=100.0)
    assert takes(record, now, tokens=10, bound=bound)[0] == 1
    record.learn(now, Heard(closed=1, accepted=1, estimated=10, used=3000))
    granted, wait = takes(record, now, tokens=10, bound=bound)
    assert granted == 0
    assert wait == pytest.approx((3000 - 1000 + 10) / 100, rel=0.01)
    assert takes(record, now + wait + 0.01, tokens=10, bound=bound)[0] == 1


def test_what_was_used_before_there_was_a_bound_is_not_owed() -> None:
    """Given a model that was asked thousands of times without a bound, when a file brings one, then it holds from now
    on, and nobody waits until it would have allowed all that."""
    record, now = LimitRecord(), 1_800_000_000.0
    for _ in range(3000):
        takes(record, now := now + 0.02, tokens=300)
        record.learn(now, Heard(closed=1, accepted=1, estimated=300, used=500))
    both = Bound(requests=2.0, tokens=400.0)
    assert record.take(now, [300.0] * 5, bound=both, window=FIRST_WINDOW).granted == 2
    assert takes(record, now, tokens=300, bound=both) == (0, pytest.approx(0.5))
    record.learn(now, Heard(closed=2, accepted=2))
    for _ in range(20):
        takes(record, now := now + 1, tokens=300)
        record.learn(now, Heard(closed=1, accepted=1))
    assert takes(record, now, tokens=300, bound=both)[0] == 1, "the same when it is there, gone and there again"


def test_a_run_that_says_it_used_more_than_there_is_stops_nobody_for_ever() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    bound = Bound(tokens=100.0)
    assert takes(record, now, tokens=10, bound=bound)[0] == 1
    record.learn(now, Heard(closed=1, accepted=1, estimated=10, used=1e15))
    assert takes(record, now + 86_400, tokens=10, bound=bound)[1] <= 1
    assert takes(record, now + 86_401, tokens=10, bound=bound)[0] == 1


def test_calls_of_a_worker_that_died_stop_counting() -> None:
    record, now = LimitRecord(), 1_800_000_000.0
    assert record.take(now, [0.0] * 9, bound=Bound(), window=FIRST_WINDOW).granted == FIRST_WINDOW
    assert takes(record, now + 1.5)[0] == 0
    assert record.take(now + 2.1, [0.0] * 9, bound=Bound(), window=FIRST_WINDOW).granted == FIRST_WINDOW


@pytest.mark.parametrize("limited", [True, False])
def test_refusals_for_no_rate_of_ours_take_little_of_it(*, limited: bool) -> None:
    """Given a service that refuses one call in 25 whatever the rate, when few calls are made, then none waits long."""
    record, now = LimitRecord(), 1_800_000_000.0
    draw = random.Random(11)
    calls, waited = 0, 0.0
    while calls < 1000:
        permit = record.take(now, [0.0], bound=Bound(), window=FIRST_WINDOW)
        if not permit.granted:
            now, waited = now + permit.wait_s, waited + permit.wait_s
            continue
        calls += 1
        refused = draw.random() < 0.04
        heard_ = Heard(
            closed=1,
            accepted=int(not refused),
            refused=int(refused),
            granted_at=permit.now,
            retry_after_s=0.5 if refused and limited else None,
        )
        record.learn(now + 0.01, heard_)
        now += 0.1
    assert waited <= 0.6 * 0.04 * 1000 + 10


def test_free_calls_are_limited_when_many_are_refused_and_not_for_one() -> None:
    record, now = LimitRecord(), 1_800_000_000.0

    def call(*, refused: bool, retry_after_s: float = 1.0) -> bool:
        permit = record.take(now, [0.0], bound=Bound(), window=NO_WINDOW)
        if permit.granted:
            told = Heard(window=NO_WINDOW, closed=1, accepted=int(not refused), refused=int(refused), granted_at=now)
            record.learn(now, dataclasses.replace(told, retry_after_s=retry_after_s if refused else None))
        return permit.granted == 1

    for number in range(500):
        assert call(refused=number % 25 == 0), "one in 25 holds nobody up"
    for _ in range(60):
        call(refused=True)
    assert not call(refused=False), "that is a limit"
    record = LimitRecord()
    assert call(refused=True, retry_after_s=30.0)
    assert not call(refused=False), "so is a long wish"


def test_a_limit_of_free_calls_that_was_found_by_mistake_is_forgotten_though_it_is_never_met() -> None:
    run = Run(Server(rate=2, burst=2), 0.1, window=NO_WINDOW)
    run.answer(60, at_most_s=90)
    record, now = run.record, run.start + run.now
    assert record.how == 1
    began = now
    # Polls are spread so that they need less than is allowed: the bucket is always full.
    while (permit := record.take(now, [0.0], bound=Bound(), window=NO_WINDOW)).rate is not None:
        assert now - began < 150
        now += 3.0 / permit.rate
        record.learn(now, Heard(window=NO_WINDOW, closed=permit.granted, accepted=permit.granted, granted_at=now))
    assert record.take(now, [0.0] * 50, bound=Bound(), window=NO_WINDOW).granted == 50


@pytest.mark.parametrize("share", [0.05, 0.12, 0.2])
def test_free_calls_that_are_refused_at_random_have_no_limit(share: float) -> None:
    record, now, draw = LimitRecord(), 1_800_000_000.0, random.Random(5)
    made = 0
    for _ in range(4000):
        now += 0.02
        permit = record.take(now, [0.0], bound=Bound(), window=NO_WINDOW)
        refused = permit.granted and draw.random() < share
        made += permit.granted
        record.learn(
            now,
            Heard(
                window=NO_WINDOW,
                closed=permit.granted,
                accepted=int(permit.granted and not refused),
                refused=int(refused),
                granted_at=now,
                retry_after_s=1.0 if refused else None,
            ),
        )
    assert made > 3600


def test_a_limit_of_free_calls_that_is_there_is_kept_to() -> None:
    run = Run(Server(rate=10, burst=10), 0.1, window=NO_WINDOW)
    assert run.answer(400, at_most_s=90) <= 1.3 * 39
    before = run.server.refused
    run.answer(800, at_most_s=120)
    assert run.server.refused - before <= 0.25 * 800
