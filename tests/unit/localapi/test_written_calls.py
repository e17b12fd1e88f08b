"""Calls in the text of a model: what is one, what is not, and the form that makes a model write one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from askq.localapi.engines.written_calls import form_of_a_call, may_be_calls, written_calls

CALL = '{"name": "add", "arguments": {"a": 1}}'
MADE = ("add", '{"a": 1}')


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALL, [MADE]),
        (f"\n {CALL} \n", [MADE]),
        (f"```json\n{CALL}\n```", [MADE]),
        (f"<tool_call>\n{CALL}\n</tool_call>", [MADE]),
        (f"<tool_call>{CALL}", [MADE]),
        (f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", [MADE, MADE]),
        (f"[{CALL}, {CALL}]", [MADE, MADE]),
        (f"{CALL}\n{CALL}", [MADE, MADE]),
        ("{" + CALL + "}", [MADE]),
        ("{" + CALL + "}}", [MADE]),
        ("{" + CALL + "} it is", []),
        ('{"name": "sub"}', [("sub", "{}")]),
        ('{"name": "add", "parameters": {"a": "é"}}', [("add", '{"a": "é"}')]),
        ('{"name": "add", "arguments": "{\\"a\\": 1}"}', [MADE]),
        ('{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}', [MADE]),
        ('{"type": "function", "name": "add", "arguments": {"a": 1}}', [MADE]),
        (f"I call {CALL}", []),
        (f"{CALL} switches it on.", []),
        (f"Sure:\n```json\n{CALL}\n```", []),
        ('{"name": "rm", "arguments": {}}', []),
        (f'[{CALL}, {{"name": "rm"}}]', []),
        ('{"name": "add", "arguments": 3}', []),
        ('{"name": "add", "arguments": {}, "price": 3}', []),
        ('{"name": "add", "arguments": {}, "parameters": {}}', []),
        ('{"name": "add", "arguments": {"a": ', []),
        ('{"sum": 3}', []),
        ("[]", []),
        ("", []),
        ("[" * 100_000, []),
        ("Hello.", []),
    ],
)
def test_only_a_text_that_is_nothing_but_calls_is_one(text: str, calls: list[Any]) -> None:
    assert written_calls(text, ["add", "sub"]) == calls
    assert written_calls(text, []) == []
    if calls:
        assert all(may_be_calls(text[:length]) for length in range(len(text)))


@pytest.mark.parametrize(("text", "may"), [("", True), ("<tool", True), ("`", True), ("{", True), ("<b>", False)])
def test_what_it_begins_with_decides_whether_it_is_held_back(text: str, may: bool) -> None:  # noqa: FBT001
    assert may_be_calls(text) is may
    assert not may_be_calls(f"I {text}")


def test_the_form_of_a_call_takes_its_arguments_and_nothing_else() -> None:
    node: Any = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "n": {"type": "integer"}}}
    chain: Any = {"type": "object", "properties": {"at": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    add: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = form_of_a_call([{"name": "add", "parameters": add}, {"name": "chain", "parameters": chain}, {"name": "go"}])
    Draft202012Validator.check_schema(form)
    fits = Draft202012Validator(form).is_valid
    assert fits(json.loads(CALL))
    assert fits({"name": "chain", "arguments": {"at": {"next": {"n": 1}}}})
    assert fits({"name": "go", "arguments": {}})
    assert not fits({"name": "chain", "arguments": {"at": {"next": {"n": "one"}}}})
    assert not fits({"name": "add", "arguments": {}})
    assert not fits({"name": "mul", "arguments": {}})
    assert not fits({**json.loads(CALL), "more": 1})
    alone = form_of_a_call([{"name": "go"}])
    assert "anyOf" not in alone
    assert "$defs" not in alone
