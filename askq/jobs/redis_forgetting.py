"""Forgetting in Redis: erasing jobs and batches, and having the server's files follow."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from redis.client import Pipeline, Redis
from redis.exceptions import ResponseError

from askq.ids import SHARDS, job_id, shard_of, split_job_id
from askq.jobs import keys
from askq.jobs.model import TERMINAL, BatchStatus, Outcome
from askq.jobs.objects import Receipt, assistant_of_thing, receipt_name, receipt_of
from askq.jobs.records import decoded, encoded
from askq.jobs.redis_objects import RECEIPT_S, RedisObjects
from askq.jobs.redis_reading import RedisReading
from askq.jobs.redis_servers import Server, servers_of
from askq.jobs.redis_wire import Call, words

_ROWS = 1000
_REWRITE_S = 300.0
_INVENTORY_S = 600
_ENDS = words(TERMINAL)
_STATUSES_PER_CALL = 50


class RedisForgetting(RedisReading, RedisObjects):
    """What `RedisStore` knows of forgetting, when it is told to and when the time has come."""

    def begin_forgetting(self, what: str) -> None:
        def mark(pipe: Pipeline) -> None:
            pipe.hset(keys.batch(what), "forgetting", "1")
            # It must not go of itself before its objects are buried.
            pipe.persist(keys.batch(what))

        batch = not split_job_id(what)[1] and self._run(partial(self._redis.exists, keys.batch(what)))
        # What one node of a cluster erases must not outlast the other's note that all of it is to be erased.
        self._wait_for_disk(self._in_order(lambda pipe: pipe.sadd(keys.FORGETTING, what), *([mark] if batch else [])))

    def forgetting(self) -> list[str]:
        return sorted(decoded(what) for what in self._run(lambda: self._redis.smembers(keys.FORGETTING)))

    def job_ids(self, batch: str) -> Iterator[str]:
        for shard in range(SHARDS):
            start = 0
            while page := self._run(partial(self._redis.zrange, keys.rows(shard, batch), start, start + _ROWS - 1)):
                start += len(page)
                yield from (job_id(batch, decoded(row)) for row in page)

    def forget(self, jobs: Sequence[str], what: str) -> list[Outcome]:
        calls, name = [], receipt_name(what)
        for job in jobs:
            shard, (batch, row) = shard_of(job), split_job_id(job)
            start, poll = keys.dues(shard)
            names = [keys.job(job), start, poll, keys.count(shard, batch), keys.dead(shard), keys.rows(shard, batch)]
            names += [keys.objects(job), keys.buried(shard), keys.receipt(shard, name)]
            names += [keys.functions(shard), keys.calls(job), *keys.of_job(job)]
            calls.append(Call("forget", names, [job, row, _ENDS, name, RECEIPT_S]))
        return [Outcome(decoded(found)) for found in self._scripts(calls, on_disk=True)]

    def erase(self, what: str) -> None:
        self._leave(what, what)
        self.bury(what, receipt=what)
        if not split_job_id(what)[1]:
            self._erase_batch(what)
        self._run(partial(self._redis.srem, keys.FORGETTING, what))

    def _leave(self, user: str, what: str) -> None:
        """End the use of everything that somebody uses, and of what only that has used."""
        # Backwards: folders before the marks that they were emptied. Whoever goes on after a death need not wait again
        # for machines that may be gone.
        for thing in reversed(self.uses(user)):
            if not self.unshare(thing, user, receipt=what):
                continue
            if (digest := assistant_of_thing(thing)) is not None:
                self._erase_assistant(digest, thing)
            self._leave(thing, what)

    def _erase_assistant(self, digest: str, thing: str) -> None:
        """Nobody asks it any more: its instructions are somebody's words, too."""
        definition = self._run(partial(self._redis.get, keys.assistant(digest)))
        for name in (keys.assistant(digest), keys.took(digest)):
            self._run(partial(self._redis.delete, name))
        if definition is not None and self.users(thing):
            # Somebody has begun to ask it just now, and may have saved it before it was erased.
            self._run(partial(self._redis.set, keys.assistant(digest), definition, nx=True))

    def _erase_batch(self, batch: str) -> None:
        idem = self._run(partial(self._redis.hget, keys.batch(batch), "idem"))

        def all_else(pipe: Pipeline) -> None:
            if idem is not None:
                pipe.delete(keys.idempotency(decoded(idem)))
            for shard in range(SHARDS):
                pipe.delete(keys.rows(shard, batch))
                pipe.delete(keys.count(shard, batch))
            pipe.delete(keys.budget(batch))
            pipe.delete(keys.again(batch))
            pipe.hdel(keys.PAUSES, batch)
            pipe.zrem(keys.BATCHES, batch)

        # The record last: it knows the idempotency key. On a cluster they are on different nodes.
        self._wait_for_disk(self._in_order(all_else, lambda pipe: pipe.delete(keys.batch(batch))))

    def receipt(self, what: str) -> Receipt | None:
        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            pipe.sismember(keys.FORGETTING, what)
            for shard in range(SHARDS):
                pipe.hgetall(keys.receipt(shard, receipt_name(what)))
            return list(pipe.execute())

        pending, *shards = self._run(read)
        counts = [{decoded(name): int(count) for name, count in shard.items()} for shard in shards]
        return receipt_of(what, counts, pending=bool(pending))

    def ask_inventory(self) -> str:
        token = secrets.token_hex(8)
        self._run(lambda: self._redis.set(keys.INVENTORY, token, ex=_INVENTORY_S))
        return token

    def take_inventory(self) -> str | None:
        found = self._run(lambda: self._redis.getdel(keys.INVENTORY))
        return None if found is None else decoded(found)

    def give_inventory(self, token: str, found: str) -> None:
        self._run(lambda: self._redis.set(keys.inventory(token), encoded(found), ex=_INVENTORY_S))

    def inventory(self, token: str) -> str | None:
        found = self._run(lambda: self._redis.get(keys.inventory(token)))
        return None if found is None else decoded(found)

    def compact(self) -> str | None:
        until = time.monotonic() + _REWRITE_S

        def rewrite() -> str | None:
            with servers_of(self._redis) as servers:
                told = (_rewritten(server, until) for server in servers)
                return next((why for why in told if why is not None), None)

        found: str | None = self._run(rewrite)
        return found

    def tidy(self, *, keep_s: float) -> int:
        ids = [decoded(id_) for id_ in self._run(lambda: self._redis.zrange(keys.BATCHES, 0, -1))]

        def lifetimes() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.ttl(keys.batch(id_))
            return list(pipe.execute())

        self._run(partial(self._forget_dead, keep_s))
        ttls = dict(zip(ids, self._run(lifetimes), strict=True))
        if gone := [id_ for id_, ttl in ttls.items() if ttl == -2]:
            for id_ in gone:
                # What it used is deleted at the service, unless others use it; and so is what it had made itself.
                for thing in self.uses(id_):
                    self.unshare(thing, id_)
                self.bury(id_)
            self._run(lambda: self._redis.hdel(keys.PAUSES, *gone))
            self._run(lambda: self._redis.zrem(keys.BATCHES, *gone))
        # Only batches that are not marked yet are looked at: finished ones stay for weeks, and this runs every minute.
        open_ = [id_ for id_, ttl in ttls.items() if ttl == -1]
        marked = 0
        for start in range(0, len(open_), _STATUSES_PER_CALL):
            over = [status for status in self._statuses(open_[start : start + _STATUSES_PER_CALL]) if status.done]
            self._run(partial(self._expire, over, int(keep_s)))
            marked += len(over)
        return marked

    def _forget_dead(self, keep_s: float) -> None:
        """Dead letters go when the records they are about do."""
        seconds, _ = self._redis.time()
        pipe = self._redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.zremrangebyscore(keys.dead(shard), "-inf", seconds - keep_s)
        pipe.execute()

    def _expire(self, batches: Sequence[BatchStatus], keep_s: int) -> None:
        rest, own = self._redis.pipeline(transaction=False), self._redis.pipeline(transaction=False)
        for status in batches:
            # It has gone on since it was last audited, or this is its first end.
            rest.hdel(keys.batch(status.id), "audited")
            # The batch itself last: that it expires is the sign that all else does, should this be cut off half-way.
            record, *others = lasting(status.id, status.idempotency_key)
            for name in others:
                rest.expire(name, keep_s)
            own.expire(record, keep_s)
        rest.execute()
        own.execute()


def lasting(batch: str, idempotency_key: str | None) -> list[str]:
    """The keys of a batch that last as long as any of its jobs has not ended."""
    names = [keys.batch(batch), keys.budget(batch)]
    if idempotency_key is not None:
        names.append(keys.idempotency(idempotency_key))
    for shard in range(SHARDS):
        names += (keys.rows(shard, batch), keys.count(shard, batch))
    return names


def persisting(batch: str, idempotency_key: str | None) -> list[Callable[[Pipeline], None]]:
    """What lets a batch stay, to be done in this order: once its record stays, `tidy` lets the rest expire again,
    should this be cut off half-way."""
    record, *others = lasting(batch, idempotency_key)

    def persist(names: Sequence[str], pipe: Pipeline) -> None:
        for name in names:
            pipe.persist(name)

    return [partial(persist, [record]), partial(persist, others)]


def _rewritten(server: Server, until: float) -> str | None:
    """Have one server write its files anew, and wait for it; why that was not possible, or None."""
    client, where = server.client, f"{server.name}: " if server.name else ""
    try:
        if client.info("persistence").get("aof_enabled"):
            why = _written(client, client.bgrewriteaof, "aof_rewrite_in_progress", "aof_last_bgrewrite_status", until)
            if why is not None:
                return where + why
        if client.config_get("save").get("save"):
            why = _written(client, client.bgsave, "rdb_bgsave_in_progress", "rdb_last_bgsave_status", until)
            return None if why is None else where + why
    except ResponseError as error:
        return f"{where}the server does not let us: {error}"
    return None


def _written(client: Redis, begin: Callable[[], object], running: str, last: str, until: float) -> str | None:
    _is_over(client, running, until)
    try:
        begin()
    except ResponseError as error:
        if "already in progress" not in str(error) and "scheduled" not in str(error):
            raise
    time.sleep(0.05)
    if not _is_over(client, running, until):
        return f"the server has not finished writing its file after {_REWRITE_S:g} s"
    told = str(client.info("persistence").get(last, "ok"))
    return None if told == "ok" else f"the server could not write its file: {last} is {told}"


def _is_over(client: Redis, running: str, until: float) -> bool:
    while True:
        info = client.info("persistence")
        if not info.get(running) and not info.get("aof_rewrite_scheduled"):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
