"""Script files: both languages, and every complaint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from askq.localapi.engines.script_file import parse_script, read_script
from askq.localapi.errors import LocalApiError

TOML = """
salt = "s"
[default]
duration = [2, 20]
[[rule]]
contains = "France"
answer = "Paris"
[[fault]]
kind = "drop"
"""


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(TOML)
    (tmp_path / "script.json").write_text(
        json.dumps(
            {
                "salt": "s",
                "default": {"duration": [2, 20]},
                "rule": [{"contains": "France", "answer": "Paris"}],
                "fault": [{"kind": "drop"}],
            }
        )
    )
    script = read_script(tmp_path / "script.toml")
    assert script == read_script(tmp_path / "script.json")
    assert (script.salt, script.faults) == ("s", ({"kind": "drop"},))
    rule, default = script.rules
    assert rule.effects == {"answer": "Paris", "duration": [2, 20]}
    assert default.effects == {"answer": "Answer to: {question}", "duration": [2, 20]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "it must be a table"),
        ({"rules": []}, "unknown key 'rules'; there are: salt, default, rule, store_file, fault"),
        ({"salt": 1}, "'salt' must be a text"),
        ({"default": []}, "'default' must be a table"),
        ({"default": {"contains": "x"}}, "[default]: unknown key 'contains'"),
        ({"rule": {}}, "'rule' must be a list of tables"),
        ({"rule": [{}, {"colour": 1}]}, "rule 2: unknown key 'colour'"),
        ({"rule": [{"answer": []}]}, "rule 1: 'answer' must be a text, a table, or a list of them"),
        ({"rule": [{"duration": [3, 2]}]}, "'duration' must be seconds, or [low, high]"),
        ({"rule": [{"duration": -1}]}, "'duration' must be seconds"),
        ({"rule": [{"duration": True}]}, "'duration' must be seconds"),
        ({"rule": [{"status": "dead"}]}, "'status' must be one of completed, failed"),
        ({"rule": [{"status": "requires_action"}]}, "rule 1: status 'requires_action' needs 'calls'"),
        ({"rule": [{"calls": [{"name": "f"}]}]}, "'calls' must be a list of rounds"),
        ({"rule": [{"calls": [[{"arguments": {}}]]}]}, "'calls' must be a list of rounds"),
        ({"rule": [{"error": {"message": "no code"}}]}, "'error' must be a table with code and message"),
        ({"rule": [{"statuses": []}]}, "'statuses' must be a list of texts"),
        ({"rule": [{"advance": "clock"}]}, "'advance' must be 'time' or 'poll'"),
        ({"rule": [{"every": 0}]}, "'every' must be a number above 0"),
        ({"rule": [{"regex": "("}]}, "rule 1: 'regex' is no regular expression"),
        ({"rule": [{"protocol": "telepathy"}]}, "'protocol' must be 'assistants' or 'responses'"),
        ({"rule": [{"usage": {"input_tokens": 1}}]}, "'usage' must be {input_tokens, output_tokens}"),
        ({"fault": [{"kind": "explode"}]}, "fault 1: A fault needs a 'kind'"),
    ],
)
def test_a_wrong_script_is_refused(content: Any, words: str) -> None:
    with pytest.raises(LocalApiError) as refused:
        parse_script(content)
    assert words in str(refused.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"salt": 1, "rule": [{"status": "dead"}, {"regex": "("}], "fault": [{}]}))
    with pytest.raises(LocalApiError) as refused:
        read_script(path)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"The script file {path} is wrong:"
    assert len(lines) == 5


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LocalApiError, match="cannot be read: No such file or directory"):
        read_script(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(LocalApiError, match=r"bad\.json is no JSON"):
        read_script(tmp_path / "bad.json")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(LocalApiError, match=r"bad\.toml is no TOML"):
        read_script(tmp_path / "bad.toml")
    (tmp_path / "latin.json").write_bytes(b'{"salt": "\xe4"}')
    with pytest.raises(LocalApiError, match=r"latin\.json is no JSON"):
        read_script(tmp_path / "latin.json")
