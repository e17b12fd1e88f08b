"""Forgetting: nothing of a batch or a job stays in the store but what still has to be deleted at the service."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest

from askq.files.folder import Folder
from askq.ids import job_id
from askq.jobs import forgetting
from askq.jobs.library import Item, ItemState, Wish
from askq.jobs.model import TERMINAL, NewBatch, Outcome, State
from askq.jobs.objects import Kind, RemoteObject, assistant_thing, content_thing
from askq.jobs.store import Store
from tests.contract.store_stage import (
    LONG,
    RedisStage,
    Stage,
    answer_all,
    audit,
    bring,
    claim,
    job_of,
    move,
    question,
    status_of,
    submit,
)

CANARY = "canary-7f3a"
KEY = f"key-{CANARY}"


def batch_of(stage: Stage, rows: int, *, budget: float | None = None) -> str:
    """A batch that says the canary wherever it can."""
    new = NewBatch(
        name=CANARY,
        assistant="tutor",
        protocol="responses",
        idempotency_key=KEY,
        metadata={"who": CANARY},
        table=f'{{"columns": ["{CANARY}"]}}',
        max_cost_usd=budget,
    )
    batch, _ = stage.store.open_batch(new)
    jobs = [
        question(index, f"{CANARY}? {index}", row_id=f"{CANARY}-{index}", input={"x": CANARY}) for index in range(rows)
    ]
    stage.store.add(batch, jobs)
    stage.store.seal(batch, rows)
    return batch


def delete_all(store: Store) -> int:
    """What a worker's cleaner does, on a service that deletes at once."""
    deleted = 0
    while stones := store.tombstones(limit=1000, lease_s=LONG):
        for stone in stones:
            store.gone(stone.owner, [stone.object])
            deleted += 1
    return deleted


def test_a_batch_is_forgotten_whole(stage: Stage) -> None:
    store = stage.store
    before = stage.everything()
    batch = batch_of(stage, 6, budget=5.0)
    other = submit(store, 0)
    for each in (batch, other):
        store.share(assistant_thing("0123456789abcdef"), each)
    store.share("file:x", batch)
    store.remember("file:x", [RemoteObject(kind=Kind.FILE, id="file-1")])
    store.remember(batch, [RemoteObject(kind=Kind.VECTOR_STORE, id="vs_1")])
    store.save_assistant("0123456789abcdef", "{}")
    for index, state in enumerate(sorted(TERMINAL)):
        job = job_id(batch, f"{CANARY}-{index}")
        fence = claim(store, job).fence
        assert move(store, job, fence, "prepare", fields={"thread": f"t{index}", "keep": "aa"}) is Outcome.MOVED
        bring(store, job, state)
    forgetting.begin(store, batch)
    assert status_of(store, batch).forgetting
    assert store.forgetting() == [batch]
    assert forgetting.advance(store, batch, None) == 0
    assert store.batch(batch) is None
    assert store.batch_under(KEY) is None
    assert [status.id for status in store.batches()] == [other]
    assert list(store.jobs(batch)) == []
    assert store.assistant("0123456789abcdef") == "{}", "another batch asks it"
    receipt = store.receipt(batch)
    assert receipt is not None
    assert (receipt.records, receipt.left, receipt.done) == (6, 8, False)
    assert receipt.due == {"conversation": 6, "file": 1, "vector_store": 1}
    assert delete_all(store) == 8
    receipt = store.receipt(batch)
    assert receipt is not None
    assert receipt.done
    assert receipt.gone == {"conversation": 6, "file": 1, "vector_store": 1}
    assert CANARY not in str(stage.everything())
    assert before is not None
    audit(stage, other)
    # The last one takes the assistant with it, and all that is left are receipts and registers.
    forgetting.begin(store, other)
    assert forgetting.advance(store, other, None) == 0
    assert store.assistant("0123456789abcdef") is None


def test_what_is_in_hand_is_waited_for(stage: Stage) -> None:
    store = stage.store
    batch = batch_of(stage, 2)
    job = job_id(batch, f"{CANARY}-0")
    fence = bring(store, job, State.RUNNING)
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 1
    assert job_of(store, job).cancel == "asked"
    assert forgetting.advance(store, batch, None) == 1
    # Whoever forgets may die: a worker goes on.
    assert move(store, job, fence, "cancel", fields={"error_code": "cancelled"}) is Outcome.MOVED
    forgetting.go_on(stage.another(), None, most=500)
    forgetting.go_on(stage.another(), None, most=500)
    assert store.batch(batch) is None
    assert store.forgetting() == []
    assert CANARY not in str(stage.everything())
    assert move(store, job, fence, "complete") is Outcome.MISSING, "a worker that comes too late writes nothing"
    store.witness(job, 1, "r1")
    store.settle(job, 1, 0.5)
    assert store.reserve(job, 1, 0.5)
    assert CANARY not in str(stage.everything())


@pytest.mark.parametrize("step", ["begin", "forget", "erase"])
def test_an_interrupted_forgetting_is_finished(stage: Stage, step: str) -> None:
    store = stage.store
    batch = batch_of(stage, 10)
    answer_all(store, batch)
    store.begin_forgetting(batch)
    if step != "begin":
        ids = list(store.job_ids(batch))
        assert len(ids) == 10
        store.forget(ids[: 5 if step == "forget" else 10], batch)
    assert forgetting.advance(stage.another(), batch, None) == 0
    receipt = store.receipt(batch)
    assert receipt is not None
    assert (receipt.records, receipt.done) == (10, True)
    assert forgetting.advance(store, batch, None) == 0, "and again"
    assert store.receipt(batch) == receipt
    assert CANARY not in str(stage.everything())


def test_one_job_is_forgotten_and_the_others_stay(stage: Stage) -> None:
    store = stage.store
    batch = batch_of(stage, 3)
    answer_all(store, batch)
    one, two, three = (f"{batch}.{CANARY}-{index}" for index in range(3))
    used = status_of(store, batch).usage
    forgetting.begin(store, two)
    assert not status_of(store, batch).forgetting
    assert forgetting.advance(store, two, None) == 0
    assert [job.id for job in store.jobs(batch)] == [one, three]
    assert store.job(two) is None
    status = status_of(store, batch)
    assert (status.total, status.done, status.usage) == (2, True, used)
    assert two not in str(stage.everything())
    receipt = store.receipt(two)
    assert receipt is not None
    assert (receipt.records, receipt.done) == (1, True)
    assert store.receipt(batch) is None
    audit(stage, batch)


def test_nothing_is_forgotten_that_nobody_knows(stage: Stage) -> None:
    stage.store.forget(["b_0.x"], "b_0")
    before = stage.everything()
    assert stage.store.forget(["b_0.x"], "b_0") == [Outcome.MISSING]
    assert stage.store.receipt("b_0") is None
    assert stage.everything() == before


def test_the_row_of_an_expired_job_is_forgotten_too(behind: RedisStage) -> None:
    batch = batch_of(behind, 2)
    answer_all(behind.store, batch)
    for key in behind.raw.keys("askq:*job:*-0") + behind.raw.keys("askq:*a[sn][ks]:*-0"):
        behind.raw.delete(key)
    forgetting.begin(behind.store, batch)
    assert forgetting.advance(behind.store, batch, None) == 0
    receipt = behind.store.receipt(batch)
    assert receipt is not None
    assert receipt.records == 2


def test_files_of_the_server_are_written_anew(behind: RedisStage) -> None:
    assert behind.store.compact() is None


def test_an_inventory_is_taken_by_one_worker(stage: Stage) -> None:
    store = stage.store
    assert store.take_inventory() is None
    token = store.ask_inventory()
    assert store.inventory(token) is None
    assert stage.another().take_inventory() == token
    assert store.take_inventory() is None
    store.give_inventory(token, '{"made": []}')
    assert store.inventory(token) == '{"made": []}'
    assert store.home() == stage.another().home()


def test_a_conversation_is_counted_once(stage: Stage) -> None:
    """It is on record for each of its questions, and all of these tombstones have to go."""
    store = stage.store
    rows = [question(turn, thread="talk", row_id=f"q{turn}") for turn in range(3)]
    batch = submit(
        store, [dataclasses.replace(row, after=f"q{turn - 1}") if turn else row for turn, row in enumerate(rows)]
    )
    for turn in range(3):
        job = job_id(batch, f"q{turn}")
        store.wake([job])
        mark = {"joined": "m"} if turn else {}
        fence = claim(store, job).fence
        assert move(store, job, fence, "prepare", fields={"thread": "t1", **mark}) is Outcome.MOVED
        bring(store, job, State.COMPLETED)
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 0
    receipt = store.receipt(batch)
    assert receipt is not None
    assert (receipt.due, receipt.left) == ({"conversation": 1}, 3)
    assert delete_all(store) == 3
    receipt = store.receipt(batch)
    assert receipt is not None
    assert (receipt.gone, receipt.left, receipt.done) == ({"conversation": 1}, 0, True)


def test_a_store_is_let_go_of_with_its_files_though_a_worker_has_it(stage: Stage) -> None:
    """The item changes hands between the look and the move; its file is on the receipt, too."""
    store = stage.store
    batch = submit(store, 1)
    answer_all(store, batch)
    file = Wish(
        name="file:x", kind="file", title=CANARY, about={"name": CANARY, "sha256": "0", "size": 1, "purpose": "p"}
    )
    shelf = Wish(name="store:x", kind="store", title=CANARY, about={"files": []})
    store.want("acc", [file, shelf])
    store.share("acc/store:x", batch)
    store.share("acc/file:x", "acc/store:x")
    store.remember("acc/store:x", [RemoteObject(kind=Kind.VECTOR_STORE, id="vs_1")])
    store.remember("acc/file:x", [RemoteObject(kind=Kind.FILE, id="file-1")])
    stale = store.items("acc")
    store.claim_items("acc", limit=10, lease_s=LONG)
    real = store.items

    def read(account: str, names: Collection[str] | None = None) -> list[Item]:
        found = [item for item in stale if names is None or item.name in names] or real(account, names)
        stale[:] = [item for item in stale if item not in found]
        return found

    store.items = read  # type: ignore[method-assign]
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 0
    store.items = real  # type: ignore[method-assign]
    assert {item.state for item in store.items("acc")} == {ItemState.LEAVING}
    receipt = store.receipt(batch)
    assert receipt is not None
    assert receipt.due == {"file": 1, "vector_store": 1}


def test_two_that_are_forgotten_at_once_let_go_of_what_they_share(stage: Stage, tmp_path: Path) -> None:
    """Both look before either has left: the content and the item of it must not stay behind."""
    store, folder = stage.store, Folder(tmp_path / "files")
    (tmp_path / "a.txt").write_text(CANARY)
    ref = folder.keep(tmp_path / "a.txt")
    batches = [submit(store, 1), submit(store, 1)]
    about = {"name": CANARY, "sha256": "0", "size": 1, "purpose": "p"}
    store.want("acc", [Wish(name="file:x", kind="file", title=CANARY, about=about)])
    store.remember("acc/file:x", [RemoteObject(kind=Kind.FILE, id="file-1")])
    for batch in batches:
        answer_all(store, batch)
        store.share("acc/file:x", batch)
        store.share(content_thing(ref.sha256), batch)
        forgetting.begin(store, batch)
    for batch in batches:
        assert forgetting._let_go(store, folder, batch)
    for batch in batches:
        store.forget(list(store.job_ids(batch)), batch)
        store.erase(batch)
    assert not folder.has(ref.sha256)
    assert {item.state for item in store.items("acc")} == {ItemState.LEAVING}
    assert delete_all(store) == 1
    receipts = [store.receipt(batch) for batch in batches]
    assert [receipt is not None and receipt.done for receipt in receipts] == [True, True]
    assert sum(receipt.gone.get("file", 0) for receipt in receipts if receipt is not None) == 1


def test_what_one_receipt_counts_no_other_does(stage: Stage) -> None:
    """A question is forgotten, and then its batch, before the service has said that anything is gone."""
    store = stage.store
    batch = batch_of(stage, 2)
    answer_all(store, batch)
    job = f"{batch}.{CANARY}-0"
    store.remember(job, [RemoteObject(kind=Kind.FILE, id="file-1")])
    for what in (job, batch):
        forgetting.begin(store, what)
        assert forgetting.advance(store, what, None) == 0
    assert delete_all(store) == 1
    told = [store.receipt(what) for what in (job, batch)]
    assert [(receipt.left, dict(receipt.gone)) for receipt in told if receipt is not None] == [
        (0, {"file": 1}),
        (0, {}),
    ]
