"""The line before an account's limit: who waits, who is sent back, and what is told to the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreUnreachable
from askq.jobs.limits import FIRST_WINDOW, GETS, Bound, Heard, Permit, Scope, Told
from askq.jobs.memory_store import MemoryStore
from worker.limits import gate as gates
from worker.limits.gate import Gate, Grant
from worker.limits.permits import Permits
from worker.limits.tokens import UNBOUNDED_ANSWER, estimated
from worker.protocols.base import Ask, Limited
from worker.protocols.hints import NO_LIMITS, Limits, limits
from worker.steps import OWN_LIMIT

SCOPE = Scope(account="acc", protocol="responses", model="m")
PLAIN = Assistant(name="plain", protocol="responses", model="m")


def gate(store: MemoryStore, bound: Bound | None = None) -> Gate:
    return Gate(store, SCOPE, bound=lambda: bound or Bound())


async def settled(made: Gate) -> None:
    """Everything is told."""
    async with asyncio.timeout(60):
        while made._reports.any() or (made._worker is not None and not made._worker.done()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_permits_come_in_line_and_as_replies_make_room() -> None:
    store = MemoryStore()
    made = gate(store)
    granted: list[int] = []

    async def call(number: int) -> None:
        grant = await made.take(0.0)
        granted.append(number)
        assert store.look_limits(SCOPE).ready >= 0
        await asyncio.sleep(0.01)
        made.accepted(grant, NO_LIMITS)

    async with asyncio.timeout(60):
        await asyncio.gather(*(call(number) for number in range(30)))
    assert granted == list(range(30))
    await settled(made)
    assert store.look_limits(SCOPE).ready >= FIRST_WINDOW, "nothing is left open"


async def test_a_bound_is_kept_exactly() -> None:
    made = gate(MemoryStore(), Bound(requests=20))
    began = time.monotonic()
    async with asyncio.timeout(60):
        for grant in await asyncio.gather(*(made.take(0.0) for _ in range(FIRST_WINDOW))):
            made.accepted(grant, NO_LIMITS)
        for _ in range(26):
            made.accepted(await made.take(0.0), NO_LIMITS)
    assert time.monotonic() - began >= 0.9 * (30 - 20) / 20


async def test_who_would_wait_too_long_is_sent_back_with_the_time_it_takes() -> None:
    store = MemoryStore()
    made = gate(store)
    grant = await made.take(0.0)
    made.refused(grant, NO_LIMITS, 600.0)
    await settled(made)
    with pytest.raises(Limited) as told:
        await made.take(0.0)
    assert (told.value.code, told.value.limits) == (OWN_LIMIT, None)
    assert told.value.retry_after == pytest.approx(600, abs=2)
    assert made.wait_s() == pytest.approx(600, abs=2)
    (wait,) = store.waits()
    assert wait.seconds == pytest.approx(600, abs=2)


async def test_those_at_the_end_of_a_long_line_come_back_when_it_is_their_turn() -> None:
    store = MemoryStore()
    store.take_permits(SCOPE, [], bound=Bound(requests=2), window=100)
    made = gate(store, Bound(requests=2))
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(made.take(0.0) for _ in range(16)), return_exceptions=True)
    back = [error.retry_after for error in found if isinstance(error, Limited)]
    good = [grant for grant in found if isinstance(grant, Grant)]
    assert len(good) + len(back) == 16
    assert good, "those in front get theirs"
    assert back == sorted(back, key=lambda wait: wait or 0.0), "each at its own time"


async def test_a_permit_that_nobody_takes_goes_back() -> None:
    store = MemoryStore()
    made = gate(store, Bound(requests=1))
    first = await made.take(0.0)
    made.accepted(first, NO_LIMITS)
    waiting = asyncio.create_task(made.take(0.0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settled(made)
    assert made.line == 0
    grant = await made.take(0.0)
    made.give_back(grant)
    await settled(made)
    assert store.look_limits(SCOPE).ready >= 1


class Away(MemoryStore):
    """A store that does not answer for a while."""

    away = True

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        if self.away:
            raise StoreUnreachable("no answer")
        return super().take_permits(scope, asks, bound=bound, window=window)

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        if self.away:
            raise StoreUnreachable("no answer")
        return super().learn_limits(scope, heard)


async def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    store = Away()
    made = gate(store)
    waiting = asyncio.create_task(made.take(0.0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    store.away = False
    async with asyncio.timeout(60):
        await waiting


async def test_a_store_that_stays_away_sends_everybody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "PATIENCE_S", 0.3)
    made = gate(Away())
    async with asyncio.timeout(60):
        with pytest.raises(Limited):
            await made.take(0.0)


async def test_a_defect_is_told_to_those_who_wait() -> None:
    class Broken(MemoryStore):
        def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
            raise RuntimeError("a defect")

    made = gate(Broken())
    async with asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="a defect"):
            await made.take(0.0)
    assert made._worker is not None
    with pytest.raises(RuntimeError):
        await made._worker


async def test_of_several_replies_the_one_of_the_latest_call_is_believed() -> None:
    store = MemoryStore()
    made = gate(store)
    first, second = await made.take(0.0), await made.take(0.0)
    made.accepted(second, _told(remaining=5))
    made.accepted(first, _told(remaining=6))
    await settled(made)
    assert store.look_limits(SCOPE).ready == pytest.approx(5, abs=0.1)


def _told(*, remaining: int) -> Limits:
    return Limits(requests=Told(limit=100, remaining=remaining, reset_s=1000))


async def test_a_refusal_with_permits_left_is_a_contradiction() -> None:
    store = MemoryStore()
    made = gate(store)
    grant = await made.take(100.0)
    made.accepted(grant, _told(remaining=50))
    grant = await made.take(100.0)
    made.refused(grant, _told(remaining=50), 0.05)
    await settled(made)
    assert store._limits[SCOPE].mute > 0
    # Tokens may be what was missing: then it is none.
    assert not gates._contradicts(Limits(requests=Told(remaining=50), tokens=Told(remaining=10)), tokens=100.0)
    assert not gates._contradicts(NO_LIMITS, tokens=0.0)


# -- headers -------------------------------------------------------------------------------------------------


def test_headers_are_read_as_far_as_they_make_sense() -> None:
    told = limits(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "-1",
            "x-ratelimit-remaining-tokens": "plenty",
            "x-ratelimit-reset-tokens": "1790000000000",
        }
    )
    assert told == Limits(requests=Told(limit=500, remaining=499, reset_s=0.12), tokens=Told())
    assert limits({}) == NO_LIMITS
    assert limits({"x-ratelimit-remaining-requests": "nan"}) == NO_LIMITS


def test_of_the_accounts_and_the_projects_tokens_the_fewer_count() -> None:
    told = limits(
        {
            "x-ratelimit-remaining-tokens": "900",
            "x-ratelimit-remaining-project-tokens": "100",
            "x-ratelimit-limit-project-tokens": "1000",
        }
    )
    assert told.tokens == Told(limit=1000, remaining=100)


# -- scopes --------------------------------------------------------------------------------------------------


def ask(text: str, assistant: Assistant = PLAIN) -> Ask:
    return Ask(job_id="b.q", text=text, assistant=assistant)


def test_tokens_are_estimated_from_text_and_the_longest_answer() -> None:
    assert estimated(ask("x" * 400)) == 100 + UNBOUNDED_ANSWER
    brief = Assistant(name="a", protocol="responses", model="m", instructions="y" * 40, max_output_tokens=7)
    assert estimated(ask("x" * 400, brief)) == 110 + 7
    assert estimated(ask("\ud800" * 4, brief)) > 0


async def test_the_strictest_file_in_use_bounds_a_model() -> None:
    store = MemoryStore()
    permits = Permits(store, "acc", "service.test")
    strict = Assistant(name="a", protocol="responses", model="m", limits={"requests_per_minute": 60})
    loose = Assistant(name="b", protocol="responses", model="m", limits={"requests_per_minute": 600})
    permits.create_gate(ask("x", loose))
    made = permits.create_gate(ask("x", strict))
    made.accepted(await made.take(0.0), NO_LIMITS)
    assert store.look_limits(SCOPE).rate == 1.0
    other = permits.create_gate(Ask(job_id="b.q", text="x", assistant=strict, model="another"))
    assert other.scope.model == "another"


async def test_gets_cost_nothing_until_one_is_refused() -> None:
    store = MemoryStore()
    permits = Permits(store, "acc", "service.test")
    async with permits.getting("assistants") as free:
        assert free.grants == []
    assert store._limits == {}
    assert await permits.get_room(1) == float("inf")
    refusal = Limited("rate_limit_exceeded", "slow down", retry_after=0.1, limits=NO_LIMITS)
    with pytest.raises(Limited):
        async with permits.getting("assistants"):
            raise refusal
    gets = permits.gets("assistants")
    await settled(gets)
    assert gets.scope.model == GETS
    async with permits.getting("assistants") as counted:
        assert len(counted.grants) == 1, "now they are counted"


async def test_the_permit_of_a_get_that_is_not_made_goes_back() -> None:
    store = MemoryStore()
    permits = Permits(store, "acc", "api.openai.com")
    scope = permits.gets("assistants").scope

    async def over() -> float:
        """Permits given of which nobody is waited for any more."""
        await settled(permits.gets("assistants"))
        return store.look_limits(scope).serial - store._limits[scope].open

    async with permits.getting("assistants"):
        pass
    assert await over() == 1
    async with permits.getting("assistants") as gets:
        gets.made = False
    assert await over() == 2
    assert store._limits[scope].since == 1, "only the first was answered"


async def test_of_several_gets_that_are_too_many_for_now_no_permit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "PATIENCE_S", 0.001)
    store = MemoryStore(clock=lambda: 1_800_000_000.0)
    permits = Permits(store, "acc", "api.openai.com")
    made = permits.gets("assistants")
    with pytest.raises(Limited):
        async with permits.getting("assistants", 40):
            raise AssertionError("there are 15 a second")
    await settled(made)
    there = store.look_limits(made.scope)
    assert (there.serial, there.ready) == (15, 15), "those that were there have gone back"
    assert (store._limits[made.scope].open, permits._passed) == (0, {}), "and no call was made"


async def test_gets_whose_answer_nobody_waits_for_any_more_are_over() -> None:
    store = MemoryStore()
    permits = Permits(store, "acc", "api.openai.com")
    begun = asyncio.Event()

    async def get() -> None:
        async with permits.getting("assistants"):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(get())
    async with asyncio.timeout(60):
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})
    made = permits.gets("assistants")
    await settled(made)
    assert store._limits[made.scope].open == 0


@pytest.mark.parametrize(("answered", "limited"), [(3, True), (20, False)])
async def test_a_few_gets_of_many_that_are_refused_are_no_limit(*, answered: int, limited: bool) -> None:
    permits = Permits(MemoryStore(), "acc", "service.test")
    for _ in range(answered):
        async with permits.getting("assistants"):
            pass
    for _ in range(6):
        with pytest.raises(Limited):
            async with permits.getting("assistants"):
                raise Limited("rate_limit_exceeded", "no", retry_after=1.0, limits=NO_LIMITS)
    gets = permits.gets("assistants")
    await settled(gets)
    assert (await gets.look(older_than_s=0.0)).held == limited


async def test_where_the_limit_of_gets_is_documented_it_is_kept_unasked() -> None:
    permits = Permits(MemoryStore(), "acc", "api.openai.com")
    assert await permits.gets_per_s("assistants") == pytest.approx(15)
    assert await permits.gets_per_s("responses") is None
    async with permits.getting("assistants", 2) as gets:
        assert len(gets.grants) == 2


async def test_a_process_gets_ready_its_share_of_the_permits_there_will_be() -> None:
    store = MemoryStore()
    permits = Permits(store, "acc", "service.test")
    assert await permits.room(2) == float("inf"), "of an account nothing is known of"
    made = permits.create_gate(ask("x"))
    grant = await made.take(0.0)
    made.accepted(grant, Limits(requests=Told(limit=60, remaining=30, reset_s=3)))
    await settled(made)
    whole, half = await permits.room(1), await permits.room(2)
    assert 30 <= whole <= 30 + 10 * 4
    assert half == pytest.approx(whole / 2, rel=0.1)
    assert permits.hopeless(made) is None
    made.refused(await made.take(0.0), NO_LIMITS, 30.0)
    await settled(made)
    assert await permits.room(1) == 0
    assert permits.wait_s() == pytest.approx(30, abs=1)
    wait = permits.hopeless(made)
    assert wait is not None
    assert 20 <= wait <= 30
