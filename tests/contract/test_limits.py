"""What every job store promises of limits, and that the rule in Lua is the rule in Python."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from askq.jobs import keys, redis_limits
from askq.jobs.limit_rule import FIELDS, LimitRecord
from askq.jobs.limits import FIRST_WINDOW, Bound, Heard, Permit, Scope, Told
from askq.jobs.model import Lane
from askq.jobs.store import Store
from askq.jobs.took import MANY, bucket_of, counted, ended
from tests.contract.store_stage import MemoryStage, RedisStage, Stage, claim, move, submit
from tests.parts import RedisServer, redis_binaries

SCOPE = Scope(account="acc", protocol="responses", model="a/model")
FREE = Bound()


@pytest.fixture
def store(stage: Stage) -> Store:
    return stage.store


def take(store: Store, many: int, *, tokens: float = 0.0, bound: Bound = FREE, window: int = FIRST_WINDOW) -> Permit:
    return store.take_permits(SCOPE, [tokens] * many, bound=bound, window=window)


def test_an_unknown_account_is_tried_gently_and_for_all_workers_together(stage: Stage) -> None:
    other = stage.another()
    for number in range(50):
        scope = dataclasses.replace(SCOPE, model=f"model {number}")

        def ten(store: Store, scope: Scope = scope) -> Permit:
            return store.take_permits(scope, [0.0] * 10, bound=FREE, window=FIRST_WINDOW)

        first, held = ten(stage.store), ten(other)
        stage.store.learn_limits(scope, Heard(closed=2, accepted=2))
        last = ten(other)
        if last.now - first.now < 0.2:
            # Else more may be open by now: the window grows with each quarter of a second.
            break
    assert (first.granted, held.granted, held.rate, last.granted) == (FIRST_WINDOW, 0, None, 2)
    assert held.wait_s > 0


def test_headers_tell_everything_and_every_worker(stage: Stage) -> None:
    first = take(stage.store, 1)
    assert (first.granted, first.serial) == (1, 1)
    told = Told(limit=20, remaining=19, reset_s=0.05)
    found = stage.store.learn_limits(SCOPE, Heard(closed=1, accepted=1, requests=told, serial=first.serial))
    assert found.rate == pytest.approx(20)
    other = take(stage.another(), 40)
    assert other.granted in (19, 20), "what remains, and perhaps one that has come in since"
    assert other.wait_s <= 0.05


def test_a_reply_that_comes_late_does_not_tell_of_permits_given_since(stage: Stage) -> None:
    first = take(stage.store, 2)
    told = Told(limit=20, remaining=18, reset_s=1000)
    stage.store.learn_limits(SCOPE, Heard(closed=1, requests=told, serial=2))
    assert take(stage.store, 10).granted == 10
    late = Told(limit=20, remaining=19, reset_s=1000)
    found = stage.store.learn_limits(SCOPE, Heard(closed=1, requests=late, serial=first.serial - 1))
    assert found.ready == pytest.approx(8, abs=0.5)
    # And what others use of the account is seen at once.
    less = Told(limit=20, remaining=3, reset_s=1000)
    assert stage.store.learn_limits(SCOPE, Heard(requests=less, serial=12)).ready == pytest.approx(3, abs=0.5)


def test_everybody_waits_as_long_as_the_service_asks(stage: Stage) -> None:
    granted = take(stage.store, 3)
    heard = Heard(closed=3, refused=3, granted_at=granted.now, retry_after_s=600.0)
    assert stage.store.learn_limits(SCOPE, heard).held
    held = take(stage.another(), 5)
    assert (held.granted, held.held) == (0, True)
    assert held.wait_s == pytest.approx(600, abs=5)
    (wait,) = stage.store.waits()
    assert (wait.account, wait.protocol, wait.model) == ("acc", "responses", "a/model")
    assert wait.seconds == pytest.approx(600, abs=5)


def test_the_time_to_wait_is_exact(stage: Stage) -> None:
    bound = Bound(requests=10)
    assert take(stage.store, 30, bound=bound, window=1000).granted == 10
    stage.store.learn_limits(SCOPE, Heard(closed=10, accepted=10))
    # Who is held up for a tenth of a second gets another one.
    while (short := take(stage.store, 1, bound=bound)).granted:
        stage.store.learn_limits(SCOPE, Heard(closed=1, accepted=1))
    assert 0 < short.wait_s <= 0.1
    stage.pass_time(short.wait_s + 0.001)
    assert take(stage.store, 1, bound=bound).granted == 1


def test_a_full_bucket_takes_nothing_in_before_the_first_call_has_arrived(stage: Stage) -> None:
    """Given calls held up on their way, when they arrive in a heap, then there are no more than the bucket holds."""
    stage.store.learn_limits(SCOPE, Heard(requests=Told(limit=20, remaining=20, reset_s=0)))
    stage.store.learn_limits(SCOPE, Heard(requests=Told(limit=20, remaining=19, reset_s=0.05)))
    stage.pass_time(0.125)
    assert take(stage.store, 25).granted == 20
    stage.pass_time(0.25)
    assert take(stage.store, 20).granted == 0
    stage.store.learn_limits(SCOPE, Heard(closed=1, accepted=1))
    stage.pass_time(0.25)
    assert take(stage.store, 20).granted >= 5


def test_permits_that_were_not_needed_are_there_for_others(stage: Stage) -> None:
    bound = Bound(requests=5, tokens=100)
    began = stage.now()

    def come_in() -> float:
        """As much as can have come in since then: nothing, unless the test was held up."""
        return 5 * (stage.now() - began) + 1e-3

    assert take(stage.store, 9, tokens=10, bound=bound, window=1000).granted == 5
    assert take(stage.store, 9, tokens=10, bound=bound).granted <= come_in()
    stage.store.learn_limits(SCOPE, Heard(unused=4, unused_tokens=40))
    assert 4 <= take(stage.another(), 9, tokens=10, bound=bound).granted <= 4 + come_in()


def test_tokens_are_counted_beside_requests(stage: Stage) -> None:
    bound = Bound(tokens=100)
    assert take(stage.store, 30, tokens=100, bound=bound, window=1000).granted == 10
    held = take(stage.store, 1, tokens=1000, bound=bound)
    assert (held.granted, held.wait_s) == (0, pytest.approx(10, abs=5))
    # A run that used less than was put aside for it gives the rest back, one that used more owes it.
    stage.store.learn_limits(SCOPE, Heard(estimated=100, used=40))
    assert take(stage.store, 1, tokens=50, bound=bound).granted == 1


def test_estimates_follow_what_is_used(store: Store) -> None:
    for _ in range(60):
        found = store.learn_limits(SCOPE, Heard(estimated=100, used=100))
    assert found.ratio == pytest.approx(1.0)
    ratio = 1.0
    for _ in range(60):
        ratio = store.learn_limits(SCOPE, Heard(estimated=100 * ratio, used=250)).ratio
    assert ratio == pytest.approx(2.5, rel=0.05)


def test_a_question_larger_than_the_whole_bucket_goes_when_that_is_full(stage: Stage) -> None:
    bound = Bound(tokens=10)
    assert take(stage.store, 2, tokens=5000, bound=bound).granted == 1
    assert take(stage.store, 1, tokens=1, bound=bound).wait_s > 60, "and what it used beyond is owed"


def test_what_was_learned_survives_and_what_is_deleted_is_learned_again(stage: Stage) -> None:
    take(stage.store, 1)
    stage.store.learn_limits(SCOPE, Heard(closed=1, requests=Told(limit=600, remaining=0, reset_s=60)))
    assert stage.another().look_limits(SCOPE).rate == pytest.approx(10)
    if isinstance(stage, RedisStage):
        assert stage.raw.ttl(keys.limit(str(SCOPE))) > 0
        stage.raw.delete(keys.limit(str(SCOPE)))
    else:
        assert isinstance(stage, MemoryStage)
        stage.store._limits.clear()
    # Whoever had a call open reports it, and whoever wants permits gets them.
    assert not stage.store.learn_limits(SCOPE, Heard(closed=1, accepted=1)).held
    assert take(stage.store, 10).granted == FIRST_WINDOW


def test_a_look_takes_and_leaves_nothing(stage: Stage) -> None:
    before = stage.everything()
    assert stage.store.look_limits(SCOPE).rate is None
    assert stage.store.waits() == []
    assert stage.everything() == before


def test_who_gets_permits_waits_no_longer(stage: Stage) -> None:
    bound = Bound(requests=100)
    assert take(stage.store, 200, bound=bound, window=1000).wait_s > 0
    assert len(stage.store.waits()) == 1
    stage.store.learn_limits(SCOPE, Heard(closed=100, accepted=100))
    stage.pass_time(1 / 16)
    assert take(stage.store, 1, bound=bound).granted == 1
    assert stage.store.waits() == []


def test_durations_are_counted_for_everybody(stage: Stage) -> None:
    assert stage.store.took("d1") == {}
    found = stage.store.took("d1", {bucket_of(5.0): 2.0, 0: 1.0, -1: 2.0})
    assert found == {bucket_of(5.0): 2.0, 0: 1.0, -1: 2.0}
    assert stage.another().took("d1") == found
    assert stage.store.took("d2") == {}
    many = {}
    for _ in range(9):
        many = dict(stage.store.took("d1", {bucket_of(1.0): 100.0, -1: 100.0}))
    assert ended(many) <= MANY
    assert many[bucket_of(1.0)] > 100
    assert many[-1] == pytest.approx(many[bucket_of(1.0)], rel=0.05), "both are halved"
    unended = stage.store.took("d3", {-1: 10 * MANY})
    assert unended == {-1: 10 * MANY}, "runs that are still at work halve nothing"


def test_a_lane_says_how_many_it_holds(store: Store) -> None:
    batch = submit(store, 5)
    assert (store.waiting(Lane.START), store.waiting(Lane.POLL)) == (5, 0)
    job = next(iter(store.jobs(batch))).id
    fence = claim(store, job).fence
    move(store, job, fence, "intend")
    move(store, job, fence, "start")
    assert (store.waiting(Lane.START), store.waiting(Lane.POLL)) == (4, 1)


# -- the two rules -------------------------------------------------------------------------------------------


class Both:
    """Both rules under one clock that is told, so that every field can be compared."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        text = (resources.files("askq.jobs") / "lua" / "limit.lua").read_text("utf-8")
        clock = "local time = redis.call('TIME')\nlocal now = time[1] + time[2] / 1e6\n"
        assert clock in text
        self.text = text.replace(clock, "local now = tonumber(table.remove(ARGV))\n")
        self.record = LimitRecord()
        self.now = 1_800_000_000.0

    def run(self, call: redis_limits.Arguments, expected: Permit) -> None:
        names, args = call
        found = redis_limits.permit(self.raw.eval(self.text, len(names), *names, *args, repr(self.now)))
        kept = self.raw.hgetall(names[0])
        if kept:
            theirs = {name: float(kept[name.encode()]) for name in FIELDS}
            ours = {name: float(getattr(self.record, name)) for name in FIELDS}
            assert theirs == pytest.approx(ours, rel=1e-9, abs=1e-6)
        assert (found.rate is None) is (expected.rate is None)
        assert _numbers(found) == pytest.approx(_numbers(expected), rel=1e-9, abs=1e-6)


def _numbers(permit: Permit) -> list[float]:
    return [float(value or 0) for value in dataclasses.astuple(permit)]


def _number(draw: random.Random, *values: float | None) -> float | None:
    return draw.choice(values)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("server", redis_binaries())
def test_lua_and_python_agree_on_any_history(
    server: str, seed: int, redis_servers: Callable[[str], RedisServer]
) -> None:
    stage = RedisStage(redis_servers(server))
    draw = random.Random(seed)
    both = Both(stage.raw)
    try:
        for _ in range(150):
            both.now += draw.choice([0.0, 0.001, 0.02, 0.3, 1.0, 2.5, 8.0, 40.0, 100.0, -0.5, -90.0])
            if draw.random() < 0.5:
                asks = [float(draw.choice([0, 10, 300, 5000])) for _ in range(draw.randrange(6))]
                bound = Bound(
                    requests=_number(draw, None, None, 0.5, 20.0), tokens=_number(draw, None, None, 3.0, 900.0)
                )
                window = draw.choice([FIRST_WINDOW, 1_000_000])
                expected = both.record.take(both.now, asks, bound=bound, window=window)
                both.run(redis_limits.take(SCOPE, asks, bound=bound, window=window), expected)
            else:
                heard = Heard(
                    window=draw.choice([FIRST_WINDOW, 1_000_000]),
                    closed=draw.randrange(5),
                    accepted=draw.randrange(4),
                    refused=draw.choice([0, 0, 0, 1, 3]),
                    granted_at=both.now - draw.choice([0.0, 0.5, 30.0]),
                    retry_after_s=_number(draw, None, 0.0, 1.0, 600.0),
                    contradicted=draw.random() < 0.1,
                    requests=Told(
                        limit=_number(draw, None, None, 0, 20, 500),
                        remaining=_number(draw, None, 0, 3, 499, 900),
                        reset_s=_number(draw, None, 0.0, 0.05, 59.0),
                    ),
                    token=Told(
                        limit=_number(draw, None, None, 30_000),
                        remaining=_number(draw, None, None, 0, 29_000),
                        reset_s=_number(draw, None, 2.0),
                    ),
                    serial=max(0.0, both.record.given - draw.choice([0, 1, 7])),
                    tserial=max(0.0, both.record.tgiven - draw.choice([0, 500])),
                    unused=draw.choice([0, 0, 2]),
                    unused_tokens=float(draw.choice([0, 20])),
                    estimated=float(draw.choice([0, 100])),
                    used=float(draw.choice([0, 30, 90_000])),
                )
                both.run(redis_limits.learn(SCOPE, heard), both.record.learn(both.now, heard))
    finally:
        stage.close()


def test_every_field_of_the_record_has_a_name_in_lua() -> None:
    text = (resources.files("askq.jobs") / "lua" / "limit.lua").read_text("utf-8")
    found = re.search(r"local NAMES = \{(.*?)\}", text, re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r"'(\w+)'", found.group(1))) == FIELDS


def test_old_durations_fade() -> None:
    weights: dict[int, float] = {}
    weights = counted(weights, {bucket_of(1.0): 300.0})
    for _ in range(20):
        weights = counted(weights, {bucket_of(60.0): 100.0})
    assert weights.get(bucket_of(1.0), 0.0) < 2
    assert bucket_of(1e12) == 71, "the longest there is"
