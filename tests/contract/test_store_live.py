"""Live logs: what a worker tells while a run is at work, and what a reader sees of it."""

from __future__ import annotations

import threading

import pytest

from askq.jobs import live
from askq.jobs.live import Kind, Piece
from askq.jobs.model import Lane, Outcome, State
from tests.contract.store_stage import ALL, LONG, SHORT, Stage, move, submit

HELLO = Piece(kind=Kind.TEXT, key="m1", text="안녕, ")
WORLD = Piece(kind=Kind.TEXT, key="m1", at=4, text="\ud800세계")
"""Half of a surrogate pair may come out of a stream."""


def running(stage: Stage, run: str = "run_1", *, delay: float = LONG) -> str:
    """A job whose run exists, in nobody's hands; its id."""
    batch = submit(stage.store, 1)
    (claim,) = stage.store.claim(Lane.START, ALL, limit=5, lease_s=LONG)
    assert move(stage.store, claim.id, claim.fence, "intend", delay=LONG, fields={"live": 1}) is Outcome.MOVED
    assert move(stage.store, claim.id, claim.fence, "start", delay=delay, fields={"run": run}) is Outcome.MOVED
    (job,) = stage.store.jobs(batch)
    return job.id


def start(stage: Stage) -> str:
    """A job whose intent is on record, in the hands of somebody who is gone; its id."""
    submit(stage.store, 1)
    (claim,) = stage.store.claim(Lane.START, ALL, limit=5, lease_s=LONG)
    fields = {"live": 1, "attempts": 1}
    assert move(stage.store, claim.id, claim.fence, "intend", delay=SHORT, fields=fields) is Outcome.MOVED
    return claim.id


def test_what_is_told_is_read_in_order_and_goes_on_after_any_entry(stage: Stage) -> None:
    job, store = running(stage), stage.store
    assert store.listen(job, None, wait_s=SHORT) == []
    assert store.tell(job, "a", "run_1", [HELLO]) is Outcome.MOVED
    assert store.tell(job, "a", "run_1", [WORLD, Piece(kind=Kind.END)]) is Outcome.MOVED
    first, second = store.listen(job, None, wait_s=LONG)
    assert (first.run, first.pieces) == ("run_1", (HELLO,))
    assert second.pieces == (WORLD, Piece(kind=Kind.END))
    assert store.listen(job, first.id, wait_s=LONG) == [second]
    assert store.listen(job, second.id, wait_s=SHORT) == []


def test_a_reader_that_waits_hears_at_once(stage: Stage) -> None:
    job = running(stage)
    other = stage.another()
    heard: list[object] = []
    reader = threading.Thread(target=lambda: heard.extend(other.listen(job, None, wait_s=LONG)))
    reader.start()
    stage.store.tell(job, "a", "run_1", [HELLO])
    reader.join(30)
    assert len(heard) == 1


def test_one_tells_at_a_time_until_it_has_been_silent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TELLS_S", LONG)
    job, store = running(stage), stage.store
    assert store.tell(job, "a", "run_1", []) is Outcome.MOVED
    assert store.tell(job, "b", "run_1", [HELLO]) is Outcome.NOT_YOURS
    assert store.listen(job, None, wait_s=SHORT) == []
    monkeypatch.setattr(live, "TELLS_S", SHORT)
    assert store.tell(job, "a", "run_1", []) is Outcome.MOVED
    stage.pass_time(2 * SHORT)
    monkeypatch.setattr(live, "TELLS_S", LONG)
    assert store.tell(job, "b", "run_1", [HELLO]) is Outcome.MOVED
    assert store.tell(job, "a", "run_1", [HELLO]) is Outcome.NOT_YOURS


def test_whoever_knows_more_relieves_the_one_who_tells(stage: Stage) -> None:
    job, store = running(stage), stage.store
    assert store.tell(job, "a", "run_1", [HELLO]) is Outcome.MOVED
    assert store.tell(job, "b", "run_0", [], relieves=True) is Outcome.NOT_YOURS, "the job has another run"
    assert store.tell(job, "b", "run_1", [WORLD], relieves=True) is Outcome.MOVED
    assert store.tell(job, "a", "run_1", [HELLO]) is Outcome.NOT_YOURS
    assert store.tell(job, "b", "run_1", []) is Outcome.MOVED
    assert [entry.pieces for entry in store.listen(job, None, wait_s=LONG)] == [(HELLO,), (WORLD,)]


def test_nothing_is_told_of_another_run_an_ended_job_or_one_that_is_gone(stage: Stage) -> None:
    job, store = running(stage, delay=0.0), stage.store
    assert store.tell(job, "a", "run_0", [HELLO]) is Outcome.NOT_YOURS
    assert store.tell("b_none.q1", "a", "run_1", [HELLO]) is Outcome.MISSING
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert claim.live
    move(store, claim.id, claim.fence, "fail", fields={"error_code": "run_failed"})
    assert store.tell(job, "a", "run_1", [HELLO]) is Outcome.ALREADY
    assert store.listen(job, None, wait_s=SHORT) == []


def test_a_run_that_has_ended_makes_its_job_due(stage: Stage) -> None:
    job, store = running(stage), stage.store
    assert not store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert store.hurry(job, "run_0") is Outcome.ALREADY
    assert store.hurry("b_none.q1", "run_1") is Outcome.MISSING
    assert store.hurry(job, "run_1") is Outcome.MOVED
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert claim.id == job
    assert store.hurry(job, "run_1") is Outcome.NOT_YOURS, "somebody has it in hand"
    assert not store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    move(store, claim.id, claim.fence, "collect", delay=LONG)
    assert store.hurry(job, "run_1") is Outcome.ALREADY
    assert not store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)


def test_what_a_run_has_ended_with_is_kept_for_whoever_polls_it(stage: Stage) -> None:
    job, store = running(stage), stage.store
    assert store.hurry(job, "run_0", final="another", attempt=1) is Outcome.ALREADY
    assert store.hurry("b_none.q1", "run_1", final="nobody", attempt=1) is Outcome.MISSING
    assert store.hurry(job, "run_1", final="한 마디", attempt=1) is Outcome.MOVED
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert (claim.final, claim.state) == ("한 마디", State.RUNNING)
    assert store.hurry(job, "run_1", final="the last", attempt=1) is Outcome.NOT_YOURS
    move(store, claim.id, claim.fence, "defer", delay=LONG)
    assert store.hurry(job, "run_1") is Outcome.MOVED
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert claim.final == "the last", "what came while somebody had it in hand; and nothing takes it away again"
    move(store, claim.id, claim.fence, "collect", fields={"final": None})
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert claim.final is None
    assert store.hurry(job, "run_1", final="too late", attempt=1) is Outcome.ALREADY


def test_who_has_heard_the_end_of_a_run_bears_witness_where_it_is_not_known(stage: Stage) -> None:
    """Given a server that came back without its last second, then it hears of the run from whoever knows it."""
    job, store = start(stage), stage.store
    assert store.hurry(job, "run_1", final="said", attempt=2) is Outcome.ALREADY
    assert store.hurry(job, "run_1", attempt=1) is Outcome.ALREADY, "who has nothing to say has seen no end"
    assert store.hurry(job, "run_1", final="said", attempt=1) is Outcome.NOT_YOURS
    stage.pass_time(2 * SHORT)
    (claim,) = store.claim(Lane.POLL, ALL, limit=5, lease_s=LONG)
    assert (claim.witness, claim.final, claim.state) == ("run_1", "said", State.STARTING)
    move(store, job, claim.fence, "adopt", delay=LONG, fields={"run": "run_1", "witness": None})
    assert store.hurry(job, "run_1", final="said", attempt=1) is Outcome.MOVED


def test_whether_somebody_tells_is_known(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TELLS_S", LONG)
    job, store = running(stage), stage.store
    assert not store.told(job)
    store.tell(job, "a", "run_1", [])
    assert store.told(job)
    monkeypatch.setattr(live, "TELLS_S", SHORT)
    store.tell(job, "a", "run_1", [])
    stage.pass_time(2 * SHORT)
    assert not store.told(job)


def test_a_log_is_bounded(stage: Stage) -> None:
    job, store = running(stage), stage.store
    for at in range(live.MOST_ENTRIES + 300):
        store.tell(job, "a", "run_1", [Piece(kind=Kind.TEXT, key="m", at=at, text="x")])
    read, after = [], None
    while found := store.listen(job, after, wait_s=SHORT):
        read += found
        after = found[-1].id
    assert live.MOST_ENTRIES <= len(read) <= live.MOST_ENTRIES + 200
    assert read[-1].pieces[0].at == live.MOST_ENTRIES + 299
