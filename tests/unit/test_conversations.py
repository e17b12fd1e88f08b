"""Questions of a conversation, by the engine: in order, one at a time, and what an end that is no answer does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from askq.assistants.model import Assistant
from askq.ids import job_id
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import WAIT_FOR_TURN_S, Claim, Job, NewBatch, NewJob, Question, State
from tests.unit.engine_stage import TUTOR, Engines, Service, drive, engines, finished, service, store
from tests.unit.test_steps import claim, legal
from worker import steps
from worker.conversations import Joins, Stopped, Waits, turn
from worker.protocols.base import Ambiguous, Ask, Before, Busy, Gone, Refused, RunState, Status

__all__ = ["engines", "service", "store"]

SKIPPING = dataclasses.replace(TUTOR, on_failure="skip")


def converse(
    store: MemoryStore, talks: Mapping[str, int], *, assistant: Assistant = TUTOR, batch: str | None = None
) -> str:
    """Conversations of so many questions each, interleaved. Row ids are `<thread>-<turn>`."""
    store.save_assistant(assistant.digest, assistant.to_json())
    opened = batch or store.open_batch(NewBatch(name=None, assistant="tutor", protocol="assistants"))[0]
    rows = [(thread, at) for at in range(max(talks.values())) for thread, turns in talks.items() if at < turns]
    store.add(
        opened,
        [
            NewJob(
                question=Question(row_id=f"{thread}-{at}", index=index, text=f"{thread} {at}", thread=thread),
                assistant="tutor",
                assistant_digest=assistant.digest,
                protocol="assistants",
                after=f"{thread}-{at - 1}" if at else None,
            )
            for index, (thread, at) in enumerate(rows)
        ],
    )
    store.seal(opened, len(rows))
    return opened


def by_row(store: MemoryStore, batch: str) -> dict[str, Job]:
    return {job.question.row_id: job for job in store.jobs(batch)}


def states(store: MemoryStore, batch: str) -> dict[str, State]:
    return {row: job.state for row, job in by_row(store, batch).items()}


def refuse(service: Service, *texts: str) -> None:
    def refusing(ask: Ask) -> None:
        if ask.text in texts:
            raise Refused("context_length_exceeded", "too long")

    service.before = refusing


def test_each_conversation_is_asked_in_order_in_one_thread_and_all_of_them_at_once(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = converse(store, {"a": 4, "b": 3, "c": 1})
    at_work: set[str] = set()
    most = 0
    poll = service.poll

    def begin(ask: Ask) -> None:
        nonlocal most
        talk = ask.text.split()[0]
        assert talk not in at_work, "one question of a conversation runs at a time"
        at_work.add(talk)
        most = max(most, len(at_work))

    async def ending(thread_id: str, run_id: str) -> Status:
        status = await poll(thread_id, run_id)
        if status.state is RunState.DONE:
            at_work.discard(run_id.split(".")[1].split("-")[0])
        return status

    service.before = begin
    service.poll = ending  # type: ignore[method-assign]
    drive(engines(), finished(store, batch))
    jobs = by_row(store, batch)
    assert {job.state for job in jobs.values()} == {State.COMPLETED}
    for thread in ("a", "b", "c"):
        asked = [job.rpartition("-")[2] for job, _ in service.ledger if job.startswith(f"{batch}.{thread}-")]
        assert asked == sorted(asked)
        first = f"thread/{job_id(batch, f'{thread}-0')}"
        assert {job.thread_id for row, job in jobs.items() if row.startswith(thread)} == {first}
    assert service.threads == 3
    assert len(service.joined) == 5
    assert most == 3
    assert all((job.attempts, job.runs) == (1, 1) for job in jobs.values())


def test_a_question_that_fails_stops_its_conversation_and_no_other(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = converse(store, {"a": 4, "b": 2})
    refuse(service, "a 1")
    drive(engines(), finished(store, batch))
    assert states(store, batch) == {
        "a-0": State.COMPLETED,
        "a-1": State.FAILED,
        "a-2": State.FAILED,
        "a-3": State.FAILED,
        "b-0": State.COMPLETED,
        "b-1": State.COMPLETED,
    }
    for row in ("a-2", "a-3"):
        job = by_row(store, batch)[row]
        assert job.error_code == "conversation_stopped"
        assert job.error_message == "question a-1 of the conversation ended failed (context_length_exceeded)"
        assert (job.attempts, job.thread_id) == (0, None)


def test_who_comes_while_the_one_before_fails_is_told(store: MemoryStore, service: Service, engines: Engines) -> None:
    """Work on a list begins while it is being stored."""
    batch = converse(store, {"a": 1})

    def refuse_late(ask: Ask) -> None:
        # The claim of the first question knows nothing of the second.
        rows = {"a": 2}
        converse(store, rows, batch=batch)
        raise Refused("context_length_exceeded", "too long")

    service.before = refuse_late
    drive(engines(), lambda: len(by_row(store, batch)) == 2 and finished(store, batch)())
    assert by_row(store, batch)["a-1"].error_code == "conversation_stopped"


def test_or_it_is_left_out_and_the_rest_goes_on_in_the_same_thread(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = converse(store, {"a": 4}, assistant=SKIPPING)
    refuse(service, "a 1")
    drive(engines(), finished(store, batch))
    assert list(states(store, batch).values()) == [State.COMPLETED, State.FAILED, State.COMPLETED, State.COMPLETED]
    assert service.threads == 1
    assert len({job.thread_id for job in store.jobs(batch)}) == 1


def test_asked_again_a_conversation_goes_on_where_it_stopped(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = converse(store, {"a": 4})
    refuse(service, "a 1")
    engine = engines()
    drive(engine, finished(store, batch))
    service.before = lambda ask: None
    again = [job.id for job in store.jobs(batch, states={State.FAILED})]
    store.retry(again, {State.FAILED})
    drive(engine, finished(store, batch))
    assert set(states(store, batch).values()) == {State.COMPLETED}
    assert [job.partition(".")[2] for job, _ in service.ledger] == ["a-0", "a-1", "a-2", "a-3"]
    assert service.threads == 1


def test_one_that_was_cancelled_before_its_turn_stops_or_is_left_out(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    for assistant, left in ((TUTOR, State.FAILED), (SKIPPING, State.COMPLETED)):
        batch = converse(store, {"a": 4}, assistant=assistant)
        store.cancel([job_id(batch, "a-2")])
        drive(engines(), finished(store, batch))
        assert list(states(store, batch).values()) == [State.COMPLETED, State.COMPLETED, State.CANCELLED, left]


def test_a_conversation_whose_first_questions_came_to_nothing_is_begun_by_the_first_that_can(
    store: MemoryStore, service: Service, engines: Engines
) -> None:
    batch = converse(store, {"a": 4}, assistant=SKIPPING)
    store.cancel([job_id(batch, "a-0"), job_id(batch, "a-1")])
    drive(engines(), finished(store, batch))
    assert list(states(store, batch).values()) == [State.CANCELLED] * 2 + [State.COMPLETED] * 2
    assert by_row(store, batch)["a-3"].thread_id == f"thread/{job_id(batch, 'a-2')}"


async def test_nothing_goes_on_after_an_answer_that_may_still_come(store: MemoryStore) -> None:
    batch = converse(store, {"a": 2}, assistant=SKIPPING)
    _end(store, job_id(batch, "a-0"), "intend", "doubt", {"error_code": "uncertain_create"})
    stopped = await turn(store, _waiting(batch, "a-1", after="a-0"), SKIPPING)
    assert isinstance(stopped, Stopped)
    assert stopped.code == "conversation_stopped"
    assert stopped.message == "question a-0 of the conversation ended uncertain (uncertain_create)"


async def test_a_record_that_has_expired_ends_the_conversation(store: MemoryStore) -> None:
    batch = converse(store, {"a": 2})
    stopped = await turn(store, _waiting(batch, "a-1", after="gone"), TUTOR)
    assert isinstance(stopped, Stopped)
    assert stopped.code == "conversation_vanished"


async def test_where_there_are_no_conversations_the_next_run_goes_on_from_the_last(store: MemoryStore) -> None:
    batch = converse(store, {"a": 3})
    fields = {"thread": "", "run": "resp_1", "total": 25}
    _end(store, job_id(batch, "a-0"), "intend", "start", "complete", fields)
    joins = await turn(store, _waiting(batch, "a-1", after="a-0"), TUTOR)
    assert isinstance(joins, Joins)
    assert (joins.before.thread_id, joins.previous, joins.history) == ("", "resp_1", 25)
    assert await turn(store, _waiting(batch, "a-2", after="a-1"), TUTOR) == Waits(row="a-1", deep=True)


def _end(store: MemoryStore, job: str, *moves: object) -> None:
    from askq.ids import shard_of
    from askq.jobs.model import Lane, Move

    *names, fields = moves
    (held,) = (held for held in store.claim(Lane.START, [shard_of(job)], limit=100, lease_s=60) if held.id == job)
    for name in names:
        last = name == names[-1]
        made = Move(job=job, fence=held.fence, name=str(name), fields=fields if last else {})  # type: ignore[arg-type]
        store.commit([made])


def _waiting(batch: str, row: str, *, after: str) -> Claim:
    return claim(id=job_id(batch, row), after=after)


def test_who_waits_looks_ever_more_rarely_and_claims_do_not_add_up() -> None:
    delays = []
    for looks in range(12):
        held = claim(after="q0", looks=looks)
        move = legal(steps.waits(held, Waits(row="q0", deep=False), 0.0), held).move
        assert (move.name, move.fields["looks"]) == ("defer", looks + 1)
        assert move.fields["note"] == "waits for question q0 of its conversation"
        delays.append(move.delay)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (steps.TURN_S, WAIT_FOR_TURN_S)
    assert steps.waits(claim(), Waits(row="q0", deep=True), 0.0).move.delay == WAIT_FOR_TURN_S


def test_a_thread_with_earlier_turns_is_never_made_anew() -> None:
    held = claim(thread_id="t", joined="run_0")
    move = legal(steps.not_created(held, Gone("not_found", "no thread"), 0.0), held).move
    assert move.name == "void"
    assert "thread" not in move.fields
    held = claim(thread_id="t", joined="run_0", gone=steps.MOST_GONE)
    move = legal(steps.not_created(held, Gone("not_found", "no thread"), 0.0), held).move
    assert move.fields["error_code"] == "conversation_vanished"
    held = claim(after="q0", gone=steps.MOST_GONE)
    move = legal(steps.not_joined(held, Gone("not_found", "no thread"), TUTOR, 0.0), held).move
    assert move.fields["error_code"] == "conversation_vanished"


def test_a_run_that_has_not_quite_ended_is_waited_for_and_not_for_ever() -> None:
    busy = Busy("active_run", "a run is active")
    held = claim(after="q0")
    move = legal(steps.not_joined(held, busy, TUTOR, 0.0), held).move
    assert (move.name, move.fields["limited"]) == ("defer", held.now)
    held = claim(after="q0", limited_at=held.now - TUTOR.timeout_s - 400)
    move = legal(steps.not_joined(held, busy, TUTOR, 0.0), held).move
    assert move.fields["error_code"] == "conversation_busy"


def test_joining_that_brings_nothing_is_tried_again() -> None:
    held = claim(after="q0")
    move = legal(steps.not_joined(held, Ambiguous("not_shown", "not yet"), TUTOR, 0.0), held).move
    assert (move.name, move.fields["errors"]) == ("defer", 1)


def test_who_joins_takes_over_the_thread_and_what_marks_its_place() -> None:
    before = Before(thread_id="t", run_id="run_0", joined="", answered=True)
    held = claim(after="q0", looks=3)
    move = legal(steps.joined(held, Joins(before=before, previous="run_0", history=40), "run_0"), held).move
    assert move.name == "prepare"
    assert move.delay <= 0
    assert {name: move.fields[name] for name in ("thread", "joined", "previous", "history", "looks")} == {
        "thread": "t",
        "joined": "run_0",
        "previous": "run_0",
        "history": 40,
        "looks": None,
    }


@pytest.mark.parametrize("on_failure", ["stop", "skip"])
def test_old_assistants_keep_their_digest(on_failure: str) -> None:
    assistant = dataclasses.replace(TUTOR, on_failure=on_failure)  # type: ignore[arg-type]
    assert ("on_failure" in assistant.to_json()) == (on_failure == "skip")
    assert Assistant.from_json(assistant.to_json()) == assistant
