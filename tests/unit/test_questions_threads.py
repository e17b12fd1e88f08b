"""The column that makes rows conversations: found, checked, and turned into who comes after whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.errors import InputError
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import NewJob
from producer.kept_table import conversations, keep, kept
from producer.questions import QuestionList, open_items, open_list
from producer.submit import CHUNK_ROWS, Submission, submit


def assistant(name: str = "tutor", protocol: ProtocolName = "responses") -> Assistant:
    return Assistant(name=name, protocol=protocol, model="m")


def submission(questions: QuestionList, **more: Any) -> Submission:
    given = {"assistant": assistant(), "others": {}} | more
    return Submission(questions=questions, summary=questions.check(), **given)


def jobs(rows: Sequence[dict[str, object]], **more: Any) -> list[NewJob]:
    with open_items(rows) as questions:
        return [job for chunk in submission(questions, **more).jobs() for job in chunk]


def refused(rows: Sequence[dict[str, object]]) -> str:
    with open_items(rows) as questions, pytest.raises(InputError) as caught:
        questions.check()
    (problem,) = caught.value.problems
    return problem.message


@pytest.mark.parametrize("name", ["thread", "Thread", "conversation", " THREAD: "])
def test_the_column_is_found_by_its_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f'question,"{name}"\na,t1\nb,\nc, t1 \n', "utf-8")
    with open_list(path) as questions:
        summary = questions.check()
        assert [question.thread for question in questions] == ["t1", None, "t1"]
    assert (summary.conversations, summary.notes) == (1, ())
    assert summary.roles[name] == "thread"


def test_any_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,thread,case\na,carried,1\nb,carried,2\n", "utf-8")
    with open_list(path, thread_column="Case") as questions:
        assert [question.thread for question in questions] == ["1", "2"]
        assert [dict(question.input) for question in questions] == [{"thread": "carried"}] * 2
    for wrong, told in (("question", "cannot be both the question"), ("cas", "there is no column")):
        with open_list(path, column="question", thread_column=wrong) as questions, pytest.raises(InputError) as caught:
            questions.check()
        assert told in caught.value.problems[0].message
    with pytest.raises(InputError) as caught, open_list(path, thread_column="cas") as questions:
        questions.check()
    assert caught.value.remedy == 'Did you mean --thread-column "case"?'


def test_a_table_that_holds_nothing_but_conversations_has_no_question(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("thread\nt1\n", "utf-8")
    with open_list(path) as questions, pytest.raises(InputError):
        questions.check()


def test_what_cannot_be_the_name_of_a_conversation_is_told() -> None:
    assert refused([{"question": "?", "thread": True}]).startswith("the conversation must be text or a whole number")
    assert refused([{"question": "?", "thread": ["a"]}]).startswith("the conversation must be text")
    assert refused([{"question": "?", "thread": "a\0b"}]) == "there is a NUL character in the conversation's name"
    assert "257 characters; at most 256" in refused([{"question": "?", "thread": "x" * 257}])


def test_who_comes_after_whom_follows_from_the_order_of_the_list() -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "question": "1", "thread": "t"},
        {"id": "b", "question": "2", "thread": 7},
        {"id": "c", "question": "3", "thread": "t"},
        {"id": "d", "question": "4"},
        {"id": "e", "question": "5", "thread": "7"},
        {"id": "f", "question": "6", "thread": "t"},
        {"id": "g", "question": "7", "thread": "T"},
    ]
    assert {job.question.row_id: job.after for job in jobs(rows)} == {
        "a": None,
        "b": None,
        "c": "a",
        "d": None,
        "e": "b",
        "f": "c",
        "g": None,
    }
    assert [job.after for job in jobs(rows, limit=3)] == [None, None, "a"]


def test_a_conversation_goes_on_in_the_next_chunk() -> None:
    rows: list[dict[str, object]] = [{"question": "?", "thread": "t"} for _ in range(CHUNK_ROWS + 2)]
    found = jobs(rows)
    assert [job.after for job in found] == [None, *(job.question.row_id for job in found[:-1])]


def test_a_conversation_is_spoken_over_one_protocol() -> None:
    others = {"old": assistant("old", "assistants")}
    rows: list[dict[str, object]] = [
        {"id": "a", "question": "1", "thread": "t"},
        {"id": "b", "question": "2", "thread": "t", "assistant": "old"},
        {"id": "c", "question": "3", "assistant": "old"},
    ]
    store = MemoryStore()
    with open_items(rows) as questions, pytest.raises(InputError) as caught:
        submit(store, submission(questions, others=others))
    (problem,) = caught.value.problems
    assert problem.message == 'row b asks over assistants, and row a of the same conversation ("t") over responses'
    assert store.batches() == []
    with open_items([rows[0], rows[2]]) as questions:
        assert submit(store, submission(questions, others=others)).added == 2
    with open_items(rows[:2]) as questions:
        assert submit(store, submission(questions, others={"old": assistant("old")})).added == 2


def test_how_many_conversations_there_are_is_kept_with_the_batch() -> None:
    with open_items([{"question": "?", "thread": thread} for thread in ("a", "b", "a")]) as questions:
        summary = questions.check()
    assert conversations(keep(summary)) == 2
    assert conversations(keep(summary, whole=False)) == 0
    assert conversations(None) == 0
    assert kept(keep(summary)).keys() == {"columns", "roles", "delimiter"}
    with open_items(["?"]) as questions:
        assert "conversations" not in json.loads(keep(questions.check()))
