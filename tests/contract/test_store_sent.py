"""Whether the paid call of an intent has left: what a store says of it after whoever wrote the intent has died."""

from __future__ import annotations

from pathlib import Path

import pytest

from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import Outcome, State
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from tests.contract.store_stage import SERVERS, RedisStage, claim, job_of, move, submit
from tests.parts import RedisServer, redis_binaries

TOLD = {"unsent": 1, "attempts": 1}


def intended(store: Store, **fields: int) -> tuple[str, int]:
    """A job with an intent, and the fence of whoever wrote it."""
    job = job_id(submit(store, 1), "q0")
    fence = claim(store, job, lease_s=0).fence
    assert move(store, job, fence, "intend", fields=fields) is Outcome.MOVED
    return job, fence


def test_a_call_that_would_be_on_record_has_not_left(store: Store) -> None:
    job, fence = intended(store, **TOLD)
    found = claim(store, job)
    assert found.never_sent
    assert move(store, job, fence, "send", fields={"unsent": None}) is Outcome.NOT_YOURS, "it must not leave any more"
    assert move(store, job, found.fence, "void", fields={"attempts": 0}) is Outcome.MOVED
    assert not claim(store, job).never_sent
    assert job_of(store, job).state is State.QUEUED


def test_a_call_that_is_on_record_may_have_left(store: Store) -> None:
    job, fence = intended(store, **TOLD)
    assert move(store, job, fence, "send", fields={"unsent": None}) is Outcome.MOVED
    assert move(store, job, fence, "send", fields={"unsent": None}) is Outcome.ALREADY
    found = claim(store, job)
    assert not found.never_sent
    assert (found.state, found.attempts) == (State.STARTING, 1)


def test_of_an_intent_that_says_nothing_of_it_nothing_is_known(store: Store) -> None:
    job, _ = intended(store, attempts=1)
    assert not claim(store, job).never_sent


def test_a_sent_call_keeps_its_lease(store: Store) -> None:
    job = job_id(submit(store, 1), "q0")
    fence = claim(store, job).fence
    for name, fields in (("intend", TOLD), ("send", {"unsent": None})):
        assert move(store, job, fence, name, delay=600.0, fields=fields) is Outcome.MOVED
        assert store.renew([(job, fence)], lease_s=600.0) == []


def test_a_server_of_another_lineage_is_not_believed(behind: RedisStage) -> None:
    """It took over, or it was taken over and has come back: what was written last may be lost."""
    job, _ = intended(behind.store, **TOLD)
    behind.raw.hset(keys.job(job), "unsent", "f" * 40)
    assert not claim(behind.store, job).never_sent


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_was_restarted_is_not_believed(name: str, tmp_path: Path) -> None:
    server = RedisServer(redis_binaries()[name], tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    try:
        store = RedisStore(server.url)
        job, _ = intended(store, **TOLD)
        server.stop()
        server.start()
        assert not claim(store, job).never_sent, "that the call left may have been lost"
        store.close()
    finally:
        server.stop()
