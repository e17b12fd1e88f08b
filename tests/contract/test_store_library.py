"""The library: items are wanted once, made by whoever holds them, and at rest until somebody needs them anew."""

from __future__ import annotations

import dataclasses

import pytest

from askq.files.model import FileRef, StoreRef
from askq.jobs import keys
from askq.jobs.library import AT_REST, FILE, STORE, ItemState, Wish, file_item, store_item
from askq.jobs.model import Outcome
from tests.contract.store_stage import ALL, LONG, SHORT, RedisStage, Stage

REF = FileRef(name="요금표.csv", sha256="ab" * 32, size=3)
TABLE = file_item(REF, "assistants")
HANDBOOK = store_item(StoreRef(name="handbook", files=(REF,)))
ACCOUNT = "acc"


def test_an_item_is_made_once_whoever_wants_it(stage: Stage) -> None:
    first, second = stage.store.want(ACCOUNT, [TABLE, HANDBOOK])
    assert first is not None
    assert second is not None
    assert (first.kind, first.state, first.file) == (FILE, ItemState.WANTED, REF)
    assert (second.kind, second.files) == (STORE, (REF,))
    assert stage.another().want(ACCOUNT, [TABLE]) == [dataclasses.replace(first, now=pytest.approx(first.now, abs=5))]
    assert [item.name for item in stage.store.items(ACCOUNT)] == [TABLE.name, HANDBOOK.name]
    assert stage.store.items("another account") == []


def test_items_are_leased_and_changed_under_a_fence(stage: Stage) -> None:
    stage.store.want(ACCOUNT, [HANDBOOK])
    (leased,) = stage.store.claim_items(ACCOUNT, limit=5, lease_s=LONG)
    assert leased.name == HANDBOOK.name
    stage.store.want(ACCOUNT, [TABLE])
    (item,) = stage.store.claim_items(ACCOUNT, limit=5, lease_s=SHORT)
    assert item.name == TABLE.name, "the other is leased"
    stage.pass_time(2 * SHORT)
    (later,) = stage.store.claim_items(ACCOUNT, limit=5, lease_s=LONG)
    assert later.fence > item.fence
    assert stage.store.move_item(ACCOUNT, item, {"state": "ready"}, due_s=None) is Outcome.NOT_YOURS
    done = {"state": "ready", "remote": "file-1", "data": {"checked": 1.5}, "error": None}
    assert stage.store.move_item(ACCOUNT, later, done, due_s=None) is Outcome.MOVED
    (kept,) = stage.store.items(ACCOUNT, [TABLE.name, "unknown"])
    assert (kept.state, kept.remote, kept.data, kept.error) == (ItemState.READY, "file-1", {"checked": 1.5}, None)
    assert stage.store.move_item(ACCOUNT, leased, done, due_s=None) is Outcome.MOVED
    assert stage.store.next_item(ACCOUNT) is None


def test_an_item_is_due_when_told(stage: Stage) -> None:
    assert stage.store.next_item(ACCOUNT) is None
    stage.store.want(ACCOUNT, [TABLE])
    (item,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=LONG)
    assert stage.store.move_item(ACCOUNT, item, {"tries": 1}, due_s=LONG) is Outcome.MOVED
    due = stage.store.next_item(ACCOUNT)
    assert due == pytest.approx(LONG, abs=5)


def test_the_schedule_of_items_follows_a_clock_that_was_set_back(stage: Stage) -> None:
    stage.store.want(ACCOUNT, [TABLE])
    (item,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=LONG)
    assert stage.store.move_item(ACCOUNT, item, {}, due_s=2 * LONG) is Outcome.MOVED
    assert stage.store.set_back(LONG, ALL)
    assert stage.store.next_item(ACCOUNT) == pytest.approx(LONG, abs=5)


def test_what_failed_is_tried_again_when_somebody_says_so(stage: Stage) -> None:
    stage.store.want(ACCOUNT, [TABLE])
    (item,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=LONG)
    failed = {"state": "failed", "error": "no such type", "tries": 3}
    assert stage.store.move_item(ACCOUNT, item, failed, due_s=None) is Outcome.MOVED
    (still,) = stage.store.want(ACCOUNT, [TABLE])
    assert still is not None
    assert (still.state, still.error) == (ItemState.FAILED, "no such type")
    (anew,) = stage.store.want(ACCOUNT, [TABLE], again=True)
    assert anew is not None
    assert (anew.state, anew.error, anew.tries) == (ItemState.WANTED, None, 0)
    assert anew.state not in AT_REST
    assert stage.store.move_item(ACCOUNT, item, {}, due_s=None) is Outcome.NOT_YOURS, "whoever held it is out"


def test_what_is_to_be_deleted_is_wanted_again_or_is_not_there(stage: Stage) -> None:
    (item,) = stage.store.want(ACCOUNT, [TABLE])
    assert item is not None
    leaving = {"state": "leaving"}
    assert stage.store.move_item(ACCOUNT, item, leaving, due_s=0.0, take_over=True) is Outcome.MOVED
    (known,) = stage.store.want(ACCOUNT, [TABLE], only_known=True)
    assert known is not None
    assert known.state is ItemState.LEAVING
    (anew,) = stage.store.want(ACCOUNT, [TABLE])
    assert anew is not None
    assert anew.state is ItemState.WANTED
    assert anew.fence > known.fence


def test_a_store_known_by_its_name_alone_must_be_there(stage: Stage) -> None:
    wish = Wish(name="store:handbook", kind=STORE, title="handbook")
    assert stage.store.want(ACCOUNT, [wish], only_known=True) == [None]
    assert stage.store.items(ACCOUNT) == []
    assert stage.store.next_item(ACCOUNT) is None


def test_an_item_that_is_dropped_is_forgotten(stage: Stage) -> None:
    (item,) = stage.store.want(ACCOUNT, [TABLE])
    assert item is not None
    assert stage.store.drop_item(ACCOUNT, dataclasses.replace(item, fence=item.fence + 1)) is Outcome.NOT_YOURS
    assert stage.store.drop_item(ACCOUNT, item) is Outcome.MOVED
    assert stage.store.drop_item(ACCOUNT, item) is Outcome.MISSING
    assert stage.store.items(ACCOUNT) == []
    assert stage.store.claim_items(ACCOUNT, limit=1, lease_s=LONG) == []


def test_a_record_nobody_asks_for_expires_unless_it_is_kept(stage: Stage) -> None:
    if not isinstance(stage, RedisStage):
        pytest.skip("the stand-in keeps everything")
    stage.store.want(ACCOUNT, [TABLE])
    stage.store.want(ACCOUNT, [HANDBOOK], kept=True)
    stage.store.want(ACCOUNT, [HANDBOOK])
    redis = stage.store._redis
    assert redis.ttl(keys.item(ACCOUNT, TABLE.name)) > 0
    assert redis.ttl(keys.item(ACCOUNT, HANDBOOK.name)) == -1


def test_the_same_name_with_other_files_is_another_store() -> None:
    other = FileRef(name="b.md", sha256="cd" * 32, size=4)
    one, two = (store_item(StoreRef(name="handbook", files=files)) for files in ((REF,), (REF, other)))
    assert one.name != two.name
    assert one.name == store_item(StoreRef(name="handbook", files=(REF, REF))).name
    assert store_item(StoreRef(files=(REF, other))).title == "요금표.csv and 1 more"
