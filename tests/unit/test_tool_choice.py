"""`tool_choice` and `parallel_tool_calls`: read, checked, sent on both protocols, and not forced a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from askq.assistants.choice import after_a_call
from askq.assistants.file import check, load
from askq.assistants.model import Assistant
from tests.unit.protocols_stage import ask, assistant
from worker.protocols.assistants_bodies import run_body
from worker.protocols.base import Given, ToolOutput
from worker.protocols.responses_bodies import request_body

LIGHT = {"type": "function", "name": "light"}
ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [LIGHT, {"type": "file_search"}]}
OUTPUTS = (ToolOutput(call_id="call_1", output="on"),)
HOME = """from askq.tools import tool

@tool
def light(on: bool) -> str:
    'Switch the light.'
    return ''
"""


def written(folder: Path, text: str) -> Path:
    (folder / "home.py").write_text(HOME)
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def read(folder: Path, text: str) -> Assistant:
    written(folder, text)
    return load("mine", folder=folder, default_model="m", default_protocol="responses")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('tool_choice = "auto"', "auto"),
        ('tool_choice = "none"', "none"),
        ('tool_choice = "required"', "required"),
        ('tool_choice = { type = "function", name = "light" }', LIGHT),
        ('tool_choice = { type = "function", function = { name = "light" } }', LIGHT),
        ('tool_choice = { type = "file_search" }', {"type": "file_search"}),
        ('[tool_choice]\ntype = "allowed_tools"\nmode = "auto"\ntools = [{ type = "file_search" }]',
         {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]}),
    ],
)  # fmt: skip
def test_a_choice_may_have_the_shape_of_either_protocol(tmp_path: Path, text: str, choice: Any) -> None:
    made = read(tmp_path, f'tools = ["home:light", "file_search"]\nparallel_tool_calls = false\n{text}')
    assert (made.tool_choice, made.parallel_tool_calls) == (choice, False)
    assert Assistant.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('tool_choice = "always"', 2, "tool_choice is 'always'; write none, auto, required, or { type = \"function\""),
        ("tool_choice = 3", 2, "tool_choice is 3; write a text (none, auto, required), or { type"),
        ("tool_choice = {}", 2, "tool_choice needs a type, which is a text"),
        ('tool_choice = { type = "function" }', 2, "tool_choice needs the function's name"),
        ('tool_choice = { type = "function", name = "lihgt" }', 2, "no function 'lihgt'; did you mean 'light'?"),
        ('tool_choice = { type = "function", name = "x" }', 2, "no function 'x'; its functions: light"),
        ('tool_choice = { type = "web_search" }', 2, "no tool of the type 'web_search'; it has function, file_search"),
        ('[tool_choice]\ntype = "allowed_tools"\ntools = [{ type = "file_search" }]', 2, "needs a mode: auto or req"),
        ('[tool_choice]\ntype = "allowed_tools"\nmode = "auto"\ntools = []', 5, "allowed_tools needs tools, a list"),
        ('[tool_choice]\ntype = "allowed_tools"\nmode = "auto"\ntools = [{ type = "mcp" }]', 5, "no tool of the type"),
        ('protocol = "assistants"\ntool_choice = { type = "allowed_tools" }', 3, 'needs protocol = "responses"'),
        ("parallel_tool_calls = 1", 2, "parallel_tool_calls is 1; write true or false"),
        ('tool_choice = { type = "mcp", server_label = "b" }', 2, "no tool of the type 'mcp'"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    problems = check(written(tmp_path, f'tools = ["home:light", "file_search"]\n{text}'))
    assert any(told in problem.message and problem.line == line for problem in problems), problems
    assert all(problem.line is not None for problem in problems)


@pytest.mark.parametrize("text", ['tool_choice = "required"', "parallel_tool_calls = true"])
def test_there_must_be_tools_to_choose_from(tmp_path: Path, text: str) -> None:
    (problem,) = check(written(tmp_path, text))
    assert (problem.line, "names no tools" in problem.message) == (1, True)
    assert check(written(tmp_path, f'{text}\nprotocol = "assistants"\nassistant_id = "asst_1"')) == [], "it has its own"


def test_an_mcp_server_is_known_by_its_label(tmp_path: Path) -> None:
    tools = 'tools = [{ type = "mcp", server_label = "a", server_url = "https://h" }]\n'
    (problem,) = check(written(tmp_path, tools + 'tool_choice = { type = "mcp", server_label = "b" }'))
    assert "no mcp server called 'b'" in problem.message
    assert check(written(tmp_path, tools + 'tool_choice = { type = "mcp", server_label = "a" }')) == []


def test_a_file_without_a_choice_has_the_digest_it_had(tmp_path: Path) -> None:
    plain = read(tmp_path, 'tools = ["file_search"]')
    assert "tool_choice" not in plain.to_json()
    assert "parallel_tool_calls" not in plain.to_json()
    assert {"tool_choice", "parallel_tool_calls"}.isdisjoint(request_body(ask(assistant=plain), "conv_1"))
    assert {"tool_choice", "parallel_tool_calls"}.isdisjoint(run_body(ask(assistant=plain)))
    assert read(tmp_path, 'tools = ["file_search"]\ntool_choice = "required"').digest != plain.digest


@pytest.mark.parametrize(
    ("choice", "response", "run", "later"),
    [
        ("required", "required", "required", None),
        ("none", "none", "none", "none"),
        ("auto", "auto", "auto", "auto"),
        (LIGHT, LIGHT, {"type": "function", "function": {"name": "light"}}, None),
        ({"type": "file_search"}, {"type": "file_search"}, {"type": "file_search"}, None),
        (ALLOWED, ALLOWED, None, {**ALLOWED, "mode": "auto"}),
    ],
)
def test_a_question_is_sent_with_the_choice_and_what_follows_it_is_not_forced(
    choice: Any, response: Any, run: Any, later: Any
) -> None:
    """Or each round would have to call again, until there were too many."""
    home = assistant(protocol="responses", tools=(LIGHT,), tool_choice=choice, parallel_tool_calls=False)
    first = ask(assistant=home)
    assert request_body(first, "conv_1")["tool_choice"] == response
    assert request_body(first, "conv_1")["parallel_tool_calls"] is False
    assert run_body(first).get("tool_choice") == run
    assert run_body(first)["parallel_tool_calls"] is False
    assert after_a_call(choice) == later
    for follows in (ask(assistant=home, outputs=OUTPUTS), ask(assistant=home, corrects=True)):
        assert request_body(follows, "conv_1").get("tool_choice") == later
        assert request_body(follows, "conv_1")["parallel_tool_calls"] is False
    assert run_body(ask(assistant=home, corrects=True)).get("tool_choice") == (later if run is not None else None)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        (LIGHT, LIGHT),
        ({"type": "file_search"}, None),
        (ALLOWED, {**ALLOWED, "tools": [LIGHT]}),
        ({**ALLOWED, "tools": [{"type": "file_search"}]}, "none"),
    ],
)
def test_a_choice_does_not_name_a_file_search_that_has_nothing_to_search(choice: Any, sent: Any) -> None:
    """It is left out, and the service refuses a choice of what is not there."""
    home = assistant(protocol="responses", tools=(LIGHT, {"type": "file_search"}), tool_choice=choice)
    body = request_body(ask(assistant=home), "conv_1")
    assert [tool["type"] for tool in body["tools"]] == ["function"]
    assert body.get("tool_choice") == sent
    assert request_body(ask(assistant=home, given=Given(stores=("vs_1",))), "conv_1")["tool_choice"] == choice


def test_without_any_tool_there_is_nothing_to_choose() -> None:
    searching = assistant(protocol="responses", tools=({"type": "file_search"},), tool_choice="required")
    assert "tool_choice" not in request_body(ask(assistant=searching), "conv_1")
