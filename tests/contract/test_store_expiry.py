"""Finished batches leave every job store when their time is up, and nothing leaves before."""

from __future__ import annotations

from collections.abc import Callable

from askq.ids import SHARDS, job_id, shard_of
from askq.jobs import keys
from askq.jobs.model import Answer, Lane, NewBatch, Outcome, State
from tests.contract.store_stage import (
    ALL,
    LONG,
    SERVERS,
    RedisStage,
    Stage,
    answer_all,
    audit,
    bring,
    claim,
    marks,
    move,
    open_batch,
    question,
    status_of,
    submit,
    way_to,
)
from tests.parts import RedisServer, eventually


def test_finished_batches_are_marked_once_and_then_go(stage: Stage) -> None:
    store = stage.store
    ended, going, unsealed = submit(store, 2, key="k"), submit(store, 1), open_batch(store)
    assert store.tidy(keep_s=1) == 0
    answer_all(store, ended)
    assert store.tidy(keep_s=1) == 1
    assert store.tidy(keep_s=1) == 0
    stage.pass_time(1.1)
    assert store.tidy(keep_s=1) == 0
    assert store.batch(ended) is None
    assert list(store.jobs(ended)) == []
    assert sorted(status.id for status in store.batches()) == sorted([going, unsealed])
    assert store.open_batch(NewBatch(name=None, assistant="a", protocol="responses", idempotency_key="k"))[1]
    audit(stage, going, unsealed)


def test_a_marked_batch_that_gets_more_rows_stays(stage: Stage) -> None:
    store = stage.store
    batches = {key: submit(store, 1, key=key) for key in ("sealed again", "submitter died")}
    for batch in batches.values():
        answer_all(store, batch)
    assert store.tidy(keep_s=2) == 2
    for key, batch in batches.items():
        assert len(list(store.jobs(batch))) == 1, "still there"
        assert open_batch(store, key=key) == batch
        store.add(batch, [question(1)])
    store.seal(batches["sealed again"], 2)
    stage.pass_time(2.1)
    assert store.tidy(keep_s=2) == 0
    for key, batch in batches.items():
        status = status_of(store, batch)
        assert (status.total, status.pending, status.counts[State.QUEUED]) == (2, 1, 1)
        assert open_batch(store, key=key) == batch
        answer_all(store, batch)
    assert store.tidy(keep_s=2) == 2, "and is marked again when it is done again"


def test_marking_that_was_cut_off_half_way_is_done_again(alone: RedisStage) -> None:
    """Given a batch that finished, when the batch itself expires, then so does all that belongs to it."""
    batch = submit(alone.store, 5, key="k")
    answer_all(alone.store, batch)
    with alone.raw.monitor() as commands:
        assert alone.store.tidy(keep_s=1000) == 1
        alone.raw.echo("end of tidy")
        marked = []
        for command in (seen["command"] for seen in commands.listen()):
            if "end of tidy" in command:
                break
            if command.startswith("EXPIRE "):
                marked.append(command.split()[1])
    assert len(marked) == 3 + 2 * SHARDS
    assert marked[-1] == keys.batch(batch), "what tells that a batch is marked comes last"


def test_every_key_of_a_finished_batch_expires_and_none_before(behind: RedisStage) -> None:
    batch = submit(behind.store, 40, key="k")
    first = job_id(batch, "q0")
    fence = bring(behind.store, first, State.RUNNING)
    move(behind.store, first, fence, "complete", answer=Answer(text="x"))
    assert behind.store.tidy(keep_s=1000) == 0
    month = 30 * 86_400
    lives = {key: behind.raw.ttl(key) for key in behind.raw.keys("askq:*")}
    own = {name.encode() for name in (keys.job(first), keys.ask(first), keys.answer(first))}
    assert {key for key, ttl in lives.items() if ttl != -1} == own, "others of the batch still need the rest"
    assert all(month - 100 < lives[key] <= month for key in own)
    behind.raw.zremrangebyscore(keys.due(shard_of(first), Lane.START), "-inf", "+inf")
    for shard in ALL:
        rows = behind.raw.zrange(keys.rows(shard, batch), 0, -1)
        behind.raw.zadd(keys.due(shard, Lane.START), {job_id(batch, row.decode()): 0 for row in rows} or {"x": 0})
    behind.raw.zrem(keys.due(shard_of(first), Lane.START), first)
    answer_all(behind.store, batch)
    assert behind.store.tidy(keep_s=1000) == 1
    left = {key for key in behind.raw.keys("askq:*") if behind.raw.ttl(key) == -1}
    assert left - marks(behind) == {keys.BATCHES.encode()}


def test_results_go_when_their_time_is_up_and_the_counters_still_tell(
    redis_servers: Callable[[str], RedisServer],
) -> None:
    stage = RedisStage(redis_servers(SERVERS[0]), keep_days=1 / 86_400)
    try:
        batch = submit(stage.store, 2)
        job = job_id(batch, "q0")
        fence = claim(stage.store, job, lease_s=0).fence
        for name in way_to(State.COMPLETED):
            move(stage.store, job, fence, name, answer=Answer(text="x"))
        eventually(lambda: stage.store.job(job) is None, what="the result expires")
        assert [job.question.row_id for job in stage.store.jobs(batch)] == ["q1"]
        status = status_of(stage.store, batch)
        assert (status.counts[State.COMPLETED], status.counts[State.QUEUED], status.pending) == (1, 1, 1)
        assert move(stage.store, job, fence, "complete") is Outcome.MISSING
    finally:
        stage.close()


def test_a_due_job_without_a_record_is_forgotten(behind: RedisStage) -> None:
    batch = submit(behind.store, 1)
    behind.raw.delete(keys.job(job_id(batch, "q0")))
    assert behind.store.claim(Lane.START, ALL, limit=1000, lease_s=LONG) == []
    assert behind.store.next_due(Lane.START) is None
    assert not behind.raw.exists(keys.job(job_id(batch, "q0"))), "no ghost is made"
