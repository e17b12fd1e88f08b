"""The library of the job store in Redis: one hash per item, and what is to be worked on in one set per account."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from askq.jobs import keys
from askq.jobs.library import Change, Item, Wish, change_fields
from askq.jobs.model import Outcome
from askq.jobs.records import decoded, record_of
from askq.jobs.redis_wire import Call, RedisWire

_PAGE = 200


class RedisLibrary(RedisWire):
    """What `RedisStore` knows of the library."""

    _keep_s: int
    _libraries: frozenset[str] | set[str] = frozenset()
    """Accounts whose library is known to be on record."""

    def want(
        self,
        account: str,
        wishes: Sequence[Wish],
        *,
        again: bool = False,
        only_known: bool = False,
        kept: bool = False,
    ) -> list[Item | None]:
        if wishes and account not in self._libraries:
            # So that a schedule of its own is known to whoever mends the clock's.
            self._run(partial(self._redis.sadd, keys.LIBRARIES, account))
            self._libraries = {*self._libraries, account}
        calls = []
        for wish in wishes:
            record = {"kind": wish.kind, "title": wish.title, **change_fields({"about": wish.about})}
            args: list[str | int] = [
                wish.name,
                "1" if again else "",
                "1" if only_known else "",
                "" if kept else self._keep_s,
            ]
            args += [part for name, value in record.items() for part in (name, value or "")]
            calls.append(Call("item_want", self._names(account, wish.name), args))
        found = self._scripts(calls)
        return [
            Item.of(wish.name, record_of(flat), float(now)) if flat else None
            for wish, (now, flat) in zip(wishes, found, strict=True)
        ]

    def items(self, account: str, names: Collection[str] | None = None) -> list[Item]:
        wanted = (
            list(names)
            if names is not None
            else [decoded(name) for name in self._run(partial(self._redis.zrange, keys.item_names(account), 0, -1))]
        )
        found: list[Item] = []
        for start in range(0, len(wanted), _PAGE):
            page = wanted[start : start + _PAGE]

            def read(page: list[str] = page) -> list[tuple[Any, float]]:
                pipe = self._redis.pipeline(transaction=False)
                for name in page:
                    pipe.hgetall(keys.item(account, name))
                return self._timed(pipe)

            records = self._run(read)
            gone = [name for name, (record, _) in zip(page, records, strict=True) if not record]
            if gone and names is None:
                # The record has expired: nobody has asked for it in a long time.
                self._run(partial(self._redis.zrem, keys.item_names(account), *gone))
            found += [
                Item.of(name, record_of(record), now)
                for name, (record, now) in zip(page, records, strict=True)
                if record
            ]
        return found

    def claim_items(self, account: str, *, limit: int, lease_s: float) -> list[Item]:
        if limit <= 0:
            return []
        call = Call("item_claim", [keys.items_due(account)], [keys.item_stem(account), limit, lease_s])
        ((now, *claimed),) = self._scripts([call])
        return [Item.of(decoded(name), record_of(flat), float(now)) for name, flat in claimed]

    def move_item(
        self, account: str, item: Item, change: Change, *, due_s: float | None, take_over: bool = False
    ) -> Outcome:
        fields = change_fields(change)
        return self._item(account, item, "" if due_s is None else due_s, fields, take_over=take_over)

    def drop_item(self, account: str, item: Item) -> Outcome:
        return self._item(account, item, "gone", {}, take_over=False)

    def _item(
        self, account: str, item: Item, due: str | float, fields: Mapping[str, str | None], *, take_over: bool
    ) -> Outcome:
        dropped = [name for name, value in fields.items() if value is None]
        args: list[str | int | float] = [item.name, item.fence, due, "1" if take_over else "", len(dropped), *dropped]
        args += [part for name, value in fields.items() if value is not None for part in (name, value)]
        return Outcome(decoded(self._scripts([Call("item_move", self._names(account, item.name), args)])[0]))

    def next_item(self, account: str) -> float | None:
        def read() -> tuple[Any, float]:
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrange(keys.items_due(account), 0, 0, withscores=True)
            return self._timed(pipe)[0]

        head, now = self._run(read)
        return float(head[0][1] - now) if head else None

    def _shift_libraries(self, args: Sequence[float]) -> None:
        """A clock was set back: what shift.lua is told of it."""
        accounts = sorted(map(decoded, self._run(partial(self._redis.smembers, keys.LIBRARIES))))
        self._scripts(
            [Call("shift", [keys.items_due(account), keys.items_clock(account)], args) for account in accounts]
        )

    @staticmethod
    def _names(account: str, name: str) -> list[str]:
        return [keys.item(account, name), keys.items_due(account), keys.item_names(account)]
