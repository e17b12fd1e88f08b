"""Addresses of Redis, taken apart, and the clients that are made of them."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis
from redis.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from askq.errors import StoreError
from askq.jobs.redis_address import Address, address_of
from askq.jobs.redis_cluster import ClusterRedis
from askq.jobs.redis_servers import connect
from askq.jobs.redis_store import RedisStore


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:pw@h:1/2", Address(kind="server")),
        (
            "redis+sentinel://u:p%40w@h1:1,h2,[::1]:3/my%20service/2?sentinel_password=x&socket_timeout=2",
            Address(
                kind="sentinel",
                nodes=(("h1", 1), ("h2", 26379), ("::1", 3)),
                service="my service",
                options={"username": "u", "password": "p@w", "db": 2, "socket_timeout": 2.0},
                sentinel_options={"password": "x"},
            ),
        ),
        ("redis+sentinel://h/s", Address(kind="sentinel", nodes=(("h", 26379),), service="s")),
        (
            "rediss+cluster://u:p@h1:1,h2?ssl_cert_reqs=none",
            Address(
                kind="cluster",
                nodes=(("h1", 1), ("h2", 6379)),
                tls=True,
                options={"username": "u", "password": "p", "ssl_cert_reqs": "none"},
                sentinel_options={"ssl_cert_reqs": "none"},
            ),
        ),
        ("redis+cluster://h/0", Address(kind="cluster", nodes=(("h", 6379),))),
    ],
)
def test_an_address_is_taken_apart(url: str, address: Address) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h1,h2",
        "redis+sentinel://h1/s/first",
        "redis+sentinel:///s",
        "redis+cluster://h,,h",
        "redis+cluster://h:port",
        "redis+cluster://h/1",
        "redis+other://h",
        "http+cluster://h",
        "redis://h/0?nobody=1",
        "redis+sentinel://h/s?nobody=1",
        "redis+cluster://h?nobody=1",
        "rediss://h?ssl_cert_reqs=some",
        "rediss+sentinel://h/s?ssl_cert_reqs=some",
        "rediss+cluster://h?ssl_cert_reqs=some",
    ],
)
def test_what_is_no_address_is_told_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="is not a Redis address") as caught:
        RedisStore(url.replace("://", "://:s3cret@"))
    assert "s3cret" not in str(caught.value)


def test_clients_open_nothing_and_use_tls_everywhere() -> None:
    with closing(connect("rediss+sentinel://:pw@127.0.0.1:9/s?ssl_ca_certs=ca.pem", timeout_s=1)) as client:
        pool = client.connection_pool
        assert isinstance(pool, SentinelConnectionPool)
        assert pool.connection_class is SentinelManagedSSLConnection
        (sentinel,) = pool.sentinel_manager.sentinels
        assert issubclass(sentinel.connection_pool.connection_class, redis.SSLConnection)
        assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"
        assert pool.connection_kwargs["password"] == "pw"
    with closing(connect("rediss+cluster://127.0.0.1:9", timeout_s=1)) as client:
        assert isinstance(client, ClusterRedis)
        assert client._options["ssl"] is True
