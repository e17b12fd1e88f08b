"""Waiting through a Redis that is away: said once, ended by an answer, and not for ever."""

from __future__ import annotations

import pytest

from askq.errors import StoreError, StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import BatchStatus, NewBatch
from producer.batch import Batch
from producer.outage import PATIENCE_S, Outage


class Redis:
    """A server that may be away, and a clock."""

    def __init__(self) -> None:
        self.away = False
        self.now = 100.0
        self.said: list[str] = []
        self.outage = Outage(self.said.append, clock=lambda: self.now)

    def read(self) -> str:
        if self.away:
            raise StoreUnreachable("Redis at redis://here does not answer: refused", remedy="Start it.")
        return "counts"

    def look(self, *, after_s: float = 0.0) -> str | None:
        self.now += after_s
        return self.outage.through(self.read)


def test_a_redis_that_comes_back_is_told_once_each_way() -> None:
    redis = Redis()
    assert redis.look() == "counts"
    redis.away = True
    assert [redis.look(after_s=10) for _ in range(3)] == [None, None, None]
    redis.away = False
    assert redis.look(after_s=10) == "counts"
    assert redis.look() == "counts"
    assert redis.said == [
        "Redis at redis://here does not answer: refused; waiting for it",
        "Redis answers again after 30 s",
    ]


def test_a_redis_that_stays_away_is_an_error_and_a_new_outage_has_new_patience() -> None:
    redis = Redis()
    redis.away = True
    assert redis.look() is None
    assert redis.look(after_s=PATIENCE_S) is None
    redis.away = False
    assert redis.look() == "counts"
    redis.away = True
    assert redis.look(after_s=PATIENCE_S) is None
    with pytest.raises(StoreUnreachable, match="does not answer"):
        redis.look(after_s=PATIENCE_S + 1)


def test_what_waiting_cannot_help_is_told_at_once() -> None:
    def refuse() -> None:
        raise StoreError("Redis at redis://here refused us: wrong password")

    with pytest.raises(StoreError, match="wrong password"):
        Redis().outage.through(refuse)


def test_the_python_client_waits_through_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Given a batch that ends while Redis is away, when a program waits for it, then it gets the end and no error."""
    store = MemoryStore()
    batch = Batch(store, store.open_batch(NewBatch(name=None, assistant="tutor", protocol="responses"))[0])
    read = store.batch
    asked: list[str] = []

    def restarting(name: str) -> BatchStatus | None:
        asked.append(name)
        if len(asked) < 4:
            raise StoreUnreachable("Redis does not answer")
        store.seal(batch.id, 0)
        return read(name)

    monkeypatch.setattr(store, "batch", restarting)
    monkeypatch.setattr("producer.batch._POLL_S", 0.001)
    assert batch.wait(timeout=30).done
    assert [record.message for record in caplog.records if record.name == "producer.batch"] == [
        "Redis does not answer; waiting for it",
        "Redis answers again after 0 s",
    ]
