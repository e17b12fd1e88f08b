"""The audit in the background: one of all workers does it, bit by bit, and another goes on when that one dies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from askq.errors import StoreUnreachable
from askq.jobs.audit import LastAudit
from askq.jobs.books import Recount
from askq.jobs.memory_audit import MemoryBooks
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move
from tests.contract.store_stage import ALL, LONG, submit
from tests.parts import Clock, eventually
from worker import audit
from worker.audit import BackgroundAudit


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(autouse=True)
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step per tick, and hardly any rest between two."""
    monkeypatch.setattr(audit, "_PIECE_S", 0.0)
    monkeypatch.setattr(audit, "_SHARE", 100.0)


def last(store: MemoryStore) -> LastAudit | None:
    return LastAudit.read(store.books().last())


def finish(store: MemoryStore, *workers: BackgroundAudit) -> LastAudit:
    """Let workers tick until one has audited."""

    def ticked() -> LastAudit | None:
        for worker in workers:
            worker.tick()
        return last(store)

    return eventually(ticked, every=0.001, what="the audit ends")


def test_one_of_all_audits(store: MemoryStore, clock: Clock) -> None:
    submit(store, 3)
    workers = [BackgroundAudit(store, name, every_s=LONG) for name in ("one", "two", "three")]
    found = finish(store, *workers)
    assert (found.by, found.started_at, found.finished_at) == ("one", clock.now, clock.now)
    assert (found.repaired, found.remaining, found.noted) == ({}, {}, {})
    assert store.books().place() is None


def test_what_was_found_is_kept_and_logged(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    batch = submit(store, 2)
    for claim in store.claim(Lane.START, ALL, limit=10, lease_s=LONG):
        store.commit([Move(job=claim.id, fence=claim.fence, name="fail", fields={"error_code": "poison"})])
    found = finish(store, BackgroundAudit(store, "one", every_s=LONG))
    assert found.remaining == {"poison": 2}
    assert f"poison × 2 ({batch})" in caplog.text


def test_another_goes_on_where_a_dead_worker_stopped(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sorted(submit(store, 2) for _ in range(5))
    dead = BackgroundAudit(store, "dead", every_s=60)
    heir = BackgroundAudit(store, "heir", every_s=60)

    def half_way() -> bool:
        dead.tick()
        return json.loads(store.books().place() or '{"after": ""}')["after"] >= batches[1]

    eventually(half_way, every=0.001, what="some batches are done")
    heir.tick()
    assert last(store) is None
    looked_at: list[str] = []
    recount = MemoryBooks.recount

    def watched(self: MemoryBooks, batch: str, shards: Sequence[int], **how: Any) -> Iterator[Recount | None]:
        looked_at.append(batch)
        return recount(self, batch, shards, **how)

    monkeypatch.setattr(MemoryBooks, "recount", watched)
    clock.now += 61
    found = finish(store, BackgroundAudit(store, "heir", every_s=60))
    assert found.by == "heir"
    assert found.started_at < found.finished_at
    assert batches[0] not in looked_at
    assert batches[-1] in looked_at


def test_a_worker_that_lost_its_turn_stops(store: MemoryStore, clock: Clock) -> None:
    """Given a worker that was stopped for longer than its turn, when it comes back, then it leaves the audit alone."""
    submit(store, 2)
    slow, other = BackgroundAudit(store, "slow", every_s=60), BackgroundAudit(store, "other", every_s=60)
    slow.tick()
    clock.now += 100
    assert store.books().take_turn("other", ttl_s=60)
    kept = store.books().place()
    for _ in range(200):
        slow.tick()
    assert (last(store), store.books().place()) == (None, kept)
    assert finish(store, other).by == "other"


def test_a_worker_started_anew_waits_for_the_rest_of_the_minute(store: MemoryStore, clock: Clock) -> None:
    first = finish(store, BackgroundAudit(store, "one", every_s=60))
    clock.now += 59
    again = BackgroundAudit(store, "one", every_s=60)
    for _ in range(100):
        again.tick()
    assert last(store) == first
    clock.now += 2
    restarted = BackgroundAudit(store, "one", every_s=60)

    def audited_again() -> bool:
        restarted.tick()
        return last(store) != first

    eventually(audited_again, every=0.001, what="the next audit")


@pytest.mark.parametrize("place", ["{}", "nonsense", '{"report": "{}"}', '{"report": "{}", "late": [], "else": 1}'])
def test_what_another_version_kept_is_no_obstacle(store: MemoryStore, place: str) -> None:
    submit(store, 2)
    store.books().keep_place(place)
    store.books().save_last('{"other": 1}')
    assert finish(store, BackgroundAudit(store, "one", every_s=LONG)).by == "one"


def test_an_audit_that_was_cut_off_is_taken_up_again(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a store that does not answer for a while, then the timer is told, and the audit goes on afterwards."""
    submit(store, 2)
    worker = BackgroundAudit(store, "one", every_s=LONG)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryBooks, "schedule", _unreachable)

        def refused() -> bool:
            try:
                worker.tick()
            except StoreUnreachable:
                return True
            return False

        eventually(refused, every=0.001, what="the store is asked")
    assert finish(store, worker).by == "one"


def _unreachable(*_: object, **__: object) -> None:
    raise StoreUnreachable("gone")
