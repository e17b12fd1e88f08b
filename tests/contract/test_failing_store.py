"""A store with failpoints does what the real one does, and comes to each point around each of its steps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from askq.failpoints import Failpoint, arm
from askq.jobs import failing_store
from askq.jobs.failing_store import FailingStore
from askq.jobs.limits import Bound, Heard, Scope
from askq.jobs.model import Lane, Move, NewBatch, Outcome
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from tests.contract.store_stage import ALL, LONG, question
from tests.parts import RedisServer


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


def test_a_store_with_failpoints_is_a_store() -> None:
    changed = {name for name, value in vars(FailingStore).items() if inspect.isfunction(value)}
    known = {name for name, _ in inspect.getmembers(Store, inspect.isfunction)}
    assert changed <= known
    for name in changed:
        assert inspect.signature(getattr(FailingStore, name)) == inspect.signature(getattr(RedisStore, name)), name


def test_a_store_comes_to_each_of_its_points_around_each_of_its_steps(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(failing_store, "hit", seen.append)

    def points() -> list[str]:
        found = list(seen)
        seen.clear()
        return found

    store = FailingStore(redis_server.url)
    batch, _ = store.open_batch(NewBatch(name=None, assistant="a", protocol="responses"))
    assert points() == ["submit.open.before", "submit.open.after"]
    store.add(batch, [question(0)])
    assert points() == ["submit.add.before", "submit.add.after"]
    store.seal(batch, 1)
    assert points() == ["submit.seal.before", "submit.seal.after"]
    (claim,) = store.claim(Lane.START, ALL, limit=100, lease_s=LONG)
    assert points() == ["claim.before", "claim.after"]
    assert store.claim(Lane.START, ALL, limit=100, lease_s=LONG) == []
    assert points() == ["claim.before"]
    assert store.renew([(claim.id, claim.fence)], lease_s=LONG) == []
    assert points() == ["renew.before", "renew.after"]
    moves = [Move(job=claim.id, fence=claim.fence, name=name, delay=LONG) for name in ("prepare", "intend")]
    assert store.commit(moves, on_disk=True) == [Outcome.MOVED] * 2
    expected = [f"commit.{name}.{side}" for side in ("before", "after") for name in ("prepare", "intend")]
    assert points() == expected
    store.witness(claim.id, 1, "run_1")
    assert points() == ["witness.before", "witness.after"]
    assert store.reserve(claim.id, 1, 0.1)
    assert points() == ["reserve.before", "reserve.after"]
    scope = Scope(account="a", protocol="responses", model="m")
    for granted in (1, 0):
        assert store.take_permits(scope, [0.0], bound=Bound(requests=0.01), window=4).granted == granted
        assert points() == ["permits.before", "permits.after"][: 1 + granted], "without a permit nothing can go wrong"
    store.learn_limits(scope, Heard(closed=1, accepted=1))
    assert points() == ["limits.before", "limits.after"]
    assert store.batch(batch) is not None
    assert store.look_limits(scope).granted == 0
    assert points() == [], "reading harms nobody"
    store.close()


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_commit_that_dies_has_been_made_or_not(redis_server: RedisServer, side: str, tmp_path: Path) -> None:
    store = FailingStore(redis_server.url)
    batch, _ = store.open_batch(NewBatch(name=None, assistant="a", protocol="responses"))
    store.add(batch, [question(0)])
    (claim,) = store.claim(Lane.START, ALL, limit=100, lease_s=LONG)
    arm(f"commit.fail.{side}=raise", log=tmp_path / "log")
    with pytest.raises(Failpoint):
        store.commit([Move(job=claim.id, fence=claim.fence, name="fail")])
    job = store.job(claim.id)
    assert job is not None
    assert job.state == ("queued" if side == "before" else "failed")
    assert f"commit.fail.{side} raise" in (tmp_path / "log").read_text("utf-8")
    store.close()
