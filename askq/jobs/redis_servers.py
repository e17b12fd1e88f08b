"""The client for an address, whatever answers there, and each of the servers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline, Redis
from redis.connection import ConnectionPool, SSLConnection
from redis.driver_info import DriverInfo
from redis.retry import Retry

from askq.jobs.redis_address import Address, address_of

if TYPE_CHECKING:
    from askq.jobs.redis_cluster import ClusterRedis


@dataclass(frozen=True, slots=True)
class Server:
    """One of the servers behind an address."""

    name: str
    """Its address; empty where there is but one."""
    replica: bool
    client: Redis


def connect(url: str, *, timeout_s: float) -> Redis:
    """The client for an address. Opens nothing. Raises ValueError, TypeError and RedisError, whose texts may hold a
    password."""
    address = address_of(url)
    waits: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "max_connections": 64}
    if address.kind == "cluster":
        # Here, because most addresses are of one server, and commands are to start fast.
        from askq.jobs.redis_cluster import ClusterRedis

        options = {**waits, **address.options, **({"ssl": True} if address.tls else {})}
        _tried(Redis(host=address.nodes[0][0], **options)).close()
        return ClusterRedis(address.nodes, options)
    # One quick repeat heals a connection that died while it was idle. Repeating is safe: every write is idempotent or
    # fenced.
    waits |= {"health_check_interval": 10, "retry": Retry(ExponentialBackoff(cap=0.2, base=0.05), 1)}
    if address.kind == "sentinel":
        return _watched(address, waits, timeout_s)
    # The client's own version is not told to the server: to find it out, the package's metadata would be read.
    client: Redis = Redis.from_url(url, driver_info=DriverInfo(lib_version=None), **waits)
    return _tried(client)


def _tried(client: Redis) -> Redis:
    """The client, if its options are some. A connection is made of them only when it is first needed; one made here,
    which is not opened, tells what is wrong."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def _watched(address: Address, waits: dict[str, Any], timeout_s: float) -> Redis:
    """The client of whichever server Sentinel calls the master."""
    # Here for the same reason as the cluster's.
    from redis.sentinel import Sentinel, SentinelManagedSSLConnection

    tls = {"connection_class": SentinelManagedSSLConnection} if address.tls else {}
    sentinels = Sentinel(
        list(address.nodes),
        # The next Sentinel is a better second try than the same one.
        sentinel_kwargs={
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            **({"ssl": True} if address.tls else {}),
            **address.sentinel_options,
        },
    )
    for sentinel in sentinels.sentinels:
        _tried(sentinel)
    client: Redis = sentinels.master_for(address.service, **{**waits, **address.options, **tls})
    return _tried(client)


def cluster_of(client: Redis) -> ClusterRedis | None:
    """A client as that of a cluster, if it is one."""
    return getattr(client, "as_cluster", None)


@contextmanager
def servers_of(client: Redis) -> Iterator[list[Server]]:
    """Every server behind a client, replicas too. Their clients last as long as the block."""
    if (cluster := cluster_of(client)) is not None:
        yield [Server(name, role == "replica", one) for name, role, one in cluster.servers()]
        return
    pool: Any = client.connection_pool
    if not hasattr(pool, "sentinel_manager"):
        yield [Server("", replica=False, client=client)]
        return
    host, port = pool.get_master_address()
    found = [Server(f"{host}:{port}", replica=False, client=client)]
    options = {name: value for name, value in pool.connection_kwargs.items() if name != "connection_pool"}
    tls = {"connection_class": SSLConnection} if issubclass(pool.connection_class, SSLConnection) else {}
    opened = []
    for host, port in pool.sentinel_manager.discover_slaves(pool.service_name):
        one = Redis(connection_pool=ConnectionPool(host=host, port=port, **{**options, **tls}))
        opened.append(one)
        found.append(Server(f"{host}:{port}", replica=True, client=one))
    try:
        yield found
    finally:
        for one in opened:
            with closing(one):
                one.connection_pool.disconnect()


def owner_of(client: Redis, key: str) -> Redis:
    """The client of the server that has a key."""
    return client if (cluster := cluster_of(client)) is None else cluster.owner(key)


def ask(pipe: Pipeline, *question: Any) -> list[tuple[Any, Any, str | None]]:
    """Carry out a pipeline, and ask each server concerned one thing more. Of each command: its reply, the answer of
    the server that gave it, and a key of that server (None where there is but one). Errors are replies."""
    if (asking := getattr(pipe, "execute_asking", None)) is not None:
        found: list[tuple[Any, Any, str | None]] = asking(*question)
        return found
    pipe.execute_command(*question)
    *replies, answer = pipe.execute(raise_on_error=False)
    return [(reply, answer, None) for reply in replies]


def execute_here(pipe: Pipeline) -> list[Any]:
    """Carry out a pipeline where its keys were said to be, and nowhere else; errors are replies."""
    here = getattr(pipe, "execute_here", None)
    found: list[Any] = pipe.execute(raise_on_error=False) if here is None else here()
    return found
