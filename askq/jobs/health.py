"""How the server behind a store is set up."""

from __future__ import annotations

from dataclasses import dataclass

from askq.errors import StoreFull, StoreUnsafe

FULL = 0.8
"""The part of its memory above which a server takes no new list: the rest is for the answers to those it has, and for
what is written while it copies itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the server behind a store is set up, as far as it matters for not losing jobs."""

    version: str
    append_only: bool
    eviction: str
    """`maxmemory-policy`; only `noeviction` is safe."""
    used_memory: int
    """Bytes."""
    max_memory: int
    """Bytes; 0 = no limit."""
    confirms: bool = True
    """Whether it can say that something is on its disk: with `appendfsync always`, or by WAITAOF where that is true
    (Redis 8)."""
    replicas: int = 0
    """How many follow it (of several servers: the one with fewest)."""
    name: str = ""
    """Its address, where it is one of several."""
    replica: bool = False
    """Whether it only stands by."""
    servers: tuple[Health, ...] = ()
    """Each of several."""

    @property
    def danger(self) -> str | None:
        """Why this server would lose jobs, or None when it would not."""
        if self.servers:
            return "; ".join(f"{one.name}: {one.danger}" for one in self.servers if one.danger is not None) or None
        wrong = []
        if not self.append_only:
            wrong.append("its append-only file is off, so a restart would lose every job")
        if self.eviction != "noeviction":
            wrong.append(f"its maxmemory-policy is {self.eviction}, so it may drop jobs when memory is short")
        return "; ".join(wrong) or None

    def require_safe(self) -> None:
        """Raise StoreUnsafe for a server that would lose jobs."""
        if self.danger is not None:
            raise StoreUnsafe(
                f"this Redis is not safe for jobs: {self.danger}",
                remedy="Set `appendonly yes` and `maxmemory-policy noeviction`, or ASKQ_ALLOW_UNSAFE_REDIS=1 to risk "
                "it.",
            )

    def require_room(self) -> None:
        """Raise StoreFull for a server that has too little memory left for a new list."""
        for one in self.servers or (self,):
            if one.max_memory and not one.replica and one.used_memory > FULL * one.max_memory:
                where = f"the Redis {one.name}" if one.name else "this Redis"
                raise StoreFull(
                    f"{where} is too full for new questions: {one.used_memory / 2**20:,.0f} of "
                    f"{one.max_memory / 2**20:,.0f} MB are used, and none are taken above {FULL:.0%}",
                    remedy="Nothing was queued, and what is queued goes on. Raise its maxmemory, `askq forget` lists "
                    "that are done with, or wait: results expire (ASKQ_RESULTS_DAYS).",
                )
