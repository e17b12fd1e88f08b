"""Which column is the question, what options say about it, and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from askq.errors import InputError
from askq.jobs.model import Question
from producer.questions import Summary, from_items, open_list


def read(
    tmp_path: Path,
    content: str,
    *,
    name: str = "q.csv",
    column: str | None = None,
    id_column: str | None = None,
    template: str | None = None,
) -> tuple[Summary, list[Question]]:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with open_list(path, column=column, id_column=id_column, template=template) as questions:
        return questions.check(), list(questions)


def told(caught: pytest.ExceptionInfo[InputError]) -> list[str]:
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(
    "name", ["question", "Question", "INPUT", "prompt", "Text", "query", " Qu_estion ", "question:"]
)
def test_names_of_the_question(tmp_path: Path, name: str) -> None:
    _, [question] = read(tmp_path, f"{name},other\na,b\n")
    assert (question.text, dict(question.input)) == ("a", {"other": "b"})


@pytest.mark.parametrize("name", ["id", "ID", "custom_id", "Custom ID", "customId", "key"])
def test_names_of_the_id(tmp_path: Path, name: str) -> None:
    summary, [question] = read(tmp_path, f"question,{name}\na,b\n")
    assert question.row_id == "b"
    assert summary.roles == {"question": "question", name: "id"}


def test_of_several_known_names_the_first_in_rank_is_the_question(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "text,key,prompt,id\na,b,c,d\n")
    assert (question.text, question.row_id, dict(question.input)) == ("c", "d", {"text": "a", "key": "b"})


def test_options_outrank_known_names(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "id,question,Frage,nr\na,b,c,d\n", column="frage", id_column="NR")
    assert (question.text, question.row_id, dict(question.input)) == ("c", "d", {"id": "a", "question": "b"})


def test_a_known_id_may_be_the_question_when_said(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "id,key\na,b\n", column="id")
    assert (question.text, question.row_id) == ("a", "b")


def test_an_only_column_is_used_and_said(tmp_path: Path) -> None:
    summary, [question] = read(tmp_path, "Frage\nWarum?\n")
    assert question.text == "Warum?"
    assert summary.roles == {"Frage": "question"}
    assert summary.notes == ('no column is called question: the only one, "Frage", was taken as the question',)


def test_an_only_column_that_means_something_else_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column is called question") as caught:
        read(tmp_path, "id\n1\n")
    assert caught.value.remedy == 'Say which column holds the question with --column, one of "id".'


def test_several_unknown_columns_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "qestion,lang\na,b\n")
    assert told(caught) == ['no column is called question, input, prompt, text or query; there is "qestion", "lang"']
    assert caught.value.problems[0].line == 1
    assert caught.value.remedy == 'Say which column holds the question with --column, e.g. --column "qestion".'


def test_many_columns_are_cut_and_shown_on_one_line(tmp_path: Path) -> None:
    names = ",".join(["a\x07b", "x" * 80, *(f"c{number}" for number in range(20))])
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"{names}\n")
    [message] = told(caught)
    shown = ['"a\ufffdb"', f'"{"x" * 59}…"', *(f'"c{number}"' for number in range(10))]
    assert message.endswith(f"there is {', '.join(shown)} and 10 more")


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "id,Frage\n1,a\n", column="Farge")
    assert told(caught) == ['there is no column "Farge"; there is "id", "Frage"']
    assert caught.value.remedy == 'Did you mean --column "Frage"?'
    with pytest.raises(InputError) as caught:
        read(tmp_path, "id,question\n1,a\n", id_column="zzz")
    assert caught.value.remedy == "Name one of these with --id-column."


def test_one_column_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"a" cannot be both the question and the id'):
        read(tmp_path, "a,b\n1,2\n", column="a", id_column="A")


def test_columns_without_a_meaning_are_carried(tmp_path: Path) -> None:
    (tmp_path / "f.pdf").write_text("x")
    summary, [question] = read(tmp_path, "question,File,expected,meta.team\na,f.pdf,4,red\n")
    assert dict(question.input) == {"File": "f.pdf", "expected": "4", "meta.team": "red"}
    assert summary.notes == ()
    assert summary.roles == {"question": "question", "File": "file"}


def test_a_template_makes_the_question(tmp_path: Path) -> None:
    summary, questions = read(
        tmp_path, "id,lang,question\n1,German,cat\n2,,dog\n", template="Translate to {Lang}: {question} {{sic}}"
    )
    assert [question.text for question in questions] == ["Translate to German: cat {sic}", "Translate to : dog {sic}"]
    assert dict(questions[0].input) == {"lang": "German", "question": "cat"}
    assert summary.roles == {"id": "id"}


def test_a_template_reaches_columns_of_any_name(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "meta.x,a[0],Frage\n1,2,3\n", template="{meta.x}{a[0]}{question}", column="Frage")
    assert question.text == "123"


def test_a_template_needs_no_question_column(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "word,lang\ncat,German\n", template="{word} in {lang}?")
    assert question.text == "cat in German?"


def test_an_empty_question_in_a_template_is_an_empty_question(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "question,lang\n ,de\na,de\n", template="To {lang}: {question}")
    assert told(caught) == ["the question is empty"]
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, "question")


def test_a_template_over_plain_lines_and_json(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, "cat\n", name="q.txt", template="What is a {question}?")
    assert question.text == "What is a cat?"
    values = {"question": "q", "n": 3, "ok": True, "none": None, "list": ["ä"], "half": 0.5}
    [made] = from_items([values], template="{question} {n} {ok} {none} {list} {half}")
    assert made.text == 'q 3 true  ["ä"] 0.5'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question.__class__}", "the template names {question.__class__}, but there is no such column"),
        ("{question[0]}", "the template names {question[0]}, but there is no such column"),
        ("{lnag}", 'the template names {lnag}, but there is no such column; there is "question", "lang"'),
        ("{question!r}", "formats {question}"),
        ("{question:>10}", "formats {question}"),
        ("{}", "has empty braces"),
        ("{question", "cannot be read: expected '}' before end of string"),
        ("question}", "cannot be read: Single '}' encountered"),
        ("the same for all", "names no column: every row would ask the same"),
    ],
)
def test_wrong_templates(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "question,lang\na,b\n", template=template)
    [problem] = told(caught)
    assert message in problem
    assert caught.value.remedy


def test_a_misspelt_name_in_a_template_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "question,lang\na,b\n", template="{lnag} {question}")
    assert caught.value.remedy == "Did you mean {lang}?"


def test_a_list_with_ever_new_columns_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        from_items({"question": "a", f"key{number}": 1} for number in range(2_001))
    assert "the list has more than 2,000 different columns" in told(caught)[0]


def test_a_letter_that_is_wrong_in_korean_is_one_of_three_in_its_syllable(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "번호,질문\n1,a\n", column="질뭄")
    assert caught.value.remedy == 'Did you mean --column "질문"?'
