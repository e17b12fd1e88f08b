"""Programs for the statistics of a list, and for sequences."""

from __future__ import annotations

import re
from collections.abc import Sequence

from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.expressions import exact
from askq.localapi.tutor.numbers import count
from askq.localapi.tutor.program import SHOW, Program, amount, program
from askq.localapi.tutor.wording import NUMBER

_SQUARES = "sum((item - sum(data)/len(data))**2 for item in data)"

# Words, the figure's name, what is computed of the list `data`.
_FIGURES = (
    (r"\bmean\b|average", "mean", "sum(data)/len(data)"),
    ("median", "median", "(sorted(data)[(len(data) - 1)//2] + sorted(data)[len(data)//2])/2"),
    (r"\brange\b", "range", "max(data) - min(data)"),
    ("population variance", "population variance", f"{_SQUARES}/len(data)"),
    ("(?<!population )variance", "sample variance", f"{_SQUARES}/(len(data) - 1)"),
    ("population standard deviation", "population standard deviation", f"sqrt({_SQUARES}/len(data))"),
    (
        "(?<!population )standard deviation|stdev",
        "sample standard deviation",
        f"sqrt({_SQUARES}/(len(data) - 1))",
    ),
    (r"\bsum\b|\btotal\b|\badd\b", "sum", "sum(data)"),
    ("largest|maximum|biggest", "largest", "max(data)"),
    ("smallest|minimum", "smallest", "min(data)"),
)


def statistics(asked: Asked) -> Program | None:
    """One or several figures of a list."""
    # Of the squares, say: another list.
    if len(asked.listed) < 2 or asked.has(r"square|\bcubes?\b|root|reciprocal|absolute|\^"):
        return None
    shown = ", ".join(asked.listed)
    if asked.has(r"\bmode\b|most (?:common|frequent)"):
        return program(
            "from statistics import multimode",
            f"data = [{', '.join(exact(item) for item in asked.listed)}]",
            'print(*(f"{float(item):.12g}" for item in multimode(data)), sep=", ")',
            say=lambda out: f"The mode of {shown} (what occurs most often) is {out[0]}.",
        )
    wished = [(name, source) for words, name, source in _FIGURES if asked.has(words)]
    if not wished:
        return None
    body = [line for _, source in wished for line in (f"result = {source}", *SHOW)]

    def say(output: Sequence[str]) -> str:
        figures = [f"the {name} is {amount(output[2 * at : 2 * at + 2])}" for at, (name, _) in enumerate(wished)]
        return f"Of the numbers {shown}, {' and '.join(figures)}."

    return program(f"data = [{', '.join(f'S({exact(item)})' for item in asked.listed)}]", *body, say=say)


def sequence(asked: Asked) -> Program | None:
    """What comes next, the nth term or the sum of terms."""
    place = asked.match(r"\b(\d+)(?:st|nd|rd|th)\b")
    first = asked.match(r"\bfirst (\d+)\b")
    if asked.has("fibonacci"):
        index = place or first or asked.match(r"\b(\d+)\b")
        if index is None:
            return None
        size = count(index[1])
        return program(
            f"terms = [fibonacci(index) for index in range(1, {size + 1})]",
            'print(*terms[-30:], sep=", ")',
            "print(terms[-1])",
            say=lambda out: f"Fibonacci number {size}, counting 1, 1, 2, 3 …, is {out[1]} (… {out[0]}).",
        )
    if asked.has(r"\bsum\b") and asked.has(r"\b(?:natural|positive|whole|odd|even|integers?|counting|numbers)\b"):
        return _sum_of_whole(asked)
    runs = re.findall(rf"(?:-?{NUMBER}(?:, ?(?:and )?| |(?=\W|$))){{3,}}", asked.text)
    terms = max((re.findall(rf"-?{NUMBER}", run) for run in runs), key=len, default=[])
    if not 3 <= len(terms) <= 50 or not asked.has(r"sequence|series|\bnext\b|\bterms?\b|pattern"):
        return None
    more = asked.match(r"\bnext (\d|two|three)\b")
    extra = 1 if more is None else {"two": 2, "three": 3}.get(more[1]) or int(more[1])
    summed = first is not None and asked.has(r"\bsum\b")
    last = count(place[1]) if place else count(first[1]) if first and summed else len(terms) + extra
    if last < 1:
        return None
    shown = ", ".join(terms)
    wished = f"sum(terms[:{last}])" if summed else f"terms[{last - 1}]" if place else f'*terms[{len(terms)}:], sep=", "'
    what = f"the sum of the first {last} terms" if summed else f"term {last}" if place else "what comes next"
    return program(
        f"terms = [{', '.join(f'S({exact(term)})' for term in terms)}]",
        "pairs = list(zip(terms, terms[1:]))",
        "differences = {after - before for before, after in pairs}",
        "ratios = {after/before for before, after in pairs} if 0 not in terms else set()",
        "if len(differences) == 1 or len(ratios) == 1:",
        "    arithmetic = len(differences) == 1",
        "    step = (differences if arithmetic else ratios).pop()",
        f"    while len(terms) < {last}:",
        "        terms.append(terms[-1] + step if arithmetic else terms[-1]*step)",
        '    print("plus" if arithmetic else "times", step)',
        f"    print({wished})",
        "else:",
        '    print("no rule")',
        say=lambda out: (
            f"The sequence {shown} is neither arithmetic nor geometric, so I do not know how it goes on."
            if out[0] == "no rule"
            else f"In {shown} each term is the one before {out[0]}, so {what} is {out[1]}."
        ),
    )


def _sum_of_whole(asked: Asked) -> Program | None:
    if asked.has(r"divisible|multiples?|primes?|square|\bcubes?\b|\^|except|without|\bnot\b"):
        return None
    kind = next((word for word in ("odd", "even") if asked.has(rf"\b{word}\b")), "whole")
    start, step = {"odd": (1, 2), "even": (2, 2), "whole": (1, 1)}[kind]
    if first := asked.match(r"\bfirst (\d+) "):
        end, what = start + step * (count(first[1]) - 1), f"the first {first[1]} {kind} numbers"
    elif limits := asked.match(r"(?:from|between) (\d+) (?:to|and) (\d+)"):
        low, end = count(limits[1]), count(limits[2])
        start = low + (low - start) % step
        what = f"the {kind} numbers from {low} to {end}"
    else:
        return None
    return program(f"print(sum(range({start}, {end + 1}, {step})))", say=lambda out: f"The sum of {what} is {out[0]}.")
