"""The audit of the invariants tells what a person must look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from askq.assistants.model import Assistant
from askq.ids import job_id, shard_of
from askq.jobs import keys
from askq.jobs.audit import KINDS, SAMPLE
from askq.jobs.auditor import Auditor
from askq.jobs.limits import Bound, Heard, Scope
from askq.jobs.model import PENDING, Lane, State
from askq.jobs.objects import Kind, RemoteObject
from tests.conftest import StartRedis
from tests.contract.audit_stage import ALIVE, POISON, codes, end, make_due, sweep
from tests.contract.store_stage import (
    ALL,
    LONG,
    MemoryStage,
    RedisStage,
    Stage,
    bring,
    claim,
    job_of,
    move,
    open_batch,
    question,
    status_of,
    submit,
)

pytestmark = pytest.mark.usefixtures("brisk")


def test_rows_whose_records_vanished_are_told(alone: RedisStage) -> None:
    batch = submit(alone.store, 30)
    bring(alone.store, job_id(batch, "q9"), State.COMPLETED)
    lost = [job_id(batch, row) for row in ("q3", "q4")]
    for job in lost:
        alone.raw.delete(keys.job(job), keys.ask(job))
        alone.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(alone.store)
    found = next(finding for finding in report.findings if finding.code == "record_lost")
    assert (sorted(found.jobs), found.count, found.attention) == (lost, 2, True)
    assert codes(report) == {"record_lost": 2, "miscounted": 2}
    assert status_of(alone.store, batch).counts[State.QUEUED] == 27
    assert codes(sweep(alone.store)) == {"record_lost": 2}, "and told until somebody has seen to it"
    assert not status_of(alone.store, batch).done


def test_rows_that_are_gone_are_told_and_come_back_with_the_list(alone: RedisStage) -> None:
    """Given a batch that lost rows and all of theirs, when its list is submitted again, then it is whole."""
    batch = submit(alone.store, 30, key="k")
    shard = shard_of(job_id(batch, "q3"))
    rows = [row.decode() for row in alone.raw.zrange(keys.rows(shard, batch), 0, -1)]
    for row in rows:
        alone.raw.delete(keys.job(job_id(batch, row)), keys.ask(job_id(batch, row)))
    alone.raw.delete(keys.rows(shard, batch), keys.count(shard, batch), keys.due(shard, Lane.START))
    (found,) = sweep(alone.store).findings
    assert (found.code, found.count, found.attention) == ("rows_lost", len(rows), True)
    assert open_batch(alone.store, key="k") == batch
    assert alone.store.add(batch, [question(index) for index in range(30)]).added == len(rows)
    assert sweep(alone.store).findings == []


def test_a_question_that_is_gone_is_told(alone: RedisStage) -> None:
    batch = submit(alone.store, 3)
    alone.raw.delete(keys.ask(job_id(batch, "q1")))
    (found,) = sweep(alone.store).findings
    assert (found.code, found.jobs, found.attention) == ("question_lost", [job_id(batch, "q1")], True)


def test_jobs_of_a_batch_that_is_gone_are_told(alone: RedisStage) -> None:
    batch = submit(alone.store, 3)
    alone.raw.delete(keys.batch(batch))
    alone.raw.zrem(keys.BATCHES, batch)
    report = sweep(alone.store)
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


@pytest.mark.parametrize("state", sorted(PENDING))
@pytest.mark.parametrize("alive", [True, False])
def test_jobs_nobody_gets_to_are_told(stage: Stage, state: State, *, alive: bool) -> None:
    batch = submit(stage.store, 1)
    job = job_id(batch, "q0")
    bring(stage.store, job, state)
    if alive:
        stage.store.beat(ALIVE, ttl_s=50)
    make_due(stage, job, ago=50)
    assert sweep(stage.store).findings == []
    make_due(stage, job, ago=90)
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
        make_due(stage, job.id, ago=500)
    assert codes(sweep(stage.store)) == {"late": 29}
    in_hand = stage.store.claim(Lane.START, ALL, limit=16, lease_s=LONG)
    assert in_hand
    assert sweep(stage.store).findings == []
    make_due(stage, running, ago=500)
    assert codes(sweep(stage.store)) == {"late": 1}


def test_a_paused_account_holds_its_jobs_up_on_purpose(stage: Stage) -> None:
    batch = submit(stage.store, 1)
    stage.store.beat(ALIVE, ttl_s=50)
    make_due(stage, job_id(batch, "q0"), ago=500)
    stage.store.pause("acc", "rejected_key", "no", probe_after_s=LONG)
    assert sweep(stage.store).findings == []


def test_a_paused_batch_holds_nobody_else_up(stage: Stage) -> None:
    """It may stand for weeks, until a person lets it go on."""
    paused, batch = submit(stage.store, 1), submit(stage.store, 1)
    stage.store.beat(ALIVE, ttl_s=50)
    make_due(stage, job_id(batch, "q0"), ago=500)
    stage.store.pause(paused, "asked_again", "why", probe_after_s=LONG)
    assert codes(sweep(stage.store)) == {"late": 1}


def test_a_limit_that_is_waited_for_holds_everybody_up_and_nothing_is_wrong(stage: Stage) -> None:
    batch = submit(stage.store, 2)
    stage.store.beat(ALIVE, ttl_s=50)
    running = job_id(batch, "q1")
    bring(stage.store, running, State.RUNNING)
    for job in (job_id(batch, "q0"), running):
        make_due(stage, job, ago=500)
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


def test_every_kind_is_found_by_some_test() -> None:
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_audit_*.py"))
    assert [code for code in KINDS if f'"{code}"' not in text] == []
