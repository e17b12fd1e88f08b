"""Who only looks sees what the store tells: behind one server, and behind a cluster."""

from __future__ import annotations

from contextlib import closing

import pytest

from askq.errors import StoreUnreachable
from askq.jobs.model import Node
from askq.jobs.redis_reader import RedisReader
from tests.contract.store_stage import RedisStage, Stage, claim, move, submit
from tests.parts import free_port


def test_a_reader_sees_what_the_store_tells(stage: Stage) -> None:
    store = stage.store
    batch = submit(store, 7)
    first = next(iter(store.jobs(batch))).id
    fence = claim(store, first).fence
    move(store, first, fence, "prepare", fields={"thread": "thread_1"})
    store.beat(Node(name="w", processes=2, pid=1, host="h", started_at=1.0), ttl_s=60)
    store.pause("acc", "credentials", "no", probe_after_s=60)
    if not isinstance(stage, RedisStage):
        return
    with closing(RedisReader(stage._url)) as reader:
        assert reader.batch(batch) == store.batch(batch)
        assert reader.batches() == store.batches()
        assert reader.find_batches(batch[:8]) == [batch]
        assert list(reader.jobs(batch)) == list(store.jobs(batch))
        assert reader.job(first) == store.job(first)
        assert reader.nodes() == store.nodes()
        assert reader.dead_letters() == store.dead_letters() == {}


def test_a_server_that_is_not_there_is_told_as_ever() -> None:
    with closing(RedisReader(f"redis://127.0.0.1:{free_port()}")) as reader, pytest.raises(StoreUnreachable):
        reader.batches()
