"""Several Redis servers that belong together: a cluster, and a service that Sentinel watches. Real processes.

Knows nothing of pytest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.parts import RedisServer, eventually, free_port

SLOTS = 16384
NODE_TIMEOUT_MS = 2000
"""How long a node may be silent before the others call it gone: short, for tests, and longer than a busy machine's
pauses."""


class _Behind(redis.RedisCluster):
    """Asks every master where the client would ask any one of them."""

    def keys(self, pattern: Any = "*", **_: Any) -> Any:
        return super().keys(pattern, target_nodes=self.PRIMARIES)


class ClusterOfServers:
    """A Redis Cluster of real processes: masters with an equal share of the slots, and replicas of the first ones."""

    def __init__(self, binary: str, folder: Path, *options: str, masters: int = 3, replicas: int = 0) -> None:
        self.nodes: list[RedisServer] = []
        self._masters = masters
        self._behind: _Behind | None = None
        for number in range(masters + replicas):
            home = folder / f"node{number}"
            home.mkdir(parents=True)
            mine = ["--cluster-enabled", "yes", "--cluster-config-file", str(home / "nodes.conf")]
            mine += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-port", str(free_port())]
            # A replica that was out of touch for a moment may stand for election all the same.
            mine += ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]
            self.nodes.append(RedisServer(binary, home, *options, *mine))

    @property
    def url(self) -> str:
        """Its address, by two of its nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def start(self) -> None:
        """Start all nodes and make a cluster of them; returns when it takes writes."""
        for node in self.nodes:
            node.start()
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < self._masters:
                    low, high = (SLOTS * at // self._masters for at in (number, number + 1))
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        with first.client() as client:
            for node in others:
                bus = _option(node, "--cluster-port")
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        eventually(lambda: all(_knows(node, len(self.nodes)) for node in self.nodes), what="all nodes meet")
        for number, node in enumerate(self.nodes[self._masters :]):
            with self.nodes[number].client() as master:
                id_ = master.execute_command("CLUSTER", "MYID").decode()
            with node.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", id_)
        eventually(self.in_order, seconds=60, what="the cluster is in order")

    def be_patient(self) -> None:
        """Let nobody call a node gone before it was silent for long: where nobody is to stand in for one, a machine
        that stands still for two seconds shall not stop the cluster."""
        for node in self.nodes:
            with node.client() as client:
                client.config_set("cluster-node-timeout", 10 * NODE_TIMEOUT_MS)

    def flush(self) -> None:
        """Empty it."""
        raw = self.client()
        raw.flushall(target_nodes=raw.PRIMARIES)

    def masters(self) -> list[RedisServer]:
        """The nodes that live and are masters now."""
        return [node for node in self.nodes if node.alive and _role(node) == "master"]

    def in_order(self) -> bool:
        """Whether every node that lives has all slots served."""
        return all(_in_order(node) for node in self.nodes if node.alive)

    def whole(self) -> bool:
        """Whether as many masters live as at first."""
        return len(self.masters()) == self._masters

    def client(self) -> redis.RedisCluster:
        """A client that looks behind the store, always the same: to find out who has what takes it a while."""
        if self._behind is None:
            self._behind = _Behind(host="127.0.0.1", port=self.nodes[0].port)
        return self._behind

    def stop(self) -> None:
        if self._behind is not None:
            self._behind.close()
        for node in self.nodes:
            node.stop()


class WatchedServers:
    """One master, its replicas, and the Sentinels that watch them."""

    service = "askq-test"

    def __init__(self, binary: str, folder: Path, *options: str, replicas: int = 1, sentinels: int = 3) -> None:
        self._binary = binary
        self._folder = folder
        self._sentinels = sentinels
        self.nodes = [self._node(f"node{number}", *options) for number in range(1 + replicas)]
        self.sentinels: list[RedisServer] = []

    def _node(self, name: str, *options: str) -> RedisServer:
        home = self._folder / name
        home.mkdir(parents=True)
        return RedisServer(self._binary, home, *options, "--repl-diskless-sync-delay", "0")

    @property
    def url(self) -> str:
        """Its address."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def start(self) -> None:
        """Start all; returns when every Sentinel knows everybody."""
        master, *others = self.nodes
        master.start()
        for node in others:
            node.start()
            with node.client() as client:
                client.replicaof("127.0.0.1", master.port)
        for number in range(self._sentinels):
            home = self._folder / f"sentinel{number}"
            home.mkdir()
            lines = ["sentinel resolve-hostnames yes"]
            lines += [f"sentinel monitor {self.service} 127.0.0.1 {master.port} {self._sentinels // 2 + 1}"]
            lines += [f"sentinel down-after-milliseconds {self.service} {NODE_TIMEOUT_MS}"]
            lines += [f"sentinel failover-timeout {self.service} 10000"]
            file = home / "sentinel.conf"
            file.write_text("\n".join([*lines, ""]), "utf-8")
            sentinel = RedisServer(self._binary, home, before=(str(file), "--sentinel"), bare=True)
            sentinel.start()
            self.sentinels.append(sentinel)
        eventually(self._complete, seconds=60, what="the Sentinels know everybody", every=0.1)

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state: Any = client.sentinel_masters()[self.service]
            if state["num-slaves"] != len(self.nodes) - 1 or state["num-other-sentinels"] != self._sentinels - 1:
                return False
        return all(_link(node) == "up" for node in self.nodes[1:])

    def master(self) -> RedisServer:
        """The server that Sentinel calls the master now."""
        with self.sentinels[0].client() as client:
            port = int(client.sentinel_masters()[self.service]["port"])
        return next(node for node in self.nodes if node.port == port)

    def flush(self) -> None:
        """Empty it."""
        self.master().flush()

    def stop(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.stop()


@contextmanager
def running(servers: Any) -> Iterator[Any]:
    """Servers as long as the block lasts."""
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def _option(node: RedisServer, name: str) -> str:
    return node.options[node.options.index(name) + 1]


def _info(node: RedisServer, section: str) -> dict[str, Any]:
    with closing(node.client()) as client:
        found: dict[str, Any] = client.info(section)
    return found


def _role(node: RedisServer) -> str:
    return str(_info(node, "replication")["role"])


def _link(node: RedisServer) -> str:
    return str(_info(node, "replication").get("master_link_status", "up"))


def _knows(node: RedisServer, many: int) -> bool:
    with node.client() as client:
        return int(_cluster(client)["cluster_known_nodes"]) == many


def _in_order(node: RedisServer) -> bool:
    with node.client() as client:
        state = _cluster(client)
    return state["cluster_state"] == "ok" and int(state["cluster_slots_assigned"]) == SLOTS and _link(node) == "up"


def _cluster(client: redis.Redis) -> dict[str, str]:
    told: Any = client.execute_command("CLUSTER", "INFO")
    if isinstance(told, bytes):
        told = dict(line.split(":", 1) for line in told.decode().split() if ":" in line)
    return dict(told)


def wait_for_failover(servers: ClusterOfServers | WatchedServers, *, seconds: float = 60) -> None:
    """Return when there are as many masters as there were."""
    until = time.monotonic() + seconds
    wanted: Sequence[Any] = []
    while time.monotonic() < until:
        wanted = [node for node in servers.nodes if node.alive]
        if isinstance(servers, WatchedServers) and servers.master().alive:
            return
        if isinstance(servers, ClusterOfServers) and servers.whole() and servers.in_order():
            return
        time.sleep(0.1)
    raise AssertionError(f"no failover within {seconds:g} s; alive: {[node.port for node in wanted]}")
