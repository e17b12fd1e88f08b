"""Redis as the stores speak to it: scripts in pipelines, what is on its disk, and its errors as ours."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.client import Pipeline, Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from askq.errors import StoreDenied, StoreError, StoreUnreachable
from askq.ids import SHARDS
from askq.jobs import keys
from askq.jobs.health import Health
from askq.jobs.model import State
from askq.jobs.records import decoded, encoded
from askq.jobs.redis_health import appendfsync, health_of
from askq.jobs.redis_servers import ask, cluster_of, connect, execute_here, owner_of, servers_of

_DISK_WAIT_MS = 1500
"""How long one question whether something is on disk may stay open; below the time-out of a reply."""
_DISK_S = 10.0
_LUA = Path(__file__).with_name("lua")
_INCLUDE = re.compile(r"^-- include (parts/\w+\.lua)\n", re.MULTILINE)
_OWN, _THEIRS = "its disk", "the disks of as many replicas as was asked for"


class Call:
    """One script call of a pipeline: repeated alone when the server has lost the script."""

    __slots__ = ("args", "keys", "script")

    def __init__(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        self.script = script
        self.keys = keys
        # Encoded here, because the client's fast packer cannot be told what to do with surrogates.
        self.args = [encoded(arg) if isinstance(arg, str) else arg for arg in args]


Seen = dict[str, str]
"""Servers that were written: their run ids, and a key each of them has."""


class RedisWire:
    """Redis behind one address. Raises what `RedisStore` says."""

    def __init__(self, url: str, *, timeout_s: float, replicas: int = 0) -> None:
        self._shown = without_password(url)
        self._replicas = replicas
        self._mute: set[str] = set()
        """The servers (their run ids) that cannot say whether something is on their disk."""
        self._short: set[str] = set()
        """Those that know no WAITAOF at all, and so can only say what their replicas have in memory."""
        try:
            self._redis: Redis = connect(url, timeout_s=timeout_s)
        except (ValueError, TypeError, RedisError):
            # Whoever parsed it may quote a part of the password, so neither text nor cause is passed on.
            raise StoreError(
                f"{self._shown!r} is not a Redis address",
                remedy="REDIS_URL looks like redis://:password@host:6379/0, or rediss:// with TLS. "
                "Write special characters of a password as %XX (/ is %2F).",
            ) from None

    def _scripts(self, calls: Sequence[Call], *, on_disk: bool = False) -> list[Any]:
        """Run script calls in one pipeline; a server that was restarted gets the scripts again.

        `on_disk`: return when they, and all that anybody wrote before, are on the disks of the servers concerned.
        """
        if not calls:
            return []
        seen: Seen = {}

        def run() -> list[Any]:
            seen.clear()
            found = self._call(calls, seen if on_disk else None, text=False)
            if lost := [at for at, result in enumerate(found) if isinstance(result, NoScriptError)]:
                again = self._call([calls[at] for at in lost], seen if on_disk else None, text=True)
                for at, result in zip(lost, again, strict=True):
                    found[at] = result
            for result in found:
                if isinstance(result, Exception):
                    raise result
            return found

        results: list[Any] = self._run(run)
        if on_disk:
            self._wait_for_disk(seen)
        return results

    def _call(self, calls: Sequence[Call], seen: Seen | None, *, text: bool) -> list[Any]:
        """Scripts by their digests or their texts; errors are replies. `seen` gets the servers that ran them."""
        pipe = self._redis.pipeline(transaction=False)
        for call in calls:
            sha, source = lua(call.script)
            if text:
                pipe.eval(source, len(call.keys), *call.keys, *call.args)
            else:
                pipe.evalsha(sha, len(call.keys), *call.keys, *call.args)
        if seen is None:
            return list(pipe.execute(raise_on_error=False))
        found = ask(pipe, "INFO", "server")
        seen.update((run_id_of(server), mark or keys.DISK) for reply, server, mark in found if server is not None)
        return [reply for reply, _, _ in found]

    def _in_order(self, *steps: Callable[[Pipeline], object]) -> Seen:
        """Write these, none before the one in front of it; the servers that were written.

        One server takes all of them whole or not at all; a cluster each step's part of one slot.
        """
        seen: Seen = {}

        def write() -> None:
            seen.clear()
            many = cluster_of(self._redis) is not None
            for together in [[step] for step in steps] if many else [steps]:
                pipe = self._redis.pipeline(transaction=True)
                for step in together:
                    step(pipe)
                found = ask(pipe, "INFO", "server")
                for reply, _, _ in found:
                    if isinstance(reply, Exception):
                        raise reply
                seen.update((run_id_of(server), mark or keys.DISK) for _, server, mark in found)

        self._run(write)
        return seen

    def _all(self, pipe: Pipeline) -> None:
        """A step of `_in_order` that concerns every server."""
        if (cluster := cluster_of(self._redis)) is not None:
            for mark in cluster.marks():
                pipe.exists(mark)

    def _first(self, key: str, value: str) -> str:
        """Put a value under a key unless there is one; the value that is there now."""
        while not self._run(lambda: self._redis.set(key, value, nx=True)):
            known = self._run(lambda: self._redis.get(key))
            if known is not None:
                return decoded(known)
            # It went away between the two calls: the key is free after all.
        return value

    def _wait_for_disk(self, seen: Seen) -> None:
        """Return when everything written so far is on the disks of these servers, and of as many replicas of each as
        was asked for.

        The file is written in order, so one write of our own that is on disk proves it of all before. A server that
        cannot tell is believed, replicas never. Raises StoreUnreachable when the disk takes too long, and when the
        server is another one by now: what was written to the first one may be gone, and must be written again.
        """
        until = time.monotonic() + _DISK_S
        waiting = seen
        while waiting := {run: mark for run, mark in waiting.items() if self._replicas or run not in self._mute}:
            asked = waiting
            lacking = self._run(partial(self._lacking, asked))
            waiting = {run: mark for run, mark in asked.items() if lacking[run] is not None}
            if waiting and time.monotonic() > until:
                lack = next(lacking[run] for run in waiting)
                raise StoreUnreachable(
                    f"Redis at {self._shown} has not written to {lack} for {_DISK_S:g} s",
                    remedy="Check the disk of the server. Nothing was lost."
                    if lack == _OWN
                    else "Check its replicas (`askq doctor`), or ask for fewer with ASKQ_REDIS_REPLICAS. "
                    "Nothing was lost.",
                )

    def _lacking(self, waiting: Seen) -> dict[str, str | None]:
        """Whose disks lack what was written so far (None: nobody's), by server, after a wait of a second or two at
        most."""
        pipe = self._redis.pipeline(transaction=False)
        for run, mark in waiting.items():
            at = {} if mark == keys.DISK else {"at": mark}
            # The answer is about the writes of this connection: without one it would come at once and mean nothing.
            pipe.set(mark, "1")
            pipe.execute_command("INFO", "server", **at)
            if run in self._short:
                pipe.execute_command("WAIT", self._replicas, _DISK_WAIT_MS, **at)
            else:
                own = 0 if run in self._mute else 1
                pipe.execute_command("WAITAOF", own, self._replicas, _DISK_WAIT_MS, **at)
        found = execute_here(pipe)
        return {
            run: self._lack(run, mark, *found[3 * at : 3 * at + 3]) for at, (run, mark) in enumerate(waiting.items())
        }

    def _lack(self, run: str, mark: str, written: Any, server: Any, reached: Any) -> str | None:
        if isinstance(written, AskError):
            raise self._another()
        if isinstance(written, Exception):
            raise written
        if run_id_of(server) != run:
            raise self._another()
        if isinstance(reached, ResponseError):
            text = str(reached)
            if not isinstance(reached, NoPermissionError) and "nknown command" not in text and "appendonly" not in text:
                # It was a primary when it was written, and is none any more.
                raise self._another() if "UNBLOCKED" in text or "replica" in text else reached
            if run in self._short:
                raise reached
            # It knows no such question; where it writes through, there is no need for one.
            self._mute.add(run)
            if "appendonly" not in text:
                self._short.add(run)
            return _THEIRS if self._replicas else None
        if isinstance(reached, Exception):
            raise reached
        own, theirs = (1, reached) if run in self._short else reached
        if not own and run not in self._mute:
            if appendfsync(owner_of(self._redis, mark)) != "no":
                return _OWN
            # It leaves it to the system when to write to the disk.
            self._mute.add(run)
        return None if theirs >= self._replicas else _THEIRS

    def _another(self) -> StoreUnreachable:
        return StoreUnreachable(
            f"Redis at {self._shown} was restarted before what was written was on its disk",
            remedy="Do it again: it may be gone.",
        )

    def clocks(self) -> list[float]:
        """The clock that each shard goes by (Unix seconds): that of the server that has it."""
        if cluster_of(self._redis) is None:
            return [self.now()] * SHARDS

        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.exists(keys.dead(shard))
            return [told for _, told in self._timed(pipe)]

        return list(self._run(read))

    def now(self) -> float:
        seconds, micros = self._run(self._redis.time)
        return float(seconds + micros / 1e6)

    def _timed(self, pipe: Pipeline) -> list[tuple[Any, float]]:
        """Carry out a pipeline: each reply, and the time by the server that gave it. Raises the first error."""
        found = []
        for reply, told, _ in ask(pipe, "TIME"):
            for each in (reply, told):
                if isinstance(each, Exception):
                    raise each
            found.append((reply, float(told[0] + told[1] / 1e6)))
        return found

    def _infos(self, section: str | None = None) -> list[dict[str, Any]]:
        """INFO of every primary."""

        def read() -> list[dict[str, Any]]:
            with servers_of(self._redis) as servers:
                return [one.client.info(section) for one in servers if not one.replica]

        return list(self._run(read))

    def health(self) -> Health:
        def read() -> Health:
            with servers_of(self._redis) as servers:
                return health_of(servers)

        found: Health = self._run(read)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _run(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (AuthenticationError, NoPermissionError) as exc:
            raise StoreDenied(
                f"Redis at {self._shown} refused us: {exc}", remedy="Put the right user and password into REDIS_URL."
            ) from exc
        except (exceptions.ConnectionError, exceptions.TimeoutError) as exc:
            raise StoreUnreachable(
                # Of a Sentinel the client also tells, at length, how it was made.
                f"Redis at {self._shown} does not answer: {str(exc).partition(' : <redis')[0]}",
                remedy="Check that it is running and that REDIS_URL is right.",
            ) from exc
        except (AskError, ClusterDownError, TryAgainError) as exc:
            raise StoreUnreachable(
                f"the Redis Cluster at {self._shown} is being changed, or a part of it is down: {exc}",
                remedy="Wait until it is in order (CLUSTER INFO). Nothing was lost.",
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
def lua(name: str) -> tuple[str, str]:
    """SHA-1 and text of a transition, read once.

    A line `-- include parts/….lua` stands for that file: what several transitions do as a part of their one step.
    """
    text = (_LUA / f"{name}.lua").read_text("utf-8")
    text = _INCLUDE.sub(lambda part: (_LUA / part.group(1)).read_text("utf-8"), text)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text


def millis(seconds: float) -> int:
    """A lifetime as Redis takes it: there is none of no time at all."""
    return max(1, int(seconds * 1000))


def words(states: Collection[State]) -> str:
    """States as the scripts look them up."""
    return "," + ",".join(sorted(states)) + ","


def _remedy(exc: ResponseError) -> str | None:
    # A server of version 6 tells the reason of a script's failure inside a text of its own.
    text = str(exc)
    if isinstance(exc, OutOfMemoryError) or "OOM" in text:
        return "Redis is full: raise maxmemory or remove finished batches. Nothing was lost."
    if isinstance(exc, ReadOnlyError) or "READONLY" in text or "MISCONF" in text:
        return "Redis takes no writes: check its disk and its role. Nothing was lost."
    if "NOREPLICAS" in text:
        return "Redis has fewer replicas than its min-replicas-to-write: start them. Nothing was lost."
    if "is no cluster" in text:
        return "Begin REDIS_URL with redis:// for a single server."
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
