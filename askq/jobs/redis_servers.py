"""The client for an address, whatever answers there, and each of the servers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection

from askq.jobs.redis_address import Address, address_of
from askq.jobs.redis_cluster import ClusterPipeline, ClusterRedis


@dataclass(frozen=True, slots=True)
class Server:
    """One of the servers behind an address."""

    name: str
    """Its address; empty where there is but one."""
    replica: bool
    client: redis.Redis


def connect(url: str, *, timeout_s: float) -> redis.Redis:
    """The client for an address. Opens nothing. Raises ValueError and TypeError, whose texts may hold a password."""
    address = address_of(url)
    waits: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "max_connections": 64}
    if address.kind == "cluster":
        return ClusterRedis(address.nodes, {**waits, **address.options, **({"ssl": True} if address.tls else {})})
    # One quick repeat heals a connection that died while it was idle. Repeating is safe: every write is idempotent or
    # fenced.
    waits |= {"health_check_interval": 10, "retry": Retry(ExponentialBackoff(cap=0.2, base=0.05), 1)}
    if address.kind == "sentinel":
        return _watched(address, waits, timeout_s)
    client: redis.Redis = redis.Redis.from_url(url, **waits)
    # A connection is made of the address only when it is first needed; one made here tells what is wrong.
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def _watched(address: Address, waits: dict[str, Any], timeout_s: float) -> redis.Redis:
    """The client of whichever server Sentinel calls the master."""
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
    client: redis.Redis = sentinels.master_for(address.service, **{**waits, **address.options, **tls})
    return client


@contextmanager
def servers_of(client: redis.Redis) -> Iterator[list[Server]]:
    """Every server behind a client, replicas too. Their clients last as long as the block."""
    if isinstance(client, ClusterRedis):
        yield [Server(name, role == "replica", one) for name, role, one in client.servers()]
        return
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        yield [Server("", replica=False, client=client)]
        return
    host, port = pool.get_master_address()
    found = [Server(f"{host}:{port}", replica=False, client=client)]
    options = {name: value for name, value in pool.connection_kwargs.items() if name != "connection_pool"}
    tls = {"connection_class": redis.SSLConnection} if issubclass(pool.connection_class, redis.SSLConnection) else {}
    opened = []
    for host, port in pool.sentinel_manager.discover_slaves(pool.service_name):
        one = redis.Redis(connection_pool=redis.ConnectionPool(host=host, port=port, **{**options, **tls}))
        opened.append(one)
        found.append(Server(f"{host}:{port}", replica=True, client=one))
    try:
        yield found
    finally:
        for one in opened:
            with closing(one):
                one.connection_pool.disconnect()


def owner_of(client: redis.Redis, key: str) -> redis.Redis:
    """The client of the server that has a key."""
    return client.owner(key) if isinstance(client, ClusterRedis) else client


def ask(pipe: Pipeline, *question: Any) -> list[tuple[Any, Any, str | None]]:
    """Carry out a pipeline, and ask each server concerned one thing more. Of each command: its reply, the answer of
    the server that gave it, and a key of that server (None where there is but one). Errors are replies."""
    if isinstance(pipe, ClusterPipeline):
        return pipe.execute_asking(*question)
    pipe.execute_command(*question)
    *replies, answer = pipe.execute(raise_on_error=False)
    return [(reply, answer, None) for reply in replies]
