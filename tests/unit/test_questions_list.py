"""A list as a whole: where it comes from, its ids and bounds, reading it again, Python values."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from askq.errors import InputError
from askq.jobs.model import Question
from producer.questions import Summary, from_items, open_items, open_list


def write(tmp_path: Path, content: str, name: str = "q.txt") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def told(caught: pytest.ExceptionInfo[InputError]) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.message) for problem in caught.value.problems]


# Text


def test_a_question_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "  What is 2+2? \n\n# not a comment\nquestion, with; all\u2028kinds")
    questions = open_list(path)
    summary = questions.check()
    assert [(question.row_id, question.text) for question in questions] == [
        ("q0001", "What is 2+2?"),
        ("q0002", "# not a comment"),
        ("q0003", "question, with; all\u2028kinds"),
    ]
    assert summary == Summary(
        rows=3,
        bytes=path.stat().st_size,
        notes=(),
        columns=("question",),
        roles={"question": "question"},
        assistants={},
        format="txt",
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def test_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path, "\n\nLine 1 \n  line 2\n \n\t\nNext\n\n")
    assert [question.text for question in open_list(path, split="blank-line")] == ["Line 1\n  line 2", "Next"]
    with pytest.raises(InputError, match='"page" is no way to split a text') as caught:
        open_list(path, split="page")
    assert caught.value.remedy == "Known: line, blank-line."


def test_tabs_in_lines_are_said(tmp_path: Path) -> None:
    assert open_list(write(tmp_path, "a\tb\n")).check().notes == (
        "lines hold tabs and were taken as they are; if this is a table, read it with --format tsv",
    )


# Places


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "a", "questions.csv")
    (tmp_path / "question.csv.d").mkdir()
    with pytest.raises(InputError) as caught:
        open_list(tmp_path / "question.csv")
    assert str(caught.value) == (
        f"{tmp_path / 'question.csv'}: there is no such file\nDid you mean {tmp_path / 'questions.csv'}?"
    )
    with pytest.raises(InputError, match=f"Did you mean {tmp_path / 'questions.csv'}"):
        open_list(tmp_path / "qestions.cvs")
    for unlike in ("zzzzzzzzz", "mine.csv"):
        with pytest.raises(InputError, match="there is no such file\nCheck the path"):
            open_list(tmp_path / unlike)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no folder {tmp_path / 'no'}"):
        open_list(tmp_path / "no" / "q.csv")
    write(tmp_path, "a", "file")
    with pytest.raises(InputError, match="there is no folder"):
        open_list(tmp_path / "file" / "q.csv")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_list(tmp_path)
    assert str(caught.value) == f"{tmp_path}: this is a folder, not a list of questions\nName a file in it."


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a")

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    # chmod would not hold back root, as which tests may run.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError) as caught:
        open_list(path)
    assert str(caught.value) == f"{path}: it cannot be read: Permission denied\nGive yourself permission to read it."


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("q.xlsx", "askq does not read .xlsx files", "Export the sheet as CSV (UTF-8) and submit that."),
        ("q.ods", "askq does not read .ods files", "Export the sheet as CSV (UTF-8) and submit that."),
        ("q.parquet", "askq does not read .parquet files", "Export it as JSON Lines, e.g. duckdb -c"),
        ("q.docx", "askq does not read .docx files", "Save the questions as plain text, one per line."),
        ("q.csv.gz", "askq does not read .gz files", "Decompress it first."),
        (
            "q.yaml",
            "askq does not know .yaml files",
            "Known: .txt, .csv, .tsv, .jsonl, .ndjson, .json. Rename the file",
        ),
        ("q", "the name has no suffix that tells the format", "Known: .txt, .csv, .tsv, .jsonl, .ndjson, .json."),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, message: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        open_list(write(tmp_path, "a", name))
    assert told(caught) == [(None, message)]
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith(remedy)


def test_a_format_that_is_said_outranks_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, "question\ta\nb\tc\n", "q.xlsx")
    assert [question.text for question in open_list(path, format="TSV")] == ["b"]
    assert [question.text for question in open_list(path, format="lines")] == ["question\ta", "b\tc"]
    with pytest.raises(InputError) as caught:
        open_list(path, format="jsnl")
    assert str(caught.value) == (
        '"jsnl" is no format of a list\nDid you mean jsonl? Known: txt, csv, tsv, jsonl, json, openai.'
    )


@pytest.mark.parametrize(
    ("content", "form", "texts"),
    [
        ("a\nb\n", None, ["a", "b"]),
        (' \n {"question": "a"}\n"b"\n', None, ["a", "b"]),
        ('\n\n[ "a",\n"b"]', None, ["a", "b"]),
        ('"quoted" words\n', None, ['"quoted" words']),
        ("question;x\na;1\nb;2\n", "csv", ["a", "b"]),
        ("\ufeffa\nb", None, ["a", "b"]),
    ],
)
def test_standard_input(content: str, form: str | None, texts: list[str]) -> None:
    with open_list("-", format=form, stdin=io.BytesIO(content.encode())) as questions:
        assert questions.name == "stdin"
        assert [question.text for question in questions] == texts
        assert [question.text for question in questions] == texts
        assert questions.check().digest == hashlib.sha256(content.encode()).hexdigest()


def test_problems_of_standard_input() -> None:
    with open_list(Path("-"), stdin=io.BytesIO(b"")) as questions, pytest.raises(InputError) as caught:
        questions.check()
    assert str(caught.value).startswith("stdin: there is no question in it")


def test_standard_input_that_breaks() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match="cannot read stdin: Input/output error"):
        open_list("-", stdin=Broken())


def test_a_pipe_is_kept_like_standard_input(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=pipe.write_text, args=('{"question": "a"}\n"b"\n',))
    feeder.start()
    try:
        with open_list(pipe) as questions:
            assert [question.text for question in questions] == ["a", "b"]
            assert [question.text for question in questions] == ["a", "b"]
    finally:
        feeder.join(10)
    assert not feeder.is_alive()


def test_two_readings_of_a_stream_do_not_disturb_each_other() -> None:
    with open_list("-", stdin=io.BytesIO(b"".join(b"%d\n" % number for number in range(20_000)))) as questions:
        assert all(one == other for one, other in zip(questions, questions, strict=True))


def test_a_forgotten_stream_leaves_nothing_open() -> None:
    questions = open_list("-", stdin=io.BytesIO(b"a\n"))
    assert questions.check().rows == 1
    del questions  # warnings are errors here: an open file would fail the suite


# Reading again


def test_a_list_is_checked_before_its_first_question(tmp_path: Path) -> None:
    questions = iter(open_list(write(tmp_path, '"a"\n""\n', "q.jsonl")))
    with pytest.raises(InputError, match="the question is empty"):
        next(questions)


def test_a_second_check_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = open_list(write(tmp_path, "a\n"))
    first = questions.check()
    monkeypatch.setattr("producer.questions.question_list.inspect", None)
    assert questions.check() is first


def test_a_list_is_what_it_was_when_it_was_opened(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(["question"] * 10_000))
    questions = open_list(path)
    with path.open("a") as file:
        file.write("\nmore")
    assert questions.check().rows == 10_000
    reading = iter(questions)
    next(reading)
    path.write_text("another\n")
    assert sum(1 for _ in reading) == 9_999
    path.unlink()
    assert sum(1 for _ in questions) == 10_000


def test_a_file_that_is_still_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a\n")

    def copy_while_written(stream: BinaryIO, to: BinaryIO, length: int) -> None:
        to.write(stream.read())
        with path.open("a") as file:
            file.write("more\n")

    monkeypatch.setattr("producer.questions.source.shutil.copyfileobj", copy_while_written)
    with pytest.raises(InputError, match="the file changed while it was being read\nWait until it is complete"):
        open_list(path)


# Ids


def test_numbers_grow_with_the_row_and_not_with_the_list() -> None:
    rows = [question.row_id for question in from_items(str(number) for number in range(10_001))]
    assert (rows[0], rows[8], rows[999], rows[9_998], rows[10_000]) == ("q0001", "q0009", "q1000", "q9999", "q10001")


def test_rows_without_an_id_are_numbered_by_their_place() -> None:
    questions = from_items([{"question": "a", "id": "x"}, {"question": "b", "id": " "}, {"question": "c"}, "d"])
    assert [question.row_id for question in questions] == ["x", "q0002", "q0003", "q0004"]


@pytest.mark.parametrize(
    "row_id", ["a", "A-1_b.c:d", "größe", "東京", "id=1&x", "#7", "x" * 64, "e\u0301", "🦊", " padded ", 12, 0, -3]
)
def test_ids_that_are_allowed(row_id: object) -> None:
    [question] = from_items([{"question": "a", "id": row_id}])
    assert question.row_id == str(row_id).strip()


@pytest.mark.parametrize(
    ("row_id", "message"),
    [
        ("a b", 'the id "a b" may not contain blanks'),
        ("a\tb", 'the id "a\ufffdb" may not contain blanks'),
        ("a\u00a0b", 'the id "a\ufffdb" may not contain blanks'),
        ("a/b", 'the id "a/b" may not contain a slash'),
        ("a\x00b", 'the id "a\ufffdb" may not contain the invisible character U+0000'),
        ("a\x1b[0m", 'the id "a\ufffd[0m" may not contain the invisible character U+001B'),
        ("a\u202eb", 'the id "a\ufffdb" may not contain the invisible character U+202E'),
        ("x" * 65, f'the id "{"x" * 59}…" has 65 characters; at most 64 are allowed'),
        ("..", 'the id ".." would be a folder\'s name'),
        (".", 'the id "." would be a folder\'s name'),
        (["a"], "the id must be text or a whole number, not a list"),
    ],
)
def test_ids_that_are_not_allowed(row_id: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_items([{"question": "a", "id": row_id}])
    assert told(caught) == [(1, message)]
    assert caught.value.problems[0].column == "id"


def test_every_id_that_is_there_twice_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "id,question\n" + "".join(f"{n},x\n" for n in (1, 2, 1, 3, 2, 1)), "q.csv")
    with pytest.raises(InputError) as caught:
        open_list(path).check()
    assert told(caught) == [
        (4, 'the id "1" is used already in line 2'),
        (6, 'the id "2" is used already in line 3'),
        (7, 'the id "1" is used already in line 2'),
    ]
    assert caught.value.remedy == "Give every row an id of its own, or name another column with --id-column."


def test_ids_on_one_line_of_a_json_list(tmp_path: Path) -> None:
    path = write(tmp_path, '[{"id": "1", "question": "a"}, {"id": 1, "question": "b"}]', "q.json")
    with pytest.raises(InputError, match='the id "1" is used already in line 1'):
        open_list(path).check()


def test_a_given_id_may_not_be_that_of_a_numbered_row() -> None:
    with pytest.raises(InputError, match='item:3: the id "q0001" is used already in line 1'):
        from_items(["a", "b", {"id": "q0001", "question": "c"}])


def test_ids_of_equal_hash_are_compared_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.questions.question_list.hash", lambda _: 7, raising=False)
    assert open_list(write(tmp_path, "a\nb\nc\n")).check().rows == 3
    path = write(tmp_path, "id,question\n1,a\n2,b\n1,c\n", "q.csv")
    with pytest.raises(InputError) as caught:
        open_list(path).check()
    assert told(caught) == [(4, 'the id "1" is used already in line 2')]


# Bounds


def test_more_rows_than_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "a\nb\n\nc\nd\n")
    assert open_list(path, max_rows=4).check().rows == 4
    with pytest.raises(InputError) as caught:
        open_list(path, max_rows=2).check()
    assert told(caught) == [(4, "here the list exceeds 2 questions, the most that is allowed")]
    assert caught.value.remedy == "Split the list, or raise ASKQ_MAX_ROWS."


def test_an_endless_generator_ends() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "again"

    with pytest.raises(InputError, match="item:11: here the list exceeds 10 questions"):
        from_items(endless(), max_rows=10)


@pytest.mark.parametrize("name", ["q.txt", "q.csv", "q.jsonl", "q.json"])
def test_a_question_of_10_mb(tmp_path: Path, name: str) -> None:
    big = "x" * 10_000_000
    content = {
        "q.txt": f"a\n{big}",
        "q.csv": f"question\n{big}",
        "q.jsonl": f'"a"\n"{big}"',
        "q.json": f'["a",\n"{big}"]',
    }
    with pytest.raises(InputError) as caught:
        open_list(write(tmp_path, content[name], name)).check()
    assert told(caught) == [
        (2, "the question has 10,000,000 bytes; at most 262,144 are allowed (ASKQ_MAX_QUESTION_BYTES)")
    ]


def test_the_bound_counts_bytes_not_characters() -> None:
    [question] = from_items(["é" * 50], max_question_bytes=100)
    assert len(question.text) == 50
    with pytest.raises(InputError, match="the question has 102 bytes; at most 100 are allowed"):
        from_items(["é" * 51], max_question_bytes=100)


def test_other_parts_of_a_row_are_bounded_too() -> None:
    items = [{"question": "a", "instructions": "i" * 101}, {"question": "a", "x": "y" * 60, "z": "y" * 60}]
    with pytest.raises(InputError) as caught:
        from_items(items, max_question_bytes=100)
    bound = "at most 100 are allowed (ASKQ_MAX_QUESTION_BYTES)"
    assert told(caught) == [
        (1, f"the instructions have 101 bytes; {bound}"),
        (2, f"the other columns have 138 bytes; {bound}"),
    ]


def test_all_problems_are_told_and_the_first_twenty_shown(tmp_path: Path) -> None:
    path = write(tmp_path, '""\n' * 50, "q.jsonl")
    with pytest.raises(InputError) as caught:
        open_list(path).check()
    assert len(caught.value.problems) == 50
    shown = str(caught.value).splitlines()
    assert shown[0] == f'{path}:1: the question is empty (column "question")'
    assert shown[20:] == ["… and 30 more problems", "Nothing was queued; correct the list and try again."]


def test_problems_without_end_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.questions.question_list._PROBLEMS_KEPT", 30)
    path = write(tmp_path, '""\n' * 100, "q.jsonl")
    with pytest.raises(InputError) as caught:
        open_list(path).check()
    assert len(caught.value.problems) == 31
    assert caught.value.problems[-1].message == "there are more than 30 problems; reading stopped"


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = write(
            tmp_path, "id,question,x\n" + "".join(f"{n},What is {n}?,{'y' * 50}\n" for n in range(rows)), "q.csv"
        )
        tracemalloc.start()
        try:
            questions = open_list(path)
            questions.check()
            for _ in questions:
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The first inspection reads pieces of 1 MiB; beyond that, 8 bytes per id are all that is kept.
    assert peak(30_000) < 4 << 20


# Python values


def test_items() -> None:
    items: list[str | dict[str, Any]] = [
        "a",
        {"Prompt": "b", "id": 3, "score": 1.5},
        {"input": "c", "model": "m", "assistant": "x"},
    ]
    assert list(from_items(items)) == [
        Question(row_id="q0001", index=0, text="a"),
        Question(row_id="3", index=1, text="b", input={"score": 1.5}),
        Question(row_id="q0003", index=2, text="c", model="m", assistant="x"),
    ]
    with open_items(items) as questions:
        assert questions.check().assistants == {"x": 3}
        assert len(list(questions)) == 3
    [question] = from_items([{"frage": "a", "nr": "7"}], column="frage", id_column="nr")
    assert (question.text, question.row_id) == ("a", "7")


def test_items_with_line_breaks_and_odd_characters_survive() -> None:
    texts = ["a\nb\r\nc", "\u2028 \u0085 x", "tab\there", '"quoted" \\ back', "🦊"]
    assert [question.text for question in from_items(texts)] == texts


def test_nothing_is_handed_out_before_all_items_are_checked() -> None:
    with pytest.raises(InputError) as caught:
        from_items(["a", "", {"question": "b", "id": "x y"}, "c"])
    assert str(caught.value) == (
        'item:2: the question is empty (column "question")\n'
        'item:3: the id "x y" may not contain blanks (column "id")\n'
        "Nothing was queued; correct the list and try again."
    )


def test_items_that_are_neither(tmp_path: Path) -> None:
    items: list[Any] = ["a", 5, {"question": "b", "when": tmp_path}, None, {"question": "c", "x": float("nan")}]
    with pytest.raises(InputError) as caught:
        from_items(items)
    expected = [
        (2, "a string or a mapping is expected, not int"),
        (3, f"it cannot be kept as JSON: Object of type {type(tmp_path).__name__} is not JSON serializable"),
        (4, "a string or a mapping is expected, not NoneType"),
        (5, "it cannot be kept as JSON: Out of range float values are not JSON compliant"),
    ]
    for (line, message), (number, start) in zip(told(caught), expected, strict=True):
        # Python adds the value from 3.12 on.
        assert (line, message[: len(start)]) == (number, start)


def test_half_a_character_in_an_item() -> None:
    with pytest.raises(InputError, match=r"item:1: \\ud83e is half a character"):
        from_items(["\ud83e"])


def test_no_items() -> None:
    with pytest.raises(InputError, match="item: there is no question in it"):
        from_items([])


@pytest.mark.parametrize("single", ["What?", b"What?", {"question": "What?"}])
def test_a_single_question_is_no_list(single: Any) -> None:
    with pytest.raises(InputError, match="a list of questions is expected, not a single one"):
        from_items(single)


def test_a_data_frame_is_not_asked_for_its_column_names() -> None:
    class DataFrame(list[str]):
        columns = ("question", "lang")

    with pytest.raises(InputError, match=r"a DataFrame is no list of questions\nPass its rows: frame\.to_dict"):
        from_items(DataFrame(["question", "lang"]))


def test_what_a_generator_raises_passes_through() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise LookupError("from the caller")

    with pytest.raises(LookupError, match="from the caller"):
        from_items(failing())


def test_a_summary_is_a_value(tmp_path: Path) -> None:
    summary = open_list(write(tmp_path, "a")).check()
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.rows = 5  # type: ignore[misc]


@pytest.mark.parametrize("header", ["id,question", "Question;Thema", "topic\tPROMPT", '"id","Query"'])
def test_a_table_on_standard_input_is_known_by_its_header(header: str) -> None:
    delimiter = next(mark for mark in ",;\t" if mark in header)
    content = f"{header}\nx{delimiter}y\n".encode()
    with open_list("-", stdin=io.BytesIO(content)) as questions:
        assert questions.check().format == "csv"
        assert len(list(questions)) == 1


@pytest.mark.parametrize("line", ["What is the question, anyway?", "First, ask; then answer", "Question?"])
def test_a_sentence_on_standard_input_is_no_header(line: str) -> None:
    with open_list("-", stdin=io.BytesIO(f"{line}\nnext\n".encode())) as questions:
        assert questions.check().format == "txt"
        assert len(list(questions)) == 2


@pytest.mark.parametrize(
    ("header", "column"), [("question", None), ('"Prompt"', None), ("Frage", "frage"), ("id;Frage", "Frage")]
)
def test_a_name_alone_on_standard_input_is_a_header(header: str, column: str | None) -> None:
    """`askq submit - < questions.csv` must not ask, and pay for, the name of the only column."""
    cells = {"id;Frage": 'a;"What is 2, plus 2?"'}.get(header, '"What is 2, plus 2?"')
    with open_list("-", column=column, stdin=io.BytesIO(f"{header}\n{cells}\n".encode())) as questions:
        assert [question.text for question in questions] == ["What is 2, plus 2?"]
