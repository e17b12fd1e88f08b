"""Cells that no spreadsheet executes, and text that no terminal obeys."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.answers.cells import cell, defused
from producer.answers.plain import plain


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "|", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
@pytest.mark.parametrize("before", ["", " ", "\t", "\r", "\n", " \t\r\n ", "\u00a0", "\u3000", "\ufeff", "\u200b "])
def test_what_begins_like_a_formula_is_defused(before: str, sign: str) -> None:
    text = f"{before}{sign}cmd|' /C calc'!A0"
    assert defused(text) == f"'{text}"
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["\ttext", "\rtext", "\ntext", "-", "--", "- a bullet", "+", "+49 170 1", "-1+1", "=", "@x"]
)
def test_other_beginnings_that_are_defused(text: str) -> None:
    assert defused(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    [
        *("-5", "+3.2", "-1,5", "-1.234,56", "+1e10", "-2E-3", "-.5", "-12%"),
        "",
        " ",
        "a=b",
        "x",
        "5",
        "(=1)",
        "ä",
        "光",
        " a",
    ],
)
def test_what_is_harmless_stays(text: str) -> None:
    assert defused(text) == text


@given(st.text())
def test_no_cell_begins_like_a_formula(text: str) -> None:
    made = cell(text)
    if not re.fullmatch(r"[+-]?[0-9.,]+([eE][+-]?[0-9]+)?%?", made):
        assert made[:1] not in set("=+-@|\t\r\n")
        assert unicodedata.normalize("NFKC", made.strip()[:1]) not in set("=+-@")
    assert made.removeprefix("'") == text.replace("\0", "\ufffd").removeprefix("'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (-2.5, "-2.5"),
        (1e22, "10000000000000000000000"),
        ([], ""),
        ({}, ""),
        ([1, {"ä": None}], '[1,{"ä":null}]'),
        ("a\0b", "a\ufffdb"),
    ],
)
def test_values_as_cells(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 光 🦊 👩‍🚀 e\u0301", "größe 光 🦊 👩‍🚀 e\u0301"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("a\x1b[2J\x1b[1;1Hb", "ab"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cm0gLXJm\x07x", "x"),
        ("\x1bPdevice\x1b\\x", "x"),
        ("\x9dtitle\x9cx", "x"),
        ("\x1b]no end, and the text stays", "no end, and the text stays"),
        ("\x9dno end", "no end"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("\x1b", ""),
        ("\x1b\x1b[31m[31mnested", "[31mnested"),
        ("good\rbad", "good\nbad"),
        ("a\r\nb", "a\nb"),
        ("a\u2028b\u2029c\x85d", "a\nb\nc\nd"),
        ("abc\b\b\bxyz", "abcxyz"),
        ("bell\x07 nul\x00 del\x7f c1\x84", "bell nul del c1"),
        ("user\u202etxt.exe\u2066 \u200f\ufeff", "usertxt.exe "),
        ("half \ud83e", "half \ufffd"),
    ],
)
def test_text_for_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_text_for_one_line() -> None:
    assert plain(" a\r\n\n  b\tc\x1b[0m \u2028 d ", one_line=True) == "a b c d"


@given(
    st.text(
        st.characters(categories=["Cc", "Cf", "L", "Po", "Ps", "Zl", "Zp"]) | st.sampled_from("\x1b\x9b\x9d[]\\;m0")
    )
)
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    shown = plain(text)
    assert not [char for char in shown if unicodedata.category(char) == "Cc" and char not in "\t\n"]
    assert plain(shown) == shown
    shown.encode()


def test_a_long_attack_takes_no_long_time() -> None:
    # Each of these made a careless pattern quadratic.
    for piece in ("\x1b]", "\x9d", "\x1b[", "\x1b[0;", "\x1b", "\x90x"):
        assert len(plain(piece * 200_000)) <= 200_000 * len(piece)
