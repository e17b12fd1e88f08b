"""How the rule of limits fares against servers of many kinds, in a time that is reckoned and not waited for."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest

from askq.jobs.limits import FIRST_WINDOW, LONGEST_BACKOFF_S, Bound, Heard, LimitRecord, Told

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
            told = Told(limit=self.burst, remaining=float(int(self.level)), reset_s=lacks / self.rate)
        return good, told


@dataclass
class Run:
    """Questions put to a server through one record by a few processes."""

    server: Server
    latency_s: float = 0.01
    bound: Bound = field(default_factory=Bound)
    record: LimitRecord = field(default_factory=LimitRecord)
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
                permit = self.record.take(self.start + self.now, asks, bound=self.bound, window=FIRST_WINDOW)
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
def test_headers_are_enough_to_be_never_refused(latency_s: float) -> None:
    run = Run(Server(rate=20, burst=20, headers=True), latency_s)
    took = run.answer(300, at_most_s=30)
    assert run.server.refused <= 2
    assert took <= 14 + 0.5 + 2 * latency_s


@pytest.mark.parametrize("latency_s", [0.01, 0.3])
@pytest.mark.parametrize("retry_after_s", [1.0, None])
def test_without_headers_the_rate_is_found_from_two_refusals(latency_s: float, retry_after_s: float | None) -> None:
    run = Run(Server(rate=20, burst=20, retry_after_s=retry_after_s), latency_s)
    took = run.answer(300, at_most_s=60)
    print(took, run.server.refused, run.record)


def test_halved() -> None:
    for latency in (0.01, 0.3):
        run = Run(Server(rate=20, burst=20), latency)
        run.answer(150, at_most_s=60)
        before = run.server.refused
        run.server.rate, run.server.burst = 10, 10
        began = run.now
        took = run.answer(150, at_most_s=60) - began
        print("halved", took, before, run.server.refused - before, run.record)


def test_openai() -> None:
    for latency in (0.01, 0.8):
        for headers in (True, False):
            run = Run(Server(rate=500 / 60, burst=500, headers=headers), latency)
            took = run.answer(1000, at_most_s=200)
            print("openai", took, 60, run.server.refused, run.record)
    run = Run(Server(rate=3 / 60, burst=3), 0.5)
    took = run.answer(10, at_most_s=600)
    print("3rpm", took, 140, run.server.refused, run.record)
    run = Run(Server(rate=1e9, burst=1e9), 0.5)
    took = run.answer(5000, at_most_s=600)
    print("free", took, run.server.refused, run.record)
