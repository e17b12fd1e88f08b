"""Submitting a list: chunk by chunk, in bounded memory, and again after the producer has died half-way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from askq.assistants.model import Assistant
from askq.errors import InputError, StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Added, NewJob, State
from producer.questions import open_items
from producer.submit import CHUNK_ROWS, CHUNK_TEXT, CHUNKS_AT_ONCE, FIRST_ROWS, Submission, submit

MANY = FIRST_ROWS + 3 * CHUNK_ROWS + 7


class Dying(MemoryStore):
    """A store that takes so many rows, and then is out of reach."""

    def __init__(self, *, rows: int = 1_000_000) -> None:
        super().__init__()
        self.rows = rows
        self.sizes: list[int] = []
        self._one = threading.Lock()

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        # Two may come at once.
        with self._one:
            if sum(self.sizes) + len(jobs) > self.rows:
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
    assert FIRST_ROWS <= there < MANY


def test_a_list_is_stored_in_chunks() -> None:
    store = Dying()
    told: list[int] = []
    submit(store, submission(MANY), progress=told.append)
    # The first one is small, so that workers can begin.
    assert sorted(store.sizes) == sorted([FIRST_ROWS] + [CHUNK_ROWS] * 3 + [7])
    assert told == [FIRST_ROWS, *(FIRST_ROWS + many * CHUNK_ROWS for many in (1, 2, 3)), MANY]


def test_a_chunk_of_long_questions_has_fewer_rows() -> None:
    store = Dying()
    long = "x" * (CHUNK_TEXT // 20)
    submit(store, submission_of([f"{number} {long}" for number in range(50)]))
    assert sorted(store.sizes) == [10, 20, 20]


def test_no_more_is_read_than_two_chunks_ahead_of_the_store() -> None:
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
            # Those the store is taking, and the next.
            assert sum(read) - sum(stored) <= (CHUNKS_AT_ONCE + 1) * CHUNK_ROWS
            yield chunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Submission, "jobs", jobs)
        submit(Watched(), given)
    assert sum(stored) == MANY


def test_after_a_store_that_was_out_of_reach_the_same_call_adds_exactly_what_is_missing() -> None:
    store = Dying(rows=FIRST_ROWS + 2 * CHUNK_ROWS)
    with pytest.raises(StoreUnreachable):
        submit(store, submission(MANY))
    (status,) = store.batches()
    assert not status.sealed
    there = sum(store.sizes)
    assert status.counts[State.QUEUED] == there >= CHUNK_ROWS
    store.rows, store.sizes = 1_000_000, []
    again = submit(store, submission(MANY))
    assert (again.batch, again.created) == (status.id, False)
    assert (again.added, again.already) == (MANY - there, there)
    assert sum(store.sizes) == MANY - there, "chunks that are there are not sent again"
    (status,) = store.batches()
    assert status.sealed
    assert status.total == MANY


def test_a_chunk_that_is_there_in_part_is_sent_again() -> None:
    store = Dying()
    submit(store, submission(FIRST_ROWS + 3))
    again = submit(store, submission(FIRST_ROWS + 9))
    assert (again.added, again.already) == (6, FIRST_ROWS + 3)


def test_a_list_with_another_question_in_its_last_chunk_adds_nothing() -> None:
    store = Dying(rows=FIRST_ROWS + CHUNK_ROWS)
    with pytest.raises(StoreUnreachable):
        submit(store, submission(MANY))
    there = sum(store.sizes)
    store.rows = 1_000_000
    with pytest.raises(InputError, match="row q0004"):
        submit(store, submission(MANY, changed=3))
    (status,) = store.batches()
    assert status.counts[State.QUEUED] == there
