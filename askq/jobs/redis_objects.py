"""The remote objects of the job store in Redis: one hash per owner, and what is to be deleted in one set per shard."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from askq.ids import SHARDS, shard_of
from askq.jobs import keys
from askq.jobs.model import TERMINAL
from askq.jobs.objects import (
    ACCOUNT_FIELD,
    OF_RECORD,
    Entry,
    RemoteObject,
    Tombstone,
    checked_owner,
    is_batch,
    is_job,
    receipt_name,
)
from askq.jobs.records import decoded
from askq.jobs.redis_servers import servers_of
from askq.jobs.redis_wire import Call, RedisWire

_PAGE = 100
RECEIPT_S = 30 * 86_400
"""How long a receipt is kept after the last thing it counts."""


class RedisObjects(RedisWire):
    """What `RedisStore` knows of remote objects."""

    _keep_s: int

    def remember(self, owner: str, objects: Sequence[RemoteObject]) -> None:
        if not objects:
            return
        args = [part for found in objects for part in (found.name, Entry(object=found).dump())]
        self._scripts([Call("remember", [keys.objects(checked_owner(owner))], args)], on_disk=True)

    def objects(self, owner: str) -> list[Entry]:
        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(keys.objects(owner))
            pipe.hmget(keys.job(owner), "state", "protocol", ACCOUNT_FIELD, "thread", "run", "witness")
            return list(pipe.execute())

        found, record = self._run(read)
        entries = {decoded(name): Entry.load(decoded(name), decoded(text)) for name, text in found.items()}
        state, protocol, account, *ids = (None if value is None else decoded(value) for value in record)
        # What an ended job has had was buried at its end, and may be gone by now.
        kinds = {} if state in TERMINAL else OF_RECORD.get(protocol or "", {})
        for field, id_ in zip(("thread", "run", "witness"), ids, strict=True):
            if id_ and field in kinds:
                made = RemoteObject(kind=kinds[field], id=id_, account=account)
                entries.setdefault(made.name, Entry(object=made))
        return list(entries.values())

    def share(self, thing: str, user: str) -> list[RemoteObject]:
        # Whoever dies in between has noted too much, which does no harm: what was never used may be left.
        self._run(partial(self._redis.sadd, keys.uses(checked_owner(user)), checked_owner(thing)))
        (flat,) = self._scripts([Call("share", [keys.users(thing), keys.objects(thing)], [user])])
        return [entry.object for entry in _entries(flat)]

    def unshare(self, thing: str, user: str, *, receipt: str | None = None) -> bool:
        shard, name = shard_of(thing), "" if receipt is None else receipt_name(receipt)
        names = [keys.users(thing), keys.objects(thing), keys.buried(shard), keys.receipt(shard, name)]
        (last,) = self._scripts([Call("unshare", names, [thing, user, name, RECEIPT_S])])
        self._run(partial(self._redis.srem, keys.uses(user), thing))
        return bool(last)

    def uses(self, user: str) -> list[str]:
        return sorted(decoded(thing) for thing in self._run(partial(self._redis.smembers, keys.uses(user))))

    def users(self, thing: str) -> list[str]:
        return sorted(decoded(user) for user in self._run(partial(self._redis.smembers, keys.users(thing))))

    def bury(
        self, owner: str, objects: Sequence[RemoteObject] = (), *, after_s: float = 0.0, receipt: str | None = None
    ) -> int:
        shard, name = shard_of(owner), "" if receipt is None else receipt_name(receipt)
        names = [keys.objects(owner), keys.buried(shard), keys.receipt(shard, name)]
        args = [owner, after_s, name, RECEIPT_S, *(found.name for found in objects)]
        return int(self._scripts([Call("bury", names, args)])[0])

    def tombstones(self, *, limit: int, lease_s: float) -> list[Tombstone]:
        found: list[Tombstone] = []
        most = max(1, limit // SHARDS)
        calls = [Call("tombs", [keys.buried(s)], [keys.objects_stem(s), most, lease_s]) for s in range(SHARDS)]
        for now, *owners in self._scripts(calls):
            for owner, flat in owners:
                found += [
                    Tombstone(owner=decoded(owner), entry=entry)
                    for entry in _entries(flat)
                    if entry.due is not None and entry.due <= float(now)
                ]
        return found

    def gone(self, owner: str, objects: Sequence[RemoteObject], *, deleted: bool = True) -> None:
        why = "gone" if deleted else "kept"
        self._told(owner, [part for found in objects for part in (found.name, why, 0)])

    def not_gone(self, owner: str, object_: RemoteObject, why: str, *, again_s: float) -> None:
        self._told(owner, [object_.name, f"{why} ", again_s])

    def _told(self, owner: str, args: Sequence[str | float]) -> None:
        shard = shard_of(owner)
        names = [keys.objects(owner), keys.buried(shard)]
        bounds = (self._keep_s if is_job(owner) else "", RECEIPT_S, keys.receipt_stem(shard))
        self._scripts([Call("gone", names, [owner, *bounds, *args])])

    def home(self) -> str:
        found = self._run(lambda: self._redis.get(keys.HOME))
        if found is None:
            self._run(lambda: self._redis.set(keys.HOME, secrets.token_hex(8), nx=True))
            found = self._run(lambda: self._redis.get(keys.HOME))
        return decoded(found)

    def next_tombstone(self) -> float | None:
        def read() -> list[tuple[Any, float]]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.buried(shard), 0, 0, withscores=True)
            return self._timed(pipe)

        return min((head[0][1] - now for head, now in self._run(read) if head), default=None)

    def all_buried(self) -> Iterator[Tombstone]:
        for shard in range(SHARDS):
            start = 0
            while owners := self._run(partial(self._redis.zrange, keys.buried(shard), start, start + _PAGE - 1)):
                start += len(owners)
                for owner in map(decoded, owners):
                    found = self._run(partial(self._redis.hgetall, keys.objects(owner)))
                    for name, text in found.items():
                        entry = Entry.load(decoded(name), decoded(text))
                        if entry.due is not None:
                            yield Tombstone(owner=owner, entry=entry)

    def unowned(self) -> Iterator[Tombstone]:
        owners = sorted(self._owners())
        for start in range(0, len(owners), _PAGE):
            page = owners[start : start + _PAGE]
            pipe = self._redis.pipeline(transaction=False)
            for owner in page:
                pipe.ttl(keys.objects(owner))
                pipe.hgetall(keys.objects(owner))
                pipe.exists(_owned_by(owner))
            found = self._run(pipe.execute)
            for owner, lasts, flat, owned in zip(page, found[::3], found[1::3], found[2::3], strict=True):
                # What policy keeps for ever is known as long as the results are.
                for name, text in {} if owned or lasts >= 0 else flat.items():
                    entry = Entry.load(decoded(name), decoded(text))
                    if entry.due is None:
                        yield Tombstone(owner=owner, entry=entry)

    def _owners(self) -> set[str]:
        def read() -> set[str]:
            with servers_of(self._redis) as servers:
                return {
                    decoded(key).partition(":objects:")[2]
                    for server in servers
                    if not server.replica
                    for key in server.client.scan_iter(match=f"{keys.PREFIX}{{s*}}:objects:*", count=1000)
                }

        found: set[str] = self._run(read)
        return found


def _owned_by(owner: str) -> str:
    """The key that is there as long as somebody has what an owner has made."""
    return keys.job(owner) if is_job(owner) else keys.batch(owner) if is_batch(owner) else keys.users(owner)


def _entries(flat: Sequence[bytes]) -> list[Entry]:
    parts = [decoded(part) for part in flat]
    return [Entry.load(name, text) for name, text in zip(parts[::2], parts[1::2], strict=True)]
