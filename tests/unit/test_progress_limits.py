"""What a person is told while a list waits for the account's limit."""

from __future__ import annotations

import dataclasses

from askq.jobs.limits import GETS, Bound, Heard, Scope, Wait
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import BatchStatus, NewBatch, NewJob, Question
from askq.pauses import waits_for
from producer.progress import limited, summary

NOW = 1_800_000_000.0


def batch(store: MemoryStore, *, protocol: str = "responses") -> str:
    made, _ = store.open_batch(NewBatch(name=None, assistant="plain", protocol=protocol))
    question = Question(row_id="q", index=0, text="Why?")
    store.add(made, [NewJob(question=question, assistant="plain", assistant_digest="d", protocol=protocol)])
    store.seal(made, 1)
    return made


def status_of(store: MemoryStore, made: str) -> BatchStatus:
    status = store.batch(made)
    assert status is not None
    return status


def test_a_wait_is_told_with_its_seconds_and_ends_with_the_batch() -> None:
    store = MemoryStore(clock=lambda: NOW)
    made = batch(store)
    other = batch(store, protocol="assistants")
    scope = Scope(account="acc", protocol="responses", model="m")
    store.take_permits(scope, [0.0], bound=Bound(), window=4)
    store.learn_limits(scope, Heard(closed=1, refused=1, granted_at=NOW, retry_after_s=12.0))
    store.take_permits(scope, [0.0], bound=Bound(), window=4)
    assert limited(status_of(store, made)) == "waiting for the account's limit: 12 s"
    assert "waiting for the account's limit: 12 s" in summary(status_of(store, made), None)
    assert limited(status_of(store, other)) == "", "it is another protocol's"


def wait(*, seconds: float = 0.05, rate: float | None = 20.0, model: str = "m") -> Wait:
    return Wait(account="acc", protocol="responses", model=model, until=NOW + seconds, now=NOW, rate=rate)


def told(*waits: Wait) -> str:
    store = MemoryStore()
    status = status_of(store, batch(store))
    return limited(dataclasses.replace(status, waits=waits_for(status, waits)))


def test_a_list_that_goes_as_fast_as_it_may_is_told_how_fast_that_is() -> None:
    assert told(wait()) == "at the account's limit: 20/s requests"
    assert told(wait(rate=0.05)) == "at the account's limit: 3/min requests"
    assert told(wait(model=GETS)) == "at the account's limit: 20/s GETs"
    assert told(wait(rate=None)) == "finding the account's limit"
    assert told(wait(), wait(seconds=90)) == "waiting for the account's limit: 1 min 30 s", "the longest counts"
    assert told() == ""
