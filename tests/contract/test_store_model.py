"""A job store against a model of itself: random claims, commits, renewals and submissions, right and wrong ones.

After every step: a job is due if and only if it has not ended (I0), counters are what a recount gives (I6), a stale
fence has moved nothing (I8), and what has ended stays as it was. At the end the audit finds nothing to say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from askq.ids import job_id
from askq.jobs.auditor import Auditor
from askq.jobs.model import ASKED_AGAIN, LANE_OF, MOVES, TERMINAL, Answer, Job, Lane, Move, Outcome, State, Usage
from tests.contract.store_stage import (
    ALL,
    LONG,
    MemoryStage,
    RedisStage,
    Stage,
    audit,
    job_of,
    open_batch,
    question,
)
from tests.parts import RedisServer, redis_binaries

ROWS = 6
BRIEF = 1 / 512
"""A lease short enough to wait for at every step."""

# What is drawn must not depend on how long things took: jobs by their place, fences by their distance from the
# present one, which comes more often than those of the dead and one that was never given.
PLACES = st.integers(0, ROWS - 1)
AGES = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, -1])
CHOICES = st.lists(st.integers(0, 99), min_size=1, max_size=6)
DELAYS = st.sampled_from([0.0, 0.0, 0.0, BRIEF, LONG])

RUNS = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Finding the shortest failing run is worth minutes; when nothing fails it costs nothing.
    phases=(Phase.generate, Phase.shrink),
)


@dataclass
class Known:
    """What the model knows of one job."""

    state: State = State.QUEUED
    fence: int = 0
    turns: int = 0
    """How often it was claimed; unlike a fence it does not depend on the time."""
    token: tuple[int, str] | None = None
    held: bool = False
    due_at: float | None = None
    ended: Job | None = None
    cancelled: bool = False


class StoreMachine(RuleBasedStateMachine):
    """Does to a store what any number of workers, alive and dead, may do to it."""

    make: Callable[[], Stage]

    def __init__(self) -> None:
        super().__init__()
        self.stage = type(self).make()
        self.store = self.stage.store
        self.batch = open_batch(self.store)
        self.known: dict[str, Known] = {}
        self.given: dict[str, set[int]] = {}
        """Every fence that was ever given out, whatever became of the server since."""

    @initialize(rows=st.integers(2, ROWS))
    def submit(self, rows: int) -> None:
        self._add(rows, changed=False)

    @rule(rows=st.integers(1, ROWS), changed=st.booleans())
    def add(self, rows: int, *, changed: bool) -> None:
        """Rows are submitted, again or for the first time; `changed` ones ask something else."""
        self._add(rows, changed=changed)

    def _add(self, rows: int, *, changed: bool) -> None:
        jobs = [question(index, f"Changed {index}?" if changed else None) for index in range(rows)]
        there = [new.question.row_id for new in jobs if job_id(self.batch, new.question.row_id) in self.known]
        jobs = [new for new in jobs if not changed or new.question.row_id in there]
        found = self.store.add(self.batch, jobs)
        assert found.added == len(jobs) - len(there)
        assert found.already == (0 if changed else len(there))
        assert found.conflicts == (tuple(there) if changed else ())
        for new in jobs:
            self.known.setdefault(job_id(self.batch, new.question.row_id), Known())

    @rule(lane=st.sampled_from(Lane), lease_s=DELAYS, many=st.booleans())
    def claim(self, lane: Lane, lease_s: float, *, many: bool) -> None:
        """Some worker claims what is due, and dies."""
        self._claim(lane, lease_s, many=many)

    @rule(lane=st.sampled_from(Lane), choices=CHOICES, delay=DELAYS)
    def work(self, lane: Lane, choices: list[int], delay: float) -> None:
        """Workers claim what is due, and all who hold a job go on with it as far as their claims allow."""
        self._claim(lane, LONG, many=True)
        for id_, known in sorted(self.known.items()):
            for choice in choices:
                apt = [name for name, rule in MOVES.items() if known.state in rule.sources and known.held]
                going_on = [name for name in apt if MOVES[name].target not in (TERMINAL | {None})]
                # Most jobs should live on, or there would be little to see.
                names = apt if choice >= 80 else going_on
                if names:
                    self._commit(id_, known, known.fence, names[(choice + known.turns) % len(names)], delay)

    def _claim(self, lane: Lane, lease_s: float, *, many: bool) -> list[str]:
        before = self.stage.now()
        limit = 1000 if many else 1
        claims = self.store.claim(lane, ALL, limit=limit, lease_s=lease_s)
        due = [
            id_
            for id_, known in self.known.items()
            if LANE_OF.get(known.state) is lane and known.due_at is not None and known.due_at <= before
        ]
        assert len(claims) <= limit
        assert len(claims) >= min(limit, len(due)), "what is due is claimed"
        if many:
            assert {claim.id for claim in claims} >= set(due)
        for claim in claims:
            known = self.known[claim.id]
            assert claim.state is known.state
            assert LANE_OF[claim.state] is lane
            assert claim.fence > known.fence, "fences grow"
            self._give_out(claim.id, claim.fence)
            assert claim.first is (known.fence == 0)
            assert claim.was_due == known.due_at
            assert claim.was_due <= claim.now, "a lease that has not ended is respected"
            assert job_of(self.store, claim.id).due_at == pytest.approx(claim.now + lease_s, abs=1e-5)
            known.fence = claim.fence
            known.turns += 1
            known.held = True
        return [claim.id for claim in claims]

    def _give_out(self, id_: str, fence: int) -> None:
        given = self.given.setdefault(id_, set())
        assert fence not in given, "two hold the same fence"
        given.add(fence)

    def _job(self, place: int) -> tuple[str, Known]:
        id_ = sorted(self.known)[place % len(self.known)]
        return id_, self.known[id_]

    @rule(place=PLACES, age=AGES, name=st.sampled_from(sorted(MOVES)), delay=DELAYS)
    def commit(self, place: int, age: int, name: str, delay: float) -> None:
        """Some worker commits anything, under the present fence or any other."""
        id_, known = self._job(place)
        self._commit(id_, known, known.fence - age, name, delay)

    @rule(place=PLACES, delay=DELAYS)
    def commit_again(self, place: int, delay: float) -> None:
        """Some worker did not hear the reply to its last commit."""
        id_, known = self._job(place)
        if known.token is not None:
            self._commit(id_, known, *known.token, delay)

    def _commit(self, id_: str, known: Known, fence: int, name: str, delay: float) -> None:
        expected = self._expected(known, fence, name)
        # A fence that was never given may be below zero; tokens may not.
        usage = Usage(total_tokens=max(0, fence))
        answer = Answer(text=f"{id_} by {fence}", usage=usage) if name == "complete" else None
        before = self.stage.now()
        (outcome,) = self.store.commit([Move(job=id_, fence=fence, name=name, delay=delay, answer=answer)])
        assert outcome is expected
        if outcome is Outcome.MOVED:
            assert fence == known.fence, "a stale fence never commits"
            known.state = MOVES[name].target or known.state
            known.token = (fence, name)
            known.held = MOVES[name].keeps_claim
            due = job_of(self.store, id_).due_at
            if due is not None:
                assert before + delay - 1e-5 <= due <= self.stage.now() + delay + 1e-5

    @staticmethod
    def _expected(known: Known, fence: int, name: str) -> Outcome:
        if known.token == (fence, name):
            return Outcome.ALREADY
        if known.fence == 0 or fence != known.fence or known.state not in MOVES[name].sources:
            return Outcome.NOT_YOURS
        return Outcome.MOVED

    @rule(ages=st.lists(AGES, min_size=ROWS, max_size=ROWS), lease_s=st.sampled_from([BRIEF, LONG]))
    def renew(self, ages: list[int], lease_s: float) -> None:
        """Some worker renews what it holds, or believes to hold."""
        pairs = [(id_, known.fence - age) for (id_, known), age in zip(sorted(self.known.items()), ages, strict=False)]
        lost = [id_ for id_, fence in pairs if fence != self.known[id_].fence or not self.known[id_].held]
        assert sorted(self.store.renew(pairs, lease_s=lease_s)) == lost
        for id_ in lost:
            assert job_of(self.store, id_).due_at == self.known[id_].due_at, "a stale fence never extends"

    @rule(place=PLACES, ends=st.sets(st.sampled_from(sorted(TERMINAL)), min_size=1))
    def ask_again(self, place: int, ends: set[State]) -> None:
        """A person asks again what has ended."""
        id_, known = self._job(place)
        (outcome,) = self.store.retry([id_], ends)
        if known.state not in TERMINAL:
            assert outcome is Outcome.ALREADY
        elif known.state not in ends & ASKED_AGAIN:
            assert outcome is Outcome.NOT_YOURS
        else:
            assert outcome is Outcome.MOVED
            job = job_of(self.store, id_)
            assert job.fence > known.fence, "whoever held it before holds it no more"
            self._give_out(id_, job.fence)
            assert (job.thread_id, job.run_id, job.answer, job.error_code, job.cancel) == (None,) * 5
            known.state, known.fence, known.token, known.held, known.ended = State.QUEUED, job.fence, None, False, None
            known.cancelled = False

    @rule(place=PLACES)
    def cancel(self, place: int) -> None:
        """A person wants a job to end."""
        id_, known = self._job(place)
        before = self.stage.now()
        (outcome,) = self.store.cancel([id_])
        at_once = known.state is State.QUEUED and not known.held
        if known.state in TERMINAL or (known.cancelled and not at_once):
            assert outcome is Outcome.ALREADY
            return
        assert outcome is Outcome.MOVED
        known.cancelled = True
        job = job_of(self.store, id_)
        assert job.cancel == "asked"
        if at_once:
            known.state = State.CANCELLED
            assert (job.state, job.due_at, job.error_code) == (State.CANCELLED, None, "cancelled")
            return
        assert job.due_at is not None
        if not known.held:
            assert before - 1e-5 <= job.due_at <= self.stage.now() + 1e-5, "nobody holds it: it is due at once"

    @rule(place=PLACES, attempt=st.integers(0, 2))
    def bear_witness(self, place: int, attempt: int) -> None:
        """Some worker that has lost its lease leaves the id of a run."""
        self.store.witness(self._job(place)[0], attempt, "run_lost")

    @rule(lane=st.sampled_from(Lane), choices=CHOICES, name=st.sampled_from(sorted(MOVES)))
    def cut_the_power(self, lane: Lane, choices: list[int], name: str) -> None:
        """The server comes back without its last moves, and all who made them go on as if nothing were."""
        snapshot, known = self.stage.snapshot(), copy.deepcopy(self.known)
        self.work(lane, choices, 0.0)
        self.stage.fall_back(snapshot)
        self.known = known
        # Whoever works now comes first, and must be safe from those who come back.
        self._claim(lane, LONG, many=True)
        for id_, now in sorted(self.known.items()):
            for fence in sorted(self.given.get(id_, set()) - {now.fence}):
                self._commit(id_, now, fence, name, 0.0)

    @rule()
    def wait(self) -> None:
        """Brief leases end."""
        self.stage.pass_time(BRIEF)

    @invariant()
    def holds_together(self) -> None:
        audit(self.stage, self.batch)
        jobs = {job.id: job for job in self.store.jobs(self.batch)}
        assert set(jobs) == set(self.known)
        for id_, job in jobs.items():
            known = self.known[id_]
            assert (job.state, job.fence) == (known.state, known.fence)
            if known.ended is not None:
                assert job == known.ended, "what has ended stays as it was"
            if known.state in TERMINAL:
                known.ended = job
            known.due_at = job.due_at

    def teardown(self) -> None:
        try:
            report = Auditor(self.store, by="model").run()
            # The test's server keeps nothing on purpose.
            assert [found for found in report.findings if found.code != "unsafe_server"] == []
        finally:
            self.stage.close()


def _run(make: Callable[[], Stage]) -> None:
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(machine, settings=RUNS)


def test_the_store_in_memory_follows_the_model() -> None:
    _run(MemoryStage)


@pytest.mark.parametrize("name", redis_binaries())
def test_the_store_in_redis_follows_the_model(redis_servers: Callable[[str], RedisServer], name: str) -> None:
    server = redis_servers(name)
    _run(lambda: RedisStage(server))
