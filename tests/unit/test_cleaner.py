"""The cleaner: what is due is deleted, and stays on record until the service has said that it is gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from askq.jobs.memory_store import MemoryStore
from askq.jobs.objects import Kind, RemoteObject
from worker.cleaner import Cleaner
from worker.protocols.base import Ambiguous, Blocked, CallError, Limited, Listing


class Service:
    """Deletes, or fails as told."""

    def __init__(self) -> None:
        self.deleted: list[tuple[Kind, str]] = []
        self.fails: dict[str, CallError | bool] = {}
        self.made_here: list[Listing] = []

    async def delete(self, kind: Kind, id_: str) -> bool:
        self.deleted.append((kind, id_))
        said = self.fails.get(id_, True)
        if isinstance(said, CallError):
            raise said
        return said

    async def listed(self, kind: Kind) -> list[Listing]:
        if kind is Kind.VECTOR_STORE:
            raise Blocked("endpoint_gone", "no stores here")
        return self.made_here


class Stage:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.store = MemoryStore(clock=lambda: self.time)
        self.service = Service()
        self.cleaner = self.new()

    def new(self) -> Cleaner:
        service: Any = self.service
        return Cleaner(self.store, "acc", lambda: service)

    async def clean(self) -> None:
        cleaner = self.new()
        await cleaner.look()
        for task in (cleaner._work, cleaner._inventory):
            if task is not None:
                await task

    def owns(self, owner: str, *objects: RemoteObject) -> None:
        self.store.remember(owner, objects)
        self.store.bury(owner)


def made(kind: Kind, id_: str, account: str | None = "acc") -> RemoteObject:
    return RemoteObject(kind=kind, id=id_, account=account)


async def test_the_objects_of_an_owner_go_in_their_order() -> None:
    stage = Stage()
    kinds = {"f": Kind.FILE, "c": Kind.CONVERSATION, "v": Kind.VECTOR_STORE, "r": Kind.RESPONSE}
    stage.owns("b_1.q", *(made(kind, id_) for id_, kind in kinds.items()))
    await stage.clean()
    assert [id_ for _, id_ in stage.service.deleted] == ["r", "c", "v", "f"]
    assert list(stage.store.all_buried()) == []


async def test_nothing_is_asked_of_the_service_when_nothing_is_due() -> None:
    stage = Stage()
    stage.store.remember("b_1.q", [made(Kind.FILE, "f")])
    stage.store.bury("b_1.q", after_s=60)
    await stage.clean()
    assert stage.service.deleted == []


async def test_a_failed_deletion_is_tried_again_ever_more_rarely() -> None:
    stage = Stage()
    stage.service.fails["f"] = Ambiguous("http_500", "oops")
    stage.owns("b_1.q", made(Kind.FILE, "f"))
    waits = []
    for tries in range(1, 8):
        await stage.clean()
        (stone,) = stage.store.all_buried()
        assert (stone.entry.tries, stone.entry.why) == (tries, "http_500: oops")
        assert stone.entry.due is not None
        waits.append(stone.entry.due - stage.time)
        stage.time = stone.entry.due
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (2.0, 30.0, 86_400.0)
    stage.service.fails.clear()
    await stage.clean()
    assert list(stage.store.all_buried()) == []


async def test_a_server_that_cannot_delete_keeps_what_it_has() -> None:
    """It has said so for days: the tombstones would pile up for ever."""
    stage = Stage()
    stage.service.fails["r"] = Blocked("endpoint_gone", "no such endpoint")
    stage.store.remember("b_1.q", [made(Kind.RESPONSE, "r")])
    stage.store.bury("b_1.q", receipt="b_1")
    for _ in range(10):
        await stage.clean()
        stage.time += 86_400
    receipt = stage.store.receipt("b_1")
    assert receipt is not None
    assert (receipt.kept, receipt.done) == ({"response": 1}, True)
    assert list(stage.store.all_buried()) == []


async def test_a_blocked_account_is_not_given_up() -> None:
    stage = Stage()
    stage.service.fails["r"] = Blocked("rejected_key", "401")
    stage.owns("b_1.q", made(Kind.RESPONSE, "r"))
    for _ in range(20):
        await stage.clean()
        (stone,) = stage.store.all_buried()
        assert stone.entry.due == stage.time + 60.0
        stage.time += 60.0


async def test_not_now_stops_the_rest() -> None:
    stage = Stage()
    stage.service.fails["x0"] = Limited("rate_limit_exceeded", "slow down", retry_after=20.0)
    for number in range(3):
        stage.owns(f"b_1.q{number}", made(Kind.RESPONSE, f"x{number}"))
    await stage.clean()
    assert {stone.object.id: stone.entry.due for stone in stage.store.all_buried()} == {"x0": stage.time + 20.0}
    cleaner = stage.new()
    stage.time += 30
    await cleaner.look()
    assert cleaner._work is not None
    await cleaner._work
    # It hears "not now" again, and deletes nothing before the time is over.
    before = len(stage.service.deleted)
    stage.time += 30
    cleaner._next = 0.0
    await cleaner.look()
    assert cleaner._work.done()
    assert len(stage.service.deleted) == before


@pytest.mark.parametrize(("account", "left"), [("acc", 0), (None, 0), ("another", 1)])
async def test_that_another_account_does_not_know_an_object_proves_nothing(account: str | None, left: int) -> None:
    stage = Stage()
    stage.service.fails["f"] = False
    stage.owns("b_1.q", made(Kind.FILE, "f", account))
    await stage.clean()
    assert len(list(stage.store.all_buried())) == left


async def test_an_assistant_is_taken_off_the_record_before_it_is_deleted() -> None:
    stage = Stage()
    stage.store.save_remote_assistant("acc", "d1", "asst_1")
    stage.owns("assistant:d1", made(Kind.ASSISTANT, "asst_1"))
    await stage.clean()
    assert stage.store.remote_assistant("acc", "d1") is None
    assert stage.service.deleted == [(Kind.ASSISTANT, "asst_1")]


async def test_a_cleaner_is_at_it_once() -> None:
    stage = Stage()
    stage.owns("b_1.q", made(Kind.FILE, "f"))
    await stage.cleaner.look()
    first = stage.cleaner._work
    await stage.cleaner.look()
    assert stage.cleaner._work is first
    assert first is not None
    await asyncio.wait_for(first, 60)
    assert stage.service.deleted == [(Kind.FILE, "f")]


async def test_an_inventory_tells_what_can_be_listed() -> None:
    stage = Stage()
    stage.service.made_here = [Listing(kind=Kind.ASSISTANT, id="asst_1", home="h", owner="assistant:d", created_at=1.0)]
    token = stage.store.ask_inventory()
    await stage.clean()
    told = json.loads(stage.store.inventory(token) or "")
    assert told["account"] == "acc"
    assert [entry["id"] for entry in told["made"]] == ["asst_1"]
    assert list(told["unlisted"]) == ["vector_store"]
