"""Programs for equations, formulas, calculus and matrices."""

from __future__ import annotations

import re
from collections.abc import Sequence

from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.expressions import exact, find
from askq.localapi.tutor.program import SHOW, Program, amount, pretty, program, said
from askq.localapi.tutor.wording import NUMBER


def _unknown(asked: Asked, letters: Sequence[str]) -> str:
    wished = asked.match(r"\b(?:for|respect to) ([a-z])\b")
    return wished[1] if wished and wished[1] in letters else letters[0]


_NOT_SOLVED = (
    r"\b(?:slope|gradient|tangent|vertex|intercepts?|asymptotes?|graph|plot|sketch|draw|m(?:ax|in)imum|domain|symmetry"
    r"|discriminant|(?:sum|product|difference) of (?:the|its|all) (?:roots|solutions|zero(?:e?s)?))\b"
)
"""With one of these an equation describes a curve or a task; its solution, or a value, is not what is asked."""

_PERIODIC = r"\b(?:sin|cos|tan)\b"
_BASE_TEN = r"\blog\b(?!_)"


def remark_on_log(said_so: str) -> str:
    """What must be added where `log` could be read in two ways."""
    return " (log is the logarithm to the base 10)" if re.search(_BASE_TEN, said_so) else ""


def equation(asked: Asked) -> Program | None:
    """One equation; without an equals sign, the zeros of a formula."""
    found = asked.equations[0] if asked.equations else asked.formula
    if found is None or asked.has(_NOT_SOLVED):
        return None
    if not found.is_equation and (found.signs or found.bare or not asked.has(r"\b(roots?|zero(?:e?s)?|solve)\b")):
        return None
    letter = _unknown(asked, found.variables)
    right = found.sides[1] if found.signs else "0"

    def say(output: Sequence[str]) -> str:
        if output == ["none"]:
            return f"{said(found.said)} has no solution."
        if output == ["every value"]:
            return f"{said(found.said)} is true for every value of {letter}."
        solutions = " and ".join(pretty(line) for line in output)
        what = f"the equation {said(found.said)}" if found.signs else f"{said(found.said)} = 0"
        remark = " There is no real solution." if all(re.search(r"\bI\b", line) for line in output) else ""
        if not remark and re.search(_PERIODIC, found.said):
            remark = " These are the solutions of one period; they repeat with it."
        verb = "solutions are" if len(output) > 1 else "solution is"
        return f"Let us solve {what} for {letter}{remark_on_log(found.said)}. The {verb} {solutions}.{remark}"

    return program(
        f"left, right = {found.sides[0]}, {right}",
        f"solutions = solve(Eq(left, right), {letter})",
        "for solution in solutions:",
        "    if solution.is_rational or solution.free_symbols:",
        f'        print("{letter} =", solution)',
        '    elif len(str(solution)) < 40 and "Root" not in str(solution):',
        f'        print("{letter} =", solution, "≈", N(solution, 6, chop=True))',
        "    else:",
        f'        print("{letter} ≈", N(solution, 6, chop=True))',
        "if not solutions:",
        '    print("every value" if simplify(left - right) == 0 else "none")',
        say=say,
    )


def system(asked: Asked) -> Program | None:
    """Several equations."""
    letters = sorted({letter for found in asked.equations for letter in found.variables})
    if not 2 <= len(asked.equations) <= 6 or asked.has(r"\b(?:slope|gradient|tangent)\b"):
        return None
    equations = ", ".join(f"Eq({found.sides[0]}, {found.sides[1]})" for found in asked.equations)

    def say(output: Sequence[str]) -> str:
        what = " and ".join(said(found.said) for found in asked.equations)
        if output == ["none"]:
            return f"The equations {what} have no common solution."
        return f"The equations {what} have the common solution {', or '.join(pretty(line) for line in output)}."

    return program(
        f"solutions = solve([{equations}], [{', '.join(letters)}], dict=True)",
        "for solution in solutions:",
        '    print(", ".join(f"{name} = {value}" for name, value in solution.items()))',
        "if not solutions:",
        '    print("none")',
        say=say,
    )


def inequality(asked: Asked) -> Program | None:
    """One inequality, or two in a chain."""
    all_found = [found for found in asked.expressions if found.is_inequality]
    # Two of them may hold together or be alternatives, and how many numbers there are is another question.
    if len(all_found) != 1 or len(all_found[0].variables) != 1 or asked.has(r"\b(?:integers?|whole|how many)\b"):
        return None
    found = all_found[0]
    letter = found.variables[0]
    parts = [f"{found.sides[at]} {sign} {found.sides[at + 1]}" for at, sign in enumerate(found.signs)]

    def say(output: Sequence[str]) -> str:
        if output[0] == "False":
            return f"No real {letter} satisfies {said(found.said)}."
        clauses = re.sub(r"sqrt\((\d+)\)", r"√\1", output[0])
        clauses = re.sub(r"\(-oo < \w\) & | & \(\w < oo\)", "", clauses)
        if output[0] == "True" or "oo" in clauses:
            return f"Every real {letter} satisfies {said(found.said)}."
        clauses = re.sub(r"\(+([^()&|]*)\)+", r"\1", clauses)
        # SymPy may put the number first; "x > 2" is read more easily than "2 < x".
        clauses = re.sub(rf"(-?[\w/.√]+) <(=?) {letter}\b", rf"{letter} >\2 \1", clauses)
        return f"{said(found.said)} is true when {pretty(clauses.replace('&', 'and').replace('|', 'or'))}."

    return program(f"print(reduce_inequalities([{', '.join(parts)}], {letter}))", say=say)


def check(asked: Asked) -> Program | None:
    """`Is 7 * 8 = 54?`"""
    relations = [found for found in asked.expressions if found.signs]
    if len(relations) != 1 or len(relations[0].signs) != 1 or relations[0].variables:
        return None
    found = relations[0]
    relation = {"=": "=="}.get(found.signs[0], found.signs[0])
    return program(
        f"left, right = S({found.sides[0]}), S({found.sides[1]})",
        f"print(bool(simplify(left - right) {relation} 0))",
        "print(left)",
        "print(right)",
        say=lambda out: (
            f"{'Yes' if out[0] == 'True' else 'No'}: the left side is {pretty(out[1])}, the right {pretty(out[2])}."
        ),
    )


def derivative(asked: Asked) -> Program | None:
    """Of any order, and its value at a place if one is given."""
    found = asked.formula
    if found is None:
        return None
    letter = _unknown(asked, found.variables)
    order = next((n for n, word in ((2, r"second|2nd|twice"), (3, r"third|3rd")) if asked.has(rf"\b(?:{word})\b")), 1)
    body = (
        f"result = diff({found.source}, {letter}, {order})" if order > 1 else f"result = diff({found.source}, {letter})"
    )
    name = {1: "derivative", 2: "second derivative", 3: "third derivative"}[order]
    place = next((value for value in asked.values if value.sides[0] == letter), None)
    if place is not None:
        return program(
            body,
            f"result = result.subs({letter}, {place.sides[1]})",
            *SHOW,
            say=lambda out: (
                f"The {name} of {said(found.said)} at {place.said} is {amount(out)}{remark_on_log(found.said)}."
            ),
        )
    return program(
        body,
        f"print(simplify(result) if result.is_rational_function({letter}) else result)",
        say=lambda out: (
            f"The {name} of {said(found.said)} with respect to {letter} is {pretty(out[0])}{remark_on_log(found.said)}."
        ),
    )


def integral(asked: Asked) -> Program | None:
    """Between bounds, or without."""
    # "of 2x from 1 to 4", and "from 1 to 4 of 2x".
    before = asked.match(r"\b(?:from|between) (.+?) (?:to|and) (.+?) of (.+)")
    bounds = before or asked.match(r"\b(?:from|between) (.+?) (?:to|and) (.+)")
    found = Asked(before[3] if before else asked.text[: bounds.start()]).formula if bounds else asked.formula
    if found is None:
        return None
    letter = _unknown(asked, found.variables)
    if bounds is None:
        return program(
            f"print(integrate({found.source}, {letter}))",
            say=lambda out: (
                f"The integral of {said(found.said)} has no closed form that SymPy knows."
                if "Integral(" in out[0]
                else f"The integral of {said(found.said)} with respect to {letter} is {pretty(out[0])} + C"
                f"{remark_on_log(found.said)}."
            ),
        )
    ends = [next(iter(find(end)), None) for end in bounds.groups()[:2]]
    if any(end is None or set(end.variables) - {letter} or letter in end.sides[-1].split() for end in ends):
        return None
    low, high = (end.sides[-1] for end in ends if end is not None)
    if letter in (low, high):
        return None
    return program(
        f"result = integrate({found.source}, ({letter}, {low}, {high}))",
        *SHOW,
        say=lambda out: (
            f"The integral of {said(found.said)} from {pretty(low)} to {pretty(high)} is {amount(out)}"
            f"{remark_on_log(found.said)}."
        ),
    )


def limit(asked: Asked) -> Program | None:
    """At a number or at infinity, from both sides unless one is named."""
    place = asked.match(r"\b([a-z]) ?(?:->|approaches|goes to|tends to) ?(?:plus |positive )?(.+)")
    if place is None:
        return None
    target = next(iter(find(re.sub(r"\b(?:minus|negative) infinity", "-infinity", place[2]))), None)
    elsewhere = Asked(asked.text[: place.start()]).formula or Asked(place[2][target.end if target else 0 :]).formula
    if target is None or elsewhere is None or target.variables:
        return None
    side = (
        "+"
        if asked.has(r"from (?:the )?(?:right|above)")
        else "-"
        if asked.has(r"from (?:the )?(?:left|below)")
        else "+-"
    )
    letter, formula = place[1], elsewhere
    return program(
        f'result = limit({formula.source}, {letter}, {target.source}, "{side}")',
        *SHOW,
        say=lambda out: (
            f"As {letter} approaches {pretty(target.source)}, {said(formula.said)} "
            + (
                "has no limit: it swings."
                if "AccumBounds" in out[0]
                else f"tends to {amount(out)}{remark_on_log(formula.said)}."
            )
        ),
    )


def rewritten(asked: Asked) -> Program | None:
    """A formula factored, expanded or simplified."""
    found = asked.formula
    if found is None or found.signs or found.bare:
        return None
    verb = "factor" if asked.has("factor") else "expand" if asked.has(r"expan|multiply out") else "simplify"
    name = {"factor": "factored", "expand": "expanded", "simplify": "simplified"}[verb]
    return program(
        f"print({verb}({found.source}))", say=lambda out: f"{said(found.said)}, {name}, is {pretty(out[0])}."
    )


def value(asked: Asked) -> Program | None:
    """A formula at given values of its letters."""
    found = asked.formula
    if found is None or found.bare or not asked.values or asked.has(_NOT_SOLVED):
        return None
    given = {place.sides[0]: place for place in asked.values}
    wished = {found.sides[0]} if found.signs else set()
    if wished & given.keys() or set(found.variables) - given.keys() != wished:
        return None
    places = ", ".join(f"{letter}: {place.sides[1]}" for letter, place in given.items())
    return program(
        f"result = ({found.source}).subs({{{places}}})",
        *SHOW,
        say=lambda out: (
            f"{said(found.said)} at {' and '.join(place.said for place in given.values())} is {amount(out)}"
            f"{remark_on_log(found.said)}."
        ),
    )


_OF_MATRICES = (
    ("determinant|\\bdet\\b", "determinant", "det()"),
    ("inverse|invert", "inverse", "inv()"),
    ("transpose", "transpose", "T"),
    ("\\brank\\b", "rank", "rank()"),
    ("\\btrace\\b", "trace", "trace()"),
    ("eigenvalue", "eigenvalues (each with how often it occurs)", "eigenvals()"),
)


def matrix(asked: Asked) -> Program | None:
    """What is asked of a matrix such as `[[1, 2], [3, 4]]`."""
    whole = asked.match(r"\[ ?(\[.+\]) ?\]")
    if whole is None:
        return None
    rows = [re.findall(rf"-?{NUMBER}", row) for row in re.findall(r"\[([^\[\]]+)\]", whole[1])]
    if not rows or not all(rows) or len({len(row) for row in rows}) > 1 or max(len(rows), len(rows[0])) > 8:
        return None
    entries = ", ".join(f"[{', '.join(exact(entry) for entry in row)}]" for row in rows)
    wished = next((row for row in _OF_MATRICES if asked.has(row[0])), None)
    around = asked.text[: whole.start()] + asked.text[whole.end() :]
    if wished is None or re.search(r"[+*/^]|-\s*\d", around):
        return None
    return program(
        f"matrix = Matrix([{entries}])",
        f"result = matrix.{wished[2]}",
        "print(result.tolist() if isinstance(result, Matrix) else result)",
        say=lambda out: f"The {wished[1]} of the matrix {whole[0]} is {pretty(out[0])}.",
    )
