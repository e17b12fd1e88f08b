"""The engine when an account is paused or a budget is used up, and when it works again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Move, NewBatch, NewJob, Outcome, Question, State, Usage
from tests.unit.engine_stage import Engines, Service, drive, engines, finished, service, store, submit
from worker.protocols.base import Ask, Blocked, Status

__all__ = ["engines", "service", "store"]


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
