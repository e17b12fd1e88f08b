"""A verdict that cannot condemn is worth nothing: every figure is made to show what it is for, once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant
from askq.ids import SHARDS, shard_of
from askq.jobs import codec, keys
from askq.jobs.model import MOVES, Answer, Claim, Job, Lane, Move, Question, State
from askq.jobs.redis_store import RedisStore
from producer.questions import open_items
from producer.submit import Submission, submit
from tests.chaos import failpoints, questions, recovery
from tests.chaos.checker import check
from tests.chaos.diary import at_work, check_calls, cut_off
from tests.chaos.questions import Asked
from tests.chaos.recovery import Outage
from tests.chaos.report import BROKEN, Report, percentile
from tests.chaos.suite import check_whole
from tests.chaos.tape import Event, Tape
from tests.parts import RedisServer, eventually

ROWS = [Asked.of("list", number, "assistants") for number in range(2)]


class Stage:
    """A store with two rows that have been asked, answered and paid for as they should."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.store = RedisStore(server.url)
        self.client = server.client()
        self.file = folder / "asked.jsonl"
        questions.write(self.file, ROWS)
        with open_items([{"id": row.row, "question": row.text} for row in ROWS]) as listed:
            assistant = Assistant(name="chaos", protocol="assistants", model="m")
            summary = listed.check()
            submit(
                self.store,
                Submission(questions=listed, summary=summary, assistant=assistant, others={}, idempotency_key="list"),
            )
        self.ledger: list[dict[str, Any]] = []

    def claims(self, lane: Lane) -> list[Claim]:
        claims = self.store.claim(lane, range(SHARDS), limit=100, lease_s=60)
        return sorted(claims, key=lambda claim: claim.id)

    def answer(self, texts: list[str | None]) -> None:
        for claim, text in zip(self.claims(Lane.START), texts, strict=True):
            self.commit(claim, "intend", attempts=1)
            self.ledger.append({"metadata": {"askq_job": claim.id}})
            if text is not None:
                self.commit(claim, "complete", answer=Answer(text=text), runs=1)

    def commit(self, claim: Claim, name: str, *, answer: Answer | None = None, **fields: int) -> None:
        (outcome,) = self.store.commit(
            [Move(job=claim.id, fence=claim.fence, name=name, fields=dict(fields), answer=answer)]
        )
        assert outcome == "moved"

    def verdict(self, *, keyed: bool = True) -> Report:
        return check(self.file, self.store, self.ledger, self.client, keyed=keyed, leases_end_s=0.2)


@pytest.fixture
def stage(redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(redis_server, tmp_path)
    yield made
    made.store.close()
    made.client.close()


RIGHT: list[str | None] = [f"Answer to: {row.text}" for row in ROWS]


def test_what_is_right_is_not_condemned(stage: Stage) -> None:
    stage.answer(RIGHT)
    report = stage.verdict()
    assert report.broken == []
    assert (report.jobs, report.ledger_runs, report.counted_runs) == (2, 2, 2)


def test_a_row_that_is_gone_is_lost(stage: Stage) -> None:
    stage.answer(RIGHT)
    questions.write(stage.file, [Asked.of("list", 7, "assistants"), Asked.of("never submitted", 1, "assistants")])
    assert stage.verdict().broken == ["lost: 2"]


def test_a_job_without_an_end_is_stuck_and_leaves_its_claim_behind(stage: Stage) -> None:
    stage.answer([RIGHT[0], None])
    report = stage.verdict()
    assert report.stuck == 1
    assert report.left_behind == 2, "its entry in the schedule, and its claim"


def test_the_answer_of_another_question_is_wrong(stage: Stage) -> None:
    stage.answer([RIGHT[1], RIGHT[0]])
    assert stage.verdict().broken == ["wrong: 2"]


def test_an_answer_that_quotes_another_conversation_or_forgets_its_own_is_wrong(stage: Stage) -> None:
    stage.answer(RIGHT)
    rows = [replace(row, row=ROWS[1].row) for number in (0, 1) for row in Asked.talk("list", number, 2, "assistants")]
    (claimed,) = [job for job in stage.store.jobs(str(stage.store.batch_under("list"))) if job.id.endswith(rows[1].row)]
    for text, wrong in ((rows[1].answer(), 0), (rows[3].answer(), 1), (rows[0].answer(), 1)):
        assert text is not None
        assert text.startswith("1 before: [talk]") is (text != rows[0].answer())
        stage.client.set(keys.answer(claimed.id), codec.dump_answer(Answer(text=text)))
        stage.file.unlink()
        questions.write(stage.file, [ROWS[0], rows[1]])
        assert stage.verdict().wrong == wrong


def test_nothing_goes_on_after_doubt_and_only_then(stage: Stage) -> None:
    first, second = Asked.talk("list", 0, 2, "responses")
    (one, two) = stage.claims(Lane.START)
    stage.commit(one, "intend", attempts=1)
    stage.commit(one, "doubt")
    fields = {"error_code": "conversation_stopped", "error_message": "because"}
    assert stage.store.commit([Move(job=two.id, fence=two.fence, name="fail", fields=fields)]) == ["moved"]
    stage.file.unlink()
    questions.write(stage.file, [replace(first, row=ROWS[0].row), replace(second, row=ROWS[1].row)])
    assert stage.verdict(keyed=False).broken == []
    stage.file.unlink()
    questions.write(stage.file, [replace(first, row=ROWS[0].row, thread="b"), replace(second, row=ROWS[1].row)])
    assert stage.verdict(keyed=False).broken == ["unexpected: 1"]


def test_an_end_that_nothing_explains_is_unexpected(stage: Stage) -> None:
    stage.answer(RIGHT)
    questions.write(stage.file, [Asked.of("odd", 1, "assistants", "failed")])
    stage.client.rename(keys.idempotency("list"), keys.idempotency("odd"))
    stage.file.write_text(stage.file.read_text("utf-8").replace('"list"', '"odd"'), "utf-8")
    assert stage.verdict().lost == 1, "the row of another kind was never submitted"
    lines = stage.file.read_text("utf-8").splitlines()[:2]
    stage.file.write_text("\n".join(lines).replace('"kind": "plain"', '"kind": "failed"') + "\n", "utf-8")
    assert stage.verdict().broken == ["unexpected: 2"]


def test_a_second_run_is_paid_twice_and_counted_wrongly(stage: Stage) -> None:
    stage.answer(RIGHT)
    stage.ledger.append(stage.ledger[0])
    report = stage.verdict()
    assert (report.paid_twice, report.miscounted) == (1, 1)


def test_a_run_of_nobody_is_a_stray(stage: Stage) -> None:
    stage.answer(RIGHT)
    stage.ledger.append({"metadata": {}})
    assert stage.verdict().broken == ["stray_runs: 1"]


def test_counters_are_counted_again(stage: Stage) -> None:
    stage.answer(RIGHT)
    name = next(stage.client.scan_iter(match="askq:*:count:*"))
    stage.client.hincrby(name, "completed", 1)
    assert stage.verdict().counters_off == 1


def test_a_lease_that_stays_is_left_behind(stage: Stage) -> None:
    stage.answer(RIGHT)
    stage.store.hold(Lane.START, "somebody", [3], ttl_s=30)
    assert stage.verdict().broken == ["left_behind: 1"]


def test_a_stale_commit_is_seen_whether_it_is_refused_or_accepted(redis_server: RedisServer, tmp_path: Path) -> None:
    """The second is done by the real script without its check of the fence."""
    with Tape(redis_server.port) as tape:
        eventually(lambda: tape.listening, what="the tape listens")
        stage = Stage(redis_server, tmp_path)
        first, _ = stage.claims(Lane.START)
        zombie = Move(job=first.id, fence=first.fence, name="defer", delay=0)
        stage.client.zadd(keys.due(shard_of(first.id), Lane.START), {first.id: 0})
        stage.claims(Lane.START)
        assert stage.store.commit([zombie]) == ["not yours"]
        eventually(lambda: tape.stale_attempted, what="the tape has seen it")
        assert tape.stale_accepted == 0
        text = (resources.files("askq.jobs") / "lua" / "move.lua").read_text("utf-8")
        open_to_all = text.replace("if mine[1] ~= ARGV[2] then", "if false then")
        assert open_to_all != text
        call = stage.store._move(zombie)
        stage.client.eval(open_to_all, len(call.keys), *call.keys, *call.args)
        eventually(lambda: tape.stale_accepted, what="the tape has seen that it was accepted")
        stage.store.close()
        stage.client.close()


def test_a_recovery_counts_from_the_kill_to_the_next_claim() -> None:
    """Given claims that a kill interrupted, and one whose holder went on, then only the first are recoveries."""
    tape = _Played(
        {
            "interrupted": [Event(1, "claim"), Event(8.5, "claim"), Event(9, "commit", "poll")],
            "after the intent": [Event(1, "claim"), Event(1.5, "commit", "intend"), Event(7, "claim")],
            "went on": [Event(1, "claim"), Event(3, "commit", "poll"), Event(4, "claim")],
            "not yet claimed": [Event(2.5, "claim"), Event(9, "claim")],
        }
    )
    assert sorted(recovery.after_kills(tape, [2.0])) == [5.0, 6.5]
    assert recovery.after_outages(tape, [Outage(2.0, 2.5, ("went on", "not yet claimed"))]) == [0.5, 0.0]


class _Played(Tape):
    def __init__(self, events: dict[str, list[Event]]) -> None:
        self._events = events

    def of(self, job: str) -> list[Event]:
        return self._events[job]

    def jobs(self) -> list[str]:
        return list(self._events)


def test_a_suite_that_did_less_than_it_says_has_failed() -> None:
    report = Report()
    check_whole(report)
    assert len(report.missed) == 8
    report = Report(fault_kinds=Counter({"502": 4}))
    check_whole(report)
    assert "API fault '502': 4 of at least 5" in report.missed


def test_reports_add_up() -> None:
    total = Report(jobs=1, lost=1, recovery_s=[1.0])
    total += Report(jobs=2, recovery_s=[3.0])
    assert (total.jobs, total.recovery_s, total.broken) == (3, [1.0, 3.0], ["lost: 1"])
    assert set(BROKEN) < set(total.to_json())
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([float(n) for n in range(1, 101)], 95) == 95
    assert percentile([], 50) is None


def test_the_figures_that_are_promised_are_there() -> None:
    promised = (
        "jobs kills points redis_restarts rollbacks api_faults fault_kinds lost stuck wrong paid_twice ledger_runs "
        "counted_runs stale_commits recovery_p50_s recovery_p95_s"
    )
    found = Report(points=Counter(a=2, b=1), fault_kinds=Counter(c=3), recovery_s=[1.0]).to_json()
    assert set(promised.split()) <= set(found)
    assert (found["points"], found["api_faults"], found["fault_kinds"], found["recovery_p50_s"]) == (2, 3, 1, 1.0)


def _diary(path: Path, *lines: tuple[str, str]) -> Path:
    """A diary of one call: what was noted of which execution."""
    path.write_text("".join(f"1.5\t{what}\t1\tWhy?\t{execution}\t0\n" for what, execution in lines), "utf-8")
    return path


def _answered(printed: str, *, output: str = "part 1 of <Why?>", error: str | None = None) -> Job:
    call = {"name": "work", "arguments": '{"question": "Why?", "part": 1}', "output": output, "printed": printed}
    return Job(
        id="b_1.q1",
        index=0,
        state=State.COMPLETED,
        question=Question(row_id="q1", index=0, text="Why?"),
        assistant="a",
        assistant_digest="d",
        protocol="responses",
        answer=Answer(text="", tool_calls=(call if error is None else call | {"error": error},)),
    )


def test_a_call_that_began_again_after_it_was_on_record_is_told(tmp_path: Path) -> None:
    once = _diary(tmp_path / "once", ("begin", "a"), ("begin", "b"), ("end", "b"))
    twice = _diary(tmp_path / "twice", ("begin", "a"), ("end", "a"), ("begin", "b"), ("end", "b"))
    for diary, printed, broken in (
        (once, "b", []),
        (once, "a", ["calls_wrong: 1"]),
        (twice, "b", []),
        (twice, "a", ["run_again: 1"]),
    ):
        report = Report()
        check_calls(report, diary, [_answered(printed)])
        assert (report.broken, report.calls, report.executions) == (broken, 1, 2)
    for wrong in (_answered("b", output="something else"), _answered("b", error="crashed")):
        report = Report()
        check_calls(report, once, [wrong])
        assert report.broken == ["calls_wrong: 1"]


def test_functions_at_work_are_found_in_their_diary(tmp_path: Path) -> None:
    assert at_work(tmp_path / "none") == []
    assert at_work(_diary(tmp_path / "one", ("begin", "a"))) == [0]
    assert at_work(_diary(tmp_path / "ended", ("begin", "a"), ("end", "a"))) == []
    assert at_work(_diary(tmp_path / "again", ("begin", "a"), ("begin", "b"))) == [], "once is enough"


def test_a_function_that_was_cut_off_is_told_from_one_that_runs_and_one_that_ended(tmp_path: Path) -> None:
    assert not cut_off(tmp_path / "none")
    assert not cut_off(_diary(tmp_path / "ended", ("begin", "a"), ("end", "a")))
    # Nobody is process 0.
    begun = _diary(tmp_path / "begun", ("begin", "a"))
    assert cut_off(begun)
    begun.write_text(begun.read_text("utf-8").replace("\t0\n", f"\t{os.getpid()}\n"), "utf-8")
    assert not cut_off(begun)


def test_every_move_is_looked_for_on_the_tape_and_the_log_is_read(tmp_path: Path) -> None:
    assert all(Event(0, "commit", name).releases == (not rule.keeps_claim) for name, rule in MOVES.items())
    log = tmp_path / "failpoints.log"
    assert failpoints.fired(log)["kill"].total() == 0
    log.write_text("1.5 77 start.after kill\n1.6 78 start.after kill\n1.7 79 poll.before stop\n", "utf-8")
    fired = failpoints.fired(log)
    assert (fired["kill"]["start.after"], fired["stop"]["poll.before"]) == (2, 1)
