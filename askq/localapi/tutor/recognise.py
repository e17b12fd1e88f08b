"""Which kind of question it is: the table of what the tutor can do, most particular first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from askq.localapi.tutor import algebra, lists, measures, numbers
from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.program import Program
from askq.localapi.tutor.wording import plain


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


def recognise(question: str, history: Sequence[str] = ()) -> tuple[Kind, Program] | None:
    """The first kind that can write a program, or None. `Differentiate it` is about the latest formula of the history.

    Raises:
        TooLarge: the mathematics exceeds the bounds of `askq.localapi.tutor.expressions`.
    """
    asked = Asked(plain(question))
    if asked.has(_NOT_COMPUTED):
        return None
    if found := _first(asked):
        return found
    if asked.has(r"\b(?:it|its|that|this|them|the result)\b") and not asked.expressions:
        for earlier in reversed(history):
            formula = Asked(plain(earlier)).formula
            if formula is not None and not formula.bare:
                return _first(Asked(f"{asked.text.rstrip('?.! ')} : {formula.said}"))
    return None


def _first(asked: Asked) -> tuple[Kind, Program] | None:
    for kind in KINDS:
        if asked.has(kind.words) and (program := kind.write(asked)):
            return kind, program
    return None
