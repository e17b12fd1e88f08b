"""The audit of the invariants: what is broken by hand is found and put right, and what is in order is left alone."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant
from askq.errors import NotFound
from askq.ids import job_id, shard_of
from askq.jobs import keys, redis_audit
from askq.jobs.audit import KINDS, SAMPLE, Finding, LastAudit, Report
from askq.jobs.auditor import Auditor
from askq.jobs.limits import Bound, Heard, Scope
from askq.jobs.model import ASKED_AGAIN, LANE_OF, MOVES, PENDING, Answer, Lane, Node, Outcome, State, Usage
from askq.jobs.objects import Kind, RemoteObject
from askq.jobs.store import Store
from tests.conftest import StartRedis
from tests.contract.store_stage import (
    ALL,
    LONG,
    MemoryStage,
    RedisStage,
    Stage,
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
    way_to,
)
from tests.parts import RedisServer, redis_binaries

SERVERS = tuple(redis_binaries())
POISON = {"error_code": "poison"}
USAGE = Usage(input_tokens=7, cached_tokens=2, output_tokens=3, total_tokens=10, cost_usd=0.00125)


@pytest.fixture(params=SERVERS)
def behind(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> Iterator[RedisStage]:
    made = RedisStage(redis_servers(request.param))
    yield made
    made.close()


def sweep(store: Store, **how: Any) -> Report:
    """An audit of everything, without what it says of the test's server, which keeps nothing on purpose."""
    report = Auditor(store, by="test", **how).run()
    report.findings = [finding for finding in report.findings if finding.code != "unsafe_server"]
    return report


def end(store: Store, batch: str, rows: Sequence[str], state: State, **more: Any) -> list[str]:
    """End these rows of a batch, and leave the others as they are; the ids of their jobs."""
    jobs = [job_id(batch, row) for row in rows]
    for job in jobs:
        fence = claim(store, job, lease_s=0).fence
        *way, last = way_to(state)
        for name in way:
            assert move(store, job, fence, name) is Outcome.MOVED
        assert move(store, job, fence, last, **more) is Outcome.MOVED
    return jobs


def codes(report: Report) -> dict[str, int]:
    """How often each kind was found."""
    found: dict[str, int] = {}
    for finding in report.findings:
        found[finding.code] = found.get(finding.code, 0) + finding.count
    return found


def check_repaired(stage: Stage, report: Report, *wanted: str) -> Sequence[Finding]:
    """These were found and put right, and now everything is in order."""
    assert sorted(codes(report)) == sorted(wanted)
    assert all(finding.repaired and not finding.attention for finding in report.findings)
    assert sweep(stage.store, closed=True).findings == []
    return report.findings


# -- what is in order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_a_job_in_order_is_found_in_order(stage: Stage, state: State) -> None:
    batch = submit(stage.store, 3)
    bring(stage.store, job_id(batch, "q1"), state)
    before = stage.everything()
    report = sweep(stage.store)
    assert (report.findings, report.batches, report.rows, report.unsettled) == ([], 1, 3, 0)
    assert report.finished_at is not None
    assert report.started_at <= report.finished_at <= stage.now()
    assert stage.everything() == before, "nothing is touched"


def test_nothing_at_all_is_in_order(stage: Stage) -> None:
    report = sweep(stage.store)
    assert (report.findings, report.batches, report.rows) == ([], 0, 0)


def test_a_batch_being_submitted_is_in_order(stage: Stage) -> None:
    batch = open_batch(stage.store)
    stage.store.add(batch, [question(index) for index in range(5)])
    assert sweep(stage.store).findings == []


def test_ended_jobs_that_have_expired_are_no_loss(redis_servers: Callable[[str], RedisServer]) -> None:
    """Given results that went before their batch did, then the counters are not taken for wrong."""
    stage = RedisStage(redis_servers(SERVERS[0]))
    try:
        batch = submit(stage.store, 60)
        jobs = end(stage.store, batch, [f"q{index}" for index in range(20)], State.COMPLETED)
        jobs += end(stage.store, batch, [f"q{index}" for index in range(20, 40)], State.FAILED)
        for job in jobs[::2]:
            stage.raw.delete(keys.job(job), keys.ask(job), keys.answer(job))
        before = stage.everything()
        assert sweep(stage.store).findings == []
        assert stage.everything() == before
    finally:
        stage.close()


@pytest.mark.parametrize("page", [5, 100])
def test_no_false_alarm_while_jobs_move(behind: RedisStage, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """Given threads that submit, claim, move, cancel and ask again, when audits run, then they find nothing wrong.

    Some shards are small enough for one step, others are read in many.
    """
    monkeypatch.setattr(redis_audit, "_PAGE", page)
    batches = [submit(behind.store, 160, key=str(number)) for number in range(3)]
    stop, moved, again = threading.Event(), list[bool](), list[Outcome]()

    def work(seed: int) -> None:
        pick, store = random.Random(seed), behind.another()
        while not stop.is_set():
            for lane in Lane:
                for taken in store.claim(lane, ALL, limit=20, lease_s=0):
                    apt = [rule.name for rule in MOVES.values() if taken.state in rule.sources]
                    going_on = [name for name in apt if MOVES[name].target in (PENDING | {None})]
                    name = pick.choice(apt if pick.random() < 0.03 else going_on)
                    answer = Answer(text="x", usage=USAGE) if name == "complete" else None
                    outcome = move(store, taken.id, taken.fence, name, answer=answer)
                    moved.append(outcome is Outcome.MOVED)
                    if pick.random() < 0.1:
                        store.cancel([taken.id])
                    if MOVES[name].target in ASKED_AGAIN and pick.random() < 0.7:
                        again.extend(store.retry([taken.id], ASKED_AGAIN))

    def grow() -> None:
        store = behind.another()
        for index in range(160, 400):
            if stop.is_set():
                return
            store.add(batches[0], [question(index)])
            store.seal(batches[0], index + 1)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, seed) for seed in range(3)] + [pool.submit(grow)]
        try:
            reports = []
            while len(reports) < 6 or not (len(moved) > 300 and Outcome.MOVED in again):
                reports.append(sweep(behind.store))
                assert len(reports) < 200, "the threads get nowhere"
        finally:
            stop.set()
        for one in working:
            one.result(timeout=30)
    assert any(moved)
    assert [found for report in reports for found in report.findings] == []
    assert all(report.rows >= 480 for report in reports)
    audit(behind, *batches)
    last = sweep(behind.store)
    assert (last.findings, last.unsettled) == ([], 0)


def test_counters_that_change_all_the_time_are_not_judged(behind: RedisStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a shard of many pages whose counters change between two of them, then it is left for another time."""
    monkeypatch.setattr(redis_audit, "_PAGE", 2)
    batch = open_batch(behind.store)
    rows = in_shard(batch, 3, 7)
    behind.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    behind.store.seal(batch, 7)
    books, source = behind.store.books(), redis_audit.RedisBooks._rows
    disturb = True

    def meddle(self: Any, *args: Any, **how: Any) -> Any:
        if disturb:
            behind.raw.hincrby(keys.count(3, batch), "queued", 1)
            behind.raw.hincrby(keys.count(3, batch), "queued", -1)
        return source(self, *args, **how)

    monkeypatch.setattr(redis_audit.RedisBooks, "_rows", meddle)
    *_, found = books.recount(batch, [3], repair=True, tries=2)
    assert found is not None
    assert (found.settled, found.facts) == (False, [])
    disturb = False
    *_, found = books.recount(batch, [3], repair=True, tries=2)
    assert found is not None
    assert (found.settled, found.rows, found.facts) == (True, 7, [])


# -- what is put right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_job_that_is_due_nowhere_is_due_at_once(behind: RedisStage, state: State) -> None:
    batch = submit(behind.store, 20)
    job = job_id(batch, "q7")
    fence = bring(behind.store, job, state)
    behind.raw.zrem(keys.due(shard_of(job), LANE_OF[state]), job)
    assert job_of(behind.store, job).due_at is None
    (found,) = check_repaired(behind, sweep(behind.store), "unscheduled")
    assert (found.batch, found.jobs, found.count) == (batch, [job], 1)
    audit(behind, batch)
    assert claim(behind.store, job).fence > fence, "whoever held it is told apart by his fence"


@pytest.mark.parametrize("state", sorted(PENDING))
@pytest.mark.parametrize("both", [True, False])
def test_a_job_is_due_in_the_lane_of_its_state_alone(behind: RedisStage, state: State, *, both: bool) -> None:
    batch = submit(behind.store, 3)
    job = job_id(batch, "q1")
    bring(behind.store, job, state)
    due = job_of(behind.store, job).due_at
    (wrong,) = set(Lane) - {LANE_OF[state]}
    behind.raw.zadd(keys.due(shard_of(job), wrong), {job: due})
    if not both:
        behind.raw.zrem(keys.due(shard_of(job), LANE_OF[state]), job)
    (found,) = check_repaired(behind, sweep(behind.store), "wrong_lane")
    assert found.jobs == [job]
    audit(behind, batch)
    assert job_of(behind.store, job).due_at == pytest.approx(due, abs=1e-5), "the lease counts on"


@pytest.mark.parametrize("lane", Lane)
def test_an_ended_job_is_due_nowhere(behind: RedisStage, lane: Lane) -> None:
    batch = submit(behind.store, 3)
    job = job_id(batch, "q1")
    bring(behind.store, job, State.COMPLETED)
    behind.raw.zadd(keys.due(shard_of(job), lane), {job: 1.0})
    assert check_repaired(behind, sweep(behind.store), "ended_but_due")[0].jobs == [job]
    audit(behind, batch)


def test_what_is_due_without_a_record_is_forgotten(behind: RedisStage) -> None:
    batch = submit(behind.store, 2)
    stray = job_id(batch, "nobody")
    behind.raw.zadd(keys.due(shard_of(stray), Lane.POLL), {stray: 1.0})
    assert check_repaired(behind, sweep(behind.store), "due_without_record")[0].jobs == [stray]
    audit(behind, batch)


def test_a_job_missing_from_the_list_of_rows_is_put_back(behind: RedisStage) -> None:
    batch = submit(behind.store, 5)
    job = job_id(batch, "q3")
    behind.raw.zrem(keys.rows(shard_of(job), batch), "q3")
    assert len(list(behind.store.jobs(batch))) == 4
    assert check_repaired(behind, sweep(behind.store), "unlisted")[0].jobs == [job]
    assert [job.index for job in behind.store.jobs(batch)] == list(range(5))


def test_the_record_of_a_waiting_job_is_kept(behind: RedisStage) -> None:
    batch = submit(behind.store, 2)
    job = job_id(batch, "q1")
    for name in (keys.job(job), keys.ask(job)):
        behind.raw.expire(name, 1000)
    check_repaired(behind, sweep(behind.store), "pending_expires")
    assert [behind.raw.ttl(name) for name in (keys.job(job), keys.ask(job))] == [-1, -1]


def test_the_record_of_an_ended_job_expires(behind: RedisStage) -> None:
    batch = submit(behind.store, 2)
    job = job_id(batch, "q1")
    fence = bring(behind.store, job, State.RUNNING)
    move(behind.store, job, fence, "complete", answer=Answer(text="x"))
    own = (keys.job(job), keys.ask(job), keys.answer(job))
    for name in own:
        behind.raw.persist(name)
    check_repaired(behind, sweep(behind.store), "never_expires")
    month = 30 * 86_400
    assert all(month - 100 < behind.raw.ttl(name) <= month for name in own)


@pytest.mark.parametrize("page", [2, 100])
@pytest.mark.parametrize("name", [*State, "in", "cached", "out", "total", "cost"])
def test_a_counter_is_what_a_recount_gives(
    behind: RedisStage, monkeypatch: pytest.MonkeyPatch, name: str, page: int
) -> None:
    monkeypatch.setattr(redis_audit, "_PAGE", page)
    batch = open_batch(behind.store)
    rows = in_shard(batch, 5, 7)
    behind.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    behind.store.seal(batch, 7)
    end(behind.store, batch, rows[:3], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    before = status_of(behind.store, batch)
    if name == "cost":
        behind.raw.hincrbyfloat(keys.count(5, batch), name, 0.5)
    else:
        behind.raw.hincrby(keys.count(5, batch), name, 2)
    assert status_of(behind.store, batch) != before
    (found,) = check_repaired(behind, sweep(behind.store), "miscounted")
    assert found.batch == batch
    assert found.detail is not None
    assert found.detail.startswith(f"{name}: ")
    after = status_of(behind.store, batch)
    assert after.counts == before.counts
    assert after.usage.total_tokens == before.usage.total_tokens
    assert after.usage.cost_usd == pytest.approx(before.usage.cost_usd)


def test_counters_that_are_gone_are_counted_anew(behind: RedisStage) -> None:
    batch = submit(behind.store, 40)
    end(behind.store, batch, [f"q{index}" for index in range(10)], State.FAILED)
    before = status_of(behind.store, batch)
    for shard in ALL:
        behind.raw.delete(keys.count(shard, batch))
    check_repaired(behind, sweep(behind.store), "miscounted")
    assert status_of(behind.store, batch).counts == before.counts


def test_an_ended_state_with_too_many_is_set_to_what_it_can_have_been(behind: RedisStage) -> None:
    """Given ended jobs of which one has expired, then its row tells that it was counted once and not three times."""
    batch = submit(behind.store, 20)
    shard = shard_of(job_id(batch, "q0"))
    end(behind.store, batch, [f"q{index}" for index in range(20)], State.COMPLETED)
    behind.raw.delete(keys.job(job_id(batch, "q0")), keys.ask(job_id(batch, "q0")))
    before = status_of(behind.store, batch).counts
    behind.raw.hincrby(keys.count(shard, batch), "completed", 2)
    check_repaired(behind, sweep(behind.store), "miscounted")
    assert status_of(behind.store, batch).counts == before


def test_a_lock_that_would_never_end_is_removed(behind: RedisStage) -> None:
    behind.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    names = [keys.lease(4, Lane.POLL), keys.hint(Lane.START), keys.probe("acc"), keys.AUDIT_TURN, keys.clock(4)]
    held = [keys.lease(5, Lane.POLL), keys.hint(Lane.POLL)]
    for name in names:
        behind.raw.set(name, "somebody")
    for name in held:
        behind.raw.set(name, "somebody", px=60_000)
    found = check_repaired(behind, sweep(behind.store), "endless_lock")
    assert sum(finding.count for finding in found) == len(names)
    assert not behind.raw.exists(*names)
    assert behind.raw.exists(*held) == len(held), "what ends by itself is left alone"


def test_a_lock_that_would_last_too_long_is_removed(behind: RedisStage) -> None:
    """Given that the clock of the server was set back, then leases of seconds do not keep shards for hours."""
    behind.raw.set(keys.lease(4, Lane.POLL), "an execution that is gone", px=3_600_000)
    behind.raw.set(keys.AUDIT_TURN, "a worker that is gone", px=8_000_000)
    behind.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    found = check_repaired(behind, sweep(behind.store), "endless_lock")
    assert sum(finding.count for finding in found) == 2
    assert behind.raw.exists(keys.probe("acc"))


def test_entries_of_registers_that_cannot_be_right_are_removed(behind: RedisStage) -> None:
    """Given that the clock of the server was set back, then executions of the future keep no chain from starting."""
    behind.store.enlist(Lane.START, "alive", ttl_s=4)
    behind.raw.zadd(keys.chains(Lane.START), {"of the future": behind.now() + 4000})
    behind.raw.zadd(keys.chains(Lane.POLL), {"of the past": behind.now() - 4000})
    behind.raw.zadd(keys.NODES, {"of the past": behind.now() - 4000})
    assert behind.store.running(Lane.START) == 2
    found = check_repaired(behind, sweep(behind.store), "leftover")
    assert sum(finding.count for finding in found) == 2
    assert behind.store.running(Lane.START) == 1


def test_dead_letters_are_filed_as_their_records_say(behind: RedisStage) -> None:
    batch = submit(behind.store, 4)
    dead, expired = end(behind.store, batch, ["q1", "q3"], State.FAILED, fields=POISON)
    (alive,) = end(behind.store, batch, ["q2"], State.FAILED)
    assert behind.store.dead_letters().keys() == {dead, expired}
    sweep(behind.store)
    when = behind.store.dead_letters()[dead]
    behind.raw.delete(keys.job(expired), keys.ask(expired))
    behind.raw.zrem(keys.dead(shard_of(dead)), dead)
    behind.raw.zadd(keys.dead(shard_of(alive)), {alive: 1.0})
    report = sweep(behind.store)
    assert codes(report) == {"misfiled": 2, "poison": 1}
    assert behind.store.dead_letters() == {dead: pytest.approx(when, abs=1e-5)}
    assert codes(sweep(behind.store)) == {"poison": 1}


def test_what_is_put_aside_for_ended_jobs_is_settled(behind: RedisStage) -> None:
    """Given a worker that died between the end of a batch's last job and its settling, then it is settled later."""
    batch = submit(behind.store, 2)
    behind.store.set_budget(batch, 1.0)
    assert behind.store.reserve(job_id(batch, "q0"), 1, 0.25)
    end(behind.store, batch, ["q0", "q1"], State.FAILED)
    assert sweep(behind.store).findings == [], "whoever ended it may be about to settle it"
    for shard in ALL:
        if behind.raw.exists(keys.count(shard, batch)):
            behind.raw.hset(keys.count(shard, batch), "finished", f"{behind.now() - 100:.6f}")
    (found,) = check_repaired(behind, sweep(behind.store), "reserved_left")
    assert found.detail == "$0.2500"
    budget = status_of(behind.store, batch).budget
    assert budget is not None
    assert budget.reserved_usd == 0


def test_what_was_used_before_a_job_was_asked_again_stays_counted(behind: RedisStage) -> None:
    batch = submit(behind.store, 3)
    (job,) = end(behind.store, batch, ["q1"], State.FAILED, answer=Answer(text=None, usage=USAGE))
    end(behind.store, batch, ["q2"], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    before = status_of(behind.store, batch)
    assert behind.store.retry([job], [State.FAILED]) == [Outcome.MOVED]
    assert sweep(behind.store).findings == []
    end(behind.store, batch, ["q1"], State.COMPLETED, answer=Answer(text="x", usage=USAGE))
    assert sweep(behind.store).findings == []
    used = status_of(behind.store, batch).usage.total_tokens
    assert (before.usage.total_tokens, used) == (20, 30)
    behind.raw.hset(keys.count(shard_of(job), batch), "total", 5)
    assert check_repaired(behind, sweep(behind.store), "miscounted")


def test_a_dry_run_finds_all_of_it_and_changes_nothing(behind: RedisStage) -> None:
    batch = submit(behind.store, 10)
    unscheduled, ended = job_id(batch, "q1"), job_id(batch, "q2")
    behind.raw.zrem(keys.due(shard_of(unscheduled), Lane.START), unscheduled)
    bring(behind.store, ended, State.FAILED)
    behind.raw.zadd(keys.due(shard_of(ended), Lane.START), {ended: 1.0, job_id(batch, "nobody"): 1.0})
    behind.raw.persist(keys.job(ended))
    behind.raw.hincrby(keys.count(shard_of(ended), batch), "failed", 1)
    behind.raw.set(keys.lease(1, Lane.START), "somebody")
    before = behind.everything()
    report = sweep(behind.store, repair=False)
    assert behind.everything() == before
    assert not any(finding.repaired for finding in report.findings)
    assert len(report.attention) == len(report.findings)
    assert codes(report).keys() == {
        "unscheduled", "ended_but_due", "due_without_record", "never_expires", "miscounted", "endless_lock",
    }  # fmt: skip
    mended = sweep(behind.store)
    assert codes(mended).keys() == codes(report).keys()
    assert sweep(behind.store).findings == []


def test_ended_states_with_too_many_that_have_expired_are_told(behind: RedisStage) -> None:
    """Given two ended states with more counted than rows can tell of, then nobody can say which is wrong."""
    batch = open_batch(behind.store)
    rows = in_shard(batch, 9, 6)
    behind.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    expired = end(behind.store, batch, rows[:2], State.COMPLETED) + end(behind.store, batch, rows[2:4], State.FAILED)
    for job in expired:
        behind.raw.delete(keys.job(job), keys.ask(job))
    behind.raw.hincrby(keys.count(9, batch), "failed", 3)
    (found,) = sweep(behind.store).findings
    assert (found.code, found.batch, found.attention) == ("uncountable", batch, True)
    assert found.detail == "3 more ended than there are rows"


def test_a_batch_whose_time_is_up_is_not_mourned(behind: RedisStage) -> None:
    """Given a marked batch whose keys go one after the other, when it is audited between two, then nothing is wrong."""
    batch = submit(behind.store, 40)
    answer_all(behind.store, batch)
    assert behind.store.tidy(keep_s=8) == 1
    for shard in ALL[::2]:
        behind.raw.delete(keys.count(shard, batch))
    for job in list(behind.store.jobs(batch)):
        behind.raw.delete(keys.job(job.id), keys.ask(job.id), keys.answer(job.id))
    assert sweep(behind.store, closed=True).findings == []
    for shard in ALL[1::2]:
        behind.raw.delete(keys.count(shard, batch), keys.rows(shard, batch))
    assert sweep(behind.store, closed=True).findings == []


# -- what is only told ---------------------------------------------------------------------------------------


def test_rows_whose_records_vanished_are_told(behind: RedisStage) -> None:
    batch = submit(behind.store, 30)
    bring(behind.store, job_id(batch, "q9"), State.COMPLETED)
    lost = [job_id(batch, row) for row in ("q3", "q4")]
    for job in lost:
        behind.raw.delete(keys.job(job), keys.ask(job))
        behind.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(behind.store)
    found = next(finding for finding in report.findings if finding.code == "record_lost")
    assert (sorted(found.jobs), found.count, found.attention) == (lost, 2, True)
    assert codes(report) == {"record_lost": 2, "miscounted": 2}
    assert status_of(behind.store, batch).counts[State.QUEUED] == 27
    assert codes(sweep(behind.store)) == {"record_lost": 2}, "and told until somebody has seen to it"
    assert not status_of(behind.store, batch).done


def test_rows_that_are_gone_are_told_and_come_back_with_the_list(behind: RedisStage) -> None:
    """Given a batch that lost rows and all of theirs, when its list is submitted again, then it is whole."""
    batch = submit(behind.store, 30, key="k")
    shard = shard_of(job_id(batch, "q3"))
    rows = [row.decode() for row in behind.raw.zrange(keys.rows(shard, batch), 0, -1)]
    for row in rows:
        behind.raw.delete(keys.job(job_id(batch, row)), keys.ask(job_id(batch, row)))
    behind.raw.delete(keys.rows(shard, batch), keys.count(shard, batch), keys.due(shard, Lane.START))
    (found,) = sweep(behind.store).findings
    assert (found.code, found.count, found.attention) == ("rows_lost", len(rows), True)
    assert open_batch(behind.store, key="k") == batch
    assert behind.store.add(batch, [question(index) for index in range(30)]).added == len(rows)
    assert sweep(behind.store).findings == []


def test_a_question_that_is_gone_is_told(behind: RedisStage) -> None:
    batch = submit(behind.store, 3)
    behind.raw.delete(keys.ask(job_id(batch, "q1")))
    (found,) = sweep(behind.store).findings
    assert (found.code, found.jobs, found.attention) == ("question_lost", [job_id(batch, "q1")], True)


def test_jobs_of_a_batch_that_is_gone_are_told(behind: RedisStage) -> None:
    batch = submit(behind.store, 3)
    behind.raw.delete(keys.batch(batch))
    behind.raw.zrem(keys.BATCHES, batch)
    report = sweep(behind.store)
    assert codes(report) == {"batch_lost": 1}
    assert report.rows == 3, "its rows are audited all the same"


@pytest.mark.parametrize(
    ("state", "attempts", "runs", "code", "attention"),
    [
        (State.RUNNING, 1, 2, "paid_twice", True),
        (State.COMPLETED, 1, 2, "paid_twice", True),
        (State.RUNNING, 0, 1, "run_without_intent", True),
        (State.UNCERTAIN, 1, 0, "unseen_run", False),
        (State.FAILED, 2, 1, "unseen_run", False),
        (State.STARTING, 1, 0, None, False),
        (State.QUEUED, 1, 0, None, False),
        (State.COMPLETED, 1, 1, None, False),
    ],
)
def test_runs_are_compared_with_attempts(
    stage: Stage, state: State, attempts: int, runs: int, code: str | None, *, attention: bool
) -> None:
    batch = submit(stage.store, 3)
    job = job_id(batch, "q1")
    taken = claim(stage.store, job, lease_s=0)
    move(stage.store, job, taken.fence, "defer", fields={"attempts": attempts, "runs": runs})
    bring(stage.store, job, state)
    report = sweep(stage.store)
    assert codes(report) == ({} if code is None else {code: 1})
    assert [finding.attention for finding in report.findings] == ([] if code is None else [attention])


def test_dead_letters_are_told(stage: Stage) -> None:
    batch = submit(stage.store, 8)
    end(stage.store, batch, [f"q{index}" for index in range(7)], State.FAILED, fields=POISON)
    (found,) = sweep(stage.store).findings
    assert (found.code, found.count, len(found.jobs), found.attention) == ("poison", 7, SAMPLE, True)
    assert found.jobs[0].startswith(batch)


ALIVE = Node(name="one@h", processes=2, pid=11, host="h", started_at=1.5)


class Past:
    """Lets jobs be late without waiting a minute."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def make_due(self, job: str, *, ago: float) -> None:
        if isinstance(self._stage, RedisStage):
            lane = LANE_OF[job_of(self._stage.store, job).state]
            self._stage.raw.zadd(keys.due(shard_of(job), lane), {job: self._stage.now() - ago}, xx=True)
        else:
            assert isinstance(self._stage, MemoryStage)
            self._stage.store._records[job].due = self._stage.now() - ago


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at a lane that seems to stand still follow each other faster."""
    monkeypatch.setattr("askq.jobs.auditor._LOOK_EVERY_S", 0.01)


@pytest.mark.parametrize("state", sorted(PENDING))
@pytest.mark.parametrize("alive", [True, False])
def test_jobs_nobody_gets_to_are_told(stage: Stage, state: State, *, alive: bool) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    bring(stage.store, job, state)
    if alive:
        stage.store.beat(ALIVE, ttl_s=50)
    Past(stage).make_due(job, ago=50)
    assert sweep(stage.store).findings == []
    Past(stage).make_due(job, ago=90)
    (found,) = sweep(stage.store).findings
    assert (found.code, found.jobs) == ("late" if alive else "no_worker", [job])
    assert found.seconds == pytest.approx(90, abs=5)
    assert found.attention


def test_a_job_that_waits_for_its_turn_is_not_stuck(stage: Stage) -> None:
    """Given more questions than workers can begin within a minute, then those that wait are not told; a poll is."""
    batch = submit(stage.store, 30)
    stage.store.beat(ALIVE, ttl_s=50)
    running = job_id(batch, "q1")
    bring(stage.store, running, State.RUNNING)
    for job in stage.store.jobs(batch, states=[State.QUEUED]):
        Past(stage).make_due(job.id, ago=500)
    assert codes(sweep(stage.store)) == {"late": 29}
    in_hand = stage.store.claim(Lane.START, ALL, limit=16, lease_s=LONG)
    assert in_hand
    assert sweep(stage.store).findings == []
    Past(stage).make_due(running, ago=500)
    assert codes(sweep(stage.store)) == {"late": 1}


def test_a_paused_account_holds_its_jobs_up_on_purpose(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    stage.store.beat(ALIVE, ttl_s=50)
    Past(stage).make_due(job_id(batch, "q0"), ago=500)
    stage.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    assert sweep(stage.store).findings == []


def test_a_limit_that_is_waited_for_holds_everybody_up_and_nothing_is_wrong(stage: Stage) -> None:
    batch = submit(stage.store, 2)
    stage.store.beat(ALIVE, ttl_s=50)
    running = job_id(batch, "q1")
    bring(stage.store, running, State.RUNNING)
    for job in (job_id(batch, "q0"), running):
        Past(stage).make_due(job, ago=500)
    scope = Scope(account="acc", protocol="responses", model="m")
    granted = stage.store.take_permits(scope, [0.0], bound=Bound(), window=4)
    heard = Heard(closed=1, refused=1, granted_at=granted.now, retry_after_s=LONG)
    stage.store.learn_limits(scope, heard)
    stage.store.take_permits(scope, [0.0], bound=Bound(), window=4)
    assert sweep(stage.store).findings == []


def test_a_job_due_far_ahead_is_told(stage: Stage) -> None:
    batch = submit(stage.store, 2)
    job = job_id(batch, "q1")
    move(stage.store, job, claim(stage.store, job).fence, "defer", delay=7200.0)
    (found,) = sweep(stage.store).findings
    assert (found.code, found.jobs, found.attention) == ("far_ahead", [job], True)
    assert found.seconds == pytest.approx(7200, abs=5)


@pytest.mark.parametrize(("overdue_s", "told"), [(700.0, ["undeleted"]), (500.0, [])])
def test_a_deletion_nobody_carries_out_is_told(stage: Stage, overdue_s: float, told: list[str]) -> None:
    batch = submit(stage.store, 1)
    file = RemoteObject(kind=Kind.FILE, id="file-1", account="acc")
    stage.store.remember(batch, [file])
    stage.store.bury(batch, [file], after_s=-overdue_s)
    assert [found.code for found in sweep(stage.store).findings] == told


@pytest.mark.parametrize(("timeout_s", "told"), [(100.0, True), (5000.0, False), (None, False)])
def test_a_run_looked_for_longer_than_its_assistant_allows_is_told(
    stage: Stage, timeout_s: float | None, *, told: bool
) -> None:
    batch = submit(stage.store, 2)
    job = job_id(batch, "q1")
    if timeout_s is not None:
        assistant = Assistant(name="tutor", protocol="responses", model="m", timeout_s=timeout_s)
        stage.store.save_assistant(job_of(stage.store, job).assistant_digest, assistant.to_json())
    bring(stage.store, job, State.STARTING)
    if isinstance(stage, RedisStage):
        stage.raw.hset(keys.job(job), "intent_at", f"{stage.now() - 1000:.6f}")
    else:
        assert isinstance(stage, MemoryStage)
        stage.store._records[job].fields["intent_at"] = stage.now() - 1000
    report = sweep(stage.store)
    assert codes(report) == ({"starting_long": 1} if told else {})
    if told:
        assert report.findings[0].seconds == pytest.approx(1000, abs=5)


def test_a_server_that_evicts_or_forgets_is_told(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    stage = RedisStage(server)
    with_room = Auditor(stage.store, by="test").run()
    assert [finding.code for finding in with_room.findings] == ["unsafe_server"]
    assert "allkeys-lru" in str(with_room.findings[0].detail)
    for number in range(40):
        stage.raw.set(f"filler {number}", "x" * 100_000)
    report = Auditor(stage.store, by="test").run()
    found = {finding.code: finding for finding in report.findings}
    assert found["evicted"].count > 0
    assert found["evicted"].attention
    stage.close()


# -- one batch, bit by bit, and in the background ------------------------------------------------------------


def test_one_batch_alone(behind: RedisStage) -> None:
    batches = [submit(behind.store, 5) for _ in range(2)]
    for batch in batches:
        job = job_id(batch, "q1")
        behind.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(behind.store, batch=batches[0])
    assert (report.batches, report.rows) == (1, 5)
    assert [finding.batch for finding in report.findings] == [batches[0]]
    assert [finding.batch for finding in sweep(behind.store).findings] == [batches[1]]
    for batch in batches:
        behind.raw.zrem(keys.rows(shard_of(job_id(batch, "q3")), batch), "q3")
        behind.raw.zadd(keys.due(3, Lane.POLL), {f"{batch}.nobody": 1.0})
    alone = sweep(behind.store, batch=batches[0])
    assert codes(alone) == {"unlisted": 1, "due_without_record": 1}, "and no counter is made to agree with half a list"
    assert {finding.batch for finding in alone.findings} == {batches[0]}
    assert codes(sweep(behind.store)) == codes(alone)
    assert sweep(behind.store).findings == []
    with pytest.raises(NotFound, match="there is no batch b_none"):
        sweep(behind.store, batch="b_none")


def test_an_ended_batch_in_order_is_audited_once_more_and_then_left(stage: Stage) -> None:
    batch, other = submit(stage.store, 3, key="k"), submit(stage.store, 2)
    assert sweep(stage.store).batches == 2
    answer_all(stage.store, batch)
    assert sweep(stage.store).batches == 2
    assert sweep(stage.store).batches == 2, "it may still get rows"
    assert stage.store.tidy(keep_s=LONG) == 1
    assert sweep(stage.store).batches == 2, "the audit after its end"
    assert sweep(stage.store).batches == 1
    assert sweep(stage.store, closed=True).batches == 2
    assert open_batch(stage.store, key="k") == batch
    assert stage.store.add(batch, [question(3)]).added == 1
    stage.store.seal(batch, 4)
    assert sweep(stage.store).batches == 2, "it goes on"
    answer_all(stage.store, batch)
    assert stage.store.tidy(keep_s=2 * LONG) == 1
    assert sweep(stage.store).batches == 2, "and ends again"
    assert sweep(stage.store).batches == 1
    audit(stage, batch, other)


def test_only_a_batch_that_is_marked_to_end_is_closed(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    before = stage.everything()
    for one in (batch, "b_gone"):
        assert not stage.store.books().close_batch(one)
    assert stage.everything() == before, "no ghost is made"
    answer_all(stage.store, batch)
    assert stage.store.tidy(keep_s=LONG) == 1
    assert stage.store.books().close_batch(batch)


def test_an_ended_batch_with_dead_letters_stays_on_the_list(stage: Stage) -> None:
    end(stage.store, submit(stage.store, 1), ["q0"], State.FAILED, fields=POISON)
    stage.store.tidy(keep_s=LONG)
    for _ in range(3):
        assert codes(sweep(stage.store)) == {"poison": 1}


def test_an_audit_stops_anywhere_and_another_goes_on(stage: Stage) -> None:
    batches = sorted(submit(stage.store, 3) for _ in range(6))
    poisoned = [end(stage.store, batch, ["q1"], State.FAILED, fields=POISON)[0] for batch in batches]
    auditor, report, auditors = Auditor(stage.store, by="first"), None, 1
    while report is None:
        report = auditor.advance(0.0)
        if report is None and auditors % 3 == 0:
            auditor = Auditor(stage.store, by=f"auditor {auditors}", place=auditor.place())
        auditors += 1
        assert auditors < 1000, "it comes to an end"
    assert auditors > 10, "it went step by step"
    assert (report.batches, report.rows) == (6, 18)
    assert sorted(job for finding in report.findings for job in finding.jobs if finding.code == "poison") == poisoned
    assert [finding.count for finding in report.findings if finding.code == "poison"] == [1] * 6


def test_late_jobs_are_not_forgotten_when_another_goes_on(stage: Stage) -> None:
    batch = submit(stage.store, 2)
    for index in range(2):
        Past(stage).make_due(job_id(batch, f"q{index}"), ago=500)
    later = submit(stage.store, 2)
    assert batch < later
    auditor, report = Auditor(stage.store, by="first"), None
    while report is None:
        report = auditor.advance(0.0)
        if report is None and json.loads(auditor.place())["after"] == batch:
            auditor = Auditor(stage.store, by="second", place=auditor.place())
            report = auditor.run()
    assert codes(report)["no_worker"] == 2
    assert report.by == "second"


def test_one_of_all_has_the_turn(stage: Stage) -> None:
    one, two = stage.store.books(), stage.another().books()
    assert one.take_turn("one", ttl_s=LONG)
    assert not two.take_turn("two", ttl_s=LONG)
    assert one.take_turn("one", ttl_s=1 / 16)
    stage.pass_time(1 / 8)
    assert two.take_turn("two", ttl_s=LONG)
    assert not one.take_turn("one", ttl_s=LONG)


def test_the_outcome_and_the_place_are_kept(stage: Stage) -> None:
    books = stage.store.books()
    assert (books.last(), books.place()) == (None, None)
    books.keep_place("somewhere")
    books.save_last("found nothing")
    assert (books.last(), books.place()) == ("found nothing", "somewhere")
    books.keep_place(None)
    assert (books.last(), books.place()) == ("found nothing", None)


def test_a_report_is_kept_short(behind: RedisStage) -> None:
    batch = submit(behind.store, 30)
    end(behind.store, batch, ["q25"], State.FAILED, fields=POISON)
    for index in range(20):
        job = job_id(batch, f"q{index}")
        behind.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(behind.store)
    short = LastAudit.read(LastAudit.of(report).to_json())
    assert short is not None
    assert (short.by, short.started_at, short.finished_at) == ("test", report.started_at, report.finished_at)
    assert (short.repaired, short.remaining, short.noted) == ({"unscheduled": 20}, {"poison": 1}, {})
    assert Report.from_json(report.to_json()) == report


def test_no_script_holds_the_server_up(alone: RedisStage) -> None:
    """Given many rows, then none of an audit's steps does more than a page of work at a time."""
    batch = open_batch(alone.store)
    rows = in_shard(batch, 2, 1000)
    alone.store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    alone.store.seal(batch, 1000)
    with alone.raw.monitor() as commands:
        report = sweep(alone.store)
        alone.raw.echo("end of audit")
        calls, within = [], 0
        for seen in commands.listen():
            if "end of audit" in seen["command"]:
                break
            if seen["client_type"] == "lua":
                within += 1
            elif seen["command"].startswith(("EVAL", "EXEC")):
                calls.append(within)
                within = 0
    assert report.rows == 1000
    assert len(calls) > 20
    assert max(calls) <= 6 * redis_audit._PAGE + 10


def test_every_kind_is_found_by_some_test() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [code for code in KINDS if f'"{code}"' not in text] == []
