"""Where Redis is: the addresses of one server, of a service that Sentinel watches, and of a Redis Cluster.

| address | what answers |
|---|---|
| `redis://[user:password@]host[:6379][/db]` | one server; `rediss://` with TLS, here and below |
| `redis+sentinel://[user:password@]host[:26379][,host…]/service[/db]` | whichever server Sentinel calls the master |
| `redis+cluster://[user:password@]host[:6379][,host…]` | the nodes of a cluster; some of them are enough to find all |

Options of the client follow a `?` as in any Redis address; for Sentinels that want a password of their own there are
`sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from redis.connection import parse_url

Kind = Literal["server", "sentinel", "cluster"]

_PORTS = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address, taken apart."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    """The Sentinels, or some nodes of the cluster; empty for one server, whose whole address the client reads."""
    service: str = ""
    """What Sentinel calls the group of servers."""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the client of each server: user, password, number of the database and what follows the `?`."""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)
    """Of the client of each Sentinel."""


def address_of(url: str) -> Address:
    """Take an address apart. Raises ValueError, whose text may hold a part of the password."""
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if not kind:
        return Address(kind="server")
    if base not in ("redis", "rediss") or kind not in _PORTS:
        raise ValueError(scheme)
    place, _, query = rest.partition("?")
    place, _, path = place.partition("/")
    user, _, hosts = place.rpartition("@")
    service, _, database = path.partition("/")
    if kind == "cluster":
        service, database = "", path
        if database not in ("", "0"):
            raise ValueError(database)
    elif not service:
        raise ValueError(path)
    elif database and not database.isdecimal():
        raise ValueError(database)
    options = dict(parse_url(f"redis://{user}{'@' if user else ''}h/{database}{'?' if query else ''}{query}"))
    options.pop("host")
    sentinel = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    if kind == "cluster":
        options.pop("db", None)
    return Address(
        kind="sentinel" if kind == "sentinel" else "cluster",
        nodes=tuple(_node(host, _PORTS[kind]) for host in hosts.split(",")),
        service=unquote(service),
        tls=base == "rediss",
        options=options,
        sentinel_options=sentinel | {name: value for name, value in options.items() if name.startswith("ssl_")},
    )


def _node(text: str, port: int) -> tuple[str, int]:
    told = parse_url(f"redis://{text}")
    if not told.get("host"):
        raise ValueError(text)
    return str(told["host"]), int(told.get("port", port))
