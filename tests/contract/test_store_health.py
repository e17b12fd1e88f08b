"""Servers that are away, silent, wrong, unsafe or full, and what a job store says of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from askq.errors import StoreError, StoreUnreachable, StoreUnsafe
from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.health import Health
from askq.jobs.model import Lane, Move, Outcome, State
from askq.jobs.redis_store import RedisStore
from askq.jobs.store import Store
from tests.conftest import StartRedis
from tests.contract.store_stage import (
    ALL,
    LONG,
    MemoryStage,
    RedisStage,
    Stage,
    audit,
    claim,
    move,
    open_batch,
    question,
    status_of,
    submit,
)
from tests.parts import eventually


def test_a_safe_server_is_told_from_one_that_loses_jobs(stage: Stage) -> None:
    health = stage.store.health()
    if isinstance(stage, MemoryStage):
        assert health.danger is None
        return
    assert health.version.split(".")[0].isdigit()
    assert health.used_memory > 0
    assert (health.append_only, health.eviction, health.max_memory) == (False, "noeviction", 0)
    with pytest.raises(StoreUnsafe, match="append-only file is off"):
        health.require_safe()


def test_a_server_that_keeps_everything_is_safe(start_redis: StartRedis) -> None:
    server = start_redis("--appendonly", "yes", "--maxmemory", "100mb")
    store = RedisStore(server.url)
    health = store.health()
    store.close()
    assert (health.append_only, health.max_memory, health.danger) == (True, 100 * 1024 * 1024, None)
    health.require_safe()


def test_all_dangers_are_told_at_once() -> None:
    health = Health(version="7", append_only=False, eviction="allkeys-lru", used_memory=1, max_memory=2)
    with pytest.raises(StoreUnsafe) as caught:
        health.require_safe()
    assert "a restart would lose every job; its maxmemory-policy is allkeys-lru" in caught.value.message
    assert "appendonly yes" in str(caught.value.remedy)


def _closed_port() -> socket.socket:
    """A port that is taken and refuses: bound, and nobody listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


CALLS: dict[str, Callable[[Store], object]] = {
    "open_batch": open_batch,
    "add": lambda store: store.add("b_0", [question(0)]),
    "compare": lambda store: store.compare("b_0", [question(0)]),
    "seal": lambda store: store.seal("b_0", 1),
    "batch": lambda store: store.batch("b_0"),
    "jobs": lambda store: list(store.jobs("b_0")),
    "claim": lambda store: store.claim(Lane.START, ALL, limit=1, lease_s=1),
    "renew": lambda store: store.renew([("b_0.q0", 1)], lease_s=1),
    "commit": lambda store: move(store, "b_0.q0", 1, "fail"),
    "witness": lambda store: store.witness("b_0.q0", 1, "run"),
    "next_due": lambda store: store.next_due(Lane.START),
    "enlist": lambda store: store.enlist(Lane.START, "one", ttl_s=1),
    "discharge": lambda store: store.discharge(Lane.START, "one", [1]),
    "pauses": lambda store: store.pauses(),
    "health": lambda store: store.health(),
    "tidy": lambda store: store.tidy(keep_s=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_not_there_is_named_with_the_remedy(name: str) -> None:
    with _closed_port() as bound:
        port = bound.getsockname()[1]
        store = RedisStore(f"redis://user:s3cret@127.0.0.1:{port}/0?client_name=x")
        with pytest.raises(StoreUnreachable) as caught:
            CALLS[name](store)
        store.close()
    assert caught.value.message.startswith(f"Redis at redis://127.0.0.1:{port}/0 does not answer: ")
    assert caught.value.remedy == "Check that it is running and that REDIS_URL is right."
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_server_that_says_nothing_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_s=0.1)
        with ThreadPoolExecutor(1) as pool, pytest.raises(StoreUnreachable, match="does not answer"):
            pool.submit(store.next_due, Lane.START).result(timeout=10)
        store.close()


@pytest.mark.parametrize("user", ["", ":wrong-s3cret@", "somebody:wrong-s3cret@"])
def test_a_wrong_password_is_told_from_a_silent_server(start_redis: StartRedis, user: str) -> None:
    server = start_redis("--requirepass", "right-s3cret")
    store = RedisStore(server.url.replace("//", f"//{user}"))
    with pytest.raises(StoreError) as caught:
        store.batches()
    store.close()
    assert not isinstance(caught.value, StoreUnreachable)
    assert caught.value.message.startswith(f"Redis at {server.url} refused us: ")
    assert caught.value.remedy == "Put the right user and password into REDIS_URL."
    assert "s3cret" not in str(caught.value)
    right = RedisStore(server.url.replace("//", "//:right-s3cret@"))
    assert right.batches() == []
    right.close()


def test_a_user_who_may_not_write_is_told_so(start_redis: StartRedis) -> None:
    server = start_redis("--user", "reader", "on", ">pw", "~*", "+@read", "+info", "+ping")
    store = RedisStore(server.url.replace("//", "//reader:pw@"))
    with pytest.raises(StoreError, match="refused us") as caught:
        open_batch(store)
    store.close()
    assert caught.value.remedy == "Put the right user and password into REDIS_URL."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://:s3cret@localhost:6379", "http://localhost:6379"),
        ("localhost:6379", "localhost:6379"),
        (":s3cret@localhost:6379", "localhost:6379"),
        ("redis://:s3cret@localhost:port", "redis://localhost:port"),
        ("redis://:s3cret/with/slashes@localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://localhost:6379/0?db=s3cret", "redis://localhost:6379/0"),
        ("redis://localhost:6379/0?passwort=s3cret", "redis://localhost:6379/0"),
        ("redis://localhost:port?password=s3@s3cret", "redis://…"),
        ("", ""),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(StoreError) as caught:
        RedisStore(url)
    assert caught.value.message == f"{shown!r} is not a Redis address"
    assert "redis://:password@host:6379/0" in str(caught.value.remedy)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the parser's own words may quote a piece of the password"


def test_a_restarted_server_gets_the_scripts_again(start_redis: StartRedis) -> None:
    """Given a server that keeps its data, when it is killed and started, then the same store goes on."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(server.url)
    batch = submit(store, 3)
    first = claim(store, job_id(batch, "q0"), lease_s=LONG)
    server.stop()
    with pytest.raises(StoreUnreachable):
        move(store, first.id, first.fence, "prepare")
    server.start()
    moves = [Move(job=first.id, fence=first.fence, name=name) for name in ("prepare", "intend", "start")]
    assert store.commit([*moves, moves[-1]]) == [Outcome.MOVED] * 3 + [Outcome.ALREADY]
    with server.client() as raw:
        raw.script_flush()
    assert claim(store, job_id(batch, "q1")).first
    assert status_of(store, batch).counts[State.RUNNING] == 1
    store.close()


def test_a_full_server_takes_nothing_new_and_loses_nothing(alone: RedisStage) -> None:
    """Given no memory, then nothing new comes in, no paid call is prepared, and what was paid for is still saved."""
    store = alone.store
    batch = submit(store, 3, key="k")
    running, queued, due = (job_id(batch, f"q{index}") for index in range(3))
    fences = {id_: claim(store, id_, lease_s=0).fence for id_ in (running, queued)}
    assert move(store, running, fences[running], "intend", fields={"attempts": 1}) is Outcome.MOVED
    alone.raw.config_set("maxmemory", "1mb" if alone.raw.info()["used_memory"] > 2**20 else "1")
    try:
        before = alone.everything()
        refused: list[Callable[[], object]] = [
            lambda: open_batch(store),
            lambda: open_batch(store, key="other"),
            lambda: store.add(batch, [question(index) for index in range(3, 200)]),
            lambda: store.seal(batch, 200),
            lambda: store.claim(Lane.START, ALL, limit=100, lease_s=1),
            lambda: store.renew([(due, 1), (queued, fences[queued])], lease_s=1),
            lambda: move(store, queued, fences[queued], "intend", fields={"attempts": 1, "looks": None}),
        ]
        for call in refused:
            with pytest.raises(StoreError, match="refused: ") as caught:
                call()
            assert caught.value.remedy == (
                "Redis is full: raise maxmemory or remove finished batches. Nothing was lost."
            )
            assert alone.everything() == before, "nothing is half written"
        for name, fields in (("start", {"run": "run_1"}), ("complete", {})):
            assert move(store, running, fences[running], name, fields=fields) is Outcome.MOVED
        assert move(store, queued, fences[queued], "defer") is Outcome.MOVED
    finally:
        alone.raw.config_set("maxmemory", "0")
    audit(alone, batch)
    assert store.add(batch, [question(index) for index in range(200)]).already == 3
    assert claim(store, queued).fence > fences[queued]


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_a_waiting_job_takes_little_memory(alone: RedisStage, state: State) -> None:
    many, text = 2000, "Solve the equation 3x + 11 = 14 and explain each step. " * 4
    store = alone.store
    submit(store, 1)
    store.claim(Lane.START, ALL, limit=1, lease_s=LONG)
    before = _settled_memory(alone)
    rows = [question(index, text, row_id=f"row-{index:06d}", input={"chapter": "4.2"}) for index in range(many)]
    batch = open_batch(store)
    for start in range(0, many, 500):
        store.add(batch, rows[start : start + 500])
    if state is State.RUNNING:
        claims = store.claim(Lane.START, ALL, limit=10 * many, lease_s=LONG)
        steps: list[tuple[str, dict[str, str | int | float | None]]] = [
            ("prepare", {"thread": "conv_" + "6" * 48}),
            ("intend", {"attempts": 1}),
            ("start", {"run": "resp_" + "6" * 48, "runs": 1, "remote": "in_progress", "deadline": 1_800_000_000.123}),
            ("poll", {"polls": 12, "remote": "in_progress"}),
        ]
        for name, fields in steps:
            moves = [Move(job=claim.id, fence=claim.fence, name=name, fields=fields, delay=LONG) for claim in claims]
            assert set(store.commit(moves)) == {Outcome.MOVED}
    texts = sum(alone.raw.strlen(keys.ask(job_id(batch, row.question.row_id))) for row in rows[:20]) / 20
    each = (_settled_memory(alone) - before) / many - texts
    assert each <= 1.5 * 1024, f"{each:.0f} bytes per {state} job besides its text"


def _settled_memory(alone: RedisStage) -> int:
    """Used memory once buffers of clients are gone."""
    alone.store.close()
    eventually(lambda: len(alone.raw.client_list()) == 1, what="the store's connections are gone")
    return int(alone.raw.info("memory")["used_memory"])
