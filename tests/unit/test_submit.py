"""Submitting a list: chunk by chunk, in bounded memory, and again after the producer has died half-way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from askq.assistants.model import Assistant
from askq.errors import InputError, StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Added, NewJob, State
from producer.questions import open_items
from producer.submit import CHUNK_ROWS, CHUNK_TEXT, Submission, submit

MANY = 3 * CHUNK_ROWS + 7


class Dying(MemoryStore):
    """A store that is out of reach from its n-th call of `add` on."""

    def __init__(self, *, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.sizes: list[int] = []

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        if len(self.sizes) == self.calls:
            raise StoreUnreachable("Redis at localhost does not answer")
        self.sizes.append(len(jobs))
        return super().add(batch, jobs)


def submission(many: int, *, changed: int | None = None) -> Submission:
    texts = [f"What is {number} + 1?" for number in range(many)]
    if changed is not None:
        texts[changed] = "Something else?"
    return submission_of(texts)


def submission_of(texts: list[str]) -> Submission:
    questions = open_items(texts)
    return Submission(
        questions=questions,
        summary=questions.check(),
        assistant=Assistant(name="tutor", protocol="responses", model="gpt-test"),
        others={},
        idempotency_key="k",
    )


def test_workers_are_called_once_the_first_rows_are_there_and_not_after_the_last() -> None:
    store = MemoryStore()
    seen: list[int] = []

    def begun() -> None:
        (status,) = store.batches()
        seen.append(status.counts[State.QUEUED])
        assert not status.sealed

    submitted = submit(store, submission(MANY), begun=begun)
    assert submitted.added == MANY
    (there,) = seen
    assert CHUNK_ROWS <= there < MANY


def test_a_list_is_stored_in_chunks() -> None:
    store = Dying(calls=99)
    told: list[int] = []
    submit(store, submission(MANY), progress=told.append)
    assert store.sizes == [CHUNK_ROWS] * 3 + [7]
    assert told == [CHUNK_ROWS, 2 * CHUNK_ROWS, 3 * CHUNK_ROWS, MANY]


def test_a_chunk_of_long_questions_has_fewer_rows() -> None:
    store = Dying(calls=99)
    long = "x" * (CHUNK_TEXT // 20)
    submit(store, submission_of([f"{number} {long}" for number in range(50)]))
    assert store.sizes == [20, 20, 10]


def test_no_more_is_read_than_one_chunk_ahead_of_the_store() -> None:
    given = submission(MANY)
    read: list[int] = []

    class Watched(MemoryStore):
        def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
            found = super().add(batch, jobs)
            stored.append(len(jobs))
            return found

    stored: list[int] = []
    whole = given.jobs

    def jobs(self: Submission) -> Iterator[list[NewJob]]:
        for chunk in whole():
            read.append(len(chunk))
            # Two at most are in memory: the one the store is taking, and the next.
            assert sum(read) - sum(stored) <= 2 * CHUNK_ROWS
            yield chunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Submission, "jobs", jobs)
        submit(Watched(), given)
    assert sum(stored) == MANY


def test_after_a_store_that_was_out_of_reach_the_same_call_adds_exactly_what_is_missing() -> None:
    store = Dying(calls=2)
    with pytest.raises(StoreUnreachable):
        submit(store, submission(MANY))
    (status,) = store.batches()
    assert not status.sealed
    assert status.counts[State.QUEUED] == sum(store.sizes) == 2 * CHUNK_ROWS
    store.calls = 99
    again = submit(store, submission(MANY))
    assert (again.batch, again.created) == (status.id, False)
    assert (again.added, again.already) == (MANY - 2 * CHUNK_ROWS, 2 * CHUNK_ROWS)
    (status,) = store.batches()
    assert status.sealed
    assert status.total == MANY


def test_a_list_with_another_question_in_its_last_chunk_adds_nothing() -> None:
    store = Dying(calls=1)
    with pytest.raises(StoreUnreachable):
        submit(store, submission(MANY))
    store.calls = 99
    with pytest.raises(InputError, match="row q0004"):
        submit(store, submission(MANY, changed=3))
    (status,) = store.batches()
    assert status.counts[State.QUEUED] == CHUNK_ROWS
