"""The table of ends serves a person and covers what the engine can say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from askq.ends import _ENDS, ENDS
from askq.jobs.model import State

ROOT = Path(__file__).parents[2]


def test_there_are_codes_enough_and_one_table_has_them() -> None:
    assert len(ENDS) >= 25


def test_no_code_stands_twice() -> None:
    assert len(ENDS) == len(_ENDS)
    assert list(ENDS) == [end.code for end in _ENDS]


@pytest.mark.parametrize("code", ENDS)
def test_an_end_is_told_in_a_line_with_what_to_do(code: str) -> None:
    end = ENDS[code]
    assert re.fullmatch(r"[a-z][a-z_]+", code)
    assert end.code == code
    assert end.state.terminal
    assert end.state is not State.COMPLETED, "a complete answer is no end with a reason"
    assert re.fullmatch(r"[A-Z].{10,110}\.", end.remedy), "one sentence, one line"


@pytest.mark.parametrize("code", ENDS)
def test_asking_again_is_advised_when_it_may_help_and_only_then(code: str) -> None:
    end = ENDS[code]
    if not end.retryable:
        assert "ask again" not in end.remedy, "asking the same again cannot help here"


def test_only_an_uncertain_create_is_uncertain() -> None:
    assert [end.code for end in ENDS.values() if end.state is State.UNCERTAIN] == ["uncertain_create"]


def test_what_an_end_keeps_is_said() -> None:
    """Partial text is kept where a run ended incomplete, and the reader should know."""
    for code in ("content_filter", "incomplete", "max_output_tokens"):
        assert "partial text is kept" in ENDS[code].remedy


def test_every_code_the_engine_ends_a_job_with_is_in_the_table() -> None:
    named = set()
    for path in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            code = node.args[1]
            if function == "end" and isinstance(code, ast.Constant):
                named.add(code.value)
    assert {"upstream", "deadline", "internal", "unknown_function"} <= named, "the search finds what it should"
    assert named <= set(ENDS)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ENDS["new"] = ENDS["internal"]  # type: ignore[index]
