"""Many servers: slots that move, nodes that fall silent, replicas a promise waits for, addresses that are wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from askq.errors import StoreDenied, StoreError, StoreUnreachable
from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import Lane, Move, Outcome, State
from askq.jobs.redis_store import RedisStore
from askq.jobs.redis_wire import Seen
from tests.conftest import StartRedis
from tests.contract.store_stage import (
    ALL,
    LONG,
    ClusterStage,
    audit,
    claim,
    in_shard,
    job_of,
    open_batch,
    question,
    status_of,
    submit,
)
from tests.parts import RedisServer, eventually, redis_binary
from tests.servers import ClusterOfServers, WatchedServers, running

SHARD = 3
SLOT = key_slot(keys.shard_prefix(SHARD).encode())
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def cluster(redis_cluster: ClusterOfServers) -> Iterator[ClusterStage]:
    made = ClusterStage(redis_cluster)
    yield made
    made.close()


def intend(store: RedisStore, job: str, fence: int) -> Outcome:
    (outcome,) = store.commit([Move(job=job, fence=fence, name="intend", delay=LONG)], on_disk=True)
    return outcome


class Slot:
    """One slot of a cluster, on its way from one node to another."""

    def __init__(self, servers: ClusterOfServers) -> None:
        self._nodes = {node.port: node for node in servers.masters()}
        self.source = self._owner()
        self.target = next(node for node in self._nodes.values() if node is not self.source)

    def _owner(self) -> RedisServer:
        for node in self._nodes.values():
            with node.client() as client:
                for low, high, owner, *_ in client.execute_command("CLUSTER", "SLOTS"):
                    if low <= SLOT <= high:
                        return self._nodes[int(owner[1])]
        raise AssertionError(SLOT)

    def _set(self, node: RedisServer, *how: Any) -> None:
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", SLOT, *how)

    def _id(self, node: RedisServer) -> str:
        with node.client() as client:
            found: bytes = client.execute_command("CLUSTER", "MYID")
        return found.decode()

    def begin(self) -> None:
        self._set(self.target, "IMPORTING", self._id(self.source))
        self._set(self.source, "MIGRATING", self._id(self.target))

    def move_keys(self) -> None:
        with self.source.client() as client:
            while names := client.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
                client.execute_command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *names)

    def end(self) -> None:
        for node in (self.target, self.source):
            self._set(node, "NODE", self._id(self.target))

    def give_up(self) -> None:
        for node in (self.target, self.source):
            self._set(node, "STABLE")


@contextmanager
def moved(servers: ClusterOfServers) -> Iterator[Slot]:
    """A slot that is moved in the block, and back after it."""
    slot = Slot(servers)
    try:
        yield slot
    finally:
        slot.give_up()
        back = Slot(servers)
        if back.source is not slot.source:
            back.target = slot.source
            back.begin()
            back.move_keys()
            back.end()


def two_shards(store: RedisStore) -> tuple[str, list[str]]:
    """A batch with jobs in the shard that moves and in another."""
    batch = open_batch(store)
    rows = [*in_shard(batch, SHARD, 3), *in_shard(batch, 8, 2)]
    store.add(batch, [question(index, row_id=row) for index, row in enumerate(rows)])
    store.seal(batch, len(rows))
    return batch, [job_id(batch, row) for row in rows]


def test_a_slot_that_has_moved_is_followed(cluster: ClusterStage, redis_cluster: ClusterOfServers) -> None:
    """Given stores that know where a shard was, when it is elsewhere, then reading, working and promising go on."""
    store, other = cluster.store, cluster.another()
    batch, jobs = two_shards(store)
    assert status_of(other, batch).counts[State.QUEUED] == 5
    with moved(redis_cluster) as slot:
        slot.begin()
        slot.move_keys()
        slot.end()
        claims = {one.id: one for one in store.claim(Lane.START, ALL, limit=100, lease_s=LONG)}
        assert set(claims) == set(jobs)
        assert isinstance(other, RedisStore)
        assert [intend(other, job, claims[job].fence) for job in jobs] == [Outcome.MOVED] * 5
        assert store.retry(jobs[:1], [State.FAILED]) == [Outcome.ALREADY]
        assert len(store.clocks()) == len(ALL)
        audit(cluster, batch)


def test_a_shard_that_is_being_moved_waits_and_says_so(cluster: ClusterStage, redis_cluster: ClusterOfServers) -> None:
    """Given a slot between two nodes, then its jobs wait, and nothing of them is half done."""
    store = cluster.store
    batch, jobs = two_shards(store)
    taken = claim(store, jobs[0])
    with moved(redis_cluster) as slot:
        slot.begin()
        with pytest.raises(StoreUnreachable, match="is being changed") as caught:
            intend(store, taken.id, taken.fence)
        assert "Nothing was lost" in str(caught.value.remedy)
        assert job_of(store, taken.id).state is State.QUEUED
        slot.move_keys()
        # All its keys are on the other node, which serves them under a redirection: a promise waits for the end.
        with pytest.raises(StoreUnreachable):
            intend(store, taken.id, taken.fence)
        slot.end()
        assert intend(store, taken.id, taken.fence) in (Outcome.MOVED, Outcome.ALREADY)
    assert job_of(store, taken.id).state is State.STARTING
    audit(cluster, batch)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signals that stop")
def test_a_node_that_falls_silent_holds_nobody_up_for_long(redis_cluster: ClusterOfServers) -> None:
    redis_cluster.flush()
    store = RedisStore(redis_cluster.url, timeout_s=0.3)
    batch = submit(store, 40)
    silent = Slot(redis_cluster).source
    os.kill(silent.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnreachable):
            store.claim(Lane.START, ALL, limit=1000, lease_s=0)
        assert time.monotonic() - began < 20, "each node is waited for twice at most, however many calls there are"
    finally:
        os.kill(silent.pid, signal.SIGCONT)

    def again() -> bool:
        try:
            return status_of(store, batch).counts[State.QUEUED] == 40
        except StoreError:
            return False

    eventually(again, seconds=60, what="the cluster is in order again")
    store.close()


# -- promises ------------------------------------------------------------------------------------------------


class Interrupted(RedisStore):
    """Something happens between a write and the question whether it is on disk."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    asked = 0

    def _wait_for_disk(self, seen: Seen) -> None:
        self.asked = len(seen)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        super()._wait_for_disk(seen)


def test_each_node_that_was_written_is_asked_and_a_restarted_one_confirms_nothing(tmp_path: Path) -> None:
    with running(ClusterOfServers(redis_binary(), tmp_path / "own", *DURABLE)) as servers:
        store = Interrupted(servers.url)
        batch, jobs = two_shards(store)
        assert store.asked == 3, "a seal is about everything"
        claims = [claim(store, jobs[0]), *store.claim(Lane.START, [8], limit=2, lease_s=LONG)]
        moves = [Move(job=one.id, fence=one.fence, name="intend", delay=LONG) for one in claims]
        written = Slot(servers).source

        def restart() -> None:
            written.stop()
            written.start()
            eventually(servers.in_order, seconds=60, what="the node is back")

        store.meanwhile = restart
        with pytest.raises(StoreUnreachable, match="was restarted before"):
            store.commit(moves, on_disk=True)
        assert 1 <= store.asked <= 2

        def again() -> list[Outcome] | None:
            try:
                return store.commit(moves, on_disk=True)
            except StoreUnreachable:
                return None

        assert eventually(again, seconds=60, what="the node is back") == [Outcome.ALREADY] * 3
        assert status_of(store, batch).counts[State.STARTING] == 3
        store.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signals that stop")
def test_a_promise_waits_for_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a replica that has stopped, then what needs none goes on, and what is promised waits for it."""
    with running(WatchedServers(redis_binary(), tmp_path / "watched", *DURABLE, sentinels=1)) as servers:
        store, careless = RedisStore(servers.url, replicas=1), RedisStore(servers.url)
        batch = submit(store, 3)
        first, second, third = (job_id(batch, f"q{index}") for index in range(3))
        assert intend(store, first, claim(store, first).fence) is Outcome.MOVED
        replica = servers.nodes[1]
        with replica.client() as raw:
            assert raw.hget(keys.job(first), "state") == b"starting", "the replica had it when we were told"
        fence = claim(store, second).fence
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr("askq.jobs.redis_wire._DISK_S", 0.2)
            monkeypatch.setattr("askq.jobs.redis_wire._DISK_WAIT_MS", 100)
            with pytest.raises(StoreUnreachable, match="the disks of as many replicas as was asked for") as caught:
                intend(store, second, fence)
            assert "ASKQ_REDIS_REPLICAS" in str(caught.value.remedy)
            monkeypatch.undo()
            assert intend(careless, third, claim(careless, third).fence) is Outcome.MOVED
            with ThreadPoolExecutor(1) as pool:
                future = pool.submit(intend, store, second, fence)
                os.kill(replica.pid, signal.SIGCONT)
                assert future.result(timeout=30) is Outcome.ALREADY
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        health = store.health()
        assert [(one.replica, one.replicas) for one in health.servers] == [(False, 1), (True, 0)]
        assert health.replicas == 1
        assert health.danger is None
        with replica.client() as raw:
            raw.config_set("maxmemory-policy", "allkeys-lru")
        danger = str(store.health().danger)
        assert danger.startswith(f"127.0.0.1:{replica.port}: its maxmemory-policy is allkeys-lru")
        for one in (store, careless):
            one.close()


# -- addresses that are wrong ----------------------------------------------------------------------------------


def test_a_single_server_is_no_cluster(redis_server: RedisServer) -> None:
    with closing(RedisStore(f"redis+cluster://127.0.0.1:{redis_server.port}")) as store:
        with pytest.raises(StoreError, match="it is no cluster") as caught:
            store.now()
        assert caught.value.remedy == "Begin REDIS_URL with redis:// for a single server."


def test_a_cluster_that_wants_a_password_says_so(start_redis: StartRedis) -> None:
    server = start_redis("--cluster-enabled", "yes", "--requirepass", "s3cret")
    with closing(RedisStore(f"redis+cluster://:wrong@127.0.0.1:{server.port}")) as store:
        with pytest.raises(StoreDenied) as caught:
            store.now()
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")


def test_a_service_that_sentinel_does_not_know_is_told(redis_server: RedisServer) -> None:
    with (
        closing(RedisStore(f"redis+sentinel://127.0.0.1:{redis_server.port}/nobody", timeout_s=0.5)) as store,
        pytest.raises(StoreError),
    ):
        store.now()


def test_a_cluster_of_which_nobody_answers_is_unreachable() -> None:
    with (
        closing(RedisStore("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout_s=0.2)) as store,
        pytest.raises(StoreUnreachable),
    ):
        store.claim(Lane.START, ALL, limit=1000, lease_s=0)
