"""A program for a question, and how its output is said to a person."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SYMPY = frozenset(
    {
        "Abs", "E", "Eq", "I", "Matrix", "Mod", "N", "Rational", "S", "acos", "asin", "atan", "binomial", "cbrt", "cos",
        "cosh", "diff", "divisors", "exp", "expand", "factor", "factorial", "factorint", "ff", "fibonacci", "igcd",
        "ilcm", "integrate", "isprime", "limit", "log", "nextprime", "oo", "pi", "prime", "primerange",
        "reduce_inequalities", "simplify", "sin", "sinh", "solve", "sqrt", "tan", "tanh",
    }
)  # fmt: skip

SHOW = ("print(result)", "print(N(result, 10))")
"""The last lines of a program with one number as its result; `amount` reads what they print."""


@dataclass(frozen=True, slots=True)
class Program:
    """Python source and the sentence to make of the lines it prints."""

    code: str
    say: Callable[[Sequence[str]], str]


def program(*lines: str, say: Callable[[Sequence[str]], str]) -> Program:
    """A program of these lines, headed by the import of the SymPy names and the symbols (single letters) they use."""
    body = "\n".join(lines)
    unquoted = re.sub(r'f?"[^"]*"', "", body)
    # A letter in a string is text; a SymPy name may also stand in the braces of an f-string.
    letters = sorted(set(re.findall(r"\b[a-z]\b", unquoted)))
    used = sorted((set(re.findall(r"[A-Za-z_]\w*", body)) & _SYMPY) | ({"symbols"} if letters else set()))
    head = [f"from sympy import {', '.join(used)}"] if used else []
    if letters:
        # SymPy solves equations with absolute values for real numbers only.
        real = ", real=True" if "Abs(" in body else ""
        head.append(f'{", ".join(letters)} = symbols("{" ".join(letters)}"{real})')
    return Program("\n".join([*head, "", *lines] if head else lines) + "\n", say)


def pretty(source: str) -> str:
    """Python's spelling of a formula as one would write it in a message."""
    text = re.sub(r"\bexp\((\w+)\)", r"e^\1", source.replace("**", "^"))
    text = re.sub(r"\bexp\(", "e^(", text)
    text = re.sub(r"(?<![\w)])(\d+(?:\.\d+)?)\*(?=[A-Za-z(])", r"\1", text)
    text = re.sub(r"(?<![A-Za-z])log\(", "ln(", text)
    text = re.sub(r"(?<![A-Za-z])sqrt\((\w+)\)", r"√\1", text)
    for name, sign in (("oo", "∞"), ("pi", "π"), ("I", "i"), ("E", "e")):
        text = re.sub(rf"(?<![A-Za-z]){name}\b", sign, text)
    return text.replace("<=", "≤").replace(">=", "≥").replace("*", "·")


def said(formula: str) -> str:
    """What the person wrote, with the signs people use."""
    text = re.sub(r"% \* ", "% of ", formula)
    text = re.sub(r"\s*\*\s*", " × ", re.sub(r" ?\^ ?", "^", text))
    text = re.sub(r"\bsqrt ?(?=[\w(])", "√", text)
    text = re.sub(r"\bcbrt ?(?=[\w(])", "∛", text)
    return re.sub(r"\bpi\b", "π", text).replace("<=", "≤").replace(">=", "≥")


def amount(output: Sequence[str], unit: str = "") -> str:
    """One number from the lines `SHOW` printed: `12`, `7/2 = 3.5`, `2/3 ≈ 0.6666666667`, `√2 ≈ 1.414213562`."""
    exact, shown = output[0], _trimmed(output[1])
    if "zoo" in exact or "nan" in exact:
        return "undefined, because it divides by zero"
    if re.fullmatch(r"-?(\d+|oo)", exact):
        return pretty(exact) + unit
    if len(exact) > 60:
        return f"about {pretty(shown)}{unit}"
    return f"{pretty(exact)} {'=' if _is_finite(exact) else '≈'} {pretty(shown)}{unit}"


def decimal(output: Sequence[str]) -> str:
    """The same as a decimal number only."""
    return _trimmed(output[1]) if re.fullmatch(r"-?\d+|.*/.*", output[0]) else pretty(output[0])


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", number) else number


def _is_finite(fraction: str) -> bool:
    """Whether a fraction in lowest terms has a decimal form that ten digits show."""
    parts = re.fullmatch(r"-?(\d{1,4})/(\d{1,5})", fraction)
    return parts is not None and 10**5 % int(parts[2]) == 0
