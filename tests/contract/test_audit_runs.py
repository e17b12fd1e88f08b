"""Audits of one batch, bit by bit, and in the background: who does one, where it stops, what is kept."""

from __future__ import annotations

import json

import pytest

from askq.errors import NotFound
from askq.ids import job_id, shard_of
from askq.jobs import keys, redis_audit
from askq.jobs.audit import LastAudit, Report
from askq.jobs.auditor import Auditor
from askq.jobs.model import Lane, State
from tests.contract.audit_stage import POISON, codes, end, make_due, sweep
from tests.contract.store_stage import (
    LONG,
    RedisStage,
    Stage,
    answer_all,
    audit,
    in_shard,
    open_batch,
    question,
    submit,
)

pytestmark = pytest.mark.usefixtures("brisk")


def test_one_batch_alone(alone: RedisStage) -> None:
    batches = [submit(alone.store, 5) for _ in range(2)]
    for batch in batches:
        job = job_id(batch, "q1")
        alone.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(alone.store, batch=batches[0])
    assert (report.batches, report.rows) == (1, 5)
    assert [finding.batch for finding in report.findings] == [batches[0]]
    assert [finding.batch for finding in sweep(alone.store).findings] == [batches[1]]
    for batch in batches:
        alone.raw.zrem(keys.rows(shard_of(job_id(batch, "q3")), batch), "q3")
        alone.raw.zadd(keys.due(3, Lane.POLL), {f"{batch}.nobody": 1.0})
    one = sweep(alone.store, batch=batches[0])
    assert codes(one) == {"unlisted": 1, "due_without_record": 1}, "and no counter is made to agree with half a list"
    assert {finding.batch for finding in one.findings} == {batches[0]}
    assert codes(sweep(alone.store)) == codes(one)
    assert sweep(alone.store).findings == []
    with pytest.raises(NotFound, match="there is no batch b_none"):
        sweep(alone.store, batch="b_none")


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
        make_due(stage, job_id(batch, f"q{index}"), ago=500)
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


def test_a_report_is_kept_short(alone: RedisStage) -> None:
    batch = submit(alone.store, 30)
    end(alone.store, batch, ["q25"], State.FAILED, fields=POISON)
    for index in range(20):
        job = job_id(batch, f"q{index}")
        alone.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    report = sweep(alone.store)
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
