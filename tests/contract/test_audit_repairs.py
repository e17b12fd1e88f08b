"""The audit of the invariants puts right what the records prove."""

from __future__ import annotations

import pytest

from askq.ids import job_id, shard_of
from askq.jobs import keys, redis_audit
from askq.jobs.model import LANE_OF, PENDING, Answer, Lane, Outcome, State
from tests.contract.audit_stage import POISON, check_repaired, codes, end, sweep
from tests.contract.store_stage import (
    ALL,
    LONG,
    USAGE,
    RedisStage,
    answer_all,
    audit,
    bring,
    claim,
    in_shard,
    job_of,
    move,
    open_batch,
    question,
    status_of,
    submit,
)

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_job_that_is_due_nowhere_is_due_at_once(alone: RedisStage, state: State) -> None:
    batch = submit(alone.store, 20)
    job = job_id(batch, "q7")
    fence = bring(alone.store, job, state)
    alone.raw.zrem(keys.due(shard_of(job), LANE_OF[state]), job)
    assert job_of(alone.store, job).due_at is None
    (found,) = check_repaired(alone, sweep(alone.store), "unscheduled")
    assert (found.batch, found.jobs, found.count) == (batch, [job], 1)
    audit(alone, batch)
    assert claim(alone.store, job).fence > fence, "whoever held it is told apart by his fence"


@pytest.mark.parametrize("state", sorted(PENDING))
@pytest.mark.parametrize("both", [True, False])
def test_a_job_is_due_in_the_lane_of_its_state_alone(alone: RedisStage, state: State, *, both: bool) -> None:
    batch = submit(alone.store, 3)
    job = job_id(batch, "q1")
    bring(alone.store, job, state)
    due = job_of(alone.store, job).due_at
    (wrong,) = set(Lane) - {LANE_OF[state]}
    alone.raw.zadd(keys.due(shard_of(job), wrong), {job: due})
    if not both:
        alone.raw.zrem(keys.due(shard_of(job), LANE_OF[state]), job)
    (found,) = check_repaired(alone, sweep(alone.store), "wrong_lane")
    assert found.jobs == [job]
    audit(alone, batch)
    assert job_of(alone.store, job).due_at == pytest.approx(due, abs=1e-5), "the lease counts on"


@pytest.mark.parametrize("lane", Lane)
def test_an_ended_job_is_due_nowhere(alone: RedisStage, lane: Lane) -> None:
    batch = submit(alone.store, 3)
    job = job_id(batch, "q1")
    bring(alone.store, job, State.COMPLETED)
    alone.raw.zadd(keys.due(shard_of(job), lane), {job: 1.0})
    assert check_repaired(alone, sweep(alone.store), "ended_but_due")[0].jobs == [job]
    audit(alone, batch)


def test_what_is_due_without_a_record_is_forgotten(alone: RedisStage) -> None:
    batch = submit(alone.store, 2)
    stray = job_id(batch, "nobody")
    alone.raw.zadd(keys.due(shard_of(stray), Lane.POLL), {stray: 1.0})
    assert check_repaired(alone, sweep(alone.store), "due_without_record")[0].jobs == [stray]
    audit(alone, batch)


def test_a_job_missing_from_the_list_of_rows_is_put_back(alone: RedisStage) -> None:
    batch = submit(alone.store, 5)
    job = job_id(batch, "q3")
    alone.raw.zrem(keys.rows(shard_of(job), batch), "q3")
    assert len(list(alone.store.jobs(batch))) == 4
    assert check_repaired(alone, sweep(alone.store), "unlisted")[0].jobs == [job]
    assert [job.index for job in alone.store.jobs(batch)] == list(range(5))


def test_the_record_of_a_waiting_job_is_kept(alone: RedisStage) -> None:
    batch = submit(alone.store, 2)
    job = job_id(batch, "q1")
    for name in (keys.job(job), keys.ask(job)):
        alone.raw.expire(name, 1000)
    check_repaired(alone, sweep(alone.store), "pending_expires")
    assert [alone.raw.ttl(name) for name in (keys.job(job), keys.ask(job))] == [-1, -1]


def test_the_record_of_an_ended_job_expires(alone: RedisStage) -> None:
    batch = submit(alone.store, 2)
    job = job_id(batch, "q1")
    fence = bring(alone.store, job, State.RUNNING)
    move(alone.store, job, fence, "complete", answer=Answer(text="x"))
    own = (keys.job(job), keys.ask(job), keys.answer(job))
    for name in own:
        alone.raw.persist(name)
    check_repaired(alone, sweep(alone.store), "never_expires")
    month = 30 * 86_400
    assert all(month - 100 < alone.raw.ttl(name) <= month for name in own)


@pytest.mark.parametrize("page", [2, 100])
@pytest.mark.parametrize("name", [*State, "in", "cached", "out", "total", "cost"])
def test_a_counter_is_what_a_recount_gives(
    alone: RedisStage, monkeypatch: pytest.MonkeyPatch, name: str, page: int
) -> None:
    monkeypatch.setattr(redis_audit, "_PAGE", page)
    batch = open_batch(alone.store)
    rows = in_shard(batch, 5, 7)
    alone.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    alone.store.seal(batch, 7)
    end(alone.store, batch, rows[:3], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    before = status_of(alone.store, batch)
    if name == "cost":
        alone.raw.hincrbyfloat(keys.count(5, batch), name, 0.5)
    else:
        alone.raw.hincrby(keys.count(5, batch), name, 2)
    assert status_of(alone.store, batch) != before
    (found,) = check_repaired(alone, sweep(alone.store), "miscounted")
    assert found.batch == batch
    assert found.detail is not None
    assert found.detail.startswith(f"{name}: ")
    after = status_of(alone.store, batch)
    assert after.counts == before.counts
    assert after.usage.total_tokens == before.usage.total_tokens
    assert after.usage.cost_usd == pytest.approx(before.usage.cost_usd)


def test_counters_that_are_gone_are_counted_anew(alone: RedisStage) -> None:
    batch = submit(alone.store, 40)
    end(alone.store, batch, [f"q{index}" for index in range(10)], State.FAILED)
    before = status_of(alone.store, batch)
    for shard in ALL:
        alone.raw.delete(keys.count(shard, batch))
    check_repaired(alone, sweep(alone.store), "miscounted")
    assert status_of(alone.store, batch).counts == before.counts


def test_an_ended_state_with_too_many_is_set_to_what_it_can_have_been(alone: RedisStage) -> None:
    """Given ended jobs of which one has expired, then its row tells that it was counted once and not three times."""
    batch = submit(alone.store, 20)
    shard = shard_of(job_id(batch, "q0"))
    end(alone.store, batch, [f"q{index}" for index in range(20)], State.COMPLETED)
    alone.raw.delete(keys.job(job_id(batch, "q0")), keys.ask(job_id(batch, "q0")))
    before = status_of(alone.store, batch).counts
    alone.raw.hincrby(keys.count(shard, batch), "completed", 2)
    check_repaired(alone, sweep(alone.store), "miscounted")
    assert status_of(alone.store, batch).counts == before


def test_a_lock_that_would_never_end_is_removed(alone: RedisStage) -> None:
    alone.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    names = [keys.lease(4, Lane.POLL), keys.hint(Lane.START), keys.probe("acc"), keys.AUDIT_TURN, keys.clock(4)]
    held = [keys.lease(5, Lane.POLL), keys.hint(Lane.POLL)]
    for name in names:
        alone.raw.set(name, "somebody")
    for name in held:
        alone.raw.set(name, "somebody", px=60_000)
    found = check_repaired(alone, sweep(alone.store), "endless_lock")
    assert sum(finding.count for finding in found) == len(names)
    assert not alone.raw.exists(*names)
    assert alone.raw.exists(*held) == len(held), "what ends by itself is left alone"


def test_a_lock_that_would_last_too_long_is_removed(alone: RedisStage) -> None:
    """Given that the clock of the server was set back, then leases of seconds do not keep shards for hours."""
    alone.raw.set(keys.lease(4, Lane.POLL), "an execution that is gone", px=3_600_000)
    alone.raw.set(keys.AUDIT_TURN, "a worker that is gone", px=8_000_000)
    alone.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    found = check_repaired(alone, sweep(alone.store), "endless_lock")
    assert sum(finding.count for finding in found) == 2
    assert alone.raw.exists(keys.probe("acc"))


def test_entries_of_registers_that_cannot_be_right_are_removed(alone: RedisStage) -> None:
    """Given that the clock of the server was set back, then executions of the future keep no chain from starting."""
    alone.store.enlist(Lane.START, "alive", ttl_s=4)
    alone.raw.zadd(keys.chains(Lane.START), {"of the future": alone.now() + 4000})
    alone.raw.zadd(keys.chains(Lane.POLL), {"of the past": alone.now() - 4000})
    alone.raw.zadd(keys.NODES, {"of the past": alone.now() - 4000})
    assert alone.store.running(Lane.START) == 2
    found = check_repaired(alone, sweep(alone.store), "leftover")
    assert sum(finding.count for finding in found) == 2
    assert alone.store.running(Lane.START) == 1


def test_dead_letters_are_filed_as_their_records_say(alone: RedisStage) -> None:
    batch = submit(alone.store, 4)
    dead, expired = end(alone.store, batch, ["q1", "q3"], State.FAILED, fields=POISON)
    (alive,) = end(alone.store, batch, ["q2"], State.FAILED)
    assert alone.store.dead_letters().keys() == {dead, expired}
    sweep(alone.store)
    when = alone.store.dead_letters()[dead]
    alone.raw.delete(keys.job(expired), keys.ask(expired))
    alone.raw.zrem(keys.dead(shard_of(dead)), dead)
    alone.raw.zadd(keys.dead(shard_of(alive)), {alive: 1.0})
    report = sweep(alone.store)
    assert codes(report) == {"misfiled": 2, "poison": 1}
    assert alone.store.dead_letters() == {dead: pytest.approx(when, abs=1e-5)}
    assert codes(sweep(alone.store)) == {"poison": 1}


def test_what_is_put_aside_for_ended_jobs_is_settled(alone: RedisStage) -> None:
    """Given a worker that died between the end of a batch's last job and its settling, then it is settled later."""
    batch = submit(alone.store, 2)
    alone.store.set_budget(batch, 1.0)
    assert alone.store.reserve(job_id(batch, "q0"), 1, 0.25)
    end(alone.store, batch, ["q0", "q1"], State.FAILED)
    assert sweep(alone.store).findings == [], "whoever ended it may be about to settle it"
    for shard in ALL:
        if alone.raw.exists(keys.count(shard, batch)):
            alone.raw.hset(keys.count(shard, batch), "finished", f"{alone.now() - 100:.6f}")
    (found,) = check_repaired(alone, sweep(alone.store), "reserved_left")
    assert found.detail == "$0.2500"
    budget = status_of(alone.store, batch).budget
    assert budget is not None
    assert budget.reserved_usd == 0


def test_what_was_used_before_a_job_was_asked_again_stays_counted(alone: RedisStage) -> None:
    batch = submit(alone.store, 3)
    (job,) = end(alone.store, batch, ["q1"], State.FAILED, answer=Answer(text=None, usage=USAGE))
    end(alone.store, batch, ["q2"], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    before = status_of(alone.store, batch)
    assert alone.store.retry([job], [State.FAILED]) == [Outcome.MOVED]
    assert sweep(alone.store).findings == []
    end(alone.store, batch, ["q1"], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    assert sweep(alone.store).findings == []
    used = status_of(alone.store, batch).usage.total_tokens
    assert (before.usage.total_tokens, used) == (2 * USAGE.total_tokens, 3 * USAGE.total_tokens)
    alone.raw.hset(keys.count(shard_of(job), batch), "total", 5)
    assert check_repaired(alone, sweep(alone.store), "miscounted")


def test_a_dry_run_finds_all_of_it_and_changes_nothing(alone: RedisStage) -> None:
    batch = submit(alone.store, 10)
    unscheduled, ended = job_id(batch, "q1"), job_id(batch, "q2")
    alone.raw.zrem(keys.due(shard_of(unscheduled), Lane.START), unscheduled)
    bring(alone.store, ended, State.FAILED)
    alone.raw.zadd(keys.due(shard_of(ended), Lane.START), {ended: 1.0, job_id(batch, "nobody"): 1.0})
    alone.raw.persist(keys.job(ended))
    alone.raw.hincrby(keys.count(shard_of(ended), batch), "failed", 1)
    alone.raw.set(keys.lease(1, Lane.START), "somebody")
    before = alone.everything()
    report = sweep(alone.store, repair=False)
    assert alone.everything() == before
    assert not any(finding.repaired for finding in report.findings)
    assert len(report.attention) == len(report.findings)
    assert codes(report).keys() == {
        "unscheduled", "ended_but_due", "due_without_record", "never_expires", "miscounted", "endless_lock",
    }  # fmt: skip
    mended = sweep(alone.store)
    assert codes(mended).keys() == codes(report).keys()
    assert sweep(alone.store).findings == []


def test_ended_states_with_too_many_that_have_expired_are_told(alone: RedisStage) -> None:
    """Given two ended states with more counted than rows can tell of, then nobody can say which is wrong."""
    batch = open_batch(alone.store)
    rows = in_shard(batch, 9, 6)
    alone.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    expired = end(alone.store, batch, rows[:2], State.COMPLETED) + end(alone.store, batch, rows[2:4], State.FAILED)
    for job in expired:
        alone.raw.delete(keys.job(job), keys.ask(job))
    alone.raw.hincrby(keys.count(9, batch), "failed", 3)
    (found,) = sweep(alone.store).findings
    assert (found.code, found.batch, found.attention) == ("uncountable", batch, True)
    assert found.detail == "3 more ended than there are rows"


def test_a_batch_whose_time_is_up_is_not_mourned(alone: RedisStage) -> None:
    """Given a marked batch whose keys go one after the other, when it is audited between two, then nothing is wrong."""
    batch = submit(alone.store, 40)
    answer_all(alone.store, batch)
    assert alone.store.tidy(keep_s=8) == 1
    for shard in ALL[::2]:
        alone.raw.delete(keys.count(shard, batch))
    for job in list(alone.store.jobs(batch)):
        alone.raw.delete(keys.job(job.id), keys.ask(job.id), keys.answer(job.id))
    assert sweep(alone.store, closed=True).findings == []
    for shard in ALL[1::2]:
        alone.raw.delete(keys.count(shard, batch), keys.rows(shard, batch))
    assert sweep(alone.store, closed=True).findings == []
