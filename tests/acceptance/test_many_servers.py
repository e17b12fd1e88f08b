"""Jobs on a Redis Cluster, and behind Sentinel: real servers, real workers, and a master killed in mid-batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.errors import StoreError
from askq.ids import SHARDS
from askq.jobs import keys
from askq.jobs.auditor import Auditor
from askq.jobs.model import Lane, State
from askq.jobs.redis_cluster import ClusterRedis
from askq.jobs.redis_store import RedisStore
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import RedisServer, eventually, redis_binary
from tests.servers import ClusterOfServers, WatchedServers, running, wait_for_failover

pytestmark = pytest.mark.timeout(300)
ANSWER = "Answer to: {question}"
# A few take so long that the midst of a batch is not missed by a test that is held up.
LONG = {"contains": "What is 7", "answer": ANSWER, "duration": [6.0, 8.0]}
SCRIPT = {"default": {"answer": ANSWER, "duration": [0.3, 2.0]}, "rule": [LONG]}
DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")
QUESTIONS = 80


@contextmanager
def stack_on(folder: Path, servers: Any, *, broker: bool, script: Any = SCRIPT, replicas: int = 1) -> Iterator[Stack]:
    """Real parts whose jobs live on these servers; `broker`: Celery's messages do not. `replicas`: how many of each
    master have what was written before it counts."""
    with running_stack(folder, script=script, keyed=True) as stack:
        single, stack.redis_url = stack.redis_url, servers.url
        stack.store.close()
        stack.store = RedisStore(servers.url, replicas=replicas)
        more = {"CELERY_BROKER_URL": single} if broker else {}
        environment = stack.environment
        stack.environment = lambda **given: environment(**{"ASKQ_REDIS_REPLICAS": str(replicas), **more, **given})  # type: ignore[method-assign]
        yield stack


def shards_of(store: RedisStore) -> Counter[int]:
    """Port of each node → how many shards it has."""
    client = store._redis
    assert isinstance(client, ClusterRedis)
    return Counter(
        int(client.owner(keys.due(shard, Lane.START)).get_connection_kwargs()["port"]) for shard in range(SHARDS)
    )


def ask(stack: Stack, protocol: ProtocolName) -> str:
    tutor = Assistant(name="tutor", protocol=protocol, model="gpt-test", timeout_s=120)
    return stack.submit(tutor, [f"What is {number} + 1?" for number in range(QUESTIONS)])


def counts(stack: Stack, batch: str) -> Counter[State]:
    """Jobs by state; none while Redis does not answer."""
    try:
        return Counter(stack.status(batch).counts)
    except StoreError:
        return Counter()


def all_answered_once(stack: Stack, batch: str, workers: list[Process]) -> None:
    """Wait for the end, with workers that are started again as a supervisor does."""

    def ended() -> bool:
        for worker in workers:
            if not worker.alive:
                worker.start()
        return counts(stack, batch)[State.COMPLETED] == QUESTIONS

    logs = "\n".join(worker.tail() for worker in workers)
    eventually(ended, seconds=150, what=f"every question is answered: {counts(stack, batch)}\n{logs}", every=0.3)
    paid = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
    jobs = list(stack.store.jobs(batch))
    assert {job.answer.text for job in jobs if job.answer is not None} == {
        f"Answer to: What is {number} + 1?" for number in range(QUESTIONS)
    }
    assert paid == Counter(job.id for job in jobs), "one run per job"
    report = Auditor(stack.store, by="test").run()
    assert not [finding for finding in report.findings if finding.attention], report.findings


def killed_in_mid_batch(stack: Stack, batch: str, victim: RedisServer, servers: Any) -> None:
    """Kill a master while runs are created and polled; its supervisor starts it again when another stands in."""

    def in_full_swing() -> bool:
        now = counts(stack, batch)
        return 5 < now[State.COMPLETED] < QUESTIONS - 5

    eventually(in_full_swing, seconds=120, what="answers come in", every=0.05)
    victim.stop()
    wait_for_failover(servers)
    victim.start()


def test_a_cluster_loses_a_master_in_mid_batch(tmp_path: Path) -> None:
    """Given three masters with a replica each, when one is killed, then nothing is lost and nothing paid twice."""
    with (
        running(ClusterOfServers(redis_binary(), tmp_path / "cluster", *DURABLE, replicas=3)) as servers,
        stack_on(tmp_path, servers, broker=True) as stack,
    ):
        port, shards = shards_of(stack.store).most_common(1)[0]
        assert 3 <= shards < SHARDS, "shards are spread over the masters"
        workers = [stack.worker(f"w{number}") for number in range(2)]
        batch = ask(stack, "responses")
        victim = next(node for node in servers.nodes if node.port == port)
        killed_in_mid_batch(stack, batch, victim, servers)
        all_answered_once(stack, batch, workers)
        assert shards_of(stack.store)[port] == 0, "its replica stood in"
        doctor = stack.askq("doctor").stdout
        assert doctor.count("primary, 1 replicas") == 3, doctor
        assert doctor.count("(replica)") == 3, doctor


def test_sentinel_names_another_master_in_mid_batch(tmp_path: Path) -> None:
    """Given store and broker behind Sentinel, when the master is killed, then nothing is lost or paid twice."""
    with (
        running(WatchedServers(redis_binary(), tmp_path / "watched", *DURABLE)) as servers,
        stack_on(tmp_path, servers, broker=False) as stack,
    ):
        workers = [stack.worker(f"w{number}") for number in range(2)]
        batch = ask(stack, "assistants")
        victim = servers.master()
        killed_in_mid_batch(stack, batch, victim, servers)
        all_answered_once(stack, batch, workers)
        assert servers.master() is not victim
        # The one that was killed, or the other replica, takes a moment to follow the new master.
        eventually(lambda: "primary, 1 replicas" in stack.askq("doctor").stdout, seconds=120)
        doctor = stack.askq("doctor").stdout
        assert "(replica)" in doctor, doctor
