"""Files of answers: formats, the user's columns, and that a file is whole or not there."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askq.errors import InputError, OutputError, StoreUnreachable
from askq.jobs.model import Answer, Job, Question, State, Usage
from producer.answers.cells import cell
from producer.answers.record import to_record
from producer.answers.table_rows import OWN
from producer.answers.writer import FORMATS, writer_for
from producer.kept_table import keep, kept
from producer.questions import from_items, open_list


def job(question: Question | str, *, answer: str | None = "yes", state: State = State.COMPLETED, **more: Any) -> Job:
    if isinstance(question, str):
        question = Question(row_id="q0001", index=0, text=question)
    return Job(
        id=f"b_1.{question.row_id}",
        index=question.index,
        state=state,
        question=question,
        assistant="tutor",
        assistant_digest="d",
        protocol="responses",
        answer=None if answer is None else Answer(text=answer),
        created_at=1_795_426_200.0,
        **more,
    )


def table(data: bytes, *, delimiter: str = ",") -> list[dict[str, str]]:
    assert data.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True))


def written(jobs: list[Job], form: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    assert writer_for(format=form, stream=stream, **more).write(iter(jobs)) == len(jobs)
    return stream.getvalue()


# Formats


@pytest.mark.parametrize(
    ("name", "form"), [("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.csv", "csv"), ("a.TSV", "tsv")]
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, form: str) -> None:
    assert writer_for(tmp_path / name).format == form


def test_a_format_that_is_said_outranks_the_suffix() -> None:
    assert writer_for("answers.xlsx", format=".OpenAI").format == "openai"
    assert writer_for("-").format == writer_for().format == writer_for(format="ndjson").format == "jsonl"
    assert writer_for("-", format="csv").path is None


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("a.xlsx", "askq does not write .xlsx files", "Write .csv: every spreadsheet opens it."),
        ("a.json", "askq does not write .json files", "Write .jsonl, which other tools convert."),
        ("a.txt", "askq does not write .txt files", "Known: .jsonl, .ndjson, .csv, .tsv. Rename it; `askq results`"),
        ("answers", "the name has no suffix that tells the format", "Known: .jsonl, .ndjson, .csv, .tsv."),
    ],
)
def test_suffixes_that_are_not_known(name: str, message: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        writer_for(name)
    assert caught.value.message == f"the answers cannot be written to {name}: {message}"
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith(remedy)
    assert caught.value.exit_code == 2


def test_formats_that_are_not_known() -> None:
    with pytest.raises(InputError) as caught:
        writer_for(format="jsnol")
    assert str(caught.value) == (
        '"jsnol" is no format for answers\nDid you mean jsonl? Known: jsonl, csv, tsv, openai.'
    )
    with pytest.raises(InputError, match='"zzz" is no format for answers\nKnown: '):
        writer_for(format="zzz")


def test_json_lines() -> None:
    jobs = [job("größer 光 🦊?", answer="a\nb"), job("b", state=State.RUNNING)]
    data = written(jobs, "jsonl")
    assert data.endswith(b"\n")
    assert "größer 光 🦊?" in data.decode()
    assert [json.loads(line) for line in data.splitlines()] == [to_record(one) for one in jobs]


@pytest.mark.parametrize("form", FORMATS)
def test_half_a_character_in_an_answer_breaks_no_file(form: str) -> None:
    data = written([job("a", answer="x \ud83e y\0")], form)
    data.decode("utf-8")
    if form == "jsonl":
        assert json.loads(data)["answer"] == "x \ud83e y\0"


def test_openai_lines() -> None:
    [line] = written([job("a")], "openai").splitlines()
    assert json.loads(line)["response"]["body"]["output"][0]["content"][0]["text"] == "yes"


@pytest.mark.parametrize("form", FORMATS)
def test_no_jobs(form: str) -> None:
    data = written([], form)
    assert data.count(b"\n") == (1 if form in ("csv", "tsv") else 0)


# Tables


def test_the_whole_of_a_csv() -> None:
    question = Question(row_id="r1", index=0, text="Why?", input={"lang": "de", "n": 5, "list": [1]})
    done = job(
        question,
        started_at=1_795_426_201.0,
        completed_at=1_795_426_203.5,
        attempts=1,
        thread_id="t",
        run_id="r",
    )
    answer = Answer(text='{"x":1}', model="m", code=({"input": "1"},), usage=Usage(input_tokens=3, cost_usd=1e-7))
    called = {"name": "f", "arguments": "{}", "output": "1", "seconds": 0.1}
    answer = dataclasses.replace(answer, tool_calls=(called,))
    data = written([dataclasses.replace(done, answer=answer)], "csv")
    assert data.endswith(b'"\r\n')
    [row] = table(data)
    assert list(row) == ["custom_id", "question", "lang", "n", "list", *OWN]
    assert row == {
        "custom_id": "r1",
        "question": "Why?",
        "lang": "de",
        "n": "5",
        "list": "[1]",
        "answer": '{"x":1}',
        "status": "completed",
        "error": "",
        "error_message": "",
        "retryable": "",
        "remedy": "",
        "job_id": "b_1.r1",
        "batch": "b_1",
        "assistant": "tutor",
        "protocol": "responses",
        "model": "m",
        "thread_id": "t",
        "run_id": "r",
        "attempts": "1",
        "input_tokens": "3",
        "cached_tokens": "0",
        "output_tokens": "0",
        "total_tokens": "0",
        "cost_usd": "0.0000001",
        "created_at": "2026-11-23T09:30:00.000Z",
        "started_at": "2026-11-23T09:30:01.000Z",
        "completed_at": "2026-11-23T09:30:03.500Z",
        "duration_s": "2.5",
        "files": "",
        "citations": "",
        "code": '[{"input":"1"}]',
        "tool_calls": '[{"name":"f","arguments":"{}","output":"1","seconds":0.1}]',
        "output": '{"x":1}',
    }


def test_an_error_in_a_csv() -> None:
    [row] = table(written([job("a", answer=None, state=State.FAILED, error_code="server_error")], "csv"))
    assert (row["status"], row["error"], row["retryable"]) == ("failed", "server_error", "true")
    assert (row["error_message"], row["remedy"]) == (
        "The job ended as failed.",
        "The service failed while answering; ask again.",
    )


def test_the_users_table_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("Nr;lang;Question;Model;Antwort;answer\n7;de;Warum?;m-1;x;y\n8;en;Why?;;;\n", encoding="utf-8")
    questions = open_list(path, id_column="Nr")
    summary = questions.check()
    rows = table(written([job(one) for one in questions], "csv", columns=summary.columns, roles=summary.roles))
    header = ["Nr", "lang", "Question", "Model", "Antwort", "answer"]
    # askq's own columns of the same name, whatever the case, are told apart.
    assert list(rows[0])[:8] == [*header, "askq_answer", "status"]
    assert "askq_model" in rows[0]
    assert [[row[name] for name in header] for row in rows] == [
        ["7", "de", "Warum?", "m-1", "x", "y"],
        ["8", "en", "Why?", "", "", ""],
    ]
    assert "custom_id" not in rows[0]
    assert "question" not in rows[0]


@pytest.mark.parametrize(
    ("header", "delimiter"), [("Nr;Question", ";"), ("Nr,Question", ","), ("Nr\tQuestion", ","), ("Question", ",")]
)
def test_semicolons_go_back_as_semicolons(tmp_path: Path, header: str, delimiter: str) -> None:
    """The spreadsheet a list came from takes its own delimiter only: German Excel would put the row in one cell."""
    path = tmp_path / "q.csv"
    path.write_text(f"{header}\n{header.replace('Nr', '7').replace('Question', 'Why')}\n", encoding="utf-8")
    questions = open_list(path)
    table_of = kept(keep(questions.check()))
    jobs = [job(one, answer='a;b,c "d"') for one in questions]
    [row] = table(written(jobs, "csv", **table_of), delimiter=delimiter)
    assert (row["Question"], row["answer"], row.get("Nr", "7")) == ("Why", 'a;b,c "d"', "7")
    [row] = table(written(jobs, "tsv", **table_of), delimiter="\t")
    assert row["Question"] == "Why"


def test_a_template_keeps_the_column_and_shows_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,lang\ncat,German\n", encoding="utf-8")
    questions = open_list(path, template="{question} in {lang}?")
    summary = questions.check()
    [row] = table(written([job(one) for one in questions], "csv", columns=summary.columns, roles=summary.roles))
    assert list(row)[:5] == ["question", "lang", "custom_id", "askq_question", "answer"]
    assert (row["question"], row["lang"], row["askq_question"]) == ("cat", "German", "cat in German?")


def test_plain_lists_begin_with_the_question(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("a\n")
    questions = open_list(path)
    summary = questions.check()
    [row] = table(written([job(one) for one in questions], "csv", columns=summary.columns, roles=summary.roles))
    assert list(row)[:3] == ["question", "custom_id", "answer"]


def test_columns_are_the_union_over_rows_in_order_of_appearance() -> None:
    questions = list(from_items([{"question": "a", "x": 1}, {"question": "b", "y": 2, "x": 3}, "c"]))
    rows = table(written([job(one) for one in questions], "csv"))
    assert list(rows[0])[:5] == ["custom_id", "question", "x", "y", "answer"]
    assert [(row["x"], row["y"]) for row in rows] == [("1", ""), ("3", "2"), ("", "")]
    rows = table(written([job(one) for one in questions], "csv", columns=["y", "absent"]))
    assert list(rows[0])[:6] == ["y", "absent", "x", "custom_id", "question", "answer"]
    assert [(row["x"], row["y"], row["absent"]) for row in rows] == [("1", "", ""), ("3", "2", ""), ("", "", "")]


def test_names_that_clash_even_with_the_prefix() -> None:
    question = Question(row_id="r", index=0, text="a", input={"answer": 1, "askq_answer": 2, "ID": 3, "Status": 4})
    [row] = table(written([job(question)], "csv"))
    assert (row["answer"], row["askq_answer"], row["askq_askq_answer"]) == ("1", "2", "yes")
    assert (row["Status"], row["askq_status"]) == ("4", "completed")


def test_formulas_are_defused_everywhere() -> None:
    question = Question(row_id="=r", index=0, text="=1+1", input={"=x": "@y", "n": "-5"})
    rows = table(written([job(question, answer="=HYPERLINK(1)")], "csv"))
    assert {name: rows[0][name] for name in ("custom_id", "question", "'=x", "n", "answer")} == {
        "custom_id": "'=r",
        "question": "'=1+1",
        "'=x": "'@y",
        "n": "-5",
        "answer": "'=HYPERLINK(1)",
    }
    # Where the semicolon is the delimiter, a quoted cell still does not break into pieces.
    data = written([job("a", answer="x;=1+1")], "csv")
    assert b'"x;=1+1"' in data


def test_tsv() -> None:
    data = written([job("a\tb", answer='line 1\nline "2"')], "tsv")
    assert data.startswith(b"\xef\xbb\xbfcustom_id\tquestion\tanswer\t")
    [row] = table(data, delimiter="\t")
    assert (row["question"], row["answer"]) == ("a\tb", 'line 1\nline "2"')


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_INPUTS = st.lists(st.dictionaries(_TEXT.filter(bool), _VALUES, max_size=4), min_size=1, max_size=4)


@given(inputs=_INPUTS, answers=st.lists(_TEXT, min_size=4, max_size=4))
def test_a_csv_gives_back_what_went_in(inputs: list[dict[str, Any]], answers: list[str]) -> None:
    jobs = [
        job(Question(row_id=f"r{index}", index=index, text="q", input=one), answer=answers[index])
        for index, one in enumerate(inputs)
    ]
    data = written(jobs, "csv").decode("utf-8-sig")
    header, *rows = csv.reader(io.StringIO(data, newline=""), strict=True)
    names = list(dict.fromkeys(name for one in inputs for name in one))
    width = 2 + len(names)
    assert header[2:width] == [cell(name) for name in names]
    assert [row[2:width] for row in rows] == [[cell(one.get(name)) for name in names] for one in inputs]
    assert [row[width] for row in rows] == [cell(answer) for answer in answers[: len(rows)]]
    assert len({name.casefold() for name in header[width:]}) == len(OWN)


@given(texts=st.lists(_TEXT, min_size=1, max_size=4))
def test_the_users_columns_survive_reading_and_writing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("round") / "q.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        source = csv.writer(file)
        source.writerow(["note", "question", "Größe"])
        source.writerows([text, "q", text[::-1]] for text in texts)
    questions = open_list(path)
    summary = questions.check()
    rows = table(written([job(one) for one in questions], "csv", columns=summary.columns, roles=summary.roles))
    assert list(rows[0])[:3] == ["note", "question", "Größe"]
    assert [(row["note"], row["Größe"]) for row in rows] == [(cell(text), cell(text[::-1])) for text in texts]


def test_answers_can_be_asked_again(tmp_path: Path) -> None:
    """A written file is a list: its question and id are found, the rest is carried through."""
    path = tmp_path / "answers.csv"
    writer_for(path).write([job(one) for one in from_items([{"id": "r1", "question": "Why?", "lang": "de"}])])
    [question] = open_list(path)
    assert (question.row_id, question.text, question.input["lang"], question.input["answer"]) == (
        "r1",
        "Why?",
        "de",
        "yes",
    )


# Files


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv", "answers.tsv"])
def test_a_file_takes_the_place_of_another(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    path.chmod(0o640)
    before = path.stat().st_ino
    writer = writer_for(path)
    writer.check()
    assert path.read_text() == "old"
    assert writer.write([job("a"), job("b")]) == 2
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert files(tmp_path) == [name]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    writer_for(tmp_path / "a.csv").write([job("a")])
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    writer_for(tmp_path / "link.jsonl").write([job("a")])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert "yes" in (tmp_path / "real.jsonl").read_text()
    assert files(tmp_path) == ["link.jsonl", "real.jsonl"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("failure", [StoreUnreachable("gone"), KeyboardInterrupt()])
def test_a_failure_halfway_leaves_what_was_there(tmp_path: Path, form: str, failure: BaseException) -> None:
    path = tmp_path / "answers"
    path.write_text("old")

    def failing() -> Iterator[Job]:
        yield job("a")
        raise failure

    with pytest.raises(type(failure)):
        writer_for(path, format=form).write(failing())
    assert path.read_text() == "old"
    assert files(tmp_path) == ["answers"]


def _fails_with(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr("producer.answers.target.os.open", refuse)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "Name a file in a folder you may write to."),
        (errno.EROFS, "The file system is read-only: name a file in a folder you may write to."),
        (
            errno.ENOSPC,
            "The disk is full: make room, or name a file on another disk. The answers are safe in the store.",
        ),
        (errno.EDQUOT, "The quota is used up: make room, or name another place. The answers are safe in the store."),
        (errno.EIO, "Name another place. The answers are safe in the store."),
    ],
)
def test_places_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    # Root, as which tests may run, may write everywhere: the refusal is made.
    _fails_with(number, tmp_path, monkeypatch)
    writer = writer_for(tmp_path / "a.csv")
    for attempt in (writer.check, lambda: writer.write([job("a")])):
        with pytest.raises(OutputError) as caught:
            attempt()
        assert str(caught.value) == (
            f"the answers cannot be written to {tmp_path / 'a.csv'}: {os.strerror(number)}\n{remedy}"
        )
    assert files(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        writer_for(folder / "a.csv").check()


def test_a_write_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    monkeypatch.setattr("producer.answers.target.os.access", lambda *_: False)
    with pytest.raises(OutputError, match="the file is write-protected\nName a file in a folder you may write to"):
        writer_for(path).check()
    assert path.read_text() == "old"


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("producer.answers.target.os.fsync", full)
    with pytest.raises(OutputError, match="The disk is full"):
        writer_for(path).write([job("a")])
    assert path.read_text() == "old"
    assert files(tmp_path) == ["a.jsonl"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "no" / "a.csv")
    for attempt in (writer.check, lambda: writer.write([])):
        with pytest.raises(OutputError) as caught:
            attempt()
        assert str(caught.value) == (
            f"the answers cannot be written to {tmp_path / 'no' / 'a.csv'}: there is no folder {tmp_path / 'no'}\n"
            f"Create it (mkdir -p {tmp_path / 'no'}), or name another place."
        )


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OutputError, match=r"it is a folder\nName a file, e\.g\. "):
        writer_for(tmp_path / "a.csv").check()


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Choose a shorter name"):
        writer_for(tmp_path / ("x" * 300 + ".csv")).write([])


def test_a_long_name_is_no_reason_to_fail(tmp_path: Path) -> None:
    name = "光" * 80 + ".csv"
    writer_for(tmp_path / name).write([job("a")])
    assert files(tmp_path) == [name]


def test_a_device_is_written_as_it_is() -> None:
    writer = writer_for("/dev/null", format="csv")
    writer.check()
    assert writer.write([job("a")]) == 1
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


# Streams


class _Failing(io.BytesIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.name = "<stdout>"

    def write(self, data: Any, /) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_whose_reader_went_away(form: str) -> None:
    with pytest.raises(BrokenPipeError):
        writer_for(format=form, stream=_Failing(errno.EPIPE)).write([job("a")])


@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_that_cannot_be_written(form: str) -> None:
    with pytest.raises(OutputError, match="the answers cannot be written to <stdout>: No space left on device"):
        writer_for(format=form, stream=_Failing(errno.ENOSPC)).write([job("a")])


@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_stays_open(form: str) -> None:
    stream = io.BytesIO()
    writer_for(format=form, stream=stream).write([job("a")])
    stream.write(b"more")


def test_standard_output_is_the_stream_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()

    class Standard:
        buffer: BinaryIO = out

    monkeypatch.setattr("sys.stdout", Standard())
    writer_for().write([job("a")])
    assert json.loads(out.getvalue())["answer"] == "yes"


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_answers(tmp_path: Path, form: str) -> None:
    def many() -> Iterator[Job]:
        for number in range(3_000):
            yield job(Question(row_id=f"r{number}", index=number, text="q", input={"x": "y" * 500}), answer="a" * 2_000)

    tracemalloc.start()
    try:
        writer_for(tmp_path / "a", format=form).write(many())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 6_000_000
    assert peak < 2_000_000
