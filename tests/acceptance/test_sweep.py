"""`askq sweep` on a real Redis: what it says, where, what it changes, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from askq.ids import job_id, shard_of
from askq.jobs import keys
from askq.jobs.audit import LastAudit
from askq.jobs.auditor import Auditor
from askq.jobs.model import Lane, Move
from producer.cli import run, sweep
from tests.contract.store_stage import RedisStage, claim, job_of, submit
from tests.parts import RedisServer

Asked = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stage(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStage]:
    """A store in the session's server, and commands that use it from an empty folder."""
    made = RedisStage(redis_server)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    # The test's server keeps nothing.
    monkeypatch.setenv("ASKQ_ALLOW_UNSAFE_REDIS", "1")
    yield made
    made.close()


@pytest.fixture
def askq(capfd: pytest.CaptureFixture[str]) -> Asked:
    def call(*argv: str) -> tuple[int, str, str]:
        code = run(list(argv))
        out, err = capfd.readouterr()
        return code, out, err

    return call


def break_schedule(stage: RedisStage, batch: str, row: str = "q1") -> str:
    job = job_id(batch, row)
    stage.raw.zrem(keys.due(shard_of(job), Lane.START), job)
    return job


def poison(stage: RedisStage, batch: str, row: str) -> str:
    job = job_id(batch, row)
    fence = claim(stage.store, job, lease_s=0).fence
    stage.store.commit([Move(job=job, fence=fence, name="fail", fields={"error_code": "poison"})])
    return job


def test_everything_in_order(stage: RedisStage, askq: Asked) -> None:
    submit(stage.store, 5)
    code, out, err = askq("sweep")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record.pop("audited_at").endswith("Z")
    assert record == {"dry_run": False, "batches": 1, "jobs": 5, "unsettled": 0, "attention": 0, "findings": []}


def test_what_was_put_right_is_told_and_is_no_failure(stage: RedisStage, askq: Asked) -> None:
    batch = submit(stage.store, 5)
    job = break_schedule(stage, batch)
    code, out, _ = askq("sweep", "--json")
    (found,) = json.loads(out)["findings"]
    assert code == 0
    assert list(found) == [
        "code", "invariant", "batch", "jobs", "count", "repaired", "attention", "detail", "seconds", "means", "remedy",
    ]  # fmt: skip
    assert (found["code"], found["jobs"], found["repaired"], found["attention"]) == ("unscheduled", [job], True, False)
    assert job_of(stage.store, job).due_at is not None
    assert json.loads(askq("sweep")[1])["findings"] == []


def test_a_dry_run_only_tells(stage: RedisStage, askq: Asked) -> None:
    job = break_schedule(stage, submit(stage.store, 5))
    code, out, _ = askq("sweep", "--dry-run")
    assert code == 1, "it is still wrong"
    record = json.loads(out)
    assert (record["dry_run"], record["attention"]) == (True, 1)
    assert record["findings"][0]["repaired"] is False
    assert job_of(stage.store, job).due_at is None
    assert askq("sweep")[0] == 0


def test_what_remains_for_a_person_is_a_failure(stage: RedisStage, askq: Asked) -> None:
    job = poison(stage, submit(stage.store, 3), "q2")
    code, out, _ = askq("sweep")
    assert code == 1
    assert json.loads(out)["findings"][0]["jobs"] == [job]


def test_one_batch_by_the_beginning_of_its_id(stage: RedisStage, askq: Asked) -> None:
    first, second = submit(stage.store, 2), submit(stage.store, 3)
    for batch in (first, second):
        break_schedule(stage, batch)
    code, out, _ = askq("sweep", second[:26])
    record = json.loads(out)
    assert (code, record["batches"], record["jobs"]) == (0, 1, 3)
    assert [found["batch"] for found in record["findings"]] == [second]
    code, out, err = askq("sweep", "b_nothing")
    assert (code, out) == (2, "")
    assert "there is no batch b_nothing" in err


def test_on_a_terminal_a_table_says_what_to_do(stage: RedisStage, askq: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "on_terminal", lambda: True)
    batch = submit(stage.store, 5)
    assert askq("sweep") == (0, "", "5 jobs of 1 batch: everything is in order\n")
    unscheduled, dead = break_schedule(stage, batch), poison(stage, batch, "q3")
    assert "would repair" in askq("sweep", "--dry-run")[1]
    code, out, err = askq("sweep")
    assert code == 1
    look, *_, repaired, _, named = out.splitlines()
    assert look.split() == ["LOOK", "poison", "1", batch]
    assert f"    {dead}\n    → Look at its question with `askq show`" in out
    assert repaired.split() == ["repaired", "unscheduled", "1", batch]
    assert named == f"    {unscheduled}"
    assert err == "5 jobs of 1 batch: 1 repaired; 1 to look at\n"
    assert askq("sweep", "--json")[1].startswith("{")


def test_doctor_shows_what_the_last_audit_found(stage: RedisStage, askq: Asked) -> None:
    def told() -> tuple[bool | None, str]:
        (entry,) = [entry for entry in json.loads(askq("doctor", "--json")[1]) if entry["check"] == "audit"]
        return entry["ok"], entry["message"]

    def audit() -> None:
        report = Auditor(stage.store, by="worker one", allow_unsafe=True).run()
        stage.store.books().save_last(LastAudit.of(report).to_json())

    assert told() == (None, "no worker has audited the store yet; `askq sweep` does it now")
    batch = submit(stage.store, 5)
    audit()
    ok, message = told()
    assert ok
    assert message.endswith("ago by worker one: everything in order")
    break_schedule(stage, batch)
    audit()
    ok, message = told()
    assert ok
    assert message.endswith("repaired: unscheduled (1)")
    poison(stage, batch, "q3")
    audit()
    ok, message = told()
    assert ok is False
    assert "to look at: poison (1); `askq sweep` says what to do" in message
