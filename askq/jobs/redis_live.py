"""Live logs in Redis: one stream per job that is watched, bounded and with an expiry."""

from __future__ import annotations

from collections.abc import Sequence

from askq.ids import shard_of
from askq.jobs import keys, live
from askq.jobs.live import LiveEntry, Piece
from askq.jobs.model import PENDING, Lane, Outcome
from askq.jobs.records import decoded, encoded
from askq.jobs.redis_wire import Call, RedisWire, words

_MOST_READ = 200
_PENDING = words(PENDING)


class RedisLive(RedisWire):
    """The part of `Store` about live logs."""

    def tell(self, job: str, teller: str, run: str, pieces: Sequence[Piece], *, relieves: bool = False) -> Outcome:
        names = [keys.job(job), keys.live(job), keys.teller(job)]
        payload = live.dump(pieces) if pieces else b""
        args = [teller, int(live.TELLS_S * 1000), _PENDING, run, live.MOST_ENTRIES, live.KEPT_S, payload]
        args.append(int(relieves))
        return Outcome(decoded(self._scripts([Call("tell", names, args)])[0]))

    def listen(self, job: str, after: str | None, *, wait_s: float) -> list[LiveEntry]:
        key = keys.live(job)
        block = max(1, int(min(wait_s, live.LONGEST_WAIT_S) * 1000))
        found = self._run(lambda: self._redis.xread({key: after or "0"}, count=_MOST_READ, block=block))
        # A mapping or a list of pairs, as the protocol of the connection has it.
        streams = list(found.values()) if isinstance(found, dict) else [entries for _, entries in found or []]
        read: list[LiveEntry] = []
        for entries in streams:
            # The mapping of newer protocols has a list of lists.
            rows = entries[0] if entries and isinstance(entries[0], list) else entries
            for id_, fields in rows:
                read.append(
                    LiveEntry(id=decoded(id_), run=decoded(fields[b"run"]), pieces=live.load(fields[b"pieces"]))
                )
        return read

    def told(self, job: str) -> bool:
        return bool(self._run(lambda: self._redis.exists(keys.teller(job))))

    def hurry(self, job: str, run: str, *, final: str = "", attempt: int = 0) -> Outcome:
        names = [keys.job(job), keys.due(shard_of(job), Lane.POLL)]
        return Outcome(decoded(self._scripts([Call("hurry", names, [job, encoded(run), final, attempt])])[0]))
