"""How the servers behind an address are set up, as far as it matters for not losing jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.client import Redis
from redis.exceptions import ResponseError

from askq.jobs.health import Health
from askq.jobs.redis_servers import Server


def health_of(servers: list[Server]) -> Health:
    """What all of them are together: no better than the worst. Raises the client's errors."""
    each = [_health(server) for server in servers]
    if len(each) == 1:
        return each[0]
    ours = [one for one in each if not one.replica]
    return Health(
        version=", ".join(sorted({one.version for one in each})),
        append_only=all(one.append_only for one in each),
        eviction=next((one.eviction for one in each if one.eviction != "noeviction"), "noeviction"),
        used_memory=sum(one.used_memory for one in ours),
        max_memory=0 if any(one.max_memory == 0 for one in ours) else sum(one.max_memory for one in ours),
        confirms=all(one.confirms for one in each),
        replicas=min((one.replicas for one in ours), default=0),
        servers=tuple(each),
    )


def _health(server: Server) -> Health:
    info: dict[str, Any] = server.client.info()
    return Health(
        name=server.name,
        replica=server.replica,
        version=str(info.get("valkey_version") or info.get("redis_version", "?")),
        append_only=bool(info.get("aof_enabled")),
        eviction=str(info.get("maxmemory_policy", "?")),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        confirms=bool(info.get("aof_enabled")) and _confirms(server, info),
        replicas=int(info.get("connected_slaves", 0)),
    )


def _confirms(server: Server, info: Mapping[str, Any]) -> bool:
    """Whether it can say, truly, that something is on its disk. Asked, because a version does not tell what a user
    may."""
    fsync = appendfsync(server.client)
    if fsync == "always":
        return True
    # With `everysec` WAITAOF answers before the disk has it: an error that Redis mended in version 8
    # (redis/redis#13793) and Valkey 9.1 still has (seen with strace: ten answers to one fdatasync).
    honest = "valkey_version" not in info and _major(str(info.get("redis_version", ""))) >= 8
    # A replica refuses the question, and is taken at its version.
    return honest and fsync != "no" and (server.replica or _knows_waitaof(server.client))


def _knows_waitaof(client: Redis) -> bool:
    try:
        # For no copy at all it need not wait.
        client.execute_command("WAITAOF", 0, 0, 1)
    except ResponseError:
        return False
    return True


def appendfsync(client: Redis) -> str | None:
    """When a server writes to its disk, where it says so."""
    try:
        return client.config_get("appendfsync").get("appendfsync")
    except ResponseError:
        return None


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0
