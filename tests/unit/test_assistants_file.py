"""Assistant files: read whole, checked whole, every problem with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from askq.assistants.file import check, describe, find, load, names, schema
from askq.assistants.lines import line_of
from askq.assistants.model import Assistant
from askq.errors import AssistantError

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path


def read(folder: Path, text: str) -> Assistant:
    write(folder, text)
    return load("mine", folder=folder, default_model="a-model", default_protocol="responses")


def test_an_empty_file_is_an_assistant(tmp_path: Path) -> None:
    assistant = read(tmp_path, "")
    assert (assistant.name, assistant.model, assistant.protocol) == ("mine", "a-model", "responses")
    assert assistant.timeout_s == 3600


def test_everything_a_file_can_say(tmp_path: Path) -> None:
    (tmp_path / "words.md").write_text("Be brief.\n", "utf-8")
    (tmp_path / "answer.json").write_text('{"type": "object"}', "utf-8")
    assistant = read(
        tmp_path,
        """
        description = "d"
        model = "m"
        api = "assistants"
        assistant_id = "asst_1"
        instructions_file = "words.md"
        temperature = 0.5
        top_p = 1
        tools = ["code_interpreter", { type = "file_search", file_search = { max_num_results = 3 } }]
        max_completion_tokens = 100
        max_prompt_tokens = 1000
        truncation = "auto"
        service_tier = "flex"

        [tool_resources.file_search]
        vector_store_ids = ["vs_1"]

        [reasoning]
        effort = "low"

        [text.format]
        type = "json_schema"
        name = "answer"
        schema_file = "answer.json"

        [run]
        timeout = "90s"
        on_uncertain = "retry"

        [metadata]
        team = "support"
        """,
    )
    assert assistant == Assistant(
        name="mine",
        protocol="assistants",
        model="m",
        assistant_id="asst_1",
        description="d",
        instructions="Be brief.",
        temperature=0.5,
        top_p=1,
        tools=({"type": "code_interpreter"}, {"type": "file_search", "max_num_results": 3}),
        tool_resources={"file_search": {"vector_store_ids": ["vs_1"]}},
        reasoning_effort="low",
        text_format={"type": "json_schema", "name": "answer", "schema": {"type": "object"}},
        max_output_tokens=100,
        max_prompt_tokens=1000,
        truncation="auto",
        service_tier="flex",
        timeout_s=90.0,
        on_uncertain="retry",
        metadata={"team": "support"},
    )
    assert Assistant.from_json(assistant.to_json()) == assistant
    assert describe(assistant)["digest"] == assistant.digest


def test_the_digest_names_the_contents_of_every_file(tmp_path: Path) -> None:
    words = tmp_path / "words.md"
    words.write_text("Be brief.", "utf-8")
    first = read(tmp_path, 'instructions_file = "words.md"')
    words.write_text("Be verbose.", "utf-8")
    second = read(tmp_path, 'instructions_file = "words.md"')
    assert first.digest != second.digest
    assert first.digest == dataclasses.replace(second, instructions="Be brief.").digest


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('modle = "x"', 1, "unknown key 'modle'; did you mean 'model'?"),
        ("temperature = 9", 1, "temperature: 9 is greater than the maximum of 2"),
        ('\nmodel = ""', 2, "model: "),
        ('protocol = "smtp"', 1, "protocol is 'smtp'; allowed: responses, assistants"),
        ('model = "a\n', 1, "is not TOML"),
        ('a = 1\n\n[run]\ntimeout = "ten"', 4, "run.timeout is 'ten'"),
        ("[run]\ntimeout = 0", 2, "seconds above 0"),
        ('[run]\ntimout = "1m"', 2, "unknown key 'timout'; did you mean 'timeout'?"),
        ('instructions_file = "nothing.md"', 1, "cannot be read"),
        ('instructions = "a"\ninstructions_file = "b"', 2, "exclude each other"),
        ('tools = [{ type = "function" }]', 1, "functions are not supported yet"),
        ('tools = [{ type = "code_interpretr" }]', 1, "unknown tool 'code_interpretr'; did you mean"),
        ('tools = ["code_interpretr"]', 1, "unknown tool 'code_interpretr'; did you mean 'code_interpreter'?"),
        ('protocol = "responses"\nassistant_id = "asst_1"', 2, 'needs protocol = "assistants"'),
        ('assistant_id = "x"', 1, "assistant_id: "),
        (
            'protocol = "assistants"\n[background_options]\ncompletion_window = "8h"',
            3,
            'completion windows need protocol = "responses"',
        ),
        ("max_output_tokens = 1\nmax_completion_tokens = 1", 2, "are the same; keep one"),
        ('reasoning_effort = "low"\n[reasoning]\neffort = "low"', 1, "are the same; keep one"),
        ('[text.format]\ntype = "json_schema"\nname = "a"', 1, "needs schema or schema_file"),
        ('[text.format]\ntype = "json_schema"\nname = "a"\nschema = { type = 3 }', 4, "is not a JSON Schema"),
        ('[text.format]\ntype = "json_schema"\nname = "a"\nschema_file = "no.json"', 4, "cannot be read"),
        ('[text.format]\ntype = "json_schema"\nname = "a"\nschema_file = "bad.json"', 4, "is not JSON"),
        ('[text.format]\ntype = "json_schema"\nschema = {}', 1, "needs a name"),
        ("[metadata]\nnumber = 3", 2, "metadata.number: 3 is not of type 'string'"),
    ],
)
def test_each_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    (tmp_path / "bad.json").write_text("{", "utf-8")
    path = write(tmp_path, text)
    problems = check(path)
    assert any(told in problem.message and problem.line == line for problem in problems), problems
    assert all(problem.file == str(path) for problem in problems)
    with pytest.raises(AssistantError, match="askq assistants validate"):
        load("mine", folder=tmp_path, default_model="m", default_protocol="responses")


def test_all_mistakes_are_told_together_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, 'modle = "x"\ntemperature = 9\ntop_p = 7\n[run]\ntimeout = "x"\n')
    assert [problem.line for problem in check(path)] == [1, 2, 3, 5]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'model = "m"\ndescription = "\xff"\n')
    (problem,) = check(path)
    assert (problem.line, problem.message) == (2, "is not UTF-8 text; save it as UTF-8")


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "", "support")
    with pytest.raises(AssistantError) as caught:
        find("suport", folder=tmp_path)
    told = str(caught.value)
    assert "known: plain, support, tutor. Did you mean support?" in told
    with pytest.raises(AssistantError, match="there is no assistant file"):
        find("nowhere/x.toml", folder=tmp_path)


def test_those_that_came_with_askq_are_there_without_a_folder(tmp_path: Path) -> None:
    assert names(tmp_path / "nothing") == ["plain", "tutor"]
    tutor = load("tutor", folder=tmp_path / "nothing", default_model="m", default_protocol="responses")
    assert tutor.uses("code_interpreter")
    write(tmp_path, 'description = "my own"', "tutor")
    assert load("tutor", folder=tmp_path, default_model="m", default_protocol="responses").description == "my own"


@pytest.mark.parametrize("path", sorted((ROOT / "assistants").glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_have_nothing_wrong(path: Path) -> None:
    assert check(path) == []


def test_the_published_schema_describes_itself() -> None:
    assert schema()["title"] == "askq assistant"


def test_lines_of_keys() -> None:
    text = 'a = 1\nb.c = """\nd = 4\n"""\n[e]\nf = { g = 1 }\n[[h]]\ni = 1\n'
    assert line_of(text, ["a"]) == 1
    assert line_of(text, ["b", "c"]) == 2
    assert line_of(text, ["d"]) is None, "a key inside a text is none"
    assert line_of(text, ["e", "f", "g"]) == 6
    assert line_of(text, ["h", 0, "i"]) == 8
    assert line_of(text, ["e", "unknown"]) == 5, "the nearest above"
