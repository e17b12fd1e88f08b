"""Job stores on a stage: each can be filled, moved on in time and looked at from behind."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from askq.ids import SHARDS, job_id, shard_of
from askq.jobs import keys
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import (
    LANE_OF,
    MOVES,
    TERMINAL,
    Answer,
    BatchStatus,
    Claim,
    Job,
    Lane,
    Move,
    NewBatch,
    NewJob,
    Outcome,
    Question,
    State,
    Usage,
)
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from tests.parts import RedisServer, eventually, redis_binaries
from tests.servers import ClusterOfServers

LONG = 600.0
"""Seconds no test lasts: what is due or held that long stays so."""
SHORT = 1 / 16
"""Seconds a test can wait for; exact in binary, as the clock in memory is."""
ALL = tuple(range(SHARDS))
SERVERS = tuple(redis_binaries())
"""Every real server at hand."""
USAGE = Usage(input_tokens=70, cached_tokens=20, output_tokens=30, total_tokens=100, cost_usd=0.00125)
"""What a run has used, where it matters that it is counted."""


class Stage(Protocol):
    """A store, its clock and what is behind it.

    A real server's clock does not wait for a test that is held up. What holds only for a moment (a short lease) is
    looked at in a way that does not need the test to be quick.
    """

    @property
    def store(self) -> Store:
        """The store under test."""

    def another(self) -> Store:
        """The same truth as another process sees it."""

    def now(self) -> float:
        """The store's own clock."""

    def pass_time(self, seconds: float) -> None:
        """Return when that much time has passed by the store's clock."""

    def lanes(self) -> Mapping[str, Sequence[Lane]]:
        """The lanes each job is due in."""

    def everything(self) -> object:
        """All that is stored, to compare with what it was."""

    def snapshot(self) -> Any:
        """All that is stored, to fall back to."""

    def fall_back(self, snapshot: Any) -> None:
        """The server was cut off and comes back as it was then; its clock went on."""

    def close(self) -> None:
        """Clear the stage."""


class MemoryStage:
    """The store in memory, with time that passes when told to."""

    def __init__(self) -> None:
        self._time = 1_800_000_000.0
        self.store = MemoryStore(clock=self.now)

    def another(self) -> Store:
        return self.store

    def now(self) -> float:
        return self._time

    def pass_time(self, seconds: float) -> None:
        self._time += seconds

    def lanes(self) -> Mapping[str, Sequence[Lane]]:
        # One collection holds records and due times here; what the public methods tell is all there is to see.
        found: dict[str, list[Lane]] = {}
        for batch in self.store._batches:
            for job in self.store.jobs(batch):
                if job.due_at is not None:
                    found[job.id] = [LANE_OF[job.state]]
        return found

    def everything(self) -> object:
        kept = {name: value for name, value in vars(self.store).items() if name not in ("_clock", "_lock")}
        return copy.deepcopy(kept)

    def snapshot(self) -> Any:
        return self.everything()

    def fall_back(self, snapshot: Any) -> None:
        self.store.__dict__.update(copy.deepcopy(snapshot))
        self.pass_time(SHORT)

    def close(self) -> None:
        self.store.close()


class RedisStage:
    """The store in a real server, empty at first."""

    def __init__(self, server: RedisServer, *, keep_days: float = 30) -> None:
        server.flush()
        self._url = server.url
        # The client's types speak of every protocol and of asyncio at once.
        self.raw: Any = server.client()
        self.store = RedisStore(server.url, keep_days=keep_days)
        self._others: list[RedisStore] = []

    def another(self) -> Store:
        self._others.append(RedisStore(self._url))
        return self._others[-1]

    def now(self) -> float:
        seconds, micros = self.raw.time()
        return float(seconds) + float(micros) / 1e6

    def pass_time(self, seconds: float) -> None:
        until = self.now() + seconds
        passed = f"{seconds} s by the server's clock"
        eventually(lambda: self.now() > until, seconds=seconds + 60, what=passed, every=0.002)

    def lanes(self) -> Mapping[str, Sequence[Lane]]:
        places = [(shard, lane) for shard in range(SHARDS) for lane in Lane]
        pipe = self.raw.pipeline(transaction=False)
        for shard, lane in places:
            pipe.zrange(keys.due(shard, lane), 0, -1)
        found: dict[str, list[Lane]] = {}
        for (shard, lane), members in zip(places, pipe.execute(), strict=True):
            for member in members:
                job = member.decode(errors="surrogatepass")
                assert shard_of(job) == shard, f"{job} is due in shard {shard}"
                found.setdefault(job, []).append(lane)
        return found

    def everything(self) -> object:
        return {key: (self._value(key), self.raw.ttl(key) > 0) for key in self.raw.keys("*")}

    def snapshot(self) -> Any:
        names = self.raw.keys("*")
        pipe = self.raw.pipeline(transaction=True)
        for name in names:
            pipe.dump(name)
            pipe.pttl(name)
        found = pipe.execute()
        return list(zip(names, found[::2], found[1::2], strict=True))

    def fall_back(self, snapshot: Any) -> None:
        pipe = self.raw.pipeline(transaction=True)
        pipe.flushall()
        for name, data, ttl in snapshot:
            pipe.restore(name, max(0, ttl), data)
        pipe.execute()

    def _value(self, key: bytes) -> object:
        match self.raw.type(key):
            case b"string":
                return self.raw.get(key)
            case b"hash":
                return self.raw.hgetall(key)
            case b"zset":
                return self.raw.zrange(key, 0, -1, withscores=True)
            case b"set":
                return self.raw.smembers(key)
            case kind:
                raise AssertionError(f"{key!r} is a {kind!r}, which keys.py does not know")

    def close(self) -> None:
        for store in (self.store, *self._others):
            store.close()
        self.raw.close()


class ClusterStage(RedisStage):
    """The store in a real cluster, empty at first."""

    def __init__(self, servers: ClusterOfServers) -> None:
        servers.flush()
        self._url = servers.url
        self.raw = servers.client()
        self.store = RedisStore(servers.url)
        self._others = []
        self._flush = servers.flush

    def now(self) -> float:
        # All nodes are on this machine and have its clock.
        seconds, micros = next(iter(self.raw.time(target_nodes=self.raw.PRIMARIES).values()))
        return float(seconds) + float(micros) / 1e6

    def snapshot(self) -> Any:
        return [(name, self.raw.dump(name), self.raw.pttl(name)) for name in self.raw.keys("*")]

    def fall_back(self, snapshot: Any) -> None:
        self._flush()
        for name, data, ttl in snapshot:
            self.raw.restore(name, max(0, ttl), data)

    def close(self) -> None:
        for store in (self.store, *self._others):
            store.close()


def marks(stage: RedisStage) -> set[bytes]:
    """The keys by which servers are asked what is on their disks: one each, for ever."""
    found: set[bytes] = set(stage.raw.keys(f"{keys.DISK}*"))
    assert found
    return found


def question(index: int, text: str | None = None, *, row_id: str | None = None, **more: Any) -> NewJob:
    """One row of a list."""
    return NewJob(
        question=Question(row_id=row_id or f"q{index}", index=index, text=text or f"What is {index}?", **more),
        assistant="tutor",
        assistant_digest="0123456789abcdef",
        protocol="responses",
    )


def open_batch(store: Store, *, key: str | None = None) -> str:
    """The id of a new, empty batch."""
    return store.open_batch(NewBatch(name="homework", assistant="tutor", protocol="responses", idempotency_key=key))[0]


def submit(store: Store, jobs: int | Sequence[NewJob], *, key: str | None = None) -> str:
    """A sealed batch of these rows."""
    rows = [question(index) for index in range(jobs)] if isinstance(jobs, int) else jobs
    batch = open_batch(store, key=key)
    store.add(batch, rows)
    store.seal(batch, len(rows))
    return batch


def status_of(store: Store, batch: str) -> BatchStatus:
    """A batch that must be there."""
    status = store.batch(batch)
    assert status is not None, f"no batch {batch}"
    return status


def job_of(store: Store, job: str) -> Job:
    """A job that must be there."""
    found = store.job(job)
    assert found is not None, f"no job {job}"
    return found


def claim(store: Store, job: str, *, lease_s: float = LONG) -> Claim:
    """Claim one job that is due, and whatever else is due in its shard and lane."""
    lane = LANE_OF[job_of(store, job).state]
    claims = {claim.id: claim for claim in store.claim(lane, [shard_of(job)], limit=1000, lease_s=lease_s)}
    assert job in claims, f"{job} was not due in lane {lane}"
    return claims[job]


def move(store: Store, job: str, fence: int, name: str, **more: Any) -> Outcome:
    """Commit one transition."""
    (outcome,) = store.commit([Move(job=job, fence=fence, name=name, **more)])
    return outcome


def way_to(state: State) -> list[str]:
    """The shortest chain of moves from queued to a state, by the table."""
    ways: dict[State, list[str]] = {State.QUEUED: []}
    next_ = deque(ways)
    while next_:
        at = next_.popleft()
        for rule in MOVES.values():
            if at in rule.sources and rule.target is not None and rule.target not in ways:
                ways[rule.target] = [*ways[at], rule.name]
                next_.append(rule.target)
    return ways[state]


def source_of(name: str) -> State:
    """A state that a move may leave."""
    return next(state for state in State if state in MOVES[name].sources)


def bring(store: Store, job: str, state: State, *, lease_s: float = LONG) -> int:
    """Bring a queued job to a state; the fence of a claim that holds it then, the last one for an ended job."""
    fence = claim(store, job).fence
    for name in way_to(state):
        assert move(store, job, fence, name) is Outcome.MOVED
    if state in TERMINAL:
        return fence
    if state is State.QUEUED:
        assert move(store, job, fence, "defer") is Outcome.MOVED
    return claim(store, job, lease_s=lease_s).fence


def answer_all(store: Store, batch: str, *, usage: Usage | None = None) -> None:
    """Complete every job of a batch that waits to be started."""
    for job in [job.id for job in store.jobs(batch, states=[State.QUEUED])]:
        fence = claim(store, job, lease_s=0).fence
        for name in ("intend", "start"):
            assert move(store, job, fence, name) is Outcome.MOVED
        answer = Answer(text=f"answer to {job}", usage=usage)
        assert move(store, job, fence, "complete", answer=answer) is Outcome.MOVED


def audit(stage: Stage, *batches: str) -> None:
    """I0: due ⇔ not ended, in the lane of its state and no other. I6: counters = recount."""
    lanes = stage.lanes()
    seen = set()
    for batch in batches:
        jobs = list(stage.store.jobs(batch))
        seen |= {job.id for job in jobs}
        for job in jobs:
            wanted = [] if job.state.terminal else [LANE_OF[job.state]]
            assert list(lanes.get(job.id, [])) == wanted, f"{job.id} is {job.state} and due in {lanes.get(job.id)}"
            assert (job.due_at is None) is job.state.terminal
            assert (job.completed_at is not None) is job.state.terminal
        status = status_of(stage.store, batch)
        assert status.counts == {state: sum(job.state is state for job in jobs) for state in State}
        used = [job.answer.usage for job in jobs if job.answer is not None and job.answer.usage is not None]
        now, counted = sum(usage.total_tokens for usage in used), status.usage.total_tokens
        # What a run has used stays counted when a person asks again.
        assert counted >= now if any(job.retries for job in jobs) else counted == now
    assert set(lanes) <= seen, "something is due that is in no batch"


def in_shard(batch: str, shard: int, many: int) -> list[str]:
    """Row ids whose jobs live in one shard."""
    found: list[str] = []
    number = 0
    while len(found) < many:
        if shard_of(job_id(batch, f"r{number}")) == shard:
            found.append(f"r{number}")
        number += 1
    return found
