"""Budgets: exact to a millionth of a dollar, never exceeded however many ask at once, in every store."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from askq.ids import job_id
from askq.jobs import forgetting, keys
from askq.jobs.model import Budget, Move, NewBatch, Outcome, State
from askq.jobs.store import Store
from tests.contract.store_stage import LONG, RedisStage, Stage, claim, move, question, status_of, submit

MILLIONTH = 1e-6


def bounded(store: Store, rows: int, limit_usd: float, *, key: str | None = None) -> tuple[str, list[str]]:
    """A sealed batch with a budget, and its jobs."""
    batch, _ = store.open_batch(
        NewBatch(name=None, assistant="a", protocol="responses", max_cost_usd=limit_usd, idempotency_key=key)
    )
    store.add(batch, [question(index) for index in range(rows)])
    store.seal(batch, rows)
    return batch, [job_id(batch, f"q{index}") for index in range(rows)]


def budget(store: Store, batch: str) -> Budget:
    found = status_of(store, batch).budget
    assert found is not None
    return found


def spent_and_reserved(store: Store, batch: str) -> tuple[float, float]:
    found = budget(store, batch)
    return found.spent_usd, found.reserved_usd


def finish(store: Store, job: str, name: str, *, attempts: int, cost: float | None = None) -> None:
    """Let a job end as a worker does that dies before it settles."""
    fence = claim(store, job, lease_s=0).fence
    fields: dict[str, str | int | float | None] = {"attempts": attempts}
    if cost is not None:
        fields["cost"] = cost
    for step in ("intend", name) if name != "fail" else ("fail",):
        assert move(store, job, fence, step, delay=LONG, fields=fields) is Outcome.MOVED


def test_an_attempt_is_put_aside_once_and_refused_beyond_the_bound(stage: Stage) -> None:
    store = stage.store
    batch, (a, b, c) = bounded(store, 3, 1.0)
    assert store.reserve(a, 1, 0.6)
    assert store.reserve(a, 1, 0.6), "the same attempt again"
    assert store.reserve(a, 1, 9.0), "whatever it says now: it was put aside before"
    assert spent_and_reserved(store, batch) == (0.0, 0.6)
    assert budget(store, batch).refused_at is None
    assert not store.reserve(b, 1, 0.400001)
    assert spent_and_reserved(store, batch) == (0.0, 0.6), "a refusal puts nothing aside"
    assert store.reserve(c, 1, 0.4), "to the last millionth"
    assert not store.reserve(b, 1, MILLIONTH)
    store.settle(a, 1, 0.1)
    assert spent_and_reserved(store, batch) == (0.1, 0.4)
    assert store.reserve(b, 1, 0.400001), "refused and later granted"
    assert spent_and_reserved(store, batch) == (0.1, 0.800001)


def test_a_new_attempt_replaces_the_old_whose_cost_nobody_knows(stage: Stage) -> None:
    store = stage.store
    batch, (a, _) = bounded(store, 2, 1.0)
    assert store.reserve(a, 1, 0.3)
    assert store.reserve(a, 2, 0.2)
    assert spent_and_reserved(store, batch) == (0.3, 0.2)
    store.settle(a, 1, 0.0)
    assert spent_and_reserved(store, batch) == (0.3, 0.2), "the first attempt is settled already"
    assert not store.reserve(a, 3, 0.6)
    assert spent_and_reserved(store, batch) == (0.5, 0.0), "refused, and the attempt before counts"
    store.settle(a, 3, 0.1)
    store.settle(a, 2, 0.1)
    assert spent_and_reserved(store, batch) == (0.5, 0.0)


def test_what_nobody_knows_counts_in_full(stage: Stage) -> None:
    store = stage.store
    batch, (a, b) = bounded(store, 2, 1.0)
    assert store.reserve(a, 1, 0.25)
    assert store.reserve(b, 1, 0.25)
    store.settle(a, 1, None)
    store.settle(b, 1, 0.30)
    assert spent_and_reserved(store, batch) == (0.55, 0.0), "what it has cost is the truth, though it was more"


@pytest.mark.parametrize("usd", [0.07, 0.29, 0.57, 1.1, 4.03, 8.21, 0.000001, 1234.56, 1 / 3])
def test_a_bound_is_never_more_than_was_said_and_sums_are_exact(stage: Stage, usd: float) -> None:
    store = stage.store
    batch, jobs = bounded(store, 20, usd)
    limit = round(budget(store, batch).limit_usd / MILLIONTH)
    assert limit == math.floor(round(usd * 1e6, 3))
    assert limit * MILLIONTH <= usd + 1e-12
    assert store.reserve(jobs[0], 1, limit / 1e6), "all of it in one go"
    assert not store.reserve(jobs[1], 1, MILLIONTH)
    store.settle(jobs[0], 1, 0.0)
    for number in range(10):
        assert store.reserve(jobs[number], 2, 0.0)
    assert spent_and_reserved(store, batch) == (0.0, 0.0)


def test_a_part_of_a_millionth_counts_as_one(stage: Stage) -> None:
    store = stage.store
    batch, jobs = bounded(store, 3, 3 * MILLIONTH)
    for job in jobs:
        assert store.reserve(job, 1, 0.4 * MILLIONTH)
    assert not store.reserve(jobs[0], 2, 0.4 * MILLIONTH), "its first attempt counts"
    for job in jobs[1:]:
        store.settle(job, 1, 0.1 * MILLIONTH)
    assert spent_and_reserved(store, batch) == (3 * MILLIONTH, 0.0)


def test_ten_tenths_are_one(stage: Stage) -> None:
    batch, jobs = bounded(stage.store, 11, 1.0)
    assert [stage.store.reserve(job, 1, 0.1) for job in jobs] == [True] * 10 + [False]
    for job in jobs[:10]:
        stage.store.settle(job, 1, 0.1)
    assert spent_and_reserved(stage.store, batch) == (1.0, 0.0)


def test_however_many_ask_at_once_the_bound_holds(stage: Stage) -> None:
    """Given eight who reserve, settle and look, then spent and put aside together are never above the bound."""
    batch, jobs = bounded(stage.store, 64, 1.0)
    stores, gate, seen = [stage.another() for _ in range(8)], threading.Barrier(9), list[float]()

    def work(store: Store, mine: list[str]) -> int:
        gate.wait(60)
        granted = 0
        for attempt in (1, 2, 3):
            for job in mine:
                if store.reserve(job, attempt, 0.07):
                    granted += 1
                    store.settle(job, attempt, 0.03 if attempt < 3 else None)
        return granted

    def look(store: Store) -> None:
        gate.wait(60)
        for _ in range(40):
            found = budget(store, batch)
            seen.append(found.spent_usd + found.reserved_usd)

    with ThreadPoolExecutor(9) as pool:
        watcher = pool.submit(look, stage.another())
        working = [pool.submit(work, store, jobs[nth::8]) for nth, store in enumerate(stores)]
        granted = sum(each.result() for each in working)
        watcher.result()
    assert max(seen) <= 1.0 + 1e-9
    spent, reserved = spent_and_reserved(stage.store, batch)
    assert reserved == 0.0
    assert 1.0 - 0.07 < spent <= 1.0, "used up, and never more"
    assert 14 <= granted <= 33


def test_a_refusal_is_on_record_until_something_is_granted_or_freed(stage: Stage) -> None:
    store = stage.store
    batch, (a, b, _) = bounded(store, 3, 0.1)
    assert store.reserve(a, 1, 0.06)
    before = stage.now()
    assert not store.reserve(b, 1, 0.06)
    refused = budget(store, batch)
    assert refused.refused_at is not None
    assert int(before) <= refused.refused_at <= stage.now()
    assert refused.waiting_s >= 0
    stage.pass_time(1.1)
    assert not store.reserve(b, 1, 0.06)
    assert budget(store, batch).refused_at == refused.refused_at, "since then"
    assert budget(store, batch).waiting_s >= 1.0
    (pause,) = status_of(store, batch).paused
    assert (pause.account, pause.code) == (batch, "budget_exceeded")
    assert "$0.0600\nput aside" in pause.message.replace(" put", "\nput")
    store.settle(a, 1, 0.05)
    assert status_of(store, batch).paused == (), "whoever waits has to ask again"
    assert not store.reserve(b, 1, 0.06)
    store.set_budget(batch, 0.2)
    assert budget(store, batch) == Budget(limit_usd=0.2, spent_usd=0.05, reserved_usd=0.0)
    assert store.reserve(b, 1, 0.06)


def test_a_batch_is_at_its_budget_only_when_nobody_can_go_on_by_himself(stage: Stage) -> None:
    store = stage.store
    batch, (a, b) = bounded(store, 2, 0.1)
    taken = claim(store, a)
    assert store.reserve(a, 1, 0.06)
    move(store, a, taken.fence, "intend", delay=LONG, fields={"attempts": 1})
    assert not store.reserve(b, 1, 0.06)
    stage.pass_time(0.01)
    assert not status_of(store, batch).at_its_budget, "one is under way"
    assert move(store, a, taken.fence, "complete", fields={"cost": 0.01}) is Outcome.MOVED
    assert not status_of(store, batch).at_its_budget, "it has something put aside yet"
    assert store.reconcile_budget(batch) == 1
    assert not status_of(store, batch).at_its_budget, "the other will be granted when it asks again"
    assert store.reserve(b, 1, 0.06)
    store.settle(b, 1, 0.06)
    assert not store.reserve(b, 2, 0.06)
    assert not status_of(store, batch).at_its_budget, "others may not have asked yet"


def test_a_batch_that_nobody_has_gone_on_with_for_a_while_is_at_its_budget() -> None:
    from tests.contract.store_stage import MemoryStage

    stage = MemoryStage()
    batch, (a, _) = bounded(stage.store, 2, 0.1)
    assert not stage.store.reserve(a, 1, 0.2)
    stage.pass_time(6.9)
    assert not status_of(stage.store, batch).at_its_budget
    stage.pass_time(0.1)
    assert status_of(stage.store, batch).at_its_budget
    stage.store.cancel([job.id for job in stage.store.jobs(batch)])
    assert not status_of(stage.store, batch).at_its_budget, "it is done"


def test_what_dead_workers_left_aside_is_settled_by_the_records(stage: Stage) -> None:
    store = stage.store
    batch, (paid, unknown, never, going, other) = bounded(store, 5, 1.0)
    for job in (paid, unknown, never, going, other):
        assert store.reserve(job, 1, 0.2)
    finish(store, paid, "complete", attempts=1, cost=0.05)
    finish(store, unknown, "complete", attempts=1)
    finish(store, never, "fail", attempts=0)
    assert store.reconcile_budget(batch, only=going) == 0, "it has not ended"
    assert store.reconcile_budget(batch, only=paid) == 1
    assert spent_and_reserved(store, batch) == (0.05, 0.8)
    assert store.reconcile_budget(batch) == 2
    assert spent_and_reserved(store, batch) == (0.25, 0.4), "nothing for what was never made, all for what nobody knows"
    assert store.reconcile_budget(batch) == 0


def test_a_job_whose_record_is_gone_counts_in_full(behind: RedisStage) -> None:
    batch, (gone, _) = bounded(behind.store, 2, 1.0)
    assert behind.store.reserve(gone, 1, 0.2)
    behind.raw.delete(keys.job(gone))
    assert behind.store.reconcile_budget(batch) == 1
    assert spent_and_reserved(behind.store, batch) == (0.2, 0.0)


def test_a_job_asked_again_has_a_reservation_of_its_own(stage: Stage) -> None:
    store = stage.store
    batch, (a,) = bounded(store, 1, 1.0)
    assert store.reserve(a, 1, 0.2)
    fence = claim(store, a, lease_s=0).fence
    for name in ("intend", "fail"):
        move(store, a, fence, name, delay=LONG, fields={"attempts": 1, "cost": 0.05})
    assert store.reconcile_budget(batch) == 1
    assert store.retry([a], [State.FAILED]) == [Outcome.MOVED]
    taken = claim(store, a)
    assert store.reserve(a, taken.attempts + 1, 0.3)
    assert spent_and_reserved(store, batch) == (0.05, 0.3)
    assert store.reconcile_budget(batch) == 0, "it is pending again"


def test_a_batch_without_a_budget_is_not_bounded_and_gets_none_by_the_way(stage: Stage) -> None:
    store = stage.store
    new = NewBatch(name=None, assistant="a", protocol="responses", idempotency_key="k")
    batch, _ = store.open_batch(new)
    store.add(batch, [question(0)])
    store.seal(batch, 1)
    job = job_id(batch, "q0")
    assert store.reserve(job, 1, 1e6)
    store.settle(job, 1, 1e6)
    assert store.reconcile_budget(batch) == 0
    assert status_of(store, batch).budget is None
    again = NewBatch(name=None, assistant="a", protocol="responses", idempotency_key="k", max_cost_usd=1.0)
    assert store.open_batch(again) == (batch, False)
    assert status_of(store, batch).budget is None, "the same key changes nothing"
    _, (other,) = bounded(store, 1, 1.0, key="K")
    assert not store.reserve(other, 1, 1.1)


def test_the_key_of_a_batch_with_a_budget_leaves_it_as_it_is(stage: Stage) -> None:
    batch, _ = bounded(stage.store, 1, 1.0, key="k")
    new = NewBatch(name=None, assistant="a", protocol="responses", idempotency_key="k", max_cost_usd=5.0)
    assert stage.store.open_batch(new) == (batch, False)
    assert budget(stage.store, batch).limit_usd == 1.0


def test_a_budget_goes_with_its_batch(stage: Stage) -> None:
    store = stage.store
    batch, (a,) = bounded(store, 1, 1.0)
    assert store.reserve(a, 1, 0.1)
    fence = claim(store, a, lease_s=0).fence
    store.commit([Move(job=a, fence=fence, name="fail")])
    assert store.tidy(keep_s=1) == 1
    stage.pass_time(1.1)
    store.tidy(keep_s=1)
    assert store.batch(batch) is None
    assert store.reserve(a, 2, 5.0), "there is no bound any more"
    store.settle(a, 1, 5.0)
    assert store.reconcile_budget(batch) == 0
    if isinstance(stage, RedisStage):
        assert not stage.raw.exists(keys.budget(batch)), "and nothing comes back"


def test_what_is_asked_again_is_counted_once_until_a_person_resumes_and_goes_with_its_batch(stage: Stage) -> None:
    store = stage.store
    batch, other = submit(store, 2), submit(store, 1)
    one, two = store.job_ids(batch)
    counts = [
        store.asked_again(one, 2),
        store.asked_again(one, 2),
        store.asked_again(two, 2),
        store.asked_again(one, 3),
    ]
    assert counts == [1, 1, 2, 3]
    assert stage.another().asked_again(next(iter(store.job_ids(other))), 2) == 1
    store.pause(batch, "asked_again", "why", probe_after_s=1.0)
    paused = [bool(status.paused) for id_ in (batch, other) if (status := store.batch(id_)) is not None]
    assert paused == [True, False]
    assert store.resume(batch)
    assert store.asked_again(two, 3) == 1, "counted anew"
    store.pause(batch, "asked_again", "why", probe_after_s=1.0)
    store.cancel([one, two])
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 0
    assert store.pauses() == []
    assert store.asked_again(two, 3) == 1


def test_who_counts_at_the_moment_a_batch_is_resumed_does_not_pause_it_again(
    alone: RedisStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other, counts = alone.store, alone.another(), list[int]()
    batch = submit(store, 2)
    one, two = store.job_ids(batch)
    store.asked_again(one, 2)
    store.pause(batch, "asked_again", "why", probe_after_s=1.0)
    end = store._redis.hdel

    def end_and_be_slow(*names: str) -> object:
        found = end(*names)
        counts.append(other.asked_again(two, 2))
        return found

    monkeypatch.setattr(store._redis, "hdel", end_and_be_slow)
    assert store.resume(batch)
    assert counts == [1], "it counts anew"
