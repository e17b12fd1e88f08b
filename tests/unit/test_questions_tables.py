"""CSV and TSV lists: delimiters, quoting, headers, ragged rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askq.errors import InputError
from askq.jobs.model import Question
from producer.questions import QuestionList, Summary, open_list


def read(
    tmp_path: Path, content: str | bytes, *, name: str = "q.csv", column: str | None = None
) -> tuple[Summary, list[Question]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_list(path, column=column) as questions:
        return questions.check(), list(questions)


def refused(tmp_path: Path, content: str | bytes, *, name: str = "q.csv", column: str | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name=name, column=column)
    return caught.value


def told(error: InputError) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.message) for problem in error.problems]


def test_every_part_of_a_row_finds_its_place(tmp_path: Path) -> None:
    summary, questions = read(
        tmp_path,
        "id,question,assistant,model,instructions,expected,Sprache\r\n"
        "a-1,What is 2+2?,maths,m-1,Be short.,4,de\r\n"
        "a-2,Why?,,,,,\r\n",
    )
    assert questions == [
        Question(
            row_id="a-1",
            index=0,
            text="What is 2+2?",
            assistant="maths",
            model="m-1",
            instructions="Be short.",
            input={"expected": "4", "Sprache": "de"},
        ),
        Question(row_id="a-2", index=1, text="Why?", input={"expected": "", "Sprache": ""}),
    ]
    assert summary.columns == ("id", "question", "assistant", "model", "instructions", "expected", "Sprache")
    assert summary.roles == {
        "id": "id",
        "question": "question",
        "assistant": "assistant",
        "model": "model",
        "instructions": "instructions",
    }
    assert summary.assistants == {"maths": 2}
    assert (summary.rows, summary.format, summary.notes) == (2, "csv", ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_read_off_the_header_alone(tmp_path: Path, delimiter: str) -> None:
    header = delimiter.join(("id", "question", "lang"))
    row = delimiter.join(("1", '"a, b; c\td, e; f, g"', "de"))
    _, [question] = read(tmp_path, f"{header}\n{row}\n")
    assert question.text == "a, b; c\td, e; f, g"
    assert question.input == {"lang": "de"}


def test_commas_inside_a_quoted_name_do_not_count(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, '"a, b, c, d";question\n1;x\n')
    assert question.text == "x"
    assert question.input == {"a, b, c, d": "1"}


def test_a_single_column_needs_no_quotes_around_commas(tmp_path: Path) -> None:
    _, questions = read(tmp_path, 'question\nWhat is 2, 3; and 4?\n"Two\nlines, ""quoted"""\n')
    assert [question.text for question in questions] == ["What is 2, 3; and 4?", 'Two\nlines, "quoted"']


def test_german_excel(tmp_path: Path) -> None:
    content = 'sep=;\r\nID;Frage;question\r\n7;"Größe; Maß?";"Wie groß ist 3,5 €?"\r\n'
    summary, [question] = read(tmp_path, content.encode("cp1252"))
    assert (question.row_id, question.text, dict(question.input)) == (
        "7",
        "Wie groß ist 3,5 €?",
        {"Frage": "Größe; Maß?"},
    )
    [note] = summary.notes
    assert "is not UTF-8; it was read as Windows-1252" in note


def test_tsv_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    _, questions = read(tmp_path, 'id\tquestion\nx\t"line 1\nline 2"\ny\ta, b\n', name="q.tsv")
    assert [(question.row_id, question.text) for question in questions] == [("x", "line 1\nline 2"), ("y", "a, b")]


def test_a_blank_before_a_quote_is_understood_where_the_header_has_it(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, '"id", "question"\n"1", "a, b"\n')
    assert (question.row_id, question.text) == ("1", "a, b")


def test_lines_of_problems_are_those_where_rows_start(tmp_path: Path) -> None:
    error = refused(tmp_path, '\nid,question\n1,"a\nb"\n2,\n3,"c\nd\ne"\n1,x\n,  \n')
    assert told(error) == [
        (5, "the question is empty"),
        (9, 'the id "1" is used already in line 3'),
        (10, "the question is empty"),
    ]
    assert str(error).startswith(f'{tmp_path / "q.csv"}:5: the question is empty (column "question")\n')


def test_ragged_rows(tmp_path: Path) -> None:
    error = refused(tmp_path, "id,question,lang\n1,a\n2,a,b,c\n3,fine,de,,\n4,a,b,c,d\n5\n")
    assert told(error) == [
        (2, "the row has 2 cells, the header has 3"),
        (3, "the row has 4 cells, the header has 3; a cell with the delimiter in it must stand in quotes"),
        (5, "the row has 5 cells, the header has 3; a cell with the delimiter in it must stand in quotes"),
        (6, "the row has 1 cell, the header has 3"),
    ]
    assert error.remedy == "Nothing was queued; correct the list and try again."


def test_empty_rows_of_spreadsheets_are_skipped_and_said(tmp_path: Path) -> None:
    summary, questions = read(tmp_path, "id,question\n1,a\n,\n\n2,b\n,\n")
    assert [question.text for question in questions] == ["a", "b"]
    assert summary.notes == ("2 rows with nothing in any cell were skipped",)


def test_an_empty_cell_of_a_single_column_is_an_empty_question(tmp_path: Path) -> None:
    assert told(refused(tmp_path, 'question\na\n""\n')) == [(3, "the question is empty")]


def test_a_quote_that_is_not_closed_does_not_swallow_questions(tmp_path: Path) -> None:
    error = refused(tmp_path, 'id,question\n1,fine\n2,"never closed\n3,x\n4,y\n')
    assert told(error) == [
        (
            3,
            (
                "the row that starts here breaks in line 5: the closing quote of a cell is missing; "
                "nothing after it was read"
            ),
        )
    ]


def test_a_quote_that_closes_too_early(tmp_path: Path) -> None:
    error = refused(tmp_path, 'id,question\n1,"a "big" word"\n2,\n')
    assert told(error) == [
        (2, 'after a closing quote only a delimiter may follow; a quote inside a quoted cell is written ""'),
        (3, "the question is empty"),
    ]
    [(line, message)] = told(refused(tmp_path, 'id,question\n1,"open\n2,"next"\n3,\n'))
    assert line == 2
    assert message.startswith("the row that starts here breaks in line 3: after a closing quote")


def test_a_broken_header(tmp_path: Path) -> None:
    assert told(refused(tmp_path, 'id,"question\n1,x\n')) == [
        (
            1,
            (
                "the row that starts here breaks in line 2: the closing quote of a cell is missing; "
                "nothing after it was read"
            ),
        )
    ]


def test_huge_cells_are_read(tmp_path: Path) -> None:
    big = "wörd " * 40_000
    _, [question] = read(tmp_path, f'id,question,other\n1,"{big}",x\n')
    assert question.text == big
    assert len(question.text) > 131_072  # the csv module's own limit


def test_a_cell_without_end_stops_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit()
    monkeypatch.setattr("producer.questions.delimited.CELL_LIMIT", before)
    csv.field_size_limit(1000)
    monkeypatch.setattr("producer.questions.delimited.CELL_LIMIT", 1000)
    try:
        [(line, message)] = told(refused(tmp_path, 'id,question\n1,"' + "x\n" * 2000))
    finally:
        csv.field_size_limit(before)
    assert line == 2
    assert "is a closing quote missing?" in message


def test_a_name_twice(tmp_path: Path) -> None:
    error = refused(tmp_path, "question,lang,lang\na,b,c\n")
    assert told(error) == [(1, 'the column "lang" is there twice')]
    assert error.remedy == "Rename one of them."


def test_columns_without_a_name_are_kept_where_they_hold_something(tmp_path: Path) -> None:
    summary, questions = read(tmp_path, ",question,\n0,a,\n1,b,note\n")
    assert [dict(question.input) for question in questions] == [
        {"column_1": "0"},
        {"column_1": "1", "column_3": "note"},
    ]
    assert summary.columns == ("question", "column_1", "column_3")


def test_a_header_that_is_a_question_is_asked_too(tmp_path: Path) -> None:
    summary, questions = read(tmp_path, "What is 2+2?\nWhat is 3+3?\n")
    assert [question.text for question in questions] == ["What is 2+2?", "What is 3+3?"]
    assert [question.row_id for question in questions] == ["q0001", "q0002"]
    assert summary.columns == ("question",)
    assert summary.notes == (
        (
            'the first line ("What is 2+2?") reads like a question, not like the name of a column, so it is asked too; '
            "if it is a name, say so with --column"
        ),
    )


@pytest.mark.parametrize("first", ["光の速さは？", "Name the five largest lakes", "Explain gravity.", "x" * 61])
def test_what_reads_like_a_question(tmp_path: Path, first: str) -> None:
    _, questions = read(tmp_path, f"{first}\nb\n")
    assert [question.text for question in questions] == [first, "b"]


@pytest.mark.parametrize("header", ["Question?", "QUESTION:", " prompt "])
def test_a_known_name_with_a_mark_is_a_name(tmp_path: Path, header: str) -> None:
    summary, questions = read(tmp_path, f"{header}\nb\n")
    assert [question.text for question in questions] == ["b"]
    assert summary.notes == ()


def test_a_named_column_is_never_taken_for_a_question(tmp_path: Path) -> None:
    _, questions = read(tmp_path, "What do you ask?\nb\n", column="What do you ask?")
    assert [question.text for question in questions] == ["b"]


def test_a_headless_line_with_commas_is_explained(tmp_path: Path) -> None:
    error = refused(tmp_path, "What is 2, 3 and 4?\nWhat is 5, 6 and 7?\n")
    assert error.remedy is not None
    assert error.remedy.startswith(
        "The first line reads like a question: if there is no header line, name the file .txt"
    )


def test_a_header_alone_holds_no_question(tmp_path: Path) -> None:
    assert told(refused(tmp_path, "id,question\n")) == [(None, "there is no question in it")]


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.txt", "q.jsonl", "q.json"])
@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    error = refused(tmp_path, content, name=name)
    assert told(error) == [(None, "there is no question in it")]
    assert str(error).startswith(f"{tmp_path / name}: there is no question in it\n")


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_NAMES = st.lists(
    st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8).map(lambda name: f"c_{name}"),
    unique=True,
    max_size=4,
)


@given(names=_NAMES, data=st.data(), delimiter=st.sampled_from(",;\t"))
def test_whatever_the_csv_module_writes_is_carried_through(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject, delimiter: str
) -> None:
    rows = data.draw(st.lists(st.lists(_CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=5))
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["question", *names])
    writer.writerows([f"question {number}", *row] for number, row in enumerate(rows))
    path = tmp_path_factory.mktemp("table") / "q.csv"
    path.write_bytes(file.getvalue().encode())
    questions: QuestionList = open_list(path)
    assert [dict(question.input) for question in questions] == [dict(zip(names, row, strict=True)) for row in rows]
