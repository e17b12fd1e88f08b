"""Assistant files: read whole, checked whole, every problem with its line."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from jsonschema import Draft202012Validator
from openai.types.responses.file_search_tool_param import FileSearchToolParam
from openai.types.responses.tool_param import CodeInterpreter, ImageGeneration, Mcp
from openai.types.responses.web_search_tool_param import WebSearchToolParam

from askq.assistants.checks import TOOL_KEYS
from askq.assistants.file import check, describe, find, load, names, schema
from askq.assistants.model import Assistant
from askq.errors import AssistantError
from config.settings import Settings

ROOT = Path(__file__).parents[2]
SDK_TOOLS = (CodeInterpreter, FileSearchToolParam, WebSearchToolParam, Mcp, ImageGeneration)


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


def test_functions_are_described_by_their_module_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "home.py").write_text(
        "from askq.tools import tool\n\n@tool(once=True, timeout_s=5)\ndef light(on: bool) -> str:\n"
        "    'Switch the light.'\n    return ''\n"
    )
    made = read(tmp_path, 'tools = ["home:light", "code_interpreter"]\n[run]\nmax_rounds = 3')
    assert made.tools[1] == {"type": "code_interpreter"}
    assert (made.tools[0]["type"], made.tools[0]["name"], made.tools[0]["strict"]) == ("function", "light", True)
    how = {"module": "home", "function": "light", "folder": str(tmp_path), "timeout_s": 5, "once": True}
    assert made.functions == {"light": how}
    assert made.most_rounds == 3
    assert Assistant.from_json(made.to_json()) == made
    other = read(tmp_path, 'tools = ["home:light"]')
    (tmp_path / "home.py").write_text((tmp_path / "home.py").read_text().replace("on: bool", "on: int"))
    assert read(tmp_path, 'tools = ["home:light"]').digest != other.digest, "the schema is part of what is asked"


def test_an_assistant_without_functions_has_the_digest_it_had() -> None:
    plain = Assistant(name="plain", protocol="responses", model="m")
    assert "functions" not in plain.to_json()
    assert "max_rounds" not in plain.to_json()


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
        ("temperature = 9", 1, "temperature is 9; the most is 2"),
        ("[limits]\nrequests_per_minute = 0", 2, "limits.requests_per_minute is 0; the least is 1"),
        ("[limits]\ntokens_per_minute = -5", 2, "limits.tokens_per_minute is -5; the least is 1"),
        (
            "[limits]\n\nrequests_per_minute = 99999999999",
            3,
            "requests_per_minute is 99999999999; the most is 10000000",
        ),
        ("[limits]\nrequests_per_minute = 0.5", 2, "requests_per_minute is 0.5; write a whole number"),
        ("[limits]\ntokens_per_minute = inf", 2, "tokens_per_minute is inf; write"),
        ('[limits]\nrequests_per_minute = "many"', 2, "requests_per_minute is 'many'; write a whole number"),
        (
            "[limits]\nrequests_per_second = 3",
            2,
            "unknown key 'requests_per_second'; did you mean 'requests_per_minute'?",
        ),
        ('\nmodel = ""', 2, "model is empty; write something, or leave it out"),
        ('protocol = "smtp"', 1, "protocol is 'smtp'; allowed: responses, assistants"),
        ('model = "a\n', 1, "is not TOML"),
        ('a = 1\n\n[run]\ntimeout = "ten"', 4, "run.timeout is 'ten'"),
        ("[run]\ntimeout = 0", 2, "seconds above 0"),
        ('[run]\ntimout = "1m"', 2, "unknown key 'timout'; did you mean 'timeout'?"),
        ('instructions_file = "nothing.md"', 1, "cannot be read"),
        ('instructions = "a"\ninstructions_file = "b"', 2, "exclude each other"),
        ('tools = [{ type = "function" }]', 1, "name a function by its module"),
        ('tools = [{ type = "code_interpretr" }]', 1, "unknown tool 'code_interpretr'; did you mean"),
        ('tools = ["code_interpretr"]', 1, "unknown tool 'code_interpretr'; did you mean 'code_interpreter'?"),
        ('protocol = "responses"\nassistant_id = "asst_1"', 2, 'needs protocol = "assistants"'),
        ('assistant_id = "x"', 1, "assistant_id is 'x'; it begins with asst_"),
        ('assistant_id = "asst_1"', 1, 'alone, assistant_id needs protocol = "assistants"'),
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
        (
            '[text.format]\ntype = "json_schema"\nname = "a"\nschema = { "$ref" = "https://example.org/a" }',
            4,
            "its $ref 'https://example.org/a' leads nowhere; put what it names into the schema itself",
        ),
        ('[text.format]\ntype = "json_schema"\nname = "a"\nschema_file = "bad.json"', 4, "is not JSON"),
        ('[text.format]\ntype = "json_schema"\nschema = {}', 1, "needs a name"),
        ('[text.format]\ntype = "json_schema"\nschema_file = "good.json"', 1, "needs a name"),
        ('[text.format]\ntype = "json_schema"\nname = "a"\nschema_file = "list.json"', 4, "it must be an object"),
        (
            '[text.format]\ntype = "json_schema"\nname = "a"\nschema_file = "good.json"\nschema = {}',
            4,
            "schema and schema_file exclude each other",
        ),
        ('[text.format]\ntype = "text"\nschema_file = "no.json"', 3, 'schema_file needs type = "json_schema"'),
        ('[text.format]\ntype = "yaml"', 2, "text.format.type is 'yaml'; allowed: text, json_object, json_schema"),
        ('[text]\nformat = { name = "a" }', 2, "text.format needs 'type'"),
        (
            '[text.format]\ntype = "json_schema"\nname = "a b"\nschema = {}',
            3,
            "text.format.name is 'a b'; it has 1 to 64 letters",
        ),
        ('[response_format]\ntype = "json_schema"\njson_schema = { schema = {} }', 3, "needs a name"),
        ('[response_format]\ntype = "json_schema"\njson_schema = { name = "a" }', 3, "needs a schema"),
        (
            '[response_format.json_schema]\nname = "a"\nschema = { type = 3 }\n[response_format]\ntype = "json_schema"',
            3,
            "is not a JSON Schema",
        ),
        ('[text.format]\ntype = "text"\n[response_format]\ntype = "text"', 3, "are the same; keep one"),
        ('tools = ["mcp"]', 1, """the tool 'mcp' has settings of its own: write { type = "mcp", … }"""),
        ('tools = ["function"]', 1, "name a function by its module"),
        ('tools = ["home:"]', 1, "'home:' is no function; write module:function"),
        ('tools = ["../home:light"]', 1, "is no function; write module:function"),
        ('tools = ["nowhere:light"]', 1, "there is no module 'nowhere'; looked for nowhere.py in"),
        ("[run]\nmax_rounds = 0", 2, "run.max_rounds is 0; the least is 1"),
        ("tools = [3]", 1, "3 is not a tool; known: code_interpreter, file_search, web_search, mcp, image_generation"),
        ("tools = [{}]", 1, "a tool needs a type"),
        ("tools = [{ type = 3 }]", 1, "a tool needs a type"),
        ('tools = "file_search"', 1, "tools is 'file_search'; write a list, in [ ]"),
        (
            '[[tools]]\ntype = "web_search"\n[[tools]]\ntype = "telephone"',
            3,
            "unknown tool 'telephone'; known: code_interpreter, file_search, web_search, mcp, image_generation",
        ),
        ("[run]\ntimeout = 1.5", 2, "run.timeout is 1.5; write a text or a whole number"),
        ("[run]\ntimeout = []", 2, "run.timeout is []; write a text or a whole number"),
        ("[run]\ntimeout = -1", 2, "seconds above 0, at most 30 days"),
        ('[run]\ntimeout = "0s"', 2, "seconds above 0, at most 30 days"),
        ('[run]\ntimeout = "31d"', 2, "seconds above 0, at most 30 days"),
        ('[run]\ntimeout = "1h 30m"', 2, "run.timeout is '1h 30m'"),
        ("[run]\ntimeout = 60.0", 2, "run.timeout is 60.0; write a text or a whole number"),
        (f"[run]\ntimeout = {10**9}", 2, "at most 30 days"),
        (f"[run]\ntimeout = {10**400}", 2, "run.timeout is larger than a number may be"),
        (f"top_p = 0x{'f' * 5000}", 1, "top_p is larger than a number may be"),
        ('[run]\non_uncertain = "hope"', 2, "run.on_uncertain is 'hope'; allowed: fail, retry"),
        ("run = 3", 1, "run is 3; write a table"),
        ("temperature = nan", 1, "temperature is nan; write a number"),
        (
            'tools = [{ type = "mcp", since = 2026-01-01 }]',
            1,
            "tools.0.since is a date or a time; write it as a text, in quotes",
        ),
        ('protocol = "responses"\napi = "responses"', 2, "protocol and api are the same; keep one"),
        ('api = "responses"\nassistant_id = "asst_1"', 2, 'needs protocol = "assistants"'),
        ('instructions_file = "latin.md"', 1, "latin.md cannot be read: it is not UTF-8 text"),
        ('instructions_file = "."', 1, "cannot be read: Is a directory"),
        ('instructions_file = "long.md"', 1, "long.md has 256001 characters; at most 256000 are taken"),
        ('[background_options]\ncompletion_window = "1h"', 2, "is '1h'; allowed: soonest, 2h, 8h"),
        ("[tool_resources.file_serch]", 1, "unknown key 'file_serch'; did you mean 'file_search'?"),
        ("zzz = 1", 1, "unknown key 'zzz'; known: description, protocol,"),
        ("max_prompt_tokens = 255", 1, "max_prompt_tokens is 255; the least is 256"),
        ("max_output_tokens = 64.0", 1, "max_output_tokens is 64.0; write a whole number"),
        ("max_output_tokens = true", 1, "max_output_tokens is True; write a whole number"),
        ('protocol = "responses"\nmax_prompt_tokens = 999', 2, 'max_prompt_tokens needs protocol = "assistants"'),
        (f'description = "{"d" * 513}"', 1, "description has 513 characters; at most 512 are taken"),
        (f'instructions = "{"d" * 256_001}"', 1, "instructions has 256001 characters; at most 256000 are taken"),
        (f"model = [{', '.join(['1'] * 99)}]", 1, "…; write a text"),
        (f"tools = {['web_search'] * 129}", 1, "tools has 129 items; at most 128 are taken"),
        (
            "[metadata]\n" + "\n".join(f'k{n} = "v"' for n in range(13)),
            1,
            "metadata has 13 entries; at most 12 are taken",
        ),
        (f'[metadata]\na = "1"\n{"k" * 65} = "v"', 3, "has 65 characters; at most 64 are taken"),
        (f'[metadata]\na = "{"v" * 513}"', 2, "metadata.a has 513 characters; at most 512 are taken"),
        ('[metadata]\naskq_job = "x"', 2, "keys that begin with askq_ are askq's own; call 'askq_job' something else"),
        ('[tool_resources.file_search]\nvector_store_ids = ["a", "b"]', 2, "vector_store_ids has 2 items; at most 1"),
        (
            'reasoning.effort = "hihg"',
            1,
            "reasoning.effort is 'hihg'; allowed: none, minimal, low, medium, high, xhigh, max",
        ),
        ('[run]\ncompletion_window = "1h"', 2, "run.completion_window is '1h'; allowed: soonest, 2h, 8h"),
        ('api = "assistants"\n[run]\ncompletion_window = "2h"', 3, 'completion windows need protocol = "responses"'),
        (
            '[run]\ncompletion_window = "2h"\n[background_options]\ncompletion_window = "2h"',
            2,
            "background_options.completion_window and run.completion_window are the same; keep one",
        ),
        (
            'service_tier = "flex"\nrun.completion_window = "8h"',
            1,
            "a completion window of 8h excludes service_tier = 'flex'; leave one of them out",
        ),
        ('api = "assistants"\ntools = ["web_search"]', 2, """the tool 'web_search' needs protocol = "responses\""""),
        (
            'tools = [\n{ type = "code_interpreter" },\n{ type = "file_search", vector_stor_ids = [] },\n]',
            3,
            "unknown key 'vector_stor_ids' of the tool 'file_search'; did you mean 'vector_store_ids'?",
        ),
        (
            '[[tools]]\ntype = "file_search"\n[tools.file_search]\nmax_num_result = 3',
            4,
            "unknown key 'max_num_result' of the tool 'file_search'; did you mean 'max_num_results'?",
        ),
        ('tools = [{ type = "mcp", server_url = "https://h" }]', 1, "the tool 'mcp' needs a server_label"),
        ('response_format.type = "json_schema"\nresponse_format.json_schema = { nam = 1 }', 2, "unknown key 'nam'"),
        ('[response_format]\ntype = "json_schema"\njson_schema = 3', 3, "json_schema is 3; write a table"),
        ("[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 'nan.json'", 4, "nan.json: x.0 is nan; write"),
        (
            "[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 'half.json'",
            4,
            "title holds half a character",
        ),
        (
            "[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 'deep.json'",
            4,
            "deep.json is nested too deeply",
        ),
        (
            "[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 'levels.json'",
            4,
            "at most 32 levels are taken",
        ),
        ("[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 'wide.json'", 4, "properties.x.type: "),
        ("[text.format]\ntype = 'json_schema'\nname = 'a'\nschema_file = 3", 4, "schema_file is 3; write a text"),
        ('instructions_file = "a\\u0000b"', 1, "'a\\x00b' cannot be the name of a file"),
        ('model = "m"\nx = [1,\n\n', 2, "is not TOML"),
        (f"a{'.a' * 40} = 1", 1, "a.a.a… is nested too deeply: at most 32 levels are taken"),
        ("[metadata]\nnumber = 3", 2, "metadata.number is 3; write a text"),
        (
            'assistant_id = "asst_1"\ntools = ["file_search"]\ntool_resources = { file_search = { stores = ["a"] } }',
            3,
            "an assistant that exists already is used as it is; put the files under [thread.tool_resources]",
        ),
    ],
)
def test_each_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    (tmp_path / "bad.json").write_text("{", "utf-8")
    (tmp_path / "list.json").write_text("[]", "utf-8")
    (tmp_path / "good.json").write_text("{}", "utf-8")
    (tmp_path / "latin.md").write_bytes(b"\xe9")
    (tmp_path / "long.md").write_text("x" * 256_001, "utf-8")
    (tmp_path / "nan.json").write_text('{"x": [NaN]}', "utf-8")
    (tmp_path / "half.json").write_text('{"title": "\\ud800"}', "utf-8")
    (tmp_path / "deep.json").write_text('{"not":' * 100_000 + "{}" + "}" * 100_000, "utf-8")
    (tmp_path / "levels.json").write_text('{"not":' * 33 + "{}" + "}" * 33, "utf-8")
    (tmp_path / "wide.json").write_text(json.dumps({"properties": {"x": {"type": ["no"] * 999}}}), "utf-8")
    path = write(tmp_path, text)
    problems = check(path)
    assert any(told in problem.message and problem.line == line for problem in problems), problems
    assert all(problem.file == str(path) and problem.line is not None for problem in problems)
    assert all(len(problem.message) < 400 for problem in problems), "a message repeats no prompt"
    with pytest.raises(AssistantError, match="askq assistants validate"):
        load("mine", folder=tmp_path, default_model="m", default_protocol="responses")


def test_of_a_folder_each_file_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "handbook").mkdir()
    for name, text in {"a.md": "x", "b.md": "", "c.md": ""}.items():
        (tmp_path / "handbook" / name).write_text(text, "utf-8")
    path = write(tmp_path, 'tools = ["file_search"]\n[tool_resources.file_search]\nfiles = ["handbook", "gone.md"]\n')
    assert [(problem.line, problem.message.partition(":")[0]) for problem in check(path)] == [
        (3, f"{str(Path('handbook', 'b.md'))!r}"),
        (3, f"{str(Path('handbook', 'c.md'))!r}"),
        (3, "'gone.md'"),
    ]


def test_all_mistakes_are_told_together_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, 'modle = "x"\ntemperature = 9\ntop_p = 7\n[run]\ntimeout = "x"\n')
    assert [problem.line for problem in check(path)] == [1, 2, 3, 5]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000 + "]" * 100_000])
def test_what_the_reader_of_toml_does_not_take(tmp_path: Path, value: str) -> None:
    (problem,) = check(write(tmp_path, f"top_p = {value}"))
    assert problem.message == "has a number that is too long, or values that are nested too deeply"


def test_tools_and_their_keys_are_those_of_the_sdk() -> None:
    known = {get_args(get_type_hints(tool)["type"])[0]: set(get_type_hints(tool)) for tool in SDK_TOOLS}
    assert {kind: set(keys) for kind, keys in TOOL_KEYS.items()} == known


def test_a_key_of_a_tool_that_looks_like_no_other_goes_through(tmp_path: Path) -> None:
    assert read(tmp_path, 'tools = [{ type = "web_search", brand_new = 1 }]').tools[0]["brand_new"] == 1


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
    with pytest.raises(AssistantError) as caught:
        find("nowhere/x.toml", folder=tmp_path)
    assert "there is no assistant file nowhere/x.toml" in str(caught.value)
    assert "choose one by its name: plain, support, tutor" in str(caught.value)


def test_a_name_with_its_ending_is_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "assistants"
    folder.mkdir()
    there = write(folder, "")
    monkeypatch.chdir(tmp_path)
    assert find("mine.toml", folder=folder) == there
    here = write(tmp_path, "")
    assert find("mine.toml", folder=folder).resolve() == here, "a path as it is written comes first"


def test_those_that_came_with_askq_are_there_without_a_folder(tmp_path: Path) -> None:
    assert names(tmp_path / "nothing") == ["plain", "tutor"]
    tutor = load("tutor", folder=tmp_path / "nothing", default_model="m", default_protocol="responses")
    assert tutor.uses("code_interpreter")
    write(tmp_path, 'description = "my own"', "tutor")
    assert load("tutor", folder=tmp_path, default_model="m", default_protocol="responses").description == "my own"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5 h", 5400), ("30d", 30 * 86_400), ("45", 45), (45, 45)],
)
def test_durations(tmp_path: Path, timeout: str | int, seconds: float) -> None:
    assert read(tmp_path, f"[run]\ntimeout = {timeout!r}").timeout_s == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 3600),
        ('protocol = "assistants"', 900),
        ('background_options.completion_window = "2h"', 3 * 3600),
        ('background_options.completion_window = "8h"', 9 * 3600),
        ('run.completion_window = "8h"', 9 * 3600),
        ('background_options.completion_window = "8h"\nrun.timeout = "1h"', 3600),
    ],
)
def test_the_deadline_where_the_file_sets_none(tmp_path: Path, text: str, seconds: float) -> None:
    assert read(tmp_path, text).timeout_s == seconds


def test_a_window_for_the_other_protocol_is_left_out_there(tmp_path: Path) -> None:
    write(tmp_path, 'run.completion_window = "8h"\nassistant_id = "asst_1"\ninstructions = "i"')
    here = load("mine", folder=tmp_path, default_model="m", default_protocol="responses")
    assert (here.completion_window, here.assistant_id) == ("8h", None)
    there = load("mine", folder=tmp_path, default_model="m", default_protocol="assistants")
    assert (there.completion_window, there.assistant_id) == (None, "asst_1")
    assert (here.timeout_s, there.timeout_s) == (9 * 3600, 900), "nor is it waited for"


@pytest.mark.parametrize(
    "tool",
    [
        '{ type = "file_search", max_num_results = 3 }',
        '{ type = "file_search", file_search = { max_num_results = 3 } }',
    ],
)
def test_a_tool_may_have_the_shape_of_either_protocol(tmp_path: Path, tool: str) -> None:
    assert read(tmp_path, f"tools = [{tool}]").tools == ({"type": "file_search", "max_num_results": 3},)


def test_a_tool_may_be_its_name_alone(tmp_path: Path) -> None:
    assistant = read(tmp_path, 'tools = ["web_search"]')
    assert assistant.tools == ({"type": "web_search"},)
    assert assistant.uses("web_search")
    assert not assistant.uses("file_search")


def test_the_names_of_either_protocol_mean_the_same(tmp_path: Path) -> None:
    one = read(
        tmp_path,
        """
        protocol = "responses"
        max_output_tokens = 10
        reasoning.effort = "low"
        text.format = { type = "json_object" }
        """,
    )
    other = read(
        tmp_path,
        """
        api = "responses"
        max_completion_tokens = 10
        reasoning_effort = "low"
        response_format = { type = "json_object" }
        """,
    )
    assert one == other
    assert one.digest == other.digest


def test_a_schema_of_the_other_shape_is_kept_as_it_is(tmp_path: Path) -> None:
    text = 'response_format = { type = "json_schema", json_schema = { name = "a", schema = { type = "object" } } }'
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    assert read(tmp_path, text).text_format == wanted


def test_files_of_editors_of_windows_are_read(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "words.md").write_bytes(mark + b"Be brief.\r\n")
    (tmp_path / "answer.json").write_bytes(mark + b"{}")
    (tmp_path / "mine.toml").write_bytes(
        mark
        + b'model = "m"\r\ninstructions_file = "words.md"\r\n'
        + b'text.format = { type = "json_schema", name = "a", schema_file = "answer.json" }\r\n'
    )
    assistant = load("mine", folder=tmp_path, default_model="d", default_protocol="responses")
    assert (assistant.model, assistant.instructions) == ("m", "Be brief.")
    assert assistant.text_format == {"type": "json_schema", "name": "a", "schema": {}}


def test_the_digest_stays_what_it_was() -> None:
    """Assistants at the service are found again by it: another way to make it creates each of them once more."""
    assistant = Assistant(name="a", protocol="responses", model="m", tools=({"type": "web_search"},))
    assert assistant.digest == "244e991b4cf4917c"
    assert Assistant.from_json(assistant.to_json()).digest == assistant.digest


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = check(tmp_path / "nothing.toml")
    assert str(problem) == f"{tmp_path / 'nothing.toml'}: cannot be read: No such file or directory"


@pytest.mark.parametrize("path", sorted((ROOT / "assistants").glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_have_nothing_wrong(path: Path) -> None:
    assert check(path) == []


@pytest.mark.parametrize("path", sorted((ROOT / "assistants").glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_lead_an_editor_to_the_schema(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    assert json.loads((path.parent / first.removeprefix("#:schema ")).read_text("utf-8")) == schema()


def test_the_published_schema_is_one() -> None:
    assert schema()["title"] == "askq assistant"
    Draft202012Validator.check_schema(schema())


def test_finding_and_naming_load_no_validator(tmp_path: Path) -> None:
    """Every command imports this module, and most of them read no assistant."""
    program = "import sys, pathlib; from askq.assistants import file; file.names(pathlib.Path()); file.schema()\n"
    program += "sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_the_example_in_the_readme_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assistant = read(tmp_path, example)
    shipped = load("tutor", folder=ROOT / "assistants", default_model=Settings().model, default_protocol="responses")
    assert dataclasses.replace(assistant, name="tutor") == shipped, "it shows the file that came with askq"
    assert assistant.model == Settings().model


def test_limits_are_read_and_change_no_digest_where_there_are_none(tmp_path: Path) -> None:
    bounded = read(tmp_path, "[limits]\nrequests_per_minute = 30\ntokens_per_minute = 1000")
    assert bounded.limits == {"requests_per_minute": 30, "tokens_per_minute": 1000}
    assert Assistant.from_json(bounded.to_json()) == bounded
    plain = read(tmp_path, "[limits]")
    assert plain.limits is None
    assert "limits" not in plain.to_json()


def test_what_is_kept_and_what_an_invalid_answer_brings(tmp_path: Path) -> None:
    plain = read(tmp_path, 'instructions = "x"')
    assert (plain.keep, plain.on_invalid, plain.schema) == (None, "fail", None)
    assert "keep" not in plain.to_json(), "a digest of earlier days stays what it was"
    assert "on_invalid" not in plain.to_json()
    form = '[text.format]\ntype = "json_schema"\nname = "p"\n[text.format.schema]\ntype = "object"\n'
    told = read(tmp_path, f'[keep]\nthreads = "no"\n[text]\non_invalid = "retry"\n{form}')
    assert (told.keep, told.on_invalid, told.schema) == ({"threads": "no"}, "retry", {"type": "object"})
    assert Assistant.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[keep]\nthreads = "never"', 2, "keep.threads is 'never'; allowed: no, results, always"),
        ('[keep]\nstores = "no"', 2, "unknown key 'stores'"),
        ('[text]\non_invalid = "retry"', 2, 'text.on_invalid needs a format with type = "json_schema"'),
        ('[text.format]\ntype = "json_schema"\nname = "p"\nschema = { type = "objekt" }', 4, "is not a JSON Schema"),
    ],
)
def test_mistakes_about_keeping_and_output(tmp_path: Path, text: str, line: int, message: str) -> None:
    problems = check(write(tmp_path, text))
    assert any(problem.line == line and message in problem.message for problem in problems), problems
