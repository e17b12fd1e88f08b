"""The books of the job store in Redis. One Lua script reads and repairs a page; no script runs for long."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis
from redis.exceptions import AskError

from askq.ids import SHARDS, job_id, split_job_id
from askq.jobs import keys
from askq.jobs.audit import AHEAD_S, LATE_S, SAMPLE, Fact, Starting
from askq.jobs.books import Recount, SchedulePage
from askq.jobs.model import DEAD_LETTER, LANE_OF, TERMINAL, Lane, State
from askq.jobs.records import decoded, encoded
from askq.jobs.redis_servers import owner_of

_PAGE = 100
"""Rows or members per script: about a millisecond of the server's time, at some ten microseconds a row."""
_SOONEST = 50
_LOCK_S = 60.0
"""Leases, hints and the like are made for a few seconds at a time."""
_REGISTER_PAST_S = 60.0
_REGISTER_AHEAD_S = 60.0
"""Whoever registers does so for a few seconds at a time."""
_LANES = json.dumps({state: {None: 0, Lane.START: 1, Lane.POLL: 2}[LANE_OF.get(state)] for state in State})
_ENDS = "," + ",".join(sorted(TERMINAL)) + ","

Script = tuple[str, Sequence[str], Sequence[Any]]
"""Name, keys and arguments of a script call."""


class RedisBooks:
    """`Books` over one Redis server; made by the store, whose connections and scripts it uses.

    `run` turns the client's errors into ours, `clocks` are those of the shards, `infos` what each server tells of
    itself, `scripts` runs calls in one pipeline, `text` is a script's source.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        run: Callable[[Callable[[], Any]], Any],
        clocks: Callable[[], Sequence[float]],
        infos: Callable[[str], Sequence[Mapping[str, Any]]],
        scripts: Callable[[Sequence[Script]], list[Any]],
        text: Callable[[str], str],
        keep_s: int,
    ) -> None:
        self._redis = client
        self._run = run
        self._clocks = clocks
        self._infos = infos
        self._scripts = scripts
        self._source = text
        self._keep_s = keep_s

    # -- batches and schedule --------------------------------------------------------------------------

    def batches(self, *, closed: bool) -> list[str]:
        ids = sorted(decoded(id_) for id_ in self._run(lambda: self._redis.zrange(keys.BATCHES, 0, -1)))
        if closed or not ids:
            return ids

        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.hget(keys.batch(id_), "audited")
                pipe.ttl(keys.batch(id_))
            return list(pipe.execute())

        found = self._run(read)
        # A batch that was closed and then got more rows does not expire any more.
        return [
            id_
            for id_, audited, ttl in zip(ids, found[::2], found[1::2], strict=True)
            if ttl == -1 or (ttl >= 0 and audited is None)
        ]

    def exist(self, batches: Collection[str]) -> set[str]:
        asked = list(batches)

        def read() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for batch in asked:
                pipe.exists(keys.batch(batch))
            return list(pipe.execute())

        return {batch for batch, there in zip(asked, self._run(read) if asked else [], strict=True) if there}

    def leaving(self, batch: str) -> bool:
        return bool(self._run(lambda: self._redis.ttl(keys.batch(batch))) != -1)

    def schedule(self, shard: int, lane: Lane, at: str, *, repair: bool, batch: str | None = None) -> SchedulePage:
        (other,) = set(Lane) - {lane}
        names = [keys.due(shard, lane), keys.due(shard, other)]
        args = [keys.job_stem(shard), keys.rows_stem(shard), at, _PAGE, _ENDS, _flag(on=repair), batch or ""]
        ((next_, _, ahead, batches, found),) = self._scripts([("audit_due", names, args)])
        return SchedulePage(
            next=None if decoded(next_) == "0" else decoded(next_),
            ahead=ahead,
            batches=[decoded(batch) for batch in batches],
            facts=[
                Fact(code=decoded(code), batch=split_job_id(decoded(id_))[0], job=decoded(id_)) for code, id_ in found
            ],
        )

    def dead_letters(self, shard: int, *, repair: bool) -> list[Fact]:
        facts: list[Fact] = []
        at = "0"
        while True:
            args = [keys.job_stem(shard), at, _PAGE, DEAD_LETTER, _flag(on=repair)]
            ((next_, found),) = self._scripts([("audit_dead", [keys.dead(shard)], args)])
            for id_ in map(decoded, found):
                facts.append(_fact("misfiled", id_))
            at = decoded(next_)
            if at == "0":
                return facts

    def ahead(self, lane: Lane) -> int:
        now = self._clocks()

        def read() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                # Who is in somebody's hands is due again sooner than who waits for a turn in a conversation.
                pipe.zrangebyscore(keys.due(shard, lane), f"({now[shard]:.6f}", "+inf", start=0, num=_SOONEST)
            found = [decoded(job) for jobs in pipe.execute() for job in jobs]
            pipe = self._redis.pipeline(transaction=False)
            for job in found:
                pipe.hmget(keys.job(job), "after", "claims")
            return [claims is not None or after is None for after, claims in pipe.execute()]

        return sum(self._run(read))

    # -- rows and counters -----------------------------------------------------------------------------

    def recount(self, batch: str, shards: Sequence[int], *, repair: bool, tries: int = 1) -> Iterator[Recount | None]:
        def sizes() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in shards:
                pipe.zcard(keys.rows(shard, batch))
            return list(pipe.execute())

        size_of = dict(zip(shards, self._run(sizes), strict=True))
        # What fits into one page is counted and judged in one atomic step, many shards in one round trip.
        few = [shard for shard in shards if size_of[shard] <= _PAGE]
        pages = self._scripts([self._rows(batch, shard, 0, (), repair=repair, judge=True) for shard in few])
        yield from (_recount(batch, [page], settled=True) for page in pages)
        for shard in shards:
            if size_of[shard] > _PAGE:
                yield from self._count_many(batch, shard, repair=repair, tries=tries)

    def _rows(self, batch: str, shard: int, first: int, tally: Sequence[Any], *, repair: bool, judge: bool) -> Script:
        names = [
            keys.rows(shard, batch),
            keys.count(shard, batch),
            keys.due(shard, Lane.START),
            keys.due(shard, Lane.POLL),
            keys.dead(shard),
        ]
        stems = [keys.job_stem(shard), keys.ask_stem(shard), keys.answer_stem(shard)]
        # The last page takes the few rows that came since they were counted.
        last = -1 if judge else first + _PAGE - 1
        bounds = [self._keep_s, LATE_S, AHEAD_S, LATE_S, DEAD_LETTER]
        return (
            "audit_rows",
            names,
            [*stems, batch, first, last, _flag(on=repair), _flag(on=judge), *bounds, _LANES, *tally],
        )

    def _count_many(self, batch: str, shard: int, *, repair: bool, tries: int) -> Iterator[Recount | None]:
        """Rows of many pages. They belong together if the counters did not change from the first to the last."""
        told: list[Any] = []
        for attempt in range(tries):
            pages: list[Any] = []
            for page in self._watched(batch, shard, repair=repair):
                if page is None:
                    break
                pages.append(page)
                yield None
            else:
                # What is wrong with single jobs was told by the first try; a later one adds what it says of counters.
                yield _recount(batch, [*told, *pages[-1:]] if attempt else pages, settled=True)
                return
            told = told or pages
        yield _recount(batch, told, settled=False)

    def _watched(self, batch: str, shard: int, *, repair: bool) -> Iterator[Any]:
        """The pages of a shard, with the last of which the counters are judged; None when they have changed."""
        count, rows = keys.count(shard, batch), keys.rows(shard, batch)
        # Its own connection, kept from page to page: every move that changes a state changes the counters with it, so
        # a watch on them sees all of them.
        with owner_of(self._redis, count).pipeline(transaction=True) as pipe:

            def begin() -> tuple[int, str]:
                pipe.watch(count)
                return int(pipe.zcard(rows)), decoded(pipe.script_load(self._source("audit_rows")))

            def turn(page: Sequence[str], args: Sequence[Any], *, judge: bool) -> Any:
                try:
                    if not judge:
                        return pipe.evalsha(sha, len(page), *page, *map(_bytes, args))
                    pipe.multi()
                    pipe.evalsha(sha, len(page), *page, *map(_bytes, args))
                    return pipe.execute()[0]
                except (redis.WatchError, AskError):
                    # The counters have changed, or the connection was lost and with it the watch, or the shard is on
                    # another server now.
                    return None

            size, sha = self._run(begin)
            tally: Sequence[Any] = ()
            for first in range(0, max(size, 1), _PAGE):
                judge = first + _PAGE >= size
                _, names, args = self._rows(batch, shard, first, tally, repair=repair, judge=judge)
                found = self._run(partial(turn, names, args, judge=judge))
                yield found
                if found is None:
                    return
                tally = found[0]

    def close_batch(self, batch: str) -> bool:
        return bool(self._scripts([("audit_close", [keys.batch(batch)], [])])[0])

    # -- the server ------------------------------------------------------------------------------------

    def locks(self, *, repair: bool) -> list[Fact]:
        accounts = [decoded(account) for account in self._run(lambda: self._redis.hkeys(keys.PAUSES))]
        soon = [keys.lease(shard, lane) for lane in Lane for shard in range(SHARDS)]
        soon += [*(keys.hint(lane) for lane in Lane), *(keys.clock(shard) for shard in range(SHARDS))]
        later = [*(keys.probe(account) for account in accounts), keys.AUDIT_TURN]
        bounds = [(name, _LOCK_S) for name in soon] + [(name, AHEAD_S) for name in later]
        calls: list[Script] = [
            ("audit_lock", [name], [int(most_s * 1000), _flag(on=repair)]) for name, most_s in bounds
        ]
        facts = [
            Fact(code="endless_lock", detail=name)
            for (name, _), found in zip(bounds, self._scripts(calls), strict=True)
            if found
        ]
        # Workers that have stopped stay on their register until somebody looks: only the future tells of a fault.
        registers = [(keys.NODES, 10 * 365 * 86_400.0), *((keys.chains(lane), _REGISTER_PAST_S) for lane in Lane)]
        calls = [
            ("audit_register", [name], [past_s, _REGISTER_AHEAD_S, _flag(on=repair)]) for name, past_s in registers
        ]
        for (name, _), members in zip(registers, self._scripts(calls), strict=True):
            facts += [Fact(code="leftover", detail=f"{name}: {decoded(member)}") for member in members]
        return facts

    def evicted(self) -> int:
        return sum(int(info.get("evicted_keys", 0)) for info in self._infos("stats"))

    # -- the background audit --------------------------------------------------------------------------

    def take_turn(self, by: str, *, ttl_s: float) -> bool:
        return bool(self._scripts([("hold", [keys.AUDIT_TURN], [by, max(1, int(ttl_s * 1000))])])[0])

    def keep_place(self, place: str | None) -> None:
        if place is None:
            self._run(lambda: self._redis.delete(keys.AUDIT_PLACE))
        else:
            self._run(lambda: self._redis.set(keys.AUDIT_PLACE, _bytes(place), ex=3600))

    def place(self) -> str | None:
        return self._get(keys.AUDIT_PLACE)

    def save_last(self, audit: str) -> None:
        self._run(lambda: self._redis.set(keys.AUDIT_LAST, _bytes(audit)))

    def last(self) -> str | None:
        return self._get(keys.AUDIT_LAST)

    def _get(self, name: str) -> str | None:
        found = self._run(lambda: self._redis.get(name))
        return None if found is None else decoded(found)


def _recount(batch: str, pages: Sequence[Any], *, settled: bool) -> Recount:
    """What the pages of one shard told; the last page's tally is that of all."""
    flat = [decoded(part) for part in pages[-1][0]] if pages else []
    tally = {name: float(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}
    told: dict[str, list[tuple[str, str]]] = {}
    for page in pages:
        for code, row, detail in page[1]:
            told.setdefault(decoded(code), []).append((job_id(batch, decoded(row)), decoded(detail)))
    missing, lost = told.pop("missing", []), told.pop("record_lost", [])
    facts: list[Fact] = []
    for _, detail in lost:
        # Which rows have lost their records is known only if none of those without one has ended and expired.
        known = missing if int(detail) == len(missing) else []
        facts += _together("record_lost", batch, [job for job, _ in known], int(detail))
    starting = []
    for job, detail in told.pop("starting", []):
        seconds, _, digest = detail.partition(" ")
        starting.append(Starting(job, float(seconds), digest))
    late, late_start = (
        _together("late", batch, [job for job, _ in jobs], len(jobs), max((float(by) for _, by in jobs), default=None))
        for jobs in (told.pop("late", []), told.pop("late start", []))
    )
    for code in ("miscounted", "uncountable"):
        facts += [Fact(code=code, batch=batch, detail=detail) for _, detail in told.pop(code, [])]
    ahead = told.pop("far_ahead", [])
    facts += [Fact(code="far_ahead", batch=batch, job=job, seconds=float(detail)) for job, detail in ahead]
    facts += [Fact(code=code, batch=batch, job=job) for code, jobs in told.items() for job, _ in jobs]
    return Recount(
        rows=int(tally.get("rows", 0)),
        settled=settled,
        facts=facts,
        late=late,
        late_start=late_start,
        starting=starting,
    )


def _together(code: str, batch: str, jobs: Sequence[str], count: int, seconds: float | None = None) -> list[Fact]:
    """Many jobs as few facts: the first named, the rest counted."""
    named = [Fact(code=code, batch=batch, job=job, seconds=seconds) for job in jobs[:SAMPLE]]
    rest = count - len(named)
    return [*named, Fact(code=code, batch=batch, count=rest, seconds=seconds)] if rest > 0 else named


def _flag(*, on: bool) -> str:
    return "1" if on else ""


def _bytes(value: Any) -> Any:
    return encoded(value) if isinstance(value, str) else value


def _fact(code: str, job: str) -> Fact:
    """What was found of one job."""
    return Fact(code=code, batch=split_job_id(job)[0], job=job)
