"""Which kind of question it is: the table of what the tutor can do, most particular first."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from askq.localapi.tutor import algebra, lists, measures, numbers
from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.program import Program
from askq.localapi.tutor.wording import NUMBER, THAT, plain


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question: words one of which it must contain, and who writes its program (or finds it is another)."""

    name: str
    words: str
    write: Callable[[Asked], Program | None]


KINDS = (
    Kind("matrices", r"\[\[|\[ \[", algebra.matrix),
    Kind(
        "derivatives",
        r"(?<!i)(?<!i-)derivative|differentiate|\bslope of (?:the )?tangent|\bgradient|rate of change",
        algebra.derivative,
    ),
    Kind("integrals", r"integra|anti-?derivative|area under", algebra.integral),
    Kind("limits", r"\blimit|\blim\b|approaches|->|tends to|goes to", algebra.limit),
    Kind("geometry", "area|perimeter|circumference|volume|surface|diagonal|hypotenuse", measures.geometry),
    Kind("number bases", r"binary|octal|\bhex|\bbase\b|\b0[xbo][\da-f]", numbers.bases),
    Kind("units", r"convert|how many|\b(?:to|in|into|as)\b", measures.conversion),
    Kind("percentages", r"%|percentage", numbers.percentage),
    Kind(
        "common divisors and multiples",
        r"\b(?:gcd|gcf|hcf|lcm)\b|common (?:factor|divisor|multiple|denominator)",
        numbers.divisors,
    ),
    Kind("formulas at given values", "=", algebra.value),
    Kind("systems of equations", "=", algebra.system),
    Kind("equations", r"=|\bsolve|\broots?\b|\bzero(?:e?s)?\b", algebra.equation),
    Kind("inequalities", "[<>]", algebra.inequality),
    Kind("true or false", r"[=<>]", algebra.check),
    Kind("sequences", r"sequence|series|\bnext\b|\bterms?\b|fibonacci|pattern|\bsum\b", lists.sequence),
    Kind("factoring, expanding, simplifying", r"\bfactor(?!ial)|expan|simpl|multiply out", algebra.rewritten),
    Kind("primes and divisors", r"\bprimes?\b|primality|\bfactor(?!ial)|\bdivisors?\b", numbers.primes),
    Kind(
        "permutations and combinations",
        r"factorial|permut|combinations?\b|\bways\b|\d choose \d|\b\d+ ?[cp] ?\d|\b[cp]\(",
        numbers.selection,
    ),
    Kind("statistics of a list", "", lists.statistics),
    Kind("arithmetic", "", numbers.arithmetic),
)

_NOT_COMPUTED = r"\b(?:who|why|prove|proof|poem|story|essay|translate|invented|discovered|definition)\b"
"""A formula in such a question is not what is asked."""


_OF_A_NUMBER = frozenset(
    {
        "arithmetic",
        "percentages",
        "primes and divisors",
        "common divisors and multiples",
        "number bases",
        "permutations and combinations",
    }
)
"""Kinds of questions that may be asked about the number an answer came to."""
_RESULT = re.compile(rf"(?:=|\bis) (−|-)?({NUMBER}(?:/\d+)?)(?: ≈ −?-?{NUMBER})?\.?\s*$")
"""How the tutor's own answers say it: at their end."""


def recognise(question: str, history: Sequence[str] = (), replies: Sequence[str] = ()) -> tuple[Kind, Program] | None:
    """The first kind that can write a program, or None. `Differentiate it` is about the latest formula of the history,
    `multiply that by 3` about the number the latest of the tutor's own replies came to.

    Raises:
        TooLarge: the mathematics exceeds the bounds of `askq.localapi.tutor.expressions`.
    """
    asked = Asked(plain(question))
    if asked.has(_NOT_COMPUTED):
        return None
    if (number := _result(replies)) is not None and asked.has(THAT):
        found = _first(Asked(plain(re.sub(THAT, number, asked.text))))
        if found is not None and found[0].name in _OF_A_NUMBER:
            return found
    if found := _first(asked):
        return found
    if asked.has(r"\b(?:it|its|that|this|them|the result)\b") and not asked.expressions:
        for earlier in reversed(history):
            formula = Asked(plain(earlier)).formula
            if formula is not None and not formula.bare:
                found = _first(Asked(f"{asked.text.rstrip('?.! ')} : {formula.said}"))
                # The question must say what to do with it: a formula alone is not what it asks.
                return found if found is not None and found[0].words and asked.has(found[0].words) else None
    return None


def _result(replies: Sequence[str]) -> str | None:
    """The one number the latest reply came to."""
    found = _RESULT.search(replies[-1]) if replies and "solutions" not in replies[-1] else None
    if found is None:
        return None
    number = found[2] if "/" not in found[2] else f"({found[2]})"
    return f"(-{number})" if found[1] else number


def _first(asked: Asked) -> tuple[Kind, Program] | None:
    for kind in KINDS:
        if asked.has(kind.words) and (program := kind.write(asked)):
            return kind, program
    return None
