"""Programs for arithmetic and shares, and for whole numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from askq.localapi.tutor.algebra import remark_on_log, rewritten
from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.expressions import EXPONENT, TooLarge, exact
from askq.localapi.tutor.program import SHOW, Program, amount, program, said
from askq.localapi.tutor.wording import NUMBER

COUNT = 10_000
"""The largest count or index worked out: more would be slow to compute and tiring to read."""

# Words around a formula that leave its value to be what is asked.
_FILLERS = re.compile(
    "an?|and|answer|are|as|ask|be|by|calculate|can|compute|convert|could|decimals?|do|does|equals?|evaluate|exact(?:ly)?|"
    "expression|factor|find|following|for|form|fraction|give|hello|help|hey|hi|how|i|in|into|is|it|just|know|let|like|"
    "lowest|many|me|much|my|need|number|of|out|please|problem|question|quick|reduce|result|show|simplest|simplif(?:y|ied)|"
    "solve|sum|tell|terms|thanks?|that|the|this|to|up|us|value|want|was|what|when|will|with|work|would|write|written|you|your|"
    "percentage|difference|product|quotient|express|get|if|left|remains?|[가-힣]+|"
    # The commonest ways to ask for a sum in other languages.
    "wie|viel|wieviel|ist|sind|gib|rechne|berechne|combien|font|fait|cu[aá]nto|es|son|quanto"
)


def count(text: str) -> int:
    """A count or an index of the text.

    Raises:
        TooLarge: it is beyond the bound.
    """
    if not text.isdigit() or len(text) > 6 or int(text) > COUNT:
        raise TooLarge(f"it asks for a count beyond {COUNT}")
    return int(text)


def arithmetic(asked: Asked) -> Program | None:
    """One formula without letters, and no words around it that could mean something else."""
    if len(asked.expressions) != 1 or asked.expressions[0].signs:
        return None
    found = asked.expressions[0]
    words = re.findall(r"[^\W\d_]+", asked.text[: found.start] + " " + asked.text[found.end :])
    if not all(_FILLERS.fullmatch(word) for word in words):
        return None
    if found.variables:
        return rewritten(asked)
    if asked.has(r"\bpercentage|(?:as|to|into) (?:a )?%"):
        return program(
            f"result = S({found.source})*100",
            *SHOW,
            say=lambda out: f"{said(found.said)} is {amount(out)} percent.",
        )
    if found.bare and not asked.has(r"\bfraction|\bdecimal|lowest terms"):
        return None
    angle = re.search(r"\b(?:sin|cos|tan)\b", found.said) and not re.search("°|pi", found.said)
    remark = ", with the angle in radians" if angle else ""
    remark += remark_on_log(found.said)

    def say(output: Sequence[str]) -> str:
        answer = amount(output)
        if not answer.startswith(("undefined", "about")):
            # "3/8 = 0.375", not "3/8 = 3/8 = 0.375".
            shown = said(found.said)
            repeats = answer.startswith((f"{shown} = ", f"{shown} ≈ "))
            if not repeats:
                answer = f"{shown} = {answer.removesuffix(f' = {shown}')}"
            return f"{answer}{remark}."
        return f"{said(found.said)} is {answer}{remark}."

    return program(f"result = S({found.source})", *SHOW, say=say)


_NUM = rf"(?<![\d.])({NUMBER})(?![\d])"
_SHARE = rf"(?<![\d.])({NUMBER}) ?%"
_RISE, _FALL = (
    r"(?:(?:increas|rais|ris|ros|grow|grew|mark)\w*|(?:go|goes|going|went) up)",
    r"(?:(?:decreas|reduc|lower|discount|drop|fall|fell)\w*|(?:go|goes|going|went) down)",
)

# Words with the numbers {0} and {1}; what is computed; how it is said.
_PERCENTAGES = (
    (
        rf"what (?:%|percentage) (?:of|is|\*) {_NUM} (?:is|are) {_NUM}",
        "{1}/{0}*100",
        "{1} is {answer} percent of {0}",
    ),
    (rf"what (?:%|percentage) is {_NUM} (?:out )?of {_NUM}", "{0}/{1}*100", "{0} is {answer} percent of {1}"),
    (
        rf"{_NUM} (?:is|as) (?:what|a) (?:%|percentage) (?:of|\*) {_NUM}",
        "{0}/{1}*100",
        "{0} is {answer} percent of {1}",
    ),
    (rf"{_NUM} out of {_NUM}.*(?:%|percentage)", "{0}/{1}*100", "{0} is {answer} percent of {1}"),
    (rf"{_NUM} is {_SHARE} (?:of|\*) (?:what|which)", "{0}/{1}*100", "{0} is {1} percent of {answer}"),
    (rf"{_SHARE} of (?:a|the|some|which|what) number (?:is|=) {_NUM}", "{1}/{0}*100", "{1} is {0} percent of {answer}"),
    (
        rf"(?:%|percentage).*{_NUM} to {_NUM}",
        "({1} - {0})/{0}*100",
        "From {0} to {1} is a change of {answer} percent",
    ),
    (
        rf"{_NUM} to {_NUM}.*(?:%|percentage)",
        "({1} - {0})/{0}*100",
        "From {0} to {1} is a change of {answer} percent",
    ),
    (rf"{_RISE} .*?{_NUM}\D* by {_SHARE}", "{0}*(1 + {1}/100)", "{0} increased by {1} percent is {answer}"),
    (rf"{_FALL} .*?{_NUM}\D* by {_SHARE}", "{0}*(1 - {1}/100)", "{0} decreased by {1} percent is {answer}"),
    (rf"{_NUM}\D*{_RISE}\D*{_SHARE}", "{0}*(1 + {1}/100)", "{0} increased by {1} percent is {answer}"),
    (rf"{_NUM}\D*{_FALL}\D*{_SHARE}", "{0}*(1 - {1}/100)", "{0} decreased by {1} percent is {answer}"),
    (rf"{_NUM}\D*{_SHARE} (?:off|discount)", "{0}*(1 - {1}/100)", "{0} less {1} percent is {answer}"),
    (
        rf"{_SHARE} (?:off|discount|reduction)\D*{_NUM}",
        "{1}*(1 - {0}/100)",
        "{1} less {0} percent is {answer}",
    ),
)


def percentage(asked: Asked) -> Program | None:
    """Shares, changes and parts: what `20% of 50` does not say by itself."""
    for words, formula, sentence in _PERCENTAGES:
        found = asked.match(words)
        # A story with more figures than the pattern knows is not this exercise.
        if found and len(asked.numbers) == 2:
            return _computed(found.groups(), formula, sentence)
    return None


def _computed(given: Sequence[str], formula: str, sentence: str) -> Program:
    return program(
        f"result = {formula.format(*(f'S({exact(number)})' for number in given))}",
        *SHOW,
        say=lambda out: sentence.format(*given, answer=amount(out)) + ".",
    )


def divisors(asked: Asked) -> Program | None:
    """Greatest common divisor and least common multiple."""
    if len(asked.listed) < 2 or not all(number.isdigit() for number in asked.listed):
        return None
    multiple = asked.has(r"\blcm\b|common (?:multiple|denominator)")
    name, function = ("least common multiple", "ilcm") if multiple else ("greatest common divisor", "igcd")
    return program(
        f"print({function}({', '.join(exact(number) for number in asked.listed)}))",
        say=lambda out: f"The {name} of {', '.join(asked.listed)} is {out[0]}.",
    )


def _factorization(number: str) -> tuple[str, ...]:
    return (
        f"factors = factorint({number})",
        'print(" * ".join(str(base) if power == 1 else f"{base}^{power}" for base, power in factors.items()))',
    )


def primes(asked: Asked) -> Program | None:
    """Whether a number is prime, its factors and divisors, and which primes lie where."""
    if place := asked.match(r"\b(\d+)(st|nd|rd|th) prime"):
        return program(
            f"print(prime({max(1, count(place[1]))}))",
            say=lambda out: f"The {place[1]}{place[2]} prime is {out[0]}.",
        )
    numbers = asked.numbers
    if not 1 <= len(numbers) <= 2 or not all(number.isdigit() for number in numbers):
        return None
    if len(numbers) == 2:
        if not asked.has(r"\bprimes?\b.*\b(?:between|from)\b"):
            return None
        return _primes_within(count(numbers[0]), count(numbers[1]), f"from {numbers[0]} to {numbers[1]}")
    number = exact(numbers[0])
    if asked.has(r"\bdivisors?\b|\bfactors\b") and not asked.has("prime"):
        return program(
            f"found = divisors({number})",
            "print(len(found))",
            'print(*found, sep=", ")',
            say=lambda out: f"{number} has {out[0]} divisors: {out[1]}.",
        )
    if asked.has("factor|product|decompose|break"):
        return program(
            *_factorization(number),
            say=lambda out: f"The prime factorization is {number} = {said(out[0])}.",
        )
    if asked.has(r"\b(?:after|next|above)\b|>"):
        return program(f"print(nextprime({number}))", say=lambda out: f"The first prime after {number} is {out[0]}.")
    if asked.has(r"\b(?:below|under|less than|smaller than|up to)\b|<"):
        inclusive = asked.has("up to")
        where = f"{'up to' if inclusive else 'below'} {number}"
        return _primes_within(2, count(number) - (0 if inclusive else 1), where)
    if not asked.has(rf"\b{number} (?:is )?(?:an? )?prime\b|{number} for primality|\b{number}[ ?]*$"):
        return None
    return program(
        f"print(isprime({number}))",
        *_factorization(number),
        say=lambda out: (
            f"Yes, {number} is a prime number."
            if out[0] == "True"
            else f"No, {number} is not a prime number{f': {number} = {said(out[1])}' if len(out) > 1 else ''}."
        ),
    )


def _primes_within(first: int, last: int, where: str) -> Program:
    return program(
        f"primes = list(primerange({first}, {last + 1}))",
        "print(len(primes))",
        'print(*primes[:200], sep=", ")',
        say=lambda out: (
            f"There are {out[0]} primes {where}: {out[1] if len(out) > 1 else 'none'}"
            f"{' …' if int(out[0]) > 200 else '.'}"
        ),
    )


_OUT_OF = r"\d\D*\b(?:of|from|among|taken|into)\b\D*\d"


def selection(asked: Asked) -> Program | None:
    """Factorials, permutations and combinations."""
    symbol = asked.match(r"\b(\d+) ?([cp]) ?(\d+)\b|\b([cp])\( ?(\d+) ?, ?(\d+) ?\)")
    numbers = [part for part in symbol.groups() if part and part.isdigit()] if symbol else list(asked.numbers)
    if not 1 <= len(numbers) <= 2 or not all(number.isdigit() for number in numbers):
        return None
    # "3 boys and 4 girls" are seven, not three of four; and a formula of factorials is arithmetic.
    if len(numbers) == 2 and not symbol and not asked.has(_OUT_OF):
        return None
    ordered = "p" in symbol.groups() if symbol else asked.has(r"permut|arrange|order matters|in a (?:row|line)")
    if len(numbers) == 1:
        total = count(numbers[0])
        if not asked.has("factorial|permut|arrange|in a (?:row|line)|line up"):
            return None
        if total > EXPONENT:
            raise TooLarge(f"factorials are worked out of numbers up to {EXPONENT}")
        return program(
            f"print(factorial({total}))",
            say=lambda out: f"{total}! = {out[0]}: so many orders have {total} things.",
        )
    chosen, total = sorted(count(number) for number in numbers)
    function, how = ("ff", "in order") if ordered else ("binomial", "without regard to order")
    return program(
        f"print({function}({total}, {chosen}))",
        say=lambda out: f"There are {out[0]} ways to choose {chosen} of {total} {how}.",
    )


_BASES = {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16}
_BASE = rf"({'|'.join(_BASES)}|base (?:[2-9]|[12]\d|3[0-6])\b)"
_DIGITS = r"(0[xbo][\da-f]+|[\da-f]*\d[\da-f]*|[a-f]{2,})\b"


def _base(word: str) -> int:
    return _BASES[word] if word in _BASES else int(word.removeprefix("base "))


def bases(asked: Asked) -> Program | None:
    """From one number base to another."""
    # "1011 in binary to decimal", "binary 1011", "0xff", or just "45" — and then the base wished, by default ten.
    source = (
        asked.match(rf"\b{_DIGITS} ?(?:in |from )?{_BASE} (?:to|into|in)\b")
        or asked.match(rf"{_BASE} (?:number |value )?{_DIGITS}")
        or asked.match(rf"\b{_DIGITS}")
    )
    if source is None:
        return None
    # "2 + 2 in binary" and "3.5 in binary" are other exercises.
    if asked.has(r"[-+*/^]|\d\.\d"):
        return None
    words = [group for group in source.groups() if group]
    name = next((word for word in words if re.fullmatch(_BASE, word)), None)
    digits = next(word for word in words if word != name)
    base = _base(name) if name else 10
    if digits[:2] in ("0x", "0b", "0o"):
        digits, base = digits[2:], {"x": 16, "b": 2, "o": 8}[digits[1]]
    rest = asked.text[: source.start()] + " " + asked.text[source.end() :]
    wished = re.search(_BASE, rest)
    goal = _base(wished[0]) if wished else 10
    if goal == base or len(digits) > 60 or not all(int(digit, 36) < base for digit in digits):
        return None
    return program(
        f'number = int("{digits}", {base})',
        "digits = []",
        "while number or not digits:",
        f"    number, digit = divmod(number, {goal})",
        '    digits.insert(0, "0123456789abcdefghijklmnopqrstuvwxyz"[digit])',
        'print("".join(digits))',
        say=lambda out: f"{digits} in base {base} is {out[0]} in base {goal}.",
    )
