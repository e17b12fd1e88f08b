"""One Redis server as the stores speak to it: scripts in pipelines, what is on its disk, and its errors as ours."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from askq.errors import StoreDenied, StoreError, StoreUnreachable
from askq.jobs import keys
from askq.jobs.records import encoded

_DISK_WAIT_MS = 1500
"""How long one question whether something is on disk may stay open; below the time-out of a reply."""
_DISK_S = 10.0
_INCLUDE = re.compile(r"^-- include (parts/\w+\.lua)\n", re.MULTILINE)


class Call:
    """One script call of a pipeline: repeated alone when the server has lost the script."""

    __slots__ = ("args", "keys", "script")

    def __init__(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        self.script = script
        self.keys = keys
        # Encoded here, because the client's fast packer cannot be told what to do with surrogates.
        self.args = [encoded(arg) if isinstance(arg, str) else arg for arg in args]


class RedisWire:
    """A connection pool of one server. Raises what `RedisStore` says."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._shown = without_password(url)
        self._mute: str | None = None
        """The server (its run id) that cannot say whether something is on its disk."""
        try:
            self._redis: redis.Redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                health_check_interval=10,
                max_connections=64,
                # One quick repeat heals a connection that died while it was idle. Repeating is safe: every write
                # is idempotent or fenced.
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 1),
            )
            # A connection is made of the address only when it is first needed; one made here tells what is wrong.
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError):
            # Whoever parsed it may quote a part of the password, so neither text nor cause is passed on.
            raise StoreError(
                f"{self._shown!r} is not a Redis address",
                remedy="REDIS_URL looks like redis://:password@host:6379/0, or rediss:// with TLS. "
                "Write special characters of a password as %XX (/ is %2F).",
            ) from None

    def _scripts(self, calls: Sequence[Call], *, on_disk: bool = False) -> list[Any]:
        """Run script calls in one pipeline; a server that was restarted gets the scripts again.

        `on_disk`: return when they, and all that anybody wrote before, are on the server's disk.
        """
        if not calls:
            return []

        def run() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for call in calls:
                pipe.evalsha(lua()[call.script][0], len(call.keys), *call.keys, *call.args)
            if on_disk:
                pipe.info("server")
            found = list(pipe.execute(raise_on_error=False))
            for at, result in enumerate(found):
                if isinstance(result, NoScriptError):
                    call = calls[at]
                    found[at] = self._redis.eval(lua()[call.script][1], len(call.keys), *call.keys, *call.args)
                elif isinstance(result, Exception):
                    raise result
            return found

        results: list[Any] = self._run(run)
        if on_disk:
            self._wait_for_disk(run_id_of(results.pop()))
        return results

    def _wait_for_disk(self, run_id: str) -> None:
        """Return when everything written so far is on the disk of the server that has this run id and was written to.

        The file is written in order, so one write of our own that is on disk proves it of all before. A server that
        cannot tell is believed. Raises StoreUnreachable when the disk takes too long, and when the server is another
        one by now: what was written to the first one may be gone, and must be written again.
        """
        until = time.monotonic() + _DISK_S
        while self._mute != run_id:
            reached = self._run(partial(self._on_disk, run_id))
            if reached is None:
                # It knows no such question; where it writes through, there is no need for one.
                self._mute = run_id
            elif reached:
                return
            elif time.monotonic() > until:
                raise StoreUnreachable(
                    f"Redis at {self._shown} has not written to its disk for {_DISK_S:g} s",
                    remedy="Check the disk of the server. Nothing was lost.",
                )

    def _on_disk(self, run_id: str) -> bool | None:
        """Whether what was written so far is on the server's disk by now (a wait of a second or two at most); None
        where it cannot say: it is older than 7.2, keeps no append-only file, or leaves it to the system when to write
        to the disk."""
        pipe = self._redis.pipeline(transaction=False)
        # The answer is about the writes of this connection: without one it would come at once and mean nothing.
        pipe.set(keys.DISK, "1")
        pipe.info("server")
        pipe.waitaof(1, 0, _DISK_WAIT_MS)
        written, server, reached = pipe.execute(raise_on_error=False)
        if isinstance(written, Exception):
            raise written
        if run_id_of(server) != run_id:
            raise StoreUnreachable(
                f"Redis at {self._shown} was restarted before what was written was on its disk",
                remedy="Do it again: it may be gone.",
            )
        if isinstance(reached, ResponseError):
            return None
        if isinstance(reached, Exception):
            raise reached
        if not reached[0] and self._appendfsync() == "no":
            return None
        return bool(reached[0])

    def _confirms(self, info: Mapping[str, Any]) -> bool:
        """Whether it can say, truly, that something is on its disk. Asked, because a version does not tell what a user
        may."""
        fsync = self._run(self._appendfsync)
        if fsync == "always":
            return True
        # With `everysec` WAITAOF answers before the disk has it: an error that Redis mended in version 8
        # (redis/redis#13793) and Valkey 9.1 still has (seen with strace: ten answers to one fdatasync).
        honest = "valkey_version" not in info and _major(str(info.get("redis_version", ""))) >= 8
        return honest and fsync != "no" and bool(self._run(self._knows_waitaof))

    def _knows_waitaof(self) -> bool:
        try:
            # For no copy at all it need not wait.
            self._redis.waitaof(0, 0, 1)
        except ResponseError:
            return False
        return True

    def _appendfsync(self) -> str | None:
        """When the server writes to its disk, where it says so."""
        try:
            return self._redis.config_get("appendfsync").get("appendfsync")
        except ResponseError:
            return None

    def _run(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (AuthenticationError, NoPermissionError) as exc:
            raise StoreDenied(
                f"Redis at {self._shown} refused us: {exc}", remedy="Put the right user and password into REDIS_URL."
            ) from exc
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            raise StoreUnreachable(
                f"Redis at {self._shown} does not answer: {exc}",
                remedy="Check that it is running and that REDIS_URL is right.",
            ) from exc
        except ResponseError as exc:
            raise StoreError(f"Redis at {self._shown} refused: {exc}", remedy=_remedy(exc)) from exc
        except RedisError as exc:
            raise StoreError(f"Redis at {self._shown} failed: {exc}") from exc


def run_id_of(server: Any) -> str:
    """What tells a server from the same one restarted, and from the one that took its place."""
    if isinstance(server, Exception):
        raise server
    return str(server.get("run_id", ""))


@cache
def lua() -> dict[str, tuple[str, str]]:
    """Name → (SHA-1, text) of every transition, read from the package once.

    A line `-- include parts/….lua` stands for that file: what several transitions do as a part of their one step.
    """
    folder = resources.files("askq.jobs") / "lua"
    found = {}
    for entry in folder.iterdir():
        if not entry.name.endswith(".lua"):
            continue
        text = _INCLUDE.sub(lambda part: (folder / part.group(1)).read_text("utf-8"), entry.read_text("utf-8"))
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        found[entry.name.removesuffix(".lua")] = (sha, text)
    return found


def _remedy(exc: ResponseError) -> str | None:
    # A server of version 6 tells the reason of a script's failure inside a text of its own.
    text = str(exc)
    if isinstance(exc, OutOfMemoryError) or "OOM" in text:
        return "Redis is full: raise maxmemory or remove finished batches. Nothing was lost."
    if isinstance(exc, ReadOnlyError) or "READONLY" in text or "MISCONF" in text:
        return "Redis takes no writes: check its disk and its role. Nothing was lost."
    return None


def without_password(url: str) -> str:
    """An address as it may be shown: a password may stand before the @ and among the options after the ?."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if "@" in rest and "@" not in rest.partition("?")[0]:
        # The @ belongs to an option, or the ? to the password: nobody can tell.
        return f"{scheme}{separator}…"
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0
