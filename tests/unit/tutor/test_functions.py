"""Which functions the tutor calls, and with what."""

from __future__ import annotations

from typing import Any

import pytest

from askq.localapi.tutor.functions import report, wanted

CONTROL: dict[str, Any] = {
    "name": "equipment_control",
    "description": (
        "Switch a piece of equipment of the room on or off.\n"
        "When it is hot, switch on the fan and the AC. When it is cold, switch off the fan and the AC. "
        "When it is dark, switch on the light. To watch a drama, a film or the news, switch on the TV. "
        "To sleep, switch off the light, the fan, the TV and the AC."
    ),
    "parameters": {
        "type": "object",
        "properties": {
            "equipment": {"type": "string", "enum": ["light", "fan", "TV", "AC"]},
            "state": {"type": "string", "enum": ["on", "off"]},
        },
        "required": ["equipment", "state"],
        "additionalProperties": False,
    },
}


def called(question: str, *functions: dict[str, Any]) -> list[str]:
    return [
        " ".join(str(value) for value in call.arguments.values()) for call in wanted(question, functions or (CONTROL,))
    ]


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("It is hot", ["fan on", "AC on"]),
        ("I want to watch a drama", ["TV on"]),
        ("I'm going to sleep", ["light off", "fan off", "TV off", "AC off"]),
        ("It's dark here.", ["light on"]),
        ("Turn off the light, please.", ["light off"]),
        ("tv on", ["TV on"]),
        ("TV를 on", ["TV on"]),
        ("Solve 3x + 11 = 14", []),
        ("What is the capital of France?", []),
        ("Turn it on", []),
        ("", []),
    ],
)
def test_the_room(question: str, calls: list[str]) -> None:
    assert called(question) == calls


def test_a_flag_and_numbers_are_filled_in() -> None:
    lamp = {
        "name": "lamp",
        "description": "When it is dark, switch the lamp on.",
        "parameters": {"properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    }
    assert [call.arguments for call in wanted("So dark!", [lamp])] == [{"on": True}]
    square = {
        "name": "square_number",
        "description": "The square of a number.",
        "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
    }
    assert [call.said() for call in wanted("What is the square of -7?", [square])] == ["square_number(n=-7)"]
    assert wanted("What is the square of 7 and 8?", [square]) == []
    assert wanted("Is 7 prime?", [square]) == []


def test_what_cannot_be_filled_is_not_called() -> None:
    mail = {
        "name": "send_mail",
        "description": "Send a mail when it is hot.",
        "parameters": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
    }
    assert wanted("It is hot", [mail]) == []
    assert wanted("It is hot", [{"name": "nothing"}]) == []
    flags = {"name": "lamp", "parameters": {"properties": {"on": {"type": "boolean"}}, "required": []}}
    assert wanted("It is hot", [flags]) == []
    assert [call.said() for call in wanted("Open the door", [{"name": "open_door"}])] == ["open_door()"]
    assert called("It is hot", mail, CONTROL) == ["fan on", "AC on"]


def test_the_report_gives_the_outputs_and_no_more() -> None:
    done = [("f", '{"a": "b", "n": 1}', "done"), ("g", "not json", "error")]
    assert report(done) == 'f(a="b", n=1): done\ng(not json): error'
