"""How the server behind a store is set up."""

from __future__ import annotations

from dataclasses import dataclass

from askq.errors import StoreUnsafe


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
