"""What stops what on an account, who ends which pause, and that one call probes for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane
from askq.pauses import PAUSES
from tests.parts import Clock
from worker.account import Account
from worker.protocols.base import Blocked

PROBE_S = 30.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("worker.account.time.monotonic", made)
    return made


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


Open = Callable[[], Account]


@pytest.fixture
def open_account(store: MemoryStore) -> Open:
    return lambda: Account(store, "acc", in_flight=20, probe_s=PROBE_S)


async def rooms(account: Account, *, open_calls: int = 0) -> tuple[int, int]:
    return await account.room(Lane.START, open_calls), await account.room(Lane.POLL, open_calls)


async def blocked(account: Account, code: str, protocol: str = "responses") -> None:
    await account.blocked(Blocked(code, f"{code}!"), protocol)


async def test_an_account_without_a_pause_has_room_for_all(open_account: Open) -> None:
    account = open_account()
    assert await rooms(account) == (20, 20)
    assert await rooms(account, open_calls=7) == (13, 13)
    assert await account.stopped("responses") is None


@pytest.mark.parametrize("code", sorted(set(PAUSES) - {"endpoint_gone", "budget_exceeded"}))
async def test_a_pause_stops_creates_and_polls_or_creates_alone(
    store: MemoryStore, open_account: Open, code: str
) -> None:
    account, other = open_account(), open_account()
    await blocked(account, code)
    (pause,) = store.pauses()
    assert (pause.account, pause.code, pause.protocol, pause.message) == ("acc", code, None, f"{code}!")
    polls = 0 if PAUSES[code].stops_polls else 20
    assert await rooms(account) == (0, polls)
    assert await rooms(other) == (0, polls), "for every worker"


async def test_exhausted_credit_stops_no_polls() -> None:
    going_on = [code for code, pause in PAUSES.items() if not pause.stops_polls]
    assert going_on == ["quota_exhausted", "budget_exceeded", "asked_again"]


async def test_an_endpoint_that_is_gone_stops_its_own_protocol_alone(
    store: MemoryStore, open_account: Open, clock: Clock
) -> None:
    account = open_account()
    await blocked(account, "endpoint_gone", "assistants")
    assert await rooms(account) == (20, 20)
    pause = await account.stopped("assistants")
    assert pause is not None
    assert pause.protocol == "assistants"
    assert await account.stopped("responses") is None
    await account.worked("responses", begun=clock.now)
    await account.answered("responses", begun=clock.now)
    assert [pause.protocol for pause in store.pauses()] == ["assistants"], "the other protocol proves nothing"
    await account.answered("assistants", begun=clock.now)
    assert store.pauses() == []


async def test_pauses_of_other_accounts_are_none_of_ours(store: MemoryStore, open_account: Open) -> None:
    store.pause("other", "rejected_key", "no", probe_after_s=PROBE_S)
    assert await rooms(open_account()) == (20, 20)


async def test_a_pause_is_heard_of_within_half_a_second(store: MemoryStore, open_account: Open, clock: Clock) -> None:
    account = open_account()
    assert await rooms(account) == (20, 20)
    store.pause("acc", "rejected_key", "no", probe_after_s=PROBE_S)
    clock.now += 0.5
    assert await rooms(account) == (0, 0)
    store.resume("acc")
    clock.now += 0.5
    assert await rooms(account) == (20, 20), "and so is its end"


async def test_one_call_probes_for_all_lanes_and_workers(open_account: Open, clock: Clock) -> None:
    accounts = [open_account() for _ in range(3)]
    await blocked(accounts[0], "rejected_key")
    clock.now += PROBE_S
    assert await accounts[1].room(Lane.START, 5) == 0, "whoever has calls open hears of it soon enough"
    granted = [await account.room(lane, 0) for account in accounts for lane in Lane]
    assert sorted(granted) == [0, 0, 0, 0, 0, 1]
    clock.now += PROBE_S
    assert sum([await account.room(Lane.POLL, 0) for account in accounts]) == 1, "the next one in a while"


async def test_one_call_probes_a_protocol(open_account: Open, clock: Clock) -> None:
    accounts = [open_account() for _ in range(3)]
    await blocked(accounts[0], "endpoint_gone", "assistants")
    clock.now += PROBE_S
    for account in accounts:
        await account.room(Lane.START, 0)
    told = [await account.stopped("assistants") for account in accounts]
    assert sum(pause is None for pause in told) == 1


@pytest.mark.parametrize(
    ("code", "ends_by_poll"),
    [("rejected_key", True), ("forbidden_account", True), ("bad_address", True), ("quota_exhausted", False)],
)
async def test_a_free_answer_proves_the_key_and_not_the_credit(
    store: MemoryStore,
    open_account: Open,
    code: str,
    ends_by_poll: bool,  # noqa: FBT001  a parameter of the test
    clock: Clock,
) -> None:
    account = open_account()
    await blocked(account, code)
    await rooms(account)
    await account.answered("responses", begun=clock.now)
    assert (store.pauses() == []) is ends_by_poll
    await account.worked("responses", begun=clock.now)
    assert store.pauses() == [], "a run that was created proves everything"


async def test_a_reply_to_a_call_from_before_the_pause_does_not_end_it(
    store: MemoryStore, open_account: Open, clock: Clock
) -> None:
    """Given creates that are open when another is refused, then their replies say nothing of what came since."""
    account, begun = open_account(), clock.now
    clock.now += 1.0
    await blocked(account, "quota_exhausted")
    await rooms(account)
    await account.worked("responses", begun=begun)
    assert [pause.code for pause in store.pauses()] == ["quota_exhausted"]
    clock.now += PROBE_S
    await rooms(account)
    await account.worked("responses", begun=clock.now)
    assert store.pauses() == []


async def test_a_probe_that_met_no_job_or_only_a_free_call_is_given_back(open_account: Open, clock: Clock) -> None:
    """Given credit that is exhausted and jobs that have to be prepared first, then the next job is tried at once."""
    account, other = open_account(), open_account()
    await blocked(account, "quota_exhausted")
    clock.now += PROBE_S
    assert await account.room(Lane.START, 0) == 1
    assert await other.room(Lane.START, 0) == 0
    await account.answered("responses", begun=clock.now)
    await account.unused(Lane.POLL)
    assert await other.room(Lane.START, 0) == 0, "polls go on meanwhile and do not count"
    await account.unused(Lane.START)
    assert await other.room(Lane.START, 0) == 1
    assert await account.room(Lane.START, 0) == 0


async def test_a_probe_that_was_refused_is_not_given_back(open_account: Open, clock: Clock) -> None:
    account = open_account()
    await blocked(account, "quota_exhausted")
    clock.now += PROBE_S
    assert await account.room(Lane.START, 0) == 1
    account.tried(Lane.START)
    await blocked(account, "quota_exhausted")
    await account.unused(Lane.START)
    assert await account.room(Lane.START, 0) == 0
    clock.now += PROBE_S - 0.1
    assert await account.room(Lane.START, 0) == 0


async def test_being_limited_opens_fewer_calls_and_none_for_a_while(open_account: Open, clock: Clock) -> None:
    account = open_account()
    account.limited(2.0)
    account.limited(1.0)
    assert await rooms(account) == (0, 20), "polls are not what was refused"
    clock.now += 2.0
    assert await rooms(account) == (14, 20), "refusals that arrive together are one"
    for _ in range(200):
        await account.worked("responses", begun=clock.now)
    assert await rooms(account) == (20, 20), "and slowly more again, to what was allowed"
    for _ in range(20):
        clock.now += 10.0
        account.limited(1.0)
    clock.now += 1.0
    assert await account.room(Lane.START, 0) == 1, "never none"
