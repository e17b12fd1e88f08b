"""What workers tell each other through every job store: shards, pauses, remote assistants, nodes."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from askq.jobs import keys
from askq.jobs.model import Lane, NewBatch, Node, Pause
from askq.jobs.store import Store
from tests.contract.store_stage import LONG, SHORT, RedisStage, Stage, question, status_of, submit


def test_executions_are_alive_until_they_leave_or_their_time_is_up(stage: Stage) -> None:
    store = stage.store
    assert store.running(Lane.POLL) == 0
    assert store.enlist(Lane.POLL, "one", ttl_s=SHORT) >= 1
    assert store.enlist(Lane.POLL, "two", ttl_s=LONG) >= 1
    assert store.enlist(Lane.POLL, "three", ttl_s=LONG) >= 2
    assert store.running(Lane.START) == 0, "lanes have registers of their own"
    stage.pass_time(2 * SHORT)
    assert store.running(Lane.POLL) == 2, "the first is taken for dead"
    assert store.enlist(Lane.POLL, "two", ttl_s=LONG) == 2, "the same one again is the same one"
    store.discharge(Lane.POLL, "two", [])
    store.discharge(Lane.POLL, "unknown", [1])
    assert store.running(Lane.POLL) == 1


def test_a_shard_has_one_holder_until_it_is_given_back_or_the_lease_ends(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1, 2, 3], ttl_s=LONG) == [1, 2, 3]
    assert store.hold(Lane.POLL, "two", [2, 3, 4], ttl_s=SHORT) == [4]
    assert store.hold(Lane.START, "two", [2], ttl_s=LONG) == [2], "lanes are held apart"
    assert store.hold(Lane.POLL, "one", [3, 1], ttl_s=LONG) == [3, 1], "renewed"
    stage.pass_time(2 * SHORT)
    assert store.hold(Lane.POLL, "three", [1, 4], ttl_s=LONG) == [4], "the second did not renew"
    store.release(Lane.POLL, "two", [1, 4])
    assert store.hold(Lane.POLL, "two", [1, 4], ttl_s=LONG) == [], "nobody gives back what is another's"
    store.release(Lane.POLL, "one", [1])
    assert store.hold(Lane.POLL, "two", [1, 2], ttl_s=LONG) == [1]
    store.enlist(Lane.POLL, "one", ttl_s=LONG)
    store.discharge(Lane.POLL, "one", [1, 2, 3])
    assert store.hold(Lane.POLL, "four", [1, 2, 3], ttl_s=LONG) == [2, 3]
    assert store.hold(Lane.POLL, "four", [], ttl_s=LONG) == []


def test_what_is_kept_for_no_time_is_gone_soon(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1], ttl_s=0) == [1]
    assert store.hint(Lane.POLL, ttl_s=0)
    store.pause("acc", "quota", "why", probe_after_s=0)
    stage.pass_time(0.003)
    assert store.hold(Lane.POLL, "two", [1], ttl_s=LONG) == [1]
    assert store.hint(Lane.POLL, ttl_s=LONG)
    assert store.probe("acc", again_after_s=0)
    stage.pass_time(0.003)
    assert store.probe("acc", again_after_s=LONG)


def test_a_lease_is_prolonged_by_holding_it_again(stage: Stage) -> None:
    store = stage.store
    assert store.hold(Lane.POLL, "one", [1], ttl_s=SHORT) == [1]
    assert store.hold(Lane.POLL, "one", [1], ttl_s=LONG) == [1]
    stage.pass_time(2 * SHORT)
    assert store.hold(Lane.POLL, "two", [1], ttl_s=LONG) == []


def test_one_start_message_is_on_its_way_at_a_time(stage: Stage) -> None:
    store = stage.store
    assert store.hint(Lane.START, ttl_s=LONG)
    assert not store.hint(Lane.START, ttl_s=LONG)
    assert store.hint(Lane.POLL, ttl_s=SHORT)
    store.enlist(Lane.START, "one", ttl_s=LONG)
    assert store.hint(Lane.START, ttl_s=LONG), "it has arrived"
    stage.pass_time(2 * SHORT)
    assert store.hint(Lane.POLL, ttl_s=LONG), "it was lost"


def test_a_paused_account_is_probed_by_one_at_a_time(stage: Stage) -> None:
    store = stage.store
    assert store.pauses() == []
    before = stage.now()
    store.pause("acc", "insufficient_quota", "You exceeded your quota", probe_after_s=SHORT)
    store.pause("other", "rejected_key", "Incorrect API key", probe_after_s=LONG)
    pauses = {pause.account: pause for pause in store.pauses()}
    assert sorted(pauses) == ["acc", "other"]
    pause = pauses["acc"]
    assert (pause.code, pause.message) == ("insufficient_quota", "You exceeded your quota")
    assert before <= pause.since <= stage.now()
    assert pause.probe_at == pytest.approx(pause.since + SHORT)
    assert not store.probe("other", again_after_s=LONG), "it is too early"
    stage.pass_time(2 * SHORT)
    assert store.probe("acc", again_after_s=SHORT)
    stage.pass_time(2 * SHORT)
    assert store.probe("acc", again_after_s=LONG), "the first probe brought nothing"
    assert not store.probe("acc", again_after_s=LONG)
    assert store.resume("acc")
    assert not store.resume("acc")
    assert [pause.account for pause in store.pauses()] == ["other"]


def test_a_pause_made_again_says_why_anew(stage: Stage) -> None:
    stage.store.pause("acc", "rate", "first", probe_after_s=LONG)
    stage.store.pause("acc", "quota", "second", probe_after_s=LONG)
    assert [(pause.code, pause.message) for pause in stage.store.pauses()] == [("quota", "second")]
    stage.store.resume("acc")
    assert stage.store.probe("acc", again_after_s=LONG), "nothing is left of the pause"


def test_a_pause_lasts_since_it_began_for_this_reason(stage: Stage) -> None:
    store = stage.store
    store.pause("acc", "quota_exhausted", "first", probe_after_s=LONG)
    (first,) = store.pauses()
    stage.pass_time(SHORT)
    store.pause("acc", "quota_exhausted", "second", probe_after_s=LONG)
    (again,) = store.pauses()
    assert (again.since, again.message) == (first.since, "second")
    assert again.probe_at >= first.probe_at + SHORT
    store.pause("acc", "rejected_key", "third", probe_after_s=LONG)
    (other,) = store.pauses()
    assert other.since >= first.since + SHORT
    store.resume("acc")
    stage.pass_time(SHORT)
    store.pause("acc", "rejected_key", "anew", probe_after_s=LONG)
    assert store.pauses()[0].since >= other.since + SHORT


def test_a_pause_may_concern_one_protocol_alone(stage: Stage) -> None:
    """Given an account one of whose protocols is gone, then batches of the other know nothing of it."""
    store = stage.store
    speaking = {}
    for protocol in ("assistants", "responses"):
        speaking[protocol], _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol=protocol))
        store.add(speaking[protocol], [question(0)])
        store.seal(speaking[protocol], 1)
    store.pause("acc", "endpoint_gone", "no such endpoint", probe_after_s=LONG, protocol="assistants")
    store.pause("acc", "quota_exhausted", "no credit", probe_after_s=SHORT)
    assert [(pause.code, pause.protocol) for pause in store.pauses()].count(("endpoint_gone", "assistants")) == 1
    codes = {name: sorted(pause.code for pause in status_of(store, batch).paused) for name, batch in speaking.items()}
    assert codes == {"assistants": ["endpoint_gone", "quota_exhausted"], "responses": ["quota_exhausted"]}
    stage.pass_time(2 * SHORT)
    assert not store.probe("acc", again_after_s=LONG, protocol="assistants"), "each has probes of its own"
    assert store.probe("acc", again_after_s=LONG)
    assert not store.resume("acc", protocol="responses")
    assert store.resume("acc")
    assert [pause.code for pause in store.pauses()] == ["endpoint_gone"]
    assert store.resume("acc", protocol="assistants")
    assert not store.resume("acc", protocol="assistants")
    assert status_of(store, speaking["assistants"]).paused == ()


def test_a_batch_that_is_not_done_says_why_nothing_moves(stage: Stage) -> None:
    store = stage.store
    batch, done = submit(store, 1), submit(store, 0)
    store.pause("acc", "insufficient_quota", "You exceeded your quota", probe_after_s=LONG)
    (pause,) = status_of(store, batch).paused
    assert (pause.code, pause.message) == ("insufficient_quota", "You exceeded your quota")
    assert status_of(store, done).paused == ()
    store.resume("acc")
    assert status_of(store, batch).paused == ()


def test_the_first_remote_assistant_on_record_stays(stage: Stage) -> None:
    store = stage.store
    assert store.remote_assistant("acc", "d") is None
    assert store.save_remote_assistant("acc", "d", "asst_1") == "asst_1"
    assert store.save_remote_assistant("acc", "d", "asst_2") == "asst_1"
    assert store.save_remote_assistant("other", "d", "asst_3") == "asst_3"
    store.drop_remote_assistant("acc", "d", "asst_2")
    assert store.remote_assistant("acc", "d") == "asst_1", "only the one that proved wrong is forgotten"
    store.drop_remote_assistant("acc", "d", "asst_1")
    assert store.remote_assistant("acc", "d") is None
    assert store.save_remote_assistant("acc", "d", "asst_2") == "asst_2"
    assert store.remote_assistant("other", "d") == "asst_3"


def test_of_many_who_make_a_remote_assistant_one_is_believed(stage: Stage) -> None:
    stores = [stage.another() for _ in range(4)]
    gate = threading.Barrier(4)

    def save(store: Store, name: str) -> str:
        gate.wait(60)
        return store.save_remote_assistant("acc", "d", name)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(save, stores, ["a", "b", "c", "d"]))
    assert found == {stage.store.remote_assistant("acc", "d")}


def test_workers_are_alive_as_long_as_they_say_so(stage: Stage) -> None:
    store = stage.store
    one = Node(name="one@h", processes=2, pid=11, host="h", started_at=1.5)
    two = Node(name="zwei@hö", processes=4, pid=12, host="hö", started_at=2.5)
    assert store.nodes() == []
    store.beat(one, ttl_s=SHORT)
    store.beat(two, ttl_s=LONG)
    store.beat(two, ttl_s=LONG)
    stage.pass_time(2 * SHORT)
    assert store.nodes() == [two]
    store.beat(one, ttl_s=LONG)
    assert sorted(store.nodes(), key=lambda node: node.name) == [one, two]


def test_workers_and_pauses_of_a_newer_version_are_known_as_far_as_they_can_be(alone: RedisStage) -> None:
    """Given workers that are replaced one by one by those of a version that tells more, then the old ones go on."""
    node = Node(name="new@host", processes=2, pid=1, host="host", started_at=1.0)
    told = dataclasses.asdict(node) | {"told_by_a_later_version": True}
    alone.raw.zadd(keys.NODES, {json.dumps(told): alone.now() + LONG})
    pause = Pause(account="acc", code="rejected_key", message="no", since=1.0, probe_at=2.0)
    alone.raw.hset(keys.PAUSES, "acc", json.dumps(dataclasses.asdict(pause) | {"told_by_a_later_version": True}))
    assert alone.store.nodes() == [node]
    assert alone.store.pauses() == [pause]
