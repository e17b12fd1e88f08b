"""Batches and their rows, as every job store takes them: each row once, whoever adds it how often."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from askq.errors import StoreError
from askq.jobs.model import NewBatch, State, Usage
from askq.jobs.store import Store
from tests.contract.store_stage import (
    SERVERS,
    RedisStage,
    Stage,
    answer_all,
    audit,
    open_batch,
    question,
    status_of,
    submit,
)
from tests.parts import RedisServer, eventually


def test_rows_added_again_add_what_is_missing_and_nothing_else(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = [question(index) for index in range(120)]
    found = store.add(batch, rows[:100])
    assert (found.added, found.already, found.conflicts) == (100, 0, ())
    answer_all(store, batch)
    before = list(store.jobs(batch))
    found = store.add(batch, rows)
    assert (found.added, found.already, found.conflicts) == (20, 100, ())
    assert list(store.jobs(batch))[:100] == before
    audit(stage, batch)
    before_all = stage.everything()
    assert store.add(batch, rows).already == 120
    assert store.add(batch, []).added == 0
    assert stage.everything() == before_all


CHANGES: dict[str, dict[str, Any]] = {
    "text": {"text": "Something else?"},
    "model": {"model": "m2"},
    "instructions": {"instructions": "Be brief."},
}


@pytest.mark.parametrize("change", [*CHANGES, "assistant", "protocol"])
def test_a_row_with_another_question_is_a_conflict_and_left_as_it_was(stage: Stage, change: str) -> None:
    store = stage.store
    batch = submit(store, 5)
    rows = [question(index) for index in range(7)]
    for at in (4, 1):
        match change:
            case "assistant":
                rows[at] = dataclasses.replace(rows[at], assistant_digest="f" * 16)
            case "protocol":
                rows[at] = dataclasses.replace(rows[at], protocol="assistants")
            case _:
                rows[at] = question(at, **CHANGES[change])
    before = stage.everything()
    found = store.compare(batch, rows)
    assert (found.added, found.already, found.conflicts) == (2, 3, ("q1", "q4"))
    assert stage.everything() == before, "comparing changes nothing"
    assert store.add(batch, rows) == found
    assert [job.question.text for job in store.jobs(batch)][:5] == [f"What is {index}?" for index in range(5)]
    audit(stage, batch)


def test_a_row_that_comes_twice_is_added_once(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    rows = [question(0), question(0), question(0, "Something else?"), question(1)]
    expected = store.compare(batch, rows)
    assert (expected.added, expected.already, expected.conflicts) == (2, 1, ("q0",))
    assert store.add(batch, rows) == expected
    assert status_of(store, batch).counts[State.QUEUED] == 2


def test_a_row_whose_result_expired_is_not_asked_again(redis_servers: Callable[[str], RedisServer]) -> None:
    """Given a list that is submitted again after some of its results have expired, then nobody is paid twice."""
    stage = RedisStage(redis_servers(SERVERS[0]), keep_days=1 / 86_400)
    try:
        store = stage.store
        batch = submit(store, 2, key="k")
        answer_all(store, batch)
        eventually(lambda: not any(store.jobs(batch)), what="the results expire")
        store.add(batch, [question(2)])
        rows = [question(0), question(1, "Something else?"), question(2, "Something else?"), question(3), question(3)]
        expected = store.compare(batch, rows)
        assert (expected.added, expected.already, expected.conflicts) == (1, 3, ("q2",))
        assert store.add(batch, rows) == expected
        store.seal(batch, 4)
        status = status_of(store, batch)
        assert (status.total, status.pending) == (4, 2)
        assert {state: many for state, many in status.counts.items() if many} == {State.COMPLETED: 2, State.QUEUED: 2}
        assert [job.question.row_id for job in store.jobs(batch)] == ["q2", "q3"]
    finally:
        stage.close()


def test_two_who_add_the_same_rows_at_once_add_them_once(stage: Stage) -> None:
    batch = open_batch(stage.store)
    rows = [question(index) for index in range(200)]
    stores = [stage.another() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda store: store.add(batch, rows), stores))
    assert sum(part.added for part in found) == sum(part.already for part in found) == 200
    audit(stage, batch)


def test_a_batch_has_what_it_was_opened_with(stage: Stage) -> None:
    store = stage.store
    new = NewBatch(
        name="Übung", assistant="tutor", protocol="assistants", idempotency_key="k", metadata={"class": "7b"}
    )
    before = stage.now()
    batch, created = store.open_batch(new)
    assert created
    status = status_of(store, batch)
    assert (status.id, status.name, status.assistant, status.protocol) == (batch, "Übung", "tutor", "assistants")
    assert (status.idempotency_key, status.metadata) == ("k", {"class": "7b"})
    assert before <= status.created_at <= stage.now()
    assert (status.sealed, status.total, status.pending, status.done) == (False, 0, 0, False)
    assert (status.usage, status.finished_at, status.paused) == (Usage(), None, ())
    plain = status_of(store, store.open_batch(NewBatch(name=None, assistant="a", protocol="responses"))[0])
    assert (plain.name, plain.idempotency_key, plain.metadata) == (None, None, {})


def test_an_idempotency_key_leads_to_its_batch(stage: Stage) -> None:
    store = stage.store
    new = NewBatch(name="one", assistant="tutor", protocol="responses", idempotency_key="k")
    batch, created = store.open_batch(new)
    assert created
    before = stage.everything()
    assert store.open_batch(dataclasses.replace(new, name="two")) == (batch, False)
    assert stage.everything() == before
    other, created = store.open_batch(dataclasses.replace(new, idempotency_key="K"))
    assert created
    assert other != batch
    odd, _ = store.open_batch(dataclasses.replace(new, idempotency_key="not text: \udcff"))
    assert store.batch_under("not text: \udcff") == odd
    assert status_of(store, odd).idempotency_key == "not text: \udcff"
    unkeyed = dataclasses.replace(new, idempotency_key=None)
    assert store.open_batch(unkeyed)[0] != store.open_batch(unkeyed)[0]


def test_of_many_who_open_a_batch_under_one_key_one_does(stage: Stage) -> None:
    stores = [stage.another() for _ in range(4)]
    gate = threading.Barrier(4)

    def open_(store: Store, key: str) -> tuple[str, bool]:
        gate.wait(60)
        return store.open_batch(NewBatch(name=None, assistant="tutor", protocol="responses", idempotency_key=key))

    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            found = list(pool.map(open_, stores, [f"key {number}"] * 4))
            assert len({batch for batch, _ in found}) == 1
            assert sum(created for _, created in found) == 1
    assert len(stage.store.batches(limit=100)) == 10


def test_a_batch_is_done_when_it_is_sealed_and_every_job_ended(stage: Stage) -> None:
    store = stage.store
    batch = open_batch(store)
    store.add(batch, [question(0), question(1)])
    answer_all(store, batch)
    status = status_of(store, batch)
    assert (status.sealed, status.total, status.pending, status.done) == (False, 2, 0, False), "more rows may come"
    store.seal(batch, 3)
    status = status_of(store, batch)
    assert (status.sealed, status.total, status.pending, status.done) == (True, 3, 1, False), "the submitter died?"
    assert status.finished_at is None
    store.add(batch, [question(2)])
    answer_all(store, batch)
    status = status_of(store, batch)
    assert (status.pending, status.done) == (0, True)
    assert status.finished_at == max(job.completed_at or 0 for job in store.jobs(batch))


def test_rows_added_to_a_sealed_batch_make_it_undone_at_once(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 2)
    answer_all(store, batch)
    assert status_of(store, batch).done
    store.add(batch, [question(2)])
    status = status_of(store, batch)
    assert (status.total, status.pending, status.done, status.finished_at) == (3, 1, False, None)
    store.seal(batch, 3)
    assert status_of(store, batch).total == 3


def test_an_empty_batch_is_done_when_sealed(store: Store) -> None:
    batch = submit(store, 0)
    status = status_of(store, batch)
    assert (status.total, status.pending, status.done, status.finished_at) == (0, 0, True, None)
    assert list(store.jobs(batch)) == []


def test_sealing_what_is_not_there_says_so_and_makes_nothing(stage: Stage) -> None:
    before = stage.everything()
    with pytest.raises(StoreError, match="batch b_0 could not be sealed") as caught:
        stage.store.seal("b_0", 3)
    assert caught.value.remedy == "Submit the list again."
    assert stage.everything() == before
    assert stage.store.batches() == []


def test_assistants_are_kept_under_their_hash(store: Store) -> None:
    assert store.assistant("d1") is None
    store.save_assistant("d1", '{"name": "tütor"}')
    store.save_assistant("d2", "{}")
    store.save_assistant("d1", '{"name": "tütor"}')
    assert store.assistant("d1") == '{"name": "tütor"}'


def test_the_newest_batches_come_first(stage: Stage) -> None:
    store = stage.store
    ids = []
    for _ in range(15):
        ids.append(submit(store, 1))
        stage.pass_time(0.002)
    assert [status.id for status in store.batches(limit=4)] == ids[:-5:-1]
    assert [status.id for status in store.batches(limit=100)] == ids[::-1]
    assert [status.id for status in store.batches()] == ids[::-1]
    assert [store.batches(limit=limit) for limit in (0, -1)] == [[], []]
    assert store.find_batches("b_") == ids[:-11:-1], "ten at most"
    assert store.find_batches(ids[3]) == [ids[3]]
    assert store.find_batches("b_zzz") == []
    assert (store.batch("b_0"), store.job("b_0.q0"), store.job("nonsense")) == (None, None, None)
