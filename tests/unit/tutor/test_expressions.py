"""What the parser finds in a text, and that only its own vocabulary gets into a program."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askq.localapi.tutor.expressions import DEPTH, DIGITS, FUNCTIONS, TooLarge, exact, find


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("3x + 11", "3*x + 11"),
        ("2(x+1)(x-2)", "2*(x + 1)*(x - 2)"),
        ("x^2y", "x**2*y"),
        ("-x^2", "-x**2"),
        ("2^-1", "S(2)**(-1)"),
        ("2^3^2", None),
        ("1/2", "S(1)/2"),
        ("0.5 x", 'Rational("0.5")*x'),
        ("6/2(1+2)", "S(6)/2*(1 + 2)"),
        ("sin 2x", "sin(2*x)"),
        ("sin^2 x", "sin(x)**2"),
        ("cos(pi/3)", "cos(pi/3)"),
        ("log_2 8", "log(8, 2)"),
        ("log(100)", "log(100, 10)"),
        ("log(x)", "log(x, 10)"),
        ("e^(2x)", "E**(2*x)"),
        ("5!", "factorial(5)"),
        ("20% * 50", "20*Rational(1, 100)*50"),
        ("17 % 5", "Mod(17, 5)"),
        ("17 mod 5", "Mod(17, 5)"),
        ("3xy", "3*x*y"),
        ("xy^2", "x*y**2"),
        ("x sin x", "x*sin(x)"),
        ("((x))", "x"),
        ("sqrt x + 1", "sqrt(x) + 1"),
        ("--3", "-(-3)"),
    ],
)
def test_formulas_become_python(text: str, source: str | None) -> None:
    if source is None:
        with pytest.raises(TooLarge, match="a power in an exponent"):
            find(text)
        return
    (found,) = find(text)
    # The sign of a sign may be written either way.
    assert found.source.replace("--", "-(-") in (source, source.replace(")", "", 1))


def test_equations_and_chains_keep_their_signs() -> None:
    equation, chain = find("3x + 1 = 7 and -3 < y <= 5")
    assert (equation.sides, equation.signs, equation.variables) == (("3*x + 1", "7"), ("=",), ("x",))
    assert equation.is_equation
    assert not equation.is_inequality
    assert (chain.sides, chain.signs) == (("-3", "y", "5"), ("<", "<="))
    assert chain.is_inequality


def test_it_tells_where_in_the_text_a_formula_is() -> None:
    (found,) = find("please add 2 + 3, thanks")
    assert found.said == "2 + 3"
    assert "please add 2 + 3, thanks"[found.start : found.end] == "2 + 3"


@pytest.mark.parametrize(
    "text", ["what is a prime", "i am here", "hello, world", "ww2", "__import__", "", "((((", "x1"]
)
def test_words_are_no_formulas(text: str) -> None:
    assert [found.source for found in find(text) if not found.bare] == []


def test_an_article_is_no_variable_but_a_letter_in_a_formula_is() -> None:
    assert [found.source for found in find("is 7 a prime")] == ["7"]
    assert find("a + 2 = 5")[0].variables == ("a",)


def test_the_exclamation_mark_after_an_equation_is_punctuation() -> None:
    assert find("solve x = 9!")[0].sides == ("x", "9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9^9^9", "a power in an exponent"),
        ("2^1001", "an exponent beyond 1000"),
        ("2^(500*1500)", "an exponent beyond 1000"),
        ("2^-99999", "an exponent beyond 1000"),
        ("1001!", "factorials are worked out of numbers up to 1000"),
        ("(9!)!", "factorials are worked out of numbers up to 1000"),
        ("1" * (DIGITS + 1), f"more than {DIGITS} digits"),
        ("-" * (DEPTH + 1) + "1", f"more than {DEPTH} operations"),
        ("x^" * (DEPTH + 1) + "x", f"more than {DEPTH} operations"),
        ("sin " * (DEPTH + 1) + "x", f"more than {DEPTH} operations"),
        ("(" * (DEPTH + 1) + "1" + ")" * (DEPTH + 1), f"more than {DEPTH} operations"),
    ],
)
def test_what_is_too_large_is_said(text: str, message: str) -> None:
    with pytest.raises(TooLarge, match=message):
        find(text)


def test_exact_keeps_decimals_exact() -> None:
    assert exact("007") == "7"
    assert exact("0.1") == 'Rational("0.1")'


_OURS = {*FUNCTIONS.values(), "pi", "E", "oo", "S", "Rational", "Mod", "log", "factorial"}


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase[:6] + "xyz0123456789+-*/^()[]{}=<>!%.,_'\"\\ °\n;:", max_size=60))
def test_only_known_names_get_into_a_program(text: str) -> None:
    try:
        found = find(text)
    except TooLarge:
        return
    for expression in found:
        for source in expression.sides:
            for name in re.findall(r"[A-Za-z_]\w*", source):
                assert name in _OURS or re.fullmatch("[a-z]", name)
            assert set(re.sub(r'Rational\("[0-9.]+"\)', "", source)) <= set(
                string.ascii_letters + string.digits + "+-*/(), "
            )
            compile(source, "<source>", "eval")
