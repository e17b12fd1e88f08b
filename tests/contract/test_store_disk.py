"""What is said to be on disk survives a power cut; a server that cannot say so is believed, and said to be one.

The disk is stopped with `appendfsync no`, under which a server writes and never syncs by itself; the store's user may
not read that setting. A power cut is a SIGKILL, after which the file ends where it was last synced.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreError, StoreUnreachable
from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import Lane, Move, NewBatch, Outcome, State
from askq.jobs.redis_store import RedisStore
from askq.jobs.redis_wire import Seen
from producer.questions import open_items
from producer.submit import Submission
from producer.submit import submit as submit_list
from tests.conftest import StartRedis
from tests.contract.store_stage import ALL, LONG, claim, job_of, move, open_batch, question, status_of, submit
from tests.parts import RedisServer

ON = ("--appendonly", "yes", "--appendfsync", "everysec")
# The tests need the administrator's commands; the store's user has what a worker needs.
WORKER = ("--user", "worker", "on", ">pw", "~*", "&*", "+@all", "-config", "--user", "default", "on", "nopass", "+@all")
WORKER += ("~*", "&*")
MARKER = f"\r\n{keys.DISK}\r\n$1\r\n1\r\n".encode()
BLOCKED_S = 0.3
"""How long a call is watched not to return; one that did not wait would return in a few milliseconds."""


class Disk:
    """A server whose disk can be stopped, and cut off from power."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self._folder = folder

    def store(self) -> RedisStore:
        return RedisStore(self.server.url.replace("//", "//worker:pw@"))

    def syncs(self, when: str) -> None:
        with self.server.client() as raw:
            raw.config_set("appendfsync", when)

    @property
    def file(self) -> Path:
        (found,) = self._folder.rglob("*.incr.aof")
        return found

    def cut(self, length: int) -> None:
        """The power goes, the file is as long as it was when last synced, and the power comes back."""
        self.server.stop()
        with self.file.open("r+b") as file:
            file.truncate(length)
        self.server.start()


@pytest.fixture
def disk(start_redis: StartRedis, tmp_path: Path) -> Disk:
    return Disk(start_redis(*ON, *WORKER), tmp_path)


def intend(store: RedisStore, job: str, fence: int, *, on_disk: bool = True) -> Outcome:
    (outcome,) = store.commit([Move(job=job, fence=fence, name="intend", delay=LONG)], on_disk=on_disk)
    return outcome


def returned(future: Future[Outcome]) -> bool:
    try:
        future.result(timeout=BLOCKED_S)
    except NotYet:
        return False
    return True


WAITING: dict[str, Callable[[RedisStore, str], object]] = {
    "commit": lambda store, batch: intend(store, job_id(batch, "q0"), claim(store, job_id(batch, "q0")).fence),
    "seal": lambda store, batch: store.seal(batch, 2),
    "cancel": lambda store, batch: store.cancel([job_id(batch, "q0")]),
    "retry": lambda store, batch: store.retry([job_id(batch, "q1")], [State.FAILED]),
}


@pytest.mark.parametrize("name", WAITING)
def test_a_promise_waits_until_the_disk_has_it(disk: Disk, name: str) -> None:
    store = disk.store()
    batch = submit(store, 2)
    ended = claim(store, job_id(batch, "q1"), lease_s=0)
    move(store, ended.id, ended.fence, "fail")
    disk.syncs("no")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(WAITING[name], store, batch)
        with pytest.raises(NotYet):
            future.result(timeout=BLOCKED_S)
        disk.syncs("everysec")
        future.result(timeout=15)
    store.close()


def test_what_is_not_a_promise_does_not_wait(disk: Disk) -> None:
    store = disk.store()
    batch = submit(store, 1)
    disk.syncs("no")
    fence = claim(store, job_id(batch, "q0")).fence
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(intend, store, job_id(batch, "q0"), fence, on_disk=False)
        assert future.result(timeout=10) is Outcome.MOVED
    store.close()


def test_a_disk_that_has_stopped_is_told_and_nothing_is_lost(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("askq.jobs.redis_wire._DISK_S", 0.2)
    monkeypatch.setattr("askq.jobs.redis_wire._DISK_WAIT_MS", 100)
    store = disk.store()
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = claim(store, job).fence
    disk.syncs("no")
    with pytest.raises(StoreUnreachable, match=r"has not written to its disk for 0\.2 s") as caught:
        intend(store, job, fence)
    assert caught.value.remedy == "Check the disk of the server. Nothing was lost."
    monkeypatch.undo()
    disk.syncs("everysec")
    assert intend(store, job, fence) is Outcome.ALREADY, "it was made, and is on disk now"
    store.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_that_was_confirmed_is_missing_after_a_power_cut(disk: Disk, seed: int) -> None:
    """Given intents, when the power goes while one waits for the disk, then all that were confirmed are there."""
    print(f"seed {seed}")  # noqa: T201  shown when it fails
    pick = random.Random(seed)
    store = disk.store()
    batch = submit(store, 60)
    claims = store.claim(Lane.START, ALL, limit=1000, lease_s=LONG)
    pick.shuffle(claims)
    confirmed: list[str] = []
    for _ in range(3):
        disk.syncs("everysec")
        for _ in range(pick.randint(1, 4)):
            taken = claims.pop()
            assert intend(store, taken.id, taken.fence) is Outcome.MOVED
            confirmed.append(taken.id)
        # From here on nothing is synced.
        synced = _synced(disk, taken.fence)
        disk.syncs("no")
        for _ in range(pick.randint(0, 3)):
            taken = claims.pop()
            intend(store, taken.id, taken.fence, on_disk=False)
        taken = claims.pop()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(intend, store, taken.id, taken.fence)
            assert not returned(future), "confirmed, and not on disk"
            disk.cut(synced)
            with pytest.raises(StoreError):
                future.result(timeout=20)
        states = {job.id: job.state for job in store.jobs(batch)}
        assert {job for job in confirmed if states[job] is not State.STARTING} == set()
        assert states[taken.id] is State.QUEUED, "the cut took something, or this test says nothing"
        assert sum(status_of(store, batch).counts.values()) == 60
    store.close()


def _synced(disk: Disk, fence: int) -> int:
    """Where the file ends if nothing came after the mark by which this intent was found to be on disk."""
    data = disk.file.read_bytes()
    written = data.rindex(f"{fence}/intend".encode())
    return data.index(MARKER, written) + len(MARKER)


def test_a_list_that_lost_rows_while_it_was_submitted_is_told_and_completed_by_the_same_command(disk: Disk) -> None:
    class Cut(RedisStore):
        length = 0

        def open_batch(self, new: NewBatch) -> tuple[str, bool]:
            found = super().open_batch(new)
            self.length = self.length or disk.file.stat().st_size
            return found

        def seal(self, batch: str, total: int) -> None:
            if self.length > 0:
                disk.cut(self.length)
                self.length = -1
            super().seal(batch, total)

    store = Cut(disk.server.url)
    assistant = Assistant(name="tutor", protocol="responses", model="m")
    with open_items([f"What is {number}?" for number in range(30)]) as questions:
        submission = Submission(
            questions=questions, summary=questions.check(), assistant=assistant, others={}, idempotency_key="k"
        )
        with pytest.raises(StoreError, match="has lost 30 of the rows") as caught:
            submit_list(store, submission)
        assert "adds what is missing" in str(caught.value.remedy)
        found = submit_list(store, submission)
    assert (found.created, found.added) == (False, 30)
    assert status_of(store, found.batch).counts[State.QUEUED] == 30
    store.close()


class Interrupted(RedisStore):
    """Something happens between a write and the question whether it is on disk."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def _wait_for_disk(self, seen: Seen) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        super()._wait_for_disk(seen)


@pytest.mark.parametrize("name", WAITING)
def test_a_server_that_came_back_without_the_write_does_not_confirm_it(disk: Disk, name: str) -> None:
    store = Interrupted(disk.server.url)
    batch = open_batch(store)
    store.add(batch, [question(0), question(1)])
    ended = claim(store, job_id(batch, "q1"), lease_s=0)
    move(store, ended.id, ended.fence, "fail")
    length = disk.file.stat().st_size
    store.meanwhile = lambda: disk.cut(length)
    with pytest.raises(StoreUnreachable, match="was restarted before what was written was on its disk"):
        WAITING[name](store, batch)
    assert job_of(store, job_id(batch, "q0")).cancel is None
    assert not status_of(store, batch).sealed
    if name == "commit":
        # The claim is gone, too: whoever held it finds that out when he repeats his commit.
        assert intend(store, job_id(batch, "q0"), 1) is Outcome.NOT_YOURS
        assert job_of(store, job_id(batch, "q0")).state is State.QUEUED
    else:
        WAITING[name](store, batch)
    store.close()


@pytest.mark.parametrize(
    ("options", "user", "confirms"),
    [
        (ON, "", None),
        (("--appendonly", "yes", "--appendfsync", "always"), "", True),
        (("--appendonly", "yes", "--appendfsync", "no"), "", False),
        (("--appendonly", "no"), "", False),
        ((*ON, "--rename-command", "WAITAOF", ""), "", False),
        ((*ON, "--user", "some", "on", ">pw", "~*", "&*", "+@all", "-waitaof"), "some:pw@", False),
        (
            (
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--user",
                "some",
                "on",
                ">pw",
                "~*",
                "+@all",
                "-waitaof",
            ),
            "some:pw@",
            True,
        ),
        ((*ON, *WORKER), "worker:pw@", None),
    ],
    ids=["everysec", "always", "no", "off", "renamed", "forbidden", "always-forbidden", "no-config"],
)
def test_a_server_that_cannot_tell_is_believed_and_said_to_be_one(
    start_redis: StartRedis,
    options: tuple[str, ...],
    user: str,
    confirms: bool | None,  # noqa: FBT001  a parameter of the test
) -> None:
    """`confirms` is None where it depends on the server: only Redis 8 tells the truth about `everysec`."""
    server = start_redis(*options)
    store = RedisStore(server.url.replace("//", f"//{user}"))
    if confirms is None:
        with server.client() as raw:
            info = raw.info("server")
        confirms = "valkey_version" not in info and int(str(info["redis_version"]).partition(".")[0]) >= 8
    assert store.health().confirms is confirms
    batch = submit(store, 3)
    began = time.monotonic()
    for row in ("q0", "q1"):
        job = job_id(batch, row)
        assert intend(store, job, claim(store, job).fence) is Outcome.MOVED
    assert time.monotonic() - began < 9.0, "nobody waits for what never comes"
    assert store.cancel([job_id(batch, "q2")]) == [Outcome.MOVED]
    store.close()


def test_a_server_that_has_learned_to_tell_is_asked_again(start_redis: StartRedis) -> None:
    """Given a server that could not tell, when another takes its place that can, then nobody believes it blindly."""
    server = start_redis("--appendonly", "yes", "--appendfsync", "no")
    store = RedisStore(server.url)
    batch = submit(store, 1)
    job = job_id(batch, "q0")
    fence = claim(store, job).fence
    assert intend(store, job, fence) is Outcome.MOVED
    server.stop()
    server.start()
    with server.client() as raw:
        raw.config_set("appendfsync", "everysec")
        before = raw.get(keys.DISK)
        assert intend(store, job, fence) is Outcome.ALREADY
        assert before is not None
        assert raw.info("commandstats")["cmdstat_waitaof"]["calls"] >= 1
    store.close()
