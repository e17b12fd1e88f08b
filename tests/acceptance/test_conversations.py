"""Conversations with real parts: stopped by a failure, asked again, gone on without it, and cancelled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.jobs.model import Job, State
from producer.batch import Batch
from producer.questions import open_items
from producer.submit import Submission, submit
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually

pytestmark = pytest.mark.timeout(300)
PROTOCOLS: tuple[ProtocolName, ...] = ("responses", "assistants")
SCRIPT = {
    "default": {"answer": "{earlier_count} before: {earlier}; now: {question}", "duration": [0.1, 0.4]},
    "rule": [
        {"contains": "[fails once]", "times_each": 1, "status": "failed", "duration": 0.1},
        {"contains": "[stuck]", "status": "stuck"},
    ],
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), script=SCRIPT) as made:
        made.worker(settings={"ASKQ_LEASE_S": "3"})
        yield made


def ask(stack: Stack, texts: list[str], protocol: ProtocolName, **more: str) -> Batch:
    """One conversation, whose row ids are its turns."""
    assistant = Assistant(name="chat", protocol=protocol, model="m", **more)  # type: ignore[arg-type]
    rows = [{"id": f"t{turn}", "question": f"{protocol} {text}", "thread": "대화"} for turn, text in enumerate(texts)]
    with open_items(rows) as questions:
        wanted = Submission(questions=questions, summary=questions.check(), assistant=assistant, others={})
        return Batch(stack.store, submit(stack.store, wanted).batch)


def ended(stack: Stack, batch: Batch) -> list[Job]:
    return stack.wait(batch.id, seconds=120)


def said(job: Job) -> str | None:
    return None if job.answer is None else job.answer.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_failure_stops_it_and_asked_again_it_goes_on_from_there(stack: Stack, protocol: ProtocolName) -> None:
    one, two, three = f"{protocol} one", f"{protocol} [fails once] two", f"{protocol} three"
    batch = ask(stack, ["one", "[fails once] two", "three"], protocol)
    jobs = ended(stack, batch)
    assert [job.state for job in jobs] == [State.COMPLETED, State.FAILED, State.FAILED]
    assert jobs[2].error_code == "conversation_stopped"
    assert stack.askq("retry", batch.id).returncode == 0
    jobs = ended(stack, batch)
    assert [job.state for job in jobs] == [State.COMPLETED] * 3
    assert len({job.thread_id for job in jobs}) == 1
    if protocol == "responses":
        # What failed has left nothing in the conversation.
        assert said(jobs[1]) == f"1 before: {one}; now: {two}"
        assert said(jobs[2]) == f"2 before: {one} | {two}; now: {three}"
    else:
        # The message is there, and is not added twice.
        assert said(jobs[1]) == f"1 before: {one}; now: {two}"
        assert said(jobs[2]) == f"2 before: {one} | {two}; now: {three}"
    runs = [entry["metadata"]["askq_job"] for entry in stack.ledger()]
    assert [runs.count(job.id) for job in jobs] == [1, 2, 1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_or_it_goes_on_without_that_answer(stack: Stack, protocol: ProtocolName) -> None:
    batch = ask(stack, ["one", "[fails once] skipped", "three"], protocol, on_failure="skip")
    jobs = ended(stack, batch)
    assert [job.state for job in jobs] == [State.COMPLETED, State.FAILED, State.COMPLETED]
    assert len({job.thread_id for job in jobs}) == 1
    told = said(jobs[2])
    assert told is not None
    assert told.endswith(f"now: {protocol} three")
    assert f"{protocol} one" in told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cancelling_the_one_that_runs_stops_the_rest(stack: Stack, protocol: ProtocolName) -> None:
    batch = ask(stack, ["one", "[stuck] two", "three", "four"], protocol)
    eventually(lambda: batch["t1"].state is State.RUNNING, seconds=120, what="the second question runs")
    assert stack.askq("cancel", "--yes", f"{batch.id}.t1").returncode == 0
    jobs = ended(stack, batch)
    assert [job.state for job in jobs] == [State.COMPLETED, State.CANCELLED, State.FAILED, State.FAILED]
    assert {job.error_code for job in jobs[2:]} == {"conversation_stopped"}
    assert "t1" in str(jobs[3].error_message)


def test_a_batch_of_conversations_is_cancelled_whole(stack: Stack) -> None:
    batch = ask(stack, ["[stuck] one", "two", "three"], "responses")
    eventually(lambda: batch["t0"].state is State.RUNNING, seconds=120, what="the first question runs")
    assert stack.askq("cancel", "--yes", batch.id).returncode == 0
    assert [job.state for job in ended(stack, batch)] == [State.CANCELLED] * 3
