"""The broker's address as Celery wants it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_WATCHED = ("redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Broker:
    """An address of the broker, and what Celery is told beside it."""

    url: str
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    use_ssl: Mapping[str, Any] | None = None


def broker_of(url: str) -> Broker:
    """What `redis+sentinel://…` is for Celery: a list of `sentinel://` addresses, the service among the options.

    Every other address is Celery's own. Raises ValueError.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _WATCHED:
        return Broker(url)
    place, _, query = rest.partition("?")
    place, _, path = place.partition("/")
    user, at, hosts = place.rpartition("@")
    service, _, database = path.partition("/")
    if not service or (database and not database.isdecimal()):
        raise ValueError(url)
    given = dict(parse_qsl(query))
    sentinel: dict[str, Any] = {
        name: given[f"sentinel_{name}"] for name in ("username", "password") if f"sentinel_{name}" in given
    }
    options: dict[str, Any] = {"master_name": unquote(service)}
    ssl: dict[str, Any] | None = None
    if scheme.startswith("rediss"):
        ssl = {"ssl_cert_reqs": "required"} | {name: value for name, value in given.items() if name.startswith("ssl_")}
        sentinel |= {"ssl": True, **ssl}
    if sentinel:
        options["sentinel_kwargs"] = sentinel
    addresses = [f"sentinel://{user}{at}{_with_port(host)}/{database or '0'}" for host in hosts.split(",")]
    return Broker(";".join(addresses), options, ssl)


def _with_port(host: str) -> str:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError(host)
    return host if parts.port is not None else f"{host.rstrip(':')}:{_SENTINEL_PORT}"
