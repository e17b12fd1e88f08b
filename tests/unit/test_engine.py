"""The engine and its chains, with a store in memory and a service that can be told to misbehave."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.errors import StoreUnreachable
from askq.ids import SHARDS
from askq.jobs import forgetting
from askq.jobs.limits import Scope
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Job, Lane, Move, NewBatch, NewJob, Outcome, Question, State, Usage
from askq.jobs.objects import Kind
from askq.jobs.took import ended
from tests.parts import eventually
from worker import chain, steps
from worker.engine import Engine
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ambiguous,
    Ask,
    Before,
    Blocked,
    CallError,
    Found,
    Given,
    Gone,
    Limited,
    Listing,
    Refused,
    RunState,
    Search,
    Status,
    Unread,
)
from worker.protocols.hints import NO_LIMITS

TUTOR = Assistant(name="tutor", protocol="assistants", model="m")
LEASE_S = 0.4
PROBE_S = 0.2


class Service:
    """A remote service with a ledger. `before` and `after` a create may raise, or wait."""

    name = "assistants"
    lists_runs = True

    def __init__(self) -> None:
        self.ledger: list[tuple[str, int]] = []
        self.assistants = 0
        self.threads = 0
        self.joined: list[tuple[str, str]] = []
        self.polls: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.before: Callable[[Ask], None] = lambda ask: None
        self.after: Callable[[Ask], None] = lambda ask: None
        self.keyed = False
        self.hold = asyncio.Event()
        self.hold.set()

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        await asyncio.sleep(0.01)
        self.assistants += 1
        return f"asst_{self.assistants}"

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        self.threads += 1
        return f"thread/{ask.job_id}"

    async def join(self, ask: Ask, before: Before) -> str:
        self.joined.append((ask.job_id, before.thread_id))
        return before.run_id

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        self.before(ask)
        if not (self.keyed and (ask.job_id, ask.attempt) in self.ledger):
            self.ledger.append((ask.job_id, ask.attempt))
        await self.hold.wait()
        self.after(ask)
        return Status(state=RunState.PENDING, raw="queued", run_id=f"run/{ask.job_id}", poll_after=0.05)

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        runs = tuple(f"run/{job}" for job, _ in self.ledger if job == ask.job_id)
        return Found(search=Search.FOUND if runs else Search.NOT_STARTED, run_ids=runs)

    async def repeats_safely(self) -> bool:
        return self.keyed

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        return None

    async def poll(self, thread_id: str, run_id: str) -> Status:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        if self.polls[run_id] < 2:
            return Status(state=RunState.PENDING, raw="in_progress", run_id=run_id, poll_after=0.05)
        return Status(state=RunState.DONE, raw="completed", run_id=run_id)

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        return Answer(text=f"answer to {run_id.removeprefix('run/')}")

    async def cancel(self, thread_id: str, run_id: str) -> None:
        self.cancelled.append(run_id)

    async def delete(self, kind: Kind, id_: str) -> bool:
        return True

    async def listed(self, kind: Kind) -> list[Listing]:
        return []

    async def check(self) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def service() -> Service:
    return Service()


class Engines:
    """Makes engines as worker processes do, and ends them."""

    def __init__(self, store: MemoryStore, service: Service) -> None:
        self._made: list[Engine] = []
        self._store = store
        self._service = service

    def __call__(self, store: MemoryStore | None = None, *, name: ProtocolName = "assistants") -> Engine:
        engine = Engine(
            store or self._store,
            lambda: {name: self._service},
            None,
            account="acc",
            host="service.test",
            lease_s=LEASE_S,
            in_flight=50,
            probe_s=PROBE_S,
        )
        engine.call(engine.open())
        self._made.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._made:
            engine.close()


@pytest.fixture
def engines(store: MemoryStore, service: Service) -> Iterator[Engines]:
    made = Engines(store, service)
    yield made
    made.close()


def submit(store: MemoryStore, rows: int, *, assistant: Assistant = TUTOR, model: str | None = None) -> str:
    store.save_assistant(assistant.digest, assistant.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol=assistant.protocol))
    store.add(
        batch,
        [
            NewJob(
                question=Question(row_id=f"q{row}", index=row, text=f"question {row}", model=model),
                assistant="tutor",
                assistant_digest=assistant.digest,
                protocol=assistant.protocol,
            )
            for row in range(rows)
        ],
    )
    store.seal(batch, rows)
    return batch


def drive(engine: Engine, done: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Run both chains, slice by slice, until a condition holds."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "the condition did not come true in time"
        for lane in Lane:
            engine.call(chain.work(engine, lane, slice_s=0.1))
        time.sleep(0.01)


def finished(store: MemoryStore, batch: str) -> Callable[[], bool]:
    def done() -> bool:
        status = store.batch(batch)
        return status is not None and status.done

    return done


def only(store: MemoryStore, batch: str) -> Job:
    (job,) = store.jobs(batch)
    return job


def test_every_question_gets_its_own_answer_from_one_run(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 40)
    drive(engines(), finished(store, batch))
    for job in store.jobs(batch):
        assert job.state is State.COMPLETED
        assert job.answer is not None
        assert job.answer.text == f"answer to {job.id}"
        assert (job.attempts, job.runs) == (1, 1)
    assert sorted(job for job, _ in service.ledger) == sorted(job.id for job in store.jobs(batch))
    assert service.assistants == 1, "the remote assistant is made once"


def test_a_lost_reply_is_answered_by_looking_not_by_asking_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 5)

    def lose(ask: Ask) -> None:
        raise Ambiguous("timeout", "no reply")

    service.after = lose
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 5
    assert all(job.state is State.COMPLETED and job.runs == 1 for job in store.jobs(batch))


def test_being_limited_costs_no_attempt(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 3)
    refusals = itertools.count()

    def limit(ask: Ask) -> None:
        if next(refusals) < 4:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.05)

    service.before = limit
    drive(engines(), finished(store, batch))
    assert all(job.attempts == 1 for job in store.jobs(batch))
    assert len(service.ledger) == 3


def test_a_refused_question_fails_alone(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 4)

    def refuse(ask: Ask) -> None:
        if ask.text == "question 2":
            raise Refused("context_length_exceeded", "too long")

    service.before = refuse
    drive(engines(), finished(store, batch))
    states = {job.question.row_id: job.state for job in store.jobs(batch)}
    assert states == {"q0": "completed", "q1": "completed", "q2": "failed", "q3": "completed"}
    assert len(service.ledger) == 3


def test_a_rejected_key_pauses_everybody_and_one_call_ends_the_pause(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.account._LOOK_EVERY_S", 0.05)
    batch = submit(store, 6)
    calls = 0

    def block(ask: Ask) -> None:
        nonlocal calls
        calls += 1
        raise Blocked("rejected_key", "Incorrect API key provided")

    service.before = block
    engine = engines()
    drive(engine, lambda: bool(store.pauses()))
    status = store.batch(batch)
    assert status is not None
    assert [pause.code for pause in status.paused] == ["rejected_key"]
    other = engines()
    drive(other, lambda: calls >= 8)
    # The probe of this moment may stand between its intent and the refusal; all others must be as they were.
    waiting = [job for job in store.jobs(batch) if job.state is State.QUEUED]
    assert len(waiting) >= 5
    assert all(job.attempts == 0 for job in waiting), "no attempt is consumed"
    service.before = lambda ask: None
    drive(other, finished(store, batch))
    assert store.pauses() == []
    assert len(service.ledger) == 6


def test_a_pause_ends_with_the_first_poll_that_is_answered(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given runs that exist and nothing left to create, when polls work again, then nobody is told of a pause."""
    batch = submit(store, 3)
    poll = service.poll
    refusals = itertools.count()

    async def refuse_at_first(thread_id: str, run_id: str) -> Status:
        if next(refusals) < 3:
            raise Blocked("rejected_key", "Incorrect API key provided")
        return await poll(thread_id, run_id)

    service.poll = refuse_at_first  # type: ignore[method-assign]
    engine = engines()
    drive(engine, lambda: bool(store.pauses()))
    drive(engine, finished(store, batch))
    assert store.pauses() == []
    assert len(service.ledger) == 3


def test_a_question_on_which_workers_died_is_in_hand_alone(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a job that was claimed again and again, when it is worked on, then no other could die with it."""
    batch = submit(store, 12)
    suspect = f"{batch}.q5"
    in_hand: set[str] = set()
    together: list[set[str]] = []
    prepare = service.prepare

    async def look(ask: Ask, assistant_id: str | None) -> str:
        in_hand.add(ask.job_id)
        if suspect in in_hand:
            together.append(set(in_hand))
        # So long that whoever is not kept waiting comes in between.
        await asyncio.sleep(0.05)
        in_hand.remove(ask.job_id)
        return await prepare(ask, assistant_id)

    others = [job.id for job in store.jobs(batch) if job.id != suspect]
    for _ in range(steps.SUSPECT_CLAIMS):
        held = [(claim.id, claim.fence) for claim in store.claim(Lane.START, range(SHARDS), limit=99, lease_s=0)]
        store.give_back([pair for pair in held if pair[0] in others], delay_s=0)
    service.prepare = look  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert together == [{suspect}], "itself, and nothing else"
    job = store.job(suspect)
    assert job is not None
    assert job.state is State.COMPLETED
    assert len(service.ledger) == 12


class Deaf(MemoryStore):
    """A view of a store by a process that can neither renew nor commit in time: a zombie."""

    def __init__(self, truth: MemoryStore) -> None:
        self.__dict__ = truth.__dict__
        self.gate = threading.Event()

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("stopped")

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "start" for move in moves):
            self.gate.wait(10)
        return super().commit(moves, on_disk=on_disk)


def test_the_id_of_a_run_is_kept_when_the_store_is_away_as_the_reply_comes(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is asked of the store in between may cost it: only the commit waits for the store."""
    batch = submit(store, 1)
    engine, asked = engines(), []

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    async def away(protocol: str) -> float | None:
        asked.append(len(service.ledger))
        if len(asked) == 1:
            raise StoreUnreachable("restarting")
        return None

    service.find_started = cannot_tell  # type: ignore[method-assign]
    monkeypatch.setattr(engine._permits, "gets_per_s", away)
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert asked[0] == 1, "asked once the run was there"
    assert (job.state, job.attempts, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1, 1)


def forget_what_another_ended(store: MemoryStore, batch: str, lane: Lane) -> None:
    """Somebody takes over the only job of a batch and ends it, and the batch is forgotten."""
    (claim,) = eventually(lambda: store.claim(lane, range(SHARDS), limit=9, lease_s=9), what="the lease ends")
    cancel = Move(job=claim.id, fence=claim.fence, name="cancel", fields={"error_code": "cancelled"})
    assert store.commit([cancel]) == [Outcome.MOVED]
    forgetting.begin(store, batch)
    assert forgetting.advance(store, batch, None) == 0


@pytest.mark.parametrize(("lane", "made"), [(Lane.START, ["thread"]), (Lane.POLL, ["conversation", "response"])])
def test_what_a_zombie_makes_for_a_question_that_was_forgotten_is_deleted(
    store: MemoryStore, service: Service, engines: Engines, lane: Lane, made: list[str]
) -> None:
    """Given a process that was stopped in the midst of a call until its question was forgotten, when the reply comes,
    then what the call has made does not stay at the service for ever."""
    spoken: ProtocolName = "assistants" if lane is Lane.START else "responses"
    batch = submit(store, 1, assistant=dataclasses.replace(TUTOR, protocol=spoken))
    deleted: list[str] = []
    prepare = service.prepare

    async def prepare_late(ask: Ask, assistant_id: str | None) -> str:
        thread = await prepare(ask, assistant_id)
        if lane is Lane.START:
            await asyncio.to_thread(forget_what_another_ended, store, batch, lane)
        return thread

    async def delete(kind: Kind, id_: str) -> bool:
        deleted.append(f"{kind}")
        return True

    service.prepare = prepare_late  # type: ignore[method-assign]
    service.delete = delete  # type: ignore[method-assign]
    if lane is Lane.POLL:
        service.after = lambda ask: forget_what_another_ended(store, batch, lane)
    zombie = Deaf(store)
    zombie.gate.set()
    drive(engines(zombie, name=spoken), lambda: sorted({*deleted}) == made and store.next_tombstone() is None)
    assert store.batch(batch) is None


class Slow(MemoryStore):
    """A view of a store that cannot renew, and whose intents take until the gate is opened."""

    def __init__(self, truth: MemoryStore) -> None:
        self.__dict__ = truth.__dict__
        self.gate, self.intending = threading.Event(), threading.Event()

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("too slow")

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "intend" for move in moves):
            self.intending.set()
            self.gate.wait(10)
        return super().commit(moves, on_disk=on_disk)


def test_a_call_is_not_made_when_its_lease_may_be_over(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given an intent that takes longer than the lease, when it is on record at last, then nothing is sent."""
    batch = submit(store, 1)
    slow = Slow(store)
    late = engines(slow)
    drive(late, slow.intending.is_set)
    eventually(lambda: (store.next_due(Lane.START) or 0.0) < 0.0, what="the lease is over", every=0.01)
    slow.gate.set()
    late.call(late.drain(5, paid_s=5))
    assert service.ledger == []
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1, 1)


def test_a_zombie_cannot_commit_and_its_run_is_not_paid_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a run created by a process that then falls asleep, when another takes over, then there is one run."""
    batch = submit(store, 1)
    deaf = Deaf(store)
    zombie = engines(deaf)
    drive(zombie, lambda: len(service.ledger) == 1)
    drive(engines(), finished(store, batch))
    before = only(store, batch)
    deaf.gate.set()
    zombie.call(zombie.drain(5, paid_s=5))
    assert only(store, batch) == before
    assert (before.state, before.runs, len(service.ledger)) == (State.COMPLETED, 1, 1)


def test_the_witness_of_a_zombie_is_believed(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given a service that cannot list runs, when the zombie leaves its run's id, then that run is adopted."""
    batch = submit(store, 1)

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    service.find_started = cannot_tell  # type: ignore[method-assign]
    deaf = Deaf(store)
    zombie = engines(deaf)
    drive(zombie, lambda: len(service.ledger) == 1)
    other = engines()
    drive(other, lambda: "may exist" in (only(store, batch).note or ""))
    deaf.gate.set()
    drive(other, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.runs, len(service.ledger)) == (State.COMPLETED, 1, 1)


def test_where_keys_are_honoured_a_lost_reply_is_asked_for_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a service that cannot list runs but honours keys, when replies are lost, then nobody waits in doubt."""
    batch = submit(store, 4)
    service.keyed = True
    lost = itertools.count()

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    def lose(ask: Ask) -> None:
        if next(lost) < 5:
            raise Ambiguous("timeout", "no reply")

    service.find_started = cannot_tell  # type: ignore[method-assign]
    service.after = lose
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 4
    assert all(job.state is State.COMPLETED and (job.attempts, job.runs) == (1, 1) for job in store.jobs(batch))


def test_what_fails_to_be_stored_is_kept_until_it_is(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = submit(store, 3)
    commit = store.commit
    failures = itertools.count()

    def flaky(moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        if any(move.name == "start" for move in moves) and next(failures) < 2:
            raise StoreUnreachable("Redis at redis://x does not answer")
        return commit(moves)

    monkeypatch.setattr(store, "commit", flaky)
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 3
    assert all(job.attempts == 1 and job.state is State.COMPLETED for job in store.jobs(batch))


def test_a_run_that_vanishes_fails_after_several_looks(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.running.backoff", lambda errors, jitter: 0.02)
    batch = submit(store, 1)
    looks = 0

    async def gone(thread_id: str, run_id: str) -> Status:
        nonlocal looks
        looks += 1
        raise Gone("gone", f"No run found with id {run_id}")

    service.poll = gone  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert only(store, batch).error_code == "run_vanished"
    assert looks == 5


def test_a_defect_becomes_a_recorded_end(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 2)

    async def broken(thread_id: str, run_id: str) -> Status:
        raise ZeroDivisionError("oops")

    service.poll = broken  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert {job.error_code for job in store.jobs(batch)} == {"internal"}


def test_a_defect_after_the_paid_call_does_not_lose_its_run(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given a reply nobody was prepared for, when the job is claimed again, then its run is found and adopted."""
    batch = submit(store, 2)
    failures = itertools.count()

    def break_down(ask: Ask) -> None:
        if next(failures) < 2:
            raise ZeroDivisionError("oops")

    service.after = break_down
    drive(engines(), finished(store, batch))
    assert len(service.ledger) == 2
    assert all(job.state is State.COMPLETED and job.runs == 1 for job in store.jobs(batch))


def test_a_job_whose_assistant_is_gone_says_so(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 1)
    store._assistants.clear()
    drive(engines(), finished(store, batch))
    assert only(store, batch).error_code == "assistant_missing"


def test_an_assistant_deleted_at_the_service_is_made_again(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    store.save_remote_assistant("acc", TUTOR.digest, "asst_old")
    batch = submit(store, 2)
    start = service.start

    async def picky(ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        if assistant_id == "asst_old":
            raise Refused("assistant_not_found", "No assistant found with id 'asst_old'")
        return await start(ask, thread_id, assistant_id)

    service.start = picky  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert store.remote_assistant("acc", TUTOR.digest) == "asst_1"
    assert all(job.state is State.COMPLETED and job.attempts == 1 for job in store.jobs(batch))


def test_executions_share_the_shards_and_surplus_ones_leave(store: MemoryStore, engines: Engines) -> None:
    submit(store, 1)
    shares = [chain._Share(store, Lane.POLL, name) for name in ("one", "two", "three")]
    assert shares[0]._update()
    assert len(shares[0].held) == SHARDS
    assert not shares[1]._update(), "one pool process wants one execution of each kind"
    store.discharge(Lane.POLL, "two", [])
    from worker.timer import this_node

    store.beat(this_node("w@h", 6), ttl_s=60)
    for _ in range(3):
        for share in shares:
            assert share._update()
    held = [shard for share in shares for shard in share.held]
    assert sorted(held) == list(range(SHARDS)), "every shard is served once"
    assert max(len(share.held) for share in shares) <= 6


def test_call_errors_of_the_protocols_say_what_happened() -> None:
    error = CallError("timeout", "no reply within 30 s", retry_after=2.0, run_id="run_1")
    assert str(error) == "timeout: no reply within 30 s"
    assert (error.code, error.retry_after, error.run_id) == ("timeout", 2.0, "run_1")


# -- limits --------------------------------------------------------------------------------------------------


def test_one_refusal_holds_for_every_worker(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Given two workers, when one is told to wait, then neither calls before that time is over."""
    batch = submit(store, 12)
    refused_at: list[float] = []
    called_at: list[float] = []

    def limit(ask: Ask) -> None:
        called_at.append(time.monotonic())
        if len(called_at) == 3:
            refused_at.append(time.monotonic())
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.5, limits=NO_LIMITS)

    service.before = limit
    first, second = engines(), engines()

    def done() -> bool:
        second.call(chain.work(second, Lane.START, slice_s=0.05))
        return finished(store, batch)()

    drive(first, done)
    assert all(job.attempts == 1 for job in store.jobs(batch))
    # Calls that had their permit before the refusal was known are no disobedience.
    early = [at for at in called_at[3:] if at < refused_at[0] + 0.45]
    assert len(early) <= 4
    assert len(service.ledger) == 12


def test_questions_wait_unharmed_for_as_long_as_the_service_asks(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 5)
    calls = itertools.count()

    def limit(ask: Ask) -> None:
        next(calls)
        raise Limited("rate_limit_exceeded", "slow down", retry_after=600.0, limits=NO_LIMITS)

    service.before = limit
    engine = engines()
    drive(engine, lambda: bool(store.waits()) and next(calls) > 0)
    drive(engine, lambda: all(job.state is State.QUEUED for job in store.jobs(batch)))
    assert all(job.attempts == 0 for job in store.jobs(batch)), "no attempt is consumed"
    assert next(calls) <= 8
    status = store.batch(batch)
    assert status is not None
    assert status.waits[0].seconds > 500
    # A person, or a new day, ends it: the record is gone and nothing remembers the wait but the jobs' own times.
    assert service.ledger == []


def test_a_bound_of_the_assistants_file_is_kept(store: MemoryStore, service: Service, engines: Engines) -> None:
    bounded = dataclasses.replace(TUTOR, limits={"requests_per_minute": 600})
    batch = submit(store, 20, assistant=bounded)
    began = time.monotonic()
    drive(engines(), finished(store, batch))
    assert time.monotonic() - began >= 0.9 * (20 - 10) / 10
    assert len(service.ledger) == 20


def test_refused_polls_are_made_more_rarely(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 6)
    poll = service.poll
    refusals = itertools.count()

    async def refuse_at_first(thread_id: str, run_id: str) -> Status:
        if next(refusals) < 2:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.1, limits=NO_LIMITS)
        return await poll(thread_id, run_id)

    service.poll = refuse_at_first  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert all(job.state is State.COMPLETED for job in store.jobs(batch))


def test_how_long_runs_take_is_learned(store: MemoryStore, service: Service, engines: Engines) -> None:
    batch = submit(store, 8)
    engine = engines()
    drive(engine, finished(store, batch))
    drive(engine, lambda: ended(store.took(TUTOR.digest)) == 8)


def test_what_a_row_used_is_learned_of_its_own_model(store: MemoryStore, service: Service, engines: Engines) -> None:
    poll = service.poll

    async def talkative(thread_id: str, run_id: str) -> Status:
        status = await poll(thread_id, run_id)
        ended = status.state is not RunState.PENDING
        return dataclasses.replace(status, usage=Usage(total_tokens=100_000)) if ended else status

    def ratio(model: str) -> float:
        return store.look_limits(Scope(account="acc", protocol="assistants", model=model)).ratio

    service.poll = talkative  # type: ignore[method-assign]
    batch = submit(store, 4, model="large")
    drive(engines(), lambda: finished(store, batch)() and ratio("large") > 1)
    assert ratio("m") == 1.0


# -- when a person cancels -----------------------------------------------------------------------------------


class Cancelling(Service):
    """A service that can cancel, and whose runs go on until they are told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.completes = False
        """Whether a run completes although it was to be cancelled."""

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        return None

    async def poll(self, thread_id: str, run_id: str) -> Status:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        if run_id in self.cancelled:
            state = RunState.DONE if self.completes else RunState.CANCELLED
            return Status(state=state, raw=state.value, run_id=run_id)
        return Status(state=RunState.PENDING, raw="in_progress", run_id=run_id, poll_after=0.05)


@pytest.fixture
def cancelling(store: MemoryStore) -> Iterator[tuple[Cancelling, Engines]]:
    service = Cancelling()
    made = Engines(store, service)
    yield service, made
    made.close()


def test_a_running_job_is_cancelled_at_the_service_once(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 3)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([job.id for job in store.jobs(batch)])
    drive(engine, finished(store, batch))
    assert {(job.state, job.error_code) for job in store.jobs(batch)} == {(State.CANCELLED, "cancelled")}
    assert sorted(service.cancelled) == sorted(f"run/{job.id}" for job in store.jobs(batch))


def test_a_run_that_completes_although_it_was_cancelled_is_kept_and_counted(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    service.completes = True
    batch = submit(store, 2)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([job.id for job in store.jobs(batch)])
    drive(engine, finished(store, batch))
    for job in store.jobs(batch):
        assert (job.state, job.runs) == (State.COMPLETED, 1)
        assert job.answer is not None
        assert job.note == "the run completed although it was to be cancelled"
    assert len(service.ledger) == 2


def test_an_answer_is_not_kept_by_a_server_that_fails_to_cancel_what_has_ended(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.running.backoff", lambda errors, jitter: 0.02)
    service, engines = cancelling
    service.completes = True
    asked: Counter[str] = Counter()

    async def fails(thread_id: str, run_id: str) -> None:
        asked[run_id] += 1
        if asked[run_id] == 3:
            service.cancelled.append(run_id)  # by now the run has completed
        raise Ambiguous("http_500", "oops")

    service.cancel = fails  # type: ignore[method-assign]
    batch = submit(store, 1)
    engine = engines()
    drive(engine, lambda: all(job.polls for job in store.jobs(batch)))
    store.cancel([only(store, batch).id])
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.runs, job.answer is not None) == (State.COMPLETED, 1, True)
    assert asked.total() == 3, "while the run is at work, it is told again"


def test_a_job_cancelled_while_its_create_is_open_is_cancelled_when_its_run_is_known(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 1)
    engine = engines()

    async def hold(*, held: bool) -> None:
        if held:
            service.hold.clear()
        else:
            service.hold.set()

    engine.call(hold(held=True))
    drive(engine, lambda: bool(service.ledger))
    assert only(store, batch).state is State.STARTING
    assert store.cancel([only(store, batch).id]) == [Outcome.MOVED]
    engine.call(hold(held=False))
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs) == (State.CANCELLED, "cancelled", 1)
    assert service.cancelled == [f"run/{job.id}"]


def test_a_cancelled_create_whose_reply_was_lost_is_found_first(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    """Given a lost reply and a person who cancels, then the run that may be billed is found and told to end."""
    service, engines = cancelling
    batch = submit(store, 1)

    def lose(ask: Ask) -> None:
        store.cancel([ask.job_id])
        raise Ambiguous("timeout", "no reply")

    service.after = lose
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs) == (State.CANCELLED, "cancelled", 1)
    assert service.cancelled == [f"run/{job.id}"]
    assert len(service.ledger) == 1


def test_a_cancelled_create_that_never_arrived_is_taken_back_and_not_made(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.steps.searching.SETTLE_S", 0.1)
    service, engines = cancelling
    batch = submit(store, 1)

    def lose(ask: Ask) -> None:
        store.cancel([ask.job_id])
        raise Ambiguous("no_reply", "reset")

    service.before = lose
    drive(engines(), finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.error_code, job.runs, job.attempts) == (State.CANCELLED, "cancelled", 0, 0)
    assert service.ledger == []


def test_a_job_cancelled_between_its_preparation_and_its_create_costs_nothing(
    store: MemoryStore, cancelling: tuple[Cancelling, Engines]
) -> None:
    service, engines = cancelling
    batch = submit(store, 1)
    prepare = service.prepare

    async def cancelled_meanwhile(ask: Ask, assistant_id: str | None) -> str:
        made = await prepare(ask, assistant_id)
        assert store.cancel([ask.job_id]) == [Outcome.MOVED]
        return made

    service.prepare = cancelled_meanwhile  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert (only(store, batch).state, service.ledger) == (State.CANCELLED, [])


def test_a_job_cancelled_while_its_answer_is_fetched_keeps_it(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit(store, 1)
    answer = service.answer

    async def cancelled_meanwhile(thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        store.cancel([run_id.removeprefix("run/")])
        return await answer(thread_id, run_id, assistant)

    service.answer = cancelled_meanwhile  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    assert only(store, batch).state is State.COMPLETED
    assert service.cancelled == []


# -- pauses, budgets, the end --------------------------------------------------------------------------------


def test_exhausted_credit_stops_creates_while_polls_go_on_and_ends_by_itself(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no credit after a few runs, then those get their answers; given credit, all others within a few probes."""
    monkeypatch.setattr("worker.account._LOOK_EVERY_S", 0.05)
    batch = submit(store, 40)
    refused = 0

    def no_credit(ask: Ask) -> None:
        nonlocal refused
        if len(service.ledger) >= 4:
            refused += 1
            raise Blocked("quota_exhausted", "You exceeded your current quota")

    service.before = no_credit
    engine = engines()
    drive(engine, lambda: bool(store.pauses()))

    def four_are_answered() -> bool:
        status = store.batch(batch)
        assert status is not None
        return status.counts[State.COMPLETED] == 4

    drive(engine, four_are_answered)
    assert [pause.code for pause in store.pauses()] == ["quota_exhausted"], "a poll is no proof of credit"
    service.before = lambda ask: None
    drive(engine, finished(store, batch))
    assert store.pauses() == []
    assert len(service.ledger) == 40
    assert all(job.attempts == 1 for job in store.jobs(batch))


def test_an_intent_whose_call_was_not_made_is_taken_back_at_once(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a claim that became too old while its intent was stored, then nobody looks for a run that cannot be."""
    batch = submit(store, 1)
    engine, asked = engines(), itertools.count()
    fresh = engine._leases.fresh
    # Just before the intent it is fresh, just after it is not; the second time all is well.
    monkeypatch.setattr(engine._leases, "fresh", lambda claim: next(asked) != 1 and fresh(claim))
    looked: list[str] = []
    find = service.find_started

    async def looking(ask: Ask, thread_id: str) -> Found:
        looked.append(ask.job_id)
        return await find(ask, thread_id)

    service.find_started = looking  # type: ignore[method-assign]
    drive(engine, finished(store, batch))
    job = only(store, batch)
    assert (job.state, job.attempts, job.runs) == (State.COMPLETED, 1, 1)
    assert looked == []
    assert next(asked) >= 4


def test_the_end_of_a_process_waits_longer_for_what_is_paid_for(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    """Given an open create and an open poll, when the process ends, then the reply to the create is waited for."""
    batch = submit(store, 1)
    engine = engines()

    async def close_the_gate() -> None:
        service.hold.clear()

    engine.call(close_the_gate())
    drive(engine, lambda: bool(service.ledger))
    assert engine.call(engine.drain(0.05, paid_s=0.1)) == 1, "not for ever"
    began = time.monotonic()
    ending = asyncio.run_coroutine_threadsafe(engine.drain(0.05, paid_s=20.0), engine.loop)
    engine.loop.call_soon_threadsafe(engine.loop.call_later, 0.4, service.hold.set)
    assert ending.result(timeout=20) == 0
    assert time.monotonic() - began < 15
    assert only(store, batch).state is State.RUNNING, "and its id is on record"


def test_a_paid_call_is_waited_for_though_an_older_one_of_the_same_job_is_over(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a create whose lease was lost and that is made once more under its key, when the reply to the first comes,
    then the end of the process still waits for the second."""

    async def cannot_tell(ask: Ask, thread_id: str) -> Found:
        return Found(search=Search.UNKNOWN)

    gates = [asyncio.Event(), asyncio.Event()]
    begun = itertools.count()
    calls: list[int] = []

    async def start(ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        calls.append(number := next(begun))
        await gates[min(number, 1)].wait()
        return Status(state=RunState.PENDING, raw="queued", run_id=f"run/{ask.job_id}")

    def away(claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        raise StoreUnreachable("Redis at redis://x does not answer")

    service.keyed, service.find_started, service.start = True, cannot_tell, start  # type: ignore[method-assign]
    monkeypatch.setattr(store, "renew", away)
    batch = submit(store, 1)
    engine = engines()
    drive(engine, lambda: len(calls) == 2)
    engine.loop.call_soon_threadsafe(gates[0].set)
    eventually(lambda: engine.open_calls(Lane.START) == 0)
    ending = asyncio.run_coroutine_threadsafe(engine.drain(0.05, paid_s=20.0), engine.loop)
    engine.loop.call_soon_threadsafe(engine.loop.call_later, 0.3, gates[1].set)
    assert ending.result(timeout=20) == 0
    assert only(store, batch).run_id == f"run/{only(store, batch).id}", "and its id is on record"


def test_a_free_call_is_not_waited_for_longer(store: MemoryStore, service: Service, engines: Engines) -> None:
    submit(store, 1)
    gate = asyncio.Event()
    opened = threading.Event()

    async def slow(thread_id: str, run_id: str) -> Status:
        opened.set()
        await gate.wait()
        raise AssertionError("abandoned")

    service.poll = slow  # type: ignore[method-assign]
    engine = engines()
    drive(engine, opened.is_set)
    began = time.monotonic()
    assert engine.call(engine.drain(0.05, paid_s=30.0)) == 1
    assert time.monotonic() - began < 15


PRICED = Assistant(
    name="priced", protocol="assistants", model="house", max_output_tokens=100, price={"input": 1.0, "output": 10.0}
)


def submit_bounded(store: MemoryStore, rows: int, limit_usd: float, assistant: Assistant = PRICED) -> str:
    store.save_assistant(assistant.digest, assistant.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="priced", protocol="assistants", max_cost_usd=limit_usd))
    store.add(
        batch,
        [
            NewJob(
                question=Question(row_id=f"q{row}", index=row, text="Hi?"),
                assistant="priced",
                assistant_digest=assistant.digest,
                protocol="assistants",
            )
            for row in range(rows)
        ],
    )
    store.seal(batch, rows)
    return batch


def test_an_end_whose_reply_from_the_store_was_lost_is_settled_all_the_same(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a commit that was made and not heard of, when it is repeated, then nothing stays put aside."""
    batch = submit_bounded(store, 3, 1.0)
    commit, lost = store.commit, itertools.count()

    def unheard(moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        outcomes = commit(moves, on_disk=on_disk)
        if any(move.name == "complete" for move in moves) and next(lost) < 2:
            raise StoreUnreachable("Redis does not answer")
        return outcomes

    monkeypatch.setattr(store, "commit", unheard)
    engine = engines()
    drive(engine, finished(store, batch))

    def settled() -> bool:
        status = store.batch(batch)
        return status is not None and status.budget is not None and status.budget.reserved_usd == 0

    drive(engine, settled)
    assert next(lost) >= 2, "replies were lost, or this test says nothing"


def test_a_question_that_nobody_can_price_ends_instead_of_waiting_for_ever(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = submit_bounded(store, 2, 1.0, dataclasses.replace(PRICED, price=None))
    drive(engines(), finished(store, batch))
    assert {(job.state, job.error_code, job.attempts) for job in store.jobs(batch)} == {
        (State.FAILED, "unbounded_cost", 0)
    }
    assert service.ledger == []


def test_a_budget_that_covers_one_at_a_time_is_enough_for_all_in_the_end(
    store: MemoryStore, service: Service, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given runs that cost next to nothing and a bound for one at worst, then nobody is told that it is used up."""
    monkeypatch.setattr("worker.steps.decision.BUDGET_S", 0.05)
    answer = service.answer

    async def cheap(thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        found = await answer(thread_id, run_id, assistant)
        return Answer(text=found.text, usage=Usage(input_tokens=1, output_tokens=1, total_tokens=2))

    service.answer = cheap  # type: ignore[method-assign]
    batch = submit_bounded(store, 5, 0.0016)
    done = finished(store, batch)

    def watched() -> bool:
        status = store.batch(batch)
        assert status is not None
        assert status.budget is not None
        assert status.budget.spent_usd + status.budget.reserved_usd <= 0.0016
        assert not status.at_its_budget
        return done()

    drive(engines(), watched)
    assert len(service.ledger) == 5
