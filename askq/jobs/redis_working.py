"""Working on jobs in Redis: claims, leases, moves, and the clock that all of it goes by."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from askq.errors import StoreError
from askq.ids import SHARDS, shard_of, split_job_id
from askq.jobs import codec, keys
from askq.jobs.model import DEAD_LETTER, LANE_OF, MOVES, PENDING, TERMINAL, Claim, Earlier, Lane, Move, Outcome
from askq.jobs.objects import REMOTE_FIELDS
from askq.jobs.records import claim_of, decoded, earlier_of
from askq.jobs.redis_accounts import RedisAccounts, concerned
from askq.jobs.redis_library import RedisLibrary
from askq.jobs.redis_wire import Call, millis, words

log = logging.getLogger(__name__)

_SAME_STEP_S = 10.0
"""Workers that notice within this time that the clock was set back speak of the same step."""


class RedisWorking(RedisAccounts, RedisLibrary):
    """What `RedisStore` does for who works on jobs."""

    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        if not shards or limit <= 0:
            return []

        def call(shard: int, most: int) -> Call:
            stems = (keys.job_stem(shard), most, lease_s, keys.ask_stem(shard))
            return Call("claim", [keys.due(shard, lane)], stems)

        def claims(found: Sequence[Any]) -> list[Claim]:
            members = [(float(now), member) for now, *members in found for member in members]
            read = [_readable(now, member) for now, member in members]
            if unread := [_held_by(member) for (_, member), claim in zip(members, read, strict=True) if claim is None]:
                with contextlib.suppress(StoreError):
                    # Else each look would count as a worker that has died on it, and whoever can read it would give
                    # it up for that.
                    self.give_back(unread, delay_s=lease_s)
            return [claim for claim in read if claim is not None]

        if limit >= len(shards):
            return claims(self._scripts([call(shard, limit // len(shards)) for shard in shards]))
        # Less room than shards: one after the other, so that an empty shard does not use up the room.
        taken: list[Claim] = []
        for shard in shards:
            taken += claims(self._scripts([call(shard, limit - len(taken))]))
            if len(taken) == limit:
                break
        return taken

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        calls = [Call("renew", names, [lease_s, *members]) for names, members in _held(claims)]
        return [decoded(id_) for lost in self._scripts(calls) for id_ in lost]

    def give_back(self, claims: Sequence[tuple[str, int]], *, delay_s: float) -> int:
        calls = [Call("give_back", names, [delay_s, *members]) for names, members in _held(claims)]
        return sum(self._scripts(calls))

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        calls: list[Call] = []
        for move in moves:
            # Each wake just before its move: whoever is woken finds that it has been made.
            calls += [waking(move.wakes)] if move.wakes is not None else []
            calls.append(self._move(move))
        found = zip(calls, self._scripts(calls, on_disk=on_disk), strict=True)
        return [Outcome(decoded(outcome)) for call, outcome in found if call.script == "move"]

    def follow(self, jobs: Sequence[tuple[str, str]]) -> list[Earlier | None]:
        found = self._scripts([self._follow(job, row) for job, row in jobs])
        return [None if flat is None else earlier_of(job, flat) for (job, _), flat in zip(jobs, found, strict=True)]

    def _follow(self, job: str, row: str) -> Call:
        return Call("follow", [keys.job(job)], [row, words(PENDING)])

    def wake(self, jobs: Sequence[str]) -> None:
        self._scripts([waking(job) for job in jobs])

    def _move(self, move: Move) -> Call:
        rule = MOVES[move.name]
        shard, (batch, _) = shard_of(move.job), split_job_id(move.job)
        names = [
            keys.job(move.job),
            keys.due(shard, Lane.START),
            keys.due(shard, Lane.POLL),
            keys.count(shard, batch),
            keys.ask(move.job),
            keys.answer(move.job),
            keys.dead(shard),
            keys.calls(move.job),
            keys.functions(shard),
            keys.objects(move.job),
            keys.buried(shard),
        ]
        lane = ""
        if rule.target is not None and rule.target not in TERMINAL:
            lane = "2" if LANE_OF[rule.target] is Lane.START else "3"
        fields = codec.record_fields(move)
        dropped = [name for name, value in fields.items() if value is None]
        args: list[str | int | float | bytes] = [
            move.job,
            move.fence,
            move.name,
            words(rule.sources),
            rule.target or "",
            lane,
            move.delay,
            self._keep_s,
            b"" if move.answer is None else codec.dump_answer(move.answer),
            "1" if rule.keeps_claim else "",
            "1" if rule.yields_to_witness else "",
            "1" if move.fields.get("error_code") == DEAD_LETTER else "",
            "1" if fields.keys() & REMOTE_FIELDS else "",
            len(move.calls),
            *(part for call in move.calls for part in (call.key, call.to_json())),
            len(dropped),
            *dropped,
        ]
        for name, value in fields.items():
            if value is not None:
                args += (name, value)
        return Call("move", names, args)

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        self._scripts([Call("witness", [keys.job(job)], [attempt, run_id])])

    def next_due(self, lane: Lane) -> float | None:
        def read() -> list[tuple[Any, float]]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zrange(keys.due(shard, lane), 0, 0, withscores=True)
            return self._timed(pipe)

        # Each by the clock that it was scheduled by.
        return min((head[0][1] - now for head, now in self._run(read) if head), default=None)

    def waiting(self, lane: Lane) -> int:
        def read() -> list[int]:
            pipe = self._redis.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipe.zcard(keys.due(shard, lane))
            return list(pipe.execute())

        return sum(self._run(read))

    def set_back(self, seconds: float, shards: Sequence[int]) -> bool:
        # Every worker notices; moved twice, jobs would be polled too early, which harms nobody but the service.
        names = [
            [keys.due(shard, Lane.START), keys.due(shard, Lane.POLL), keys.functions(shard), keys.clock(shard)]
            for shard in shards
        ]
        args = [seconds, millis(_SAME_STEP_S)]
        if not any(moved >= 0 for moved in self._scripts([Call("shift", each, args) for each in names])):
            return False
        self._shift_libraries(args)
        # What is held until a moment of the old clock would be held that much longer. The living take it anew at once.
        held = [keys.lease(shard, lane) for shard in shards for lane in Lane]
        held += [key(lane) for key in (keys.chains, keys.hint) for lane in (*Lane, keys.TOOLS)]
        held += [keys.NODES, *(keys.probe(concerned(pause.account, pause.protocol)) for pause in self.pauses())]
        pipe = self._redis.pipeline(transaction=False)
        for name in held:
            pipe.delete(name)
        self._run(pipe.execute)
        return True


def _readable(now: float, member: Sequence[Any]) -> Claim | None:
    """A claim; None for a record that cannot be read, as another version may have written it. Those that were claimed
    with it must not be lost for that: each time would count as a worker that has died on them."""
    try:
        return claim_of(now, *member)
    except Exception:  # whatever is wrong in it
        log.exception("%s cannot be read: is it another version's?", decoded(member[0]))
        return None


def _held_by(member: Sequence[Any]) -> tuple[str, int]:
    """Id and fence of a claimed job whose record cannot be read."""
    id_, _, record, _ = member
    return decoded(id_), int(record[record.index(b"fence") + 1])


def waking(job: str) -> Call:
    """The call that lets a job know that the one before it has ended."""
    return Call("wake", [keys.job(job), keys.due(shard_of(job), Lane.START)], [job])


def _held(claims: Sequence[tuple[str, int]]) -> Iterator[tuple[list[str], list[str | int]]]:
    """Keys and arguments of claimed jobs, shard by shard."""
    groups: dict[int, list[tuple[str, int]]] = {}
    for id_, fence in claims:
        groups.setdefault(shard_of(id_), []).append((id_, fence))
    for shard, members in groups.items():
        names = [keys.due(shard, Lane.START), keys.due(shard, Lane.POLL), *(keys.job(id_) for id_, _ in members)]
        yield names, [part for member in members for part in member]
