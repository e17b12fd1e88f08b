"""Remote objects: on record before they are used, buried when their job has ended, there until the service lets go."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from askq.ids import job_id
from askq.jobs import keys
from askq.jobs.model import TERMINAL, Outcome, State
from askq.jobs.objects import AT_WORK_S, Entry, Kind, RemoteObject, Tombstone
from tests.contract.store_stage import LONG, SHORT, RedisStage, Stage, claim, move, question, submit, way_to

KEEP_S = 30 * 86_400.0
FILE = RemoteObject(kind=Kind.FILE, id="file-1", account="acc")
BOX = RemoteObject(kind=Kind.CONTAINER, id="cntr_1")


def one_job(stage: Stage, protocol: str = "responses") -> str:
    batch = submit(stage.store, [dataclasses.replace(question(0), protocol=protocol)])
    return job_id(batch, "q0")


def begin(stage: Stage, job: str, *, keep: str | None = None) -> int:
    """The job has a thread, a run and two days' worth of history; the fence of whoever holds it."""
    fields: dict[str, Any] = {"thread": "t1", "account": "acc", "keep": keep}
    assert move(stage.store, job, claim(stage.store, job).fence, "prepare", fields=fields) is Outcome.MOVED
    fence = claim(stage.store, job).fence
    assert move(stage.store, job, fence, "intend", fields={"attempts": 1, "witness": None}) is Outcome.MOVED
    assert move(stage.store, job, fence, "start", fields={"run": "r1", "witness": None}) is Outcome.MOVED
    return claim(stage.store, job).fence


def named(entries: list[Entry]) -> dict[str, float | None]:
    return {entry.object.name: entry.due for entry in entries}


def due_names(stones: list[Tombstone]) -> set[str]:
    return {stone.object.name for stone in stones}


@pytest.mark.parametrize(
    ("protocol", "names"),
    [("assistants", {"thread t1"}), ("responses", {"conversation t1", "response r1"})],
)
def test_the_record_of_a_job_names_its_objects_as_soon_as_it_has_them(
    stage: Stage, protocol: str, names: set[str]
) -> None:
    job = one_job(stage, protocol)
    assert stage.store.objects(job) == []
    fence = begin(stage, job)
    found = stage.store.objects(job)
    assert named(found) == dict.fromkeys(names), "in use"
    assert {entry.object.account for entry in found} == {"acc"}
    assert stage.store.next_tombstone() is None
    assert move(stage.store, job, fence, "complete") is Outcome.MOVED
    assert set(named(stage.store.objects(job))) == names


def test_a_job_whose_run_has_made_thousands_of_files_ends(stage: Stage) -> None:
    store, job = stage.store, one_job(stage)
    fence = begin(stage, job)
    store.remember(job, [RemoteObject(kind=Kind.FILE, id=f"file-{number}") for number in range(4500)])
    assert move(store, job, fence, "complete") is Outcome.MOVED
    found = store.objects(job)
    assert len(found) == 4502
    assert all(entry.due is not None for entry in found)


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize(
    ("keep", "threads", "files"),
    [(None, KEEP_S, KEEP_S), ("nr", 0.0, KEEP_S), ("an", None, 0.0), ("ra", KEEP_S, None), ("aa", None, None)],
)
def test_what_an_ended_job_has_made_is_buried_as_its_assistant_says(
    stage: Stage, state: State, keep: str | None, threads: float | None, files: float | None
) -> None:
    store, job = stage.store, one_job(stage)
    store.remember(job, [FILE, BOX])
    begun = claim(store, job).fence
    fields: dict[str, Any] = {"thread": "t1", "keep": keep}
    for name in ("prepare", *way_to(state)):
        assert move(store, job, begun, name, fields=fields if name == "prepare" else {}) is Outcome.MOVED
    if state is State.UNCERTAIN:
        # Nobody knows whether a run is at work there.
        threads, files = (AT_WORK_S if due == 0.0 else due for due in (threads, files))
    wanted = {"conversation t1": threads, "file file-1": files, "container cntr_1": files}
    now = stage.now()
    for name, due in named(store.objects(job)).items():
        after = wanted.pop(name)
        assert due == (None if after is None else pytest.approx(now + after, abs=5)), name
    assert not wanted
    soonest = min((due for due in (threads, files) if due is not None), default=None)
    assert store.next_tombstone() == (None if soonest is None else pytest.approx(soonest, abs=5))


def test_what_a_job_leaves_behind_on_its_way_stays_on_record(stage: Stage) -> None:
    """A thread that vanished, and the run of an attempt in doubt: the record has others by then."""
    store, job = stage.store, one_job(stage)
    fence = claim(store, job).fence
    for name, fields in (
        ("prepare", {"thread": "t1", "keep": "nn"}),
        ("intend", {"attempts": 1}),
        ("void", {"thread": None}),
        ("prepare", {"thread": "t2"}),
        ("intend", {"attempts": 2}),
        ("start", {"run": "r1"}),
        ("poll", {"run": "r2"}),
    ):
        taken: dict[str, Any] = dict(fields)
        assert move(store, job, fence, name, fields=taken) is Outcome.MOVED
    now = stage.now()
    a_day = pytest.approx(now + AT_WORK_S, abs=5)
    wanted = {"conversation t1": a_day, "conversation t2": None, "response r1": a_day, "response r2": None}
    assert named(store.objects(job)) == wanted
    assert move(store, job, fence, "fail") is Outcome.MOVED
    # With the job nothing can be at work in what it left behind.
    assert due_names(store.tombstones(limit=100, lease_s=LONG)) == set(wanted)


def test_a_witness_is_an_object_of_its_job(stage: Stage) -> None:
    store, job = stage.store, one_job(stage)
    fence = claim(store, job).fence
    move(store, job, fence, "intend", fields={"attempts": 1})
    store.witness(job, 1, "r9")
    assert set(named(store.objects(job))) == {"response r9"}
    assert move(store, job, fence, "adopt", fields={"run": "r9", "witness": None}) is Outcome.MOVED
    assert named(store.objects(job)) == {"response r9": None}, "it is the run now, and in use"


def test_a_job_asked_again_does_not_lose_sight_of_its_last_run(stage: Stage) -> None:
    store, job = stage.store, one_job(stage)
    assert move(store, job, begin(stage, job), "fail") is Outcome.MOVED
    assert store.retry([job], TERMINAL) == [Outcome.MOVED]
    found = named(store.objects(job))
    assert set(found) == {"conversation t1", "response r1"}
    assert None not in found.values()


def test_a_job_cancelled_before_its_run_buries_its_thread(stage: Stage) -> None:
    store, job = stage.store, one_job(stage, "assistants")
    assert move(store, job, claim(store, job).fence, "prepare", fields={"thread": "t1", "keep": "nn"}) is Outcome.MOVED
    assert store.cancel([job]) == [Outcome.MOVED]
    assert due_names(store.tombstones(limit=100, lease_s=LONG)) == {"thread t1"}


def test_a_tombstone_stays_until_the_service_lets_go(stage: Stage) -> None:
    store, job = stage.store, one_job(stage)
    store.remember(job, [FILE])
    assert move(store, job, begin(stage, job, keep="nn"), "complete") is Outcome.MOVED
    (last, *_) = stones = store.tombstones(limit=100, lease_s=SHORT)
    assert due_names(stones) == {"conversation t1", "response r1", "file file-1"}
    assert {stone.owner for stone in stones} == {job}
    stage.pass_time(SHORT)
    assert due_names(stage.another().tombstones(limit=100, lease_s=LONG)) == due_names(stones), "it died"
    assert store.tombstones(limit=100, lease_s=LONG) == [], "somebody is at it"
    others = [stone.object for stone in stones if stone != last]
    store.gone(job, others)
    store.gone(job, others)
    store.not_gone(job, last.object, "403: not yours", again_s=LONG)
    assert store.tombstones(limit=100, lease_s=LONG) == []
    store.not_gone(job, last.object, "403: not yours", again_s=SHORT)
    (left,) = store.all_buried()
    assert (left.object, left.entry.tries, left.entry.why) == (last.object, 2, "403: not yours")
    stage.pass_time(SHORT)
    assert due_names(store.tombstones(limit=100, lease_s=LONG)) == {last.object.name}
    store.gone(job, [last.object])
    assert store.next_tombstone() is None
    assert list(store.all_buried()) == []
    # The record still names its thread and run, for people; as objects they are gone.
    assert store.bury(job) == 0


def test_a_thing_goes_when_its_last_user_does(stage: Stage) -> None:
    store, thing = stage.store, "file:abc"
    assert store.share(thing, "b_1") == [], "nobody has made it yet"
    store.remember(thing, [FILE])
    store.remember(thing, [FILE, BOX])
    assert {found.name for found in store.share(thing, "b_2")} == {FILE.name, BOX.name}
    assert store.share(thing, "b_2") != [], "no second time"
    assert store.users(thing) == ["b_1", "b_2"]
    assert store.uses("b_2") == [thing]
    assert not store.unshare(thing, "b_1")
    assert not store.unshare(thing, "b_1"), "it has left"
    assert store.next_tombstone() is None
    assert store.unshare(thing, "b_2")
    assert store.uses("b_2") == []
    assert store.share(thing, "b_3") == [], "what is to be deleted cannot be used"
    new = RemoteObject(kind=Kind.FILE, id="file-2")
    store.remember(thing, [new])
    assert due_names(store.tombstones(limit=100, lease_s=LONG)) == {FILE.name, BOX.name}
    store.gone(thing, [FILE, BOX])
    assert store.share(thing, "b_3") == [new]


def test_what_is_kept_is_buried_when_somebody_says_so(stage: Stage) -> None:
    store, job = stage.store, one_job(stage)
    assert move(store, job, begin(stage, job, keep="aa"), "complete") is Outcome.MOVED
    assert store.next_tombstone() is None
    assert store.bury(job, [RemoteObject(kind=Kind.RESPONSE, id="r1")], after_s=LONG) == 1
    assert store.next_tombstone() == pytest.approx(LONG, abs=5)
    assert store.bury(job, after_s=0) == 2
    assert due_names(store.tombstones(limit=100, lease_s=LONG)) == {"conversation t1", "response r1"}


def test_objects_of_a_job_that_keeps_all_are_on_record_as_long_as_its_results(behind: RedisStage) -> None:
    job = one_job(behind)
    fence = begin(behind, job, keep="aa")
    assert behind.raw.ttl(keys.objects(job)) == -2, "a waiting job has no second key"
    assert move(behind.store, job, fence, "complete") is Outcome.MOVED
    assert behind.raw.ttl(keys.objects(job)) == pytest.approx(KEEP_S, abs=5)
    behind.store.retry([job], TERMINAL)
    behind.store.bury(job)
    assert behind.raw.ttl(keys.objects(job)) == -1, "a tombstone does not expire"


def test_many_owners_are_leased_a_few_at_a_time(stage: Stage) -> None:
    owners = [f"thing:{number}" for number in range(100)]
    for owner in owners:
        stage.store.remember(owner, [dataclasses.replace(FILE, id=owner)])
        stage.store.bury(owner)
    seen: set[str] = set()
    for _ in range(100):
        stones = stage.store.tombstones(limit=32, lease_s=LONG)
        assert len(stones) <= 32
        seen |= {stone.owner for stone in stones}
        if not stones:
            break
    assert seen == set(owners)
    assert len(list(stage.store.all_buried())) == 100


def test_what_a_conversation_goes_on_with_is_kept_until_its_last_question_has_ended(stage: Stage) -> None:
    store = stage.store
    thread = [
        dataclasses.replace(question(turn, thread="talk"), after=f"q{turn - 1}" if turn else None) for turn in (0, 1)
    ]
    batch = submit(store, thread)
    first, last = (job_id(batch, row) for row in ("q0", "q1"))
    store.remember(first, [FILE])
    assert move(store, first, begin(stage, first, keep="nn"), "complete") is Outcome.MOVED
    kept = named(store.objects(first))
    assert set(kept) == {"conversation t1", "response r1", "file file-1"}
    assert list(kept.values()) == [pytest.approx(stage.now() + KEEP_S, abs=5)] * 3
    store.wake([last])
    assert move(store, last, begin(stage, last, keep="nn"), "complete") is Outcome.MOVED
    assert list(named(store.objects(last)).values()) == [pytest.approx(stage.now(), abs=5)] * 2
    assert due_names(store.tombstones(limit=10, lease_s=LONG)) == {"conversation t1", "response r1"}


def test_what_nobody_has_any_more_is_found(stage: Stage) -> None:
    """A job and a batch that are gone, a thing without users; but nothing that is used, buried, or kept by policy."""
    store, job = stage.store, one_job(stage)
    batch = job.partition(".")[0]
    for owner in (job, batch, "acc/file:used"):
        store.remember(owner, [FILE])
    store.share("acc/file:used", batch)
    ends = one_job(stage)
    store.remember(ends, [BOX])
    assert move(store, ends, begin(stage, ends, keep="aa"), "complete") is Outcome.MOVED
    assert list(store.unowned()) == []
    gone = {"b_0.q1": FILE, "b_0": BOX, "acc/store:my.docs@1": FILE, "assistant:d1": BOX}
    for owner, made in gone.items():
        store.remember(owner, [made])
    assert {stone.owner: stone.object for stone in store.unowned()} == gone
    for owner in gone:
        store.bury(owner)
    assert list(store.unowned()) == []


def test_a_thing_with_a_dot_in_its_name_is_no_job(behind: RedisStage) -> None:
    """What it is made of stays on record when a part of it was deleted: it is used for as long as anybody likes."""
    thing = "acc/store:my.docs@1"
    behind.store.remember(thing, [FILE, BOX])
    behind.store.bury(thing, [BOX])
    behind.store.gone(thing, [BOX])
    assert behind.raw.ttl(keys.objects(thing)) == -1
