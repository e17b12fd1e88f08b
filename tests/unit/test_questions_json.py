"""JSON Lines, JSON lists, and requests of OpenAI's Batch API."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askq.errors import InputError
from askq.jobs.model import Question
from producer.questions import Summary, open_list
from producer.questions.json_rows import read_list
from producer.questions.reading import Notes, Row
from producer.strict_json import JsonFault, parse


def read(
    tmp_path: Path, content: str, *, name: str = "q.jsonl", form: str | None = None
) -> tuple[Summary, list[Question]]:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with open_list(path, format=form) as questions:
        return questions.check(), list(questions)


def refused(
    tmp_path: Path, content: str, *, name: str = "q.jsonl", form: str | None = None
) -> tuple[list[tuple[int | None, str]], str | None]:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name=name, form=form)
    return [(problem.line, problem.message) for problem in caught.value.problems], caught.value.remedy


@pytest.mark.parametrize("name", ["q.jsonl", "q.ndjson"])
def test_a_string_or_an_object_per_line(tmp_path: Path, name: str) -> None:
    _, questions = read(
        tmp_path,
        '"What is 2+2?"\n\n{"id": 7, "Question": "Why?", "meta.x": {"deep": [1, 2.5, null, true]}}\n',
        name=name,
    )
    assert questions == [
        Question(row_id="q0001", index=0, text="What is 2+2?"),
        Question(row_id="7", index=1, text="Why?", input={"meta.x": {"deep": [1, 2.5, None, True]}}),
    ]


def test_a_list(tmp_path: Path) -> None:
    content = ' [ "a" ,\n{"question": "b", "n": 12},\n\n"c\\n\\u00e9"\n]\n'
    summary, questions = read(tmp_path, content, name="q.json")
    assert [question.text for question in questions] == ["a", "b", "c\né"]
    assert summary.columns == ("question", "n")
    assert refused(tmp_path, "[]", name="q.json")[0] == [(None, "there is no question in it")]


def test_objects_of_different_shapes(tmp_path: Path) -> None:
    summary, questions = read(
        tmp_path, '{"question": "a", "x": 1}\n{"prompt": "b", "id": "z"}\n{"y": 2, "question": "c", "prompt": "kept"}\n'
    )
    assert [(question.text, dict(question.input)) for question in questions] == [
        ("a", {"x": 1}),
        ("b", {}),
        ("c", {"y": 2, "prompt": "kept"}),
    ]
    assert summary.columns == ("question", "x", "prompt", "id", "y")


def test_wrong_lines_are_all_told(tmp_path: Path) -> None:
    problems, _ = refused(
        tmp_path,
        "\n".join(
            (
                '{"question": "a"',
                "{'question': 'a'}",
                '{"question": "a", "question": "b"}',
                '{"question": "a", "x": NaN}',
                '{"question": "a", "x": -Infinity}',
                '{"question": "a", "x": 1e999}',
                '{"question": "a", "x": {"y": {"z": 1, "z": 2}}}',
                '{"question": 5}',
                '{"question": null}',
                '{"question": "  "}',
                '{"a": 1, "b": 2}',
                "{}",
                "17",
                "null",
                "true",
                "[1]",
                '"half \\ud83e"',
                '"nul \\u0000"',
                '{"question": "a", "id": true}',
                '{"question": "a", "id": 1.5}',
                '{"question": "a", "model": ["m"]}',
                '{"question": "a", "assistant": {}}',
                '{"question": "a", "instructions": "\\u0000"}',
                '{"question": "a", "x": 1' + "0" * 5000 + "}",
                "[" * 100_000,
                '{"question": "a", "x": ' + "[" * 70 + "]" * 70 + "}",
            )
        ),
    )
    nested = "it is nested deeper than 64 levels"
    assert problems == [
        (1, "not valid JSON: Expecting ',' delimiter (character 17)"),
        (2, "not valid JSON: Expecting property name enclosed in double quotes (character 2)"),
        (3, 'the key "question" is there twice'),
        (4, "NaN is not a JSON value"),
        (5, "-Infinity is not a JSON value"),
        (6, "the number 1e999 is too large"),
        (7, 'the key "z" is there twice'),
        (8, "the question must be text, not a number"),
        (9, "the question is empty"),
        (10, "the question is empty"),
        (11, 'no column is called question, input, prompt, text or query; there is "a", "b"'),
        (12, "no column is called question, input, prompt, text or query; the object is empty"),
        (13, "a string or an object is expected, not a number"),
        (14, "a string or an object is expected, not null"),
        (15, "a string or an object is expected, not true or false"),
        (16, "a string or an object is expected, not a list"),
        (17, "\\ud83e is half a character (a lone surrogate)"),
        (18, "there is a NUL character in the question"),
        (19, "the id must be text or a whole number, not true or false"),
        (20, "the id must be text or a whole number, not a number"),
        (21, "model must be text, not a list"),
        (22, "assistant must be text, not an object"),
        (23, "there is a NUL character in instructions"),
        (24, "a number has 5,001 digits"),
        (25, nested),
        (26, nested),
    ]


def test_brackets_inside_strings_are_not_nesting(tmp_path: Path) -> None:
    text = '[{"' * 200 + "\\\\"
    _, [question] = read(tmp_path, json.dumps({"question": text, "x": [[["]"]]]}) + "\n")
    assert question.text == text


def test_a_list_under_the_name_of_lines_and_the_reverse(tmp_path: Path) -> None:
    problems, remedy = refused(tmp_path, '[\n"a",\n"b"\n]')
    assert problems == [(1, "a line starts with [")]
    assert remedy == "If the file is one JSON list, say --format json."
    problems, remedy = refused(tmp_path, '\n{"question": "a"}\n', name="q.json")
    assert problems == [(2, "a JSON list ([ … ]) is expected")]
    assert remedy is not None
    assert "--format jsonl" in remedy


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[\n"a"\n"b"]', (3, 'a comma or ] is expected, not """; nothing after it was read')),
        ('[\n"a",\n"b"\n', (4, "a comma or ] is expected, not the end of the file; nothing after it was read")),
        ('["a",\n]', (2, "not valid JSON: Expecting value (in line 2); nothing after it was read")),
        ('["a",\n"b', (2, "not valid JSON: Unterminated string starting at (in line 2); nothing after it was read")),
        (
            '["a",\n{"question": "b",\n"x": }]',
            (2, "not valid JSON: Expecting value (in line 3); nothing after it was read"),
        ),
        ('["a"]\n"b"', (2, "there is something after the end of the list")),
        ("[" * 100_000, (1, "it is nested deeper than 64 levels; nothing after it was read")),
    ],
)
def test_broken_lists(tmp_path: Path, content: str, problem: tuple[int, str]) -> None:
    assert refused(tmp_path, content, name="q.json")[0] == [problem]


def test_a_wrong_element_does_not_hide_those_after_it(tmp_path: Path) -> None:
    problems, _ = refused(
        tmp_path, '["ok",\n{"question": "a", "question": "b"},\n[NaN, {"x": 1, "x": 2}],\n3,\n"",\n"ok"]', name="q.json"
    )
    assert problems == [
        (2, 'the key "question" is there twice'),
        (3, "NaN is not a JSON value"),
        (4, "a string or an object is expected, not a number"),
        (5, "the question is empty"),
    ]


def test_an_element_without_end_stops_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.questions.json_rows.ELEMENT_LIMIT", 1 << 20)
    problems, _ = refused(tmp_path, '["' + "x" * 5_000_000, name="q.json")
    assert problems == [(1, "an element is longer than 1 MiB; nothing after it was read")]


class _Dribble(io.StringIO):
    """A text that comes in pieces of one character, so that every place is once the end of what is there."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read(min(size or 1, 1) if size is None or size > 0 else size)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(elements=st.lists(st.dictionaries(st.text(max_size=4), _VALUES, max_size=3), max_size=4))
def test_a_list_is_read_alike_in_pieces_of_any_size(elements: list[dict[str, Any]]) -> None:
    rows = list(read_list(_Dribble(json.dumps(elements, indent=1)), notes=Notes()))
    assert all(isinstance(row, Row) for row in rows)
    assert [dict(zip(row.names, row.values, strict=True)) for row in rows if isinstance(row, Row)] == elements


@given(_VALUES)
def test_strict_json_reads_what_json_writes(value: object) -> None:
    assert parse(json.dumps(value)) == value


def test_strict_json_says_what_is_structural() -> None:
    with pytest.raises(JsonFault) as caught:
        parse("{")
    assert caught.value.structural
    with pytest.raises(JsonFault) as caught:
        parse("[NaN]")
    assert not caught.value.structural


# OpenAI Batch


def batch_line(body: object, **more: object) -> str:
    return json.dumps({"custom_id": "r-1", "method": "POST", "url": "/v1/responses", "body": body, **more}) + "\n"


def test_batch_requests_are_recognised(tmp_path: Path) -> None:
    summary, questions = read(
        tmp_path,
        batch_line({"model": "m-1", "input": "What is 2+2?", "instructions": "Be short."})
        + batch_line(
            {
                "model": "m-2",
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "developer", "content": [{"type": "text", "text": "Be exact."}]},
                    {"role": "user", "content": [{"type": "text", "text": "Why"}, {"type": "text", "text": "not?"}]},
                ],
            },
            custom_id="r-2",
            url="/v1/chat/completions",
        ),
    )
    assert questions == [
        Question(
            row_id="r-1",
            index=0,
            text="What is 2+2?",
            model="m-1",
            instructions="Be short.",
            input={"method": "POST", "url": "/v1/responses"},
        ),
        Question(
            row_id="r-2",
            index=1,
            text="Why\nnot?",
            model="m-2",
            instructions="Be kind.\n\nBe exact.",
            input={"method": "POST", "url": "/v1/chat/completions"},
        ),
    ]
    assert summary.columns == ("custom_id", "method", "url")
    assert summary.roles == {"custom_id": "id"}
    assert summary.notes == ()


def test_batch_input_as_messages_and_instructions_of_both_kinds(tmp_path: Path) -> None:
    items = [
        {"type": "message", "role": "developer", "content": "B"},
        {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]},
    ]
    _, [question] = read(tmp_path, batch_line({"instructions": "A", "input": items}))
    assert (question.text, question.instructions) == ("Why?", "A\n\nB")


def test_unused_fields_of_a_body_are_kept_and_said_once(tmp_path: Path) -> None:
    summary, questions = read(
        tmp_path,
        batch_line({"input": "a", "temperature": 0, "tools": [{"type": "web_search"}]})
        + batch_line({"input": "b", "temperature": 1, "stream": False}, custom_id="r-2"),
    )
    assert questions[0].input["body"] == {"temperature": 0, "tools": [{"type": "web_search"}]}
    assert questions[1].input["body"] == {"temperature": 1, "stream": False}
    assert summary.notes == (
        (
            "fields of Batch requests that are carried through but not sent (set them in the assistant file): "
            '"temperature", "tools", "stream"'
        ),
    )


def test_earlier_messages_are_kept_and_said(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Why?"},
    ]
    summary, [question] = read(tmp_path, batch_line({"messages": messages}))
    assert question.text == "Why?"
    assert question.input["body"] == {"messages": messages}
    assert len(summary.notes) == 1
    assert "only the last user message is asked" in summary.notes[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "the body has neither input (a string or messages) nor messages"),
        ({"messages": []}, "the body has neither input (a string or messages) nor messages"),
        ({"input": 5}, "the body has neither input (a string or messages) nor messages"),
        ({"input": " "}, "the question is empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages has no message by the user"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            'the last message is by "assistant", not by the user',
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            'askq sends text only; a message in input has a part of type "input_image"',
        ),
        (
            {"input": [{"type": "function_call_output", "output": "x"}]},
            'input has an item that is no message: "function_call_output"',
        ),
        ({"input": ["x"]}, 'input has an item that is no message: "x"'),
        ({"messages": [{"role": "user", "content": 3}]}, "the content of a message in messages must be a string or a"),
        ({"messages": [{"role": "user", "content": None}]}, "the question is empty"),
        ({"input": "a", "instructions": []}, "instructions must be a string"),
        ({"input": "a", "model": 4}, "model must be text, not a number"),
    ],
)
def test_batch_requests_that_cannot_be_asked(tmp_path: Path, body: object, message: str) -> None:
    [(line, told)], _ = refused(tmp_path, "\n" + batch_line(body))
    assert line == 2
    assert told.startswith(message)


def test_batch_requests_to_other_endpoints(tmp_path: Path) -> None:
    problems, _ = refused(tmp_path, batch_line({"input": "a"}, url="/v1/embeddings"))
    assert problems == [(1, 'askq answers requests to /v1/responses and /v1/chat/completions, not to "/v1/embeddings"')]


def test_batch_ids_are_checked_like_any(tmp_path: Path) -> None:
    problems, _ = refused(tmp_path, batch_line({"input": "a"}, custom_id="a b") + batch_line({"input": "a"}) * 2)
    assert problems == [(1, 'the id "a b" may not contain blanks'), (3, 'the id "r-1" is used already in line 2')]


def test_batch_format_when_demanded(tmp_path: Path) -> None:
    _, [question] = read(tmp_path, batch_line({"input": "a"}), name="batch.txt", form="openai")
    assert question.text == "a"
    problems, _ = refused(tmp_path, '{"question": "a"}\n"b"\n3\n', form="openai")
    assert problems == [
        (1, "this is no request of the Batch API: custom_id and body are expected"),
        (2, "an object is expected, not a string"),
        (3, "an object is expected, not a number"),
    ]


def test_a_batch_request_without_its_id(tmp_path: Path) -> None:
    nameless = '{"method": "POST", "url": "/v1/responses", "body": {"input": "a"}}\n'
    problems, _ = refused(tmp_path, batch_line({"input": "a"}) + nameless)
    assert problems == [(2, "this request of the Batch API has no custom_id")]
