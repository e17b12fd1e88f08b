"""Structured output with real parts: answers that fit a schema, answers that do not, and one more try."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(300)
PROTOCOLS = ("assistants", "responses")
PERSON = {"name": "Ann", "home": {"city": "Ulm", "zip": "89073"}, "tags": ["a", "b"]}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "home", "tags"],
    "properties": {
        "name": {"type": "string"},
        "home": {"$ref": "#/$defs/home"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {
        "home": {
            "type": "object",
            "additionalProperties": False,
            "required": ["city", "zip"],
            "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
        }
    },
}
WRONG = {**PERSON, "home": {"city": "Ulm", "zip": "Ulm"}}
USED = {"input_tokens": 10, "output_tokens": 5}
SCRIPT = {
    "default": {"answer": PERSON, "duration": 0.1, "usage": USED},
    "rule": [
        {"contains": "cannot be used", "earlier": "hopeless", "answer": "I cannot."},
        {"contains": "cannot be used", "answer": PERSON},
        {"contains": "fenced", "answer": "```json\n" + json.dumps(PERSON, indent=1) + "\n```"},
        {"contains": "refuse", "answer": "I will not.", "refusal": True},
        {"contains": "prose", "answer": "She is called Ann."},
        {"contains": "hopeless", "answer": WRONG},
        {"contains": "wrong", "answer": WRONG},
    ],
}
ROWS = ("good", "fenced", "refuse", "prose", "wrong", "hopeless")


def ask(stack: Stack, protocol: str, on_invalid: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """The result lines and the rows of the CSV, by row."""
    folder = stack.folder / "lists"
    folder.mkdir()
    (folder / "person.json").write_text(json.dumps(SCHEMA), "utf-8")
    (folder / "person.toml").write_text(
        f'protocol = "{protocol}"\nmodel = "gpt-test"\n[text]\non_invalid = "{on_invalid}"\n[text.format]\n'
        'type = "json_schema"\nname = "person"\nschema_file = "person.json"\n',
        "utf-8",
    )
    lines = ["id,question,name", *(f"{row},Who is the {row} one?,{row}" for row in ROWS)]
    (folder / "questions.csv").write_text("\n".join([*lines, ""]), "utf-8")
    out = folder / "answers.csv"
    told = stack.askq(
        *("run", str(folder / "questions.csv"), "--assistant", str(folder / "person.toml")),
        *("-o", str(out), "-o", str(folder / "answers.jsonl"), "--no-worker", "--json"),
    )
    assert told.returncode in (0, 5), told.stderr
    records = [json.loads(line) for line in (folder / "answers.jsonl").read_text("utf-8").splitlines()]
    with out.open(encoding="utf-8-sig", newline="") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    return {record["custom_id"]: record for record in records}, table


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_that_does_not_fit_ends_so(tmp_path: Path, protocol: str) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        stack.worker()
        found, table = ask(stack, protocol, "fail")
        for row in ("good", "fenced"):
            assert (found[row]["status"], found[row]["output"]) == ("completed", PERSON)
            cells = {name: cell for name, cell in table[row].items() if name.startswith("output.")}
            assert cells == {
                "output.name": "Ann",
                "output.home.city": "Ulm",
                "output.home.zip": "89073",
                "output.tags": '["a","b"]',
            }
            assert table[row]["name"] == row, "the user's own column"
        assert list(table["good"])[:6] == ["id", "question", "name", "answer", "output.name", "output.home.city"]
        ends = {row: (record["status"], record["error"]["code"]) for row, record in found.items() if record["error"]}
        invalid = ("failed", "invalid_output")
        assert ends == {
            "refuse": ("failed", "refused"),
            "prose": invalid,
            "wrong": invalid,
            "hopeless": invalid,
        }
        assert found["prose"]["error"]["message"] == "it is not JSON: Expecting value, line 1, column 1"
        assert found["wrong"]["error"]["message"] == "at $.home.zip: 'Ulm' does not match '^[0-9]{5}$'"
        assert found["prose"]["answer"] == "She is called Ann.", "what was said is kept"
        assert found["refuse"]["answer"] == "I will not."
        assert table["prose"]["output.name"] == ""
        assert Counter(entry["metadata"]["askq_job"] for entry in stack.ledger()).most_common(1)[0][1] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_is_asked_once_more_if_the_assistant_says_so(tmp_path: Path, protocol: str) -> None:
    """Through kills around the intents and the creates: no correction is paid for twice."""
    with running_stack(tmp_path, script=SCRIPT, keyed=protocol == "responses") as stack:
        points = "commit.correct.*=kill:0.3,join.*=kill:0.3"
        if protocol == "assistants":
            # Elsewhere the usage of a run whose reply was lost is not known to anybody.
            points += ",commit.intend.after=kill:0.1,start.after=kill:0.1"
        chaos = {"ASKQ_FAILPOINTS": points, "ASKQ_FAILPOINTS_SEED": "7", "ASKQ_LEASE_S": "3"}
        stack.worker(settings=chaos)
        stack.worker("steady")
        found, table = ask(stack, protocol, "retry")
        for row in ("good", "fenced", "prose", "wrong"):
            assert (found[row]["status"], found[row]["output"]) == ("completed", PERSON), found[row]["error"]
        assert found["hopeless"]["error"]["code"] == "invalid_output"
        assert found["hopeless"]["answer"] == "I cannot."
        assert found["refuse"]["error"]["code"] == "refused"
        again = {"prose", "wrong", "hopeless"}
        paid = Counter(entry["metadata"]["askq_job"].partition(".")[2] for entry in stack.ledger())
        assert paid == {row: 2 if row in again else 1 for row in ROWS}
        assert {row: record["attempts"] for row, record in found.items()} == dict(paid)
        for row, record in found.items():
            assert record["usage"]["total_tokens"] == 15 * paid[row], row
        # In the same thread or conversation, where the model sees what was wrong.
        asked = [entry for entry in stack.ledger() if "cannot be used" in entry["question"]]
        scope = "thread_id" if protocol == "assistants" else "conversation_id"
        assert {entry[scope] for entry in asked} == {found[row]["thread_id"] for row in again}
        assert any("at $.home.zip" in entry["question"] for entry in asked)
        assert table["wrong"]["output.home.zip"] == "89073"
