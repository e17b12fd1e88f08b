"""Accounts in Redis: why one is paused, who may try it, and which assistants it has."""

from __future__ import annotations

import dataclasses
import json

from askq.jobs import keys
from askq.jobs.model import Pause
from askq.jobs.objects import is_batch
from askq.jobs.records import decoded, pause_of
from askq.jobs.redis_wire import Call, RedisWire, millis


class RedisAccounts(RedisWire):
    """What `RedisStore` knows of accounts."""

    def pause(
        self, account: str, code: str, message: str, *, probe_after_s: float, protocol: str | None = None
    ) -> None:
        seconds, micros = self._run(self._redis.time)
        now = seconds + micros / 1e6
        name = concerned(account, protocol)
        pause = Pause(
            account=account,
            code=code,
            message=message,
            since=now,
            probe_at=now + probe_after_s,
            protocol=protocol,
        )
        known = self._run(lambda: self._redis.hget(keys.PAUSES, name))
        if known is not None and (before := pause_of(known)).code == code:
            pause = dataclasses.replace(pause, since=before.since)
        self._run(lambda: self._redis.hset(keys.PAUSES, name, json.dumps(dataclasses.asdict(pause))))
        self._run(lambda: self._redis.set(keys.probe(name), "1", px=millis(probe_after_s)))

    def resume(self, account: str, *, protocol: str | None = None) -> bool:
        name = concerned(account, protocol)
        if is_batch(account):
            # First: whoever counts as soon as the pause is over must not find that there are too many already.
            self._run(lambda: self._redis.delete(keys.again(account)))
        found = self._run(lambda: self._redis.hdel(keys.PAUSES, name))
        self._run(lambda: self._redis.delete(keys.probe(name)))
        return bool(found)

    def pauses(self) -> list[Pause]:
        return [pause_of(data) for data in self._run(lambda: self._redis.hgetall(keys.PAUSES)).values()]

    def probe(self, account: str, *, again_after_s: float, protocol: str | None = None) -> bool:
        key = keys.probe(concerned(account, protocol))
        return bool(self._run(lambda: self._redis.set(key, "1", nx=True, px=millis(again_after_s))))

    def return_probe(self, account: str, *, protocol: str | None = None) -> None:
        self._run(lambda: self._redis.delete(keys.probe(concerned(account, protocol))))

    def remote_assistant(self, account: str, digest: str) -> str | None:
        found = self._run(lambda: self._redis.get(keys.remote(account, digest)))
        return None if found is None else decoded(found)

    def save_remote_assistant(self, account: str, digest: str, remote: str) -> str:
        return self._first(keys.remote(account, digest), remote)

    def drop_remote_assistant(self, account: str, digest: str, remote: str) -> None:
        self._scripts([Call("release", [keys.remote(account, digest)], [remote])])


def concerned(account: str, protocol: str | None) -> str:
    """What a pause concerns: an account, or one protocol on it."""
    return account if protocol is None else f"{account}/{protocol}"
