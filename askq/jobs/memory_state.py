"""All that the store in memory holds; its parts share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from askq.ids import split_job_id
from askq.jobs import memory_calls
from askq.jobs.limit_rule import LimitRecord
from askq.jobs.limits import Scope
from askq.jobs.memory_audit import Kept
from askq.jobs.memory_library import Shelf
from askq.jobs.memory_live import MemoryLog
from askq.jobs.memory_objects import Registry
from askq.jobs.memory_records import Batch, Purse, Record
from askq.jobs.model import Lane, Node, Pause

KEEP_S = 30 * 86_400.0
"""How long what ended jobs have made at a service is kept where nothing else is said."""


class MemoryState:
    """What `MemoryStore` holds. `clock` gives Unix seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._batches: dict[str, Batch] = {}
        self._idempotency: dict[str, str] = {}
        self._assistants: dict[str, str] = {}
        self._remote: dict[tuple[str, str], str] = {}
        self._leases: dict[tuple[Lane, int], tuple[str, float]] = {}
        self._chains: dict[Lane, dict[str, float]] = {lane: {} for lane in Lane}
        self._hints: dict[Lane, float] = {}
        self._nodes: dict[Node, float] = {}
        self._pauses: dict[tuple[str, str | None], Pause] = {}
        self._probes: dict[tuple[str, str | None], float] = {}
        self._purses: dict[str, Purse] = {}
        self._again: dict[str, set[tuple[str, int]]] = {}
        self._stale: dict[str, int] = {}
        self._dead: dict[str, float] = {}
        self._limits: dict[Scope, LimitRecord] = {}
        self._waits: dict[Scope, float] = {}
        self._took: dict[str, dict[int, float]] = {}
        self._live: dict[str, MemoryLog] = {}
        self._set_back_until: dict[int, float] = {}
        self._kept = Kept()
        self._shelf = Shelf(clock)
        self._registry = Registry(clock)
        self._keep_s = KEEP_S
        self._calls = memory_calls.Kept()
        self._forgetting: set[str] = set()
        self._inventory: tuple[str | None, dict[str, str]] = (None, {})

    def _members(self, batch: str) -> list[tuple[str, Record]]:
        return [(id_, record) for id_, record in self._records.items() if split_job_id(id_)[0] == batch]
