"""Finds the mathematics in a plain text and writes it anew as Python for SymPy.

A strict tokenizer and a small parser stand between the person's text and the program: what comes out is put together
from numbers, single letters, the functions of a table and operators, and nothing else can.

    relation := sum ((= | < | > | <= | >=) sum)*         power   := postfix (^ signed)?
    sum      := product ((+ | -) product)*               postfix := atom (! | % | °)*
    product  := signed ((* | / | mod | nothing) signed)* atom    := number | letter | constant | (sum) | function
    signed   := - signed | power                                    argument
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

DIGITS = 60
"""A number may have so many; longer ones are no school exercise and slow to take apart."""
EXPONENT = 1000
DEPTH = 25

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "sqrt": "sqrt", "cbrt": "cbrt",
    "exp": "exp", "ln": "log", "log": "log", "abs": "Abs", "factorial": "factorial",
}  # fmt: skip
CONSTANTS = {"pi": "pi", "e": "E", "infinity": "oo"}

_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>log_\d+|[a-z]+\d+\w*|[a-z]+)|(?P<mark><=|>=|!=|->|[-+*/^()=<>!%°])|\S"
)
_RELATIONS = ("=", "<=", ">=", "<", ">")
_LETTERS = re.compile(r"[a-z]|[xyz]{2,3}")


class TooLarge(Exception):
    """The mathematics is beyond the bounds kept here. The message says which, for the person who asked."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A formula, an equation or an inequality found in a text.

    `sides` are Python source, one more than `signs`; `said` is how the person wrote it; `start` and `end` are where.
    """

    sides: tuple[str, ...]
    signs: tuple[str, ...]
    variables: tuple[str, ...]
    said: str
    start: int
    end: int
    bare: bool
    """Nothing but a number or a letter."""

    @property
    def source(self) -> str:
        """The formula, or of an equation the side that says more than `y`."""
        return self.sides[-1] if len(self.sides[0]) == 1 and self.signs else self.sides[0]

    @property
    def is_equation(self) -> bool:
        """One equals sign and something to find."""
        return self.signs == ("=",) and bool(self.variables)

    @property
    def is_inequality(self) -> bool:
        """One or two signs of order."""
        return bool(self.signs) and "=" not in self.signs and bool(self.variables)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    spaced: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """Python source with its binding strength (0 sum, 1 product, 2 sign, 3 power, 4 atom)."""

    source: str
    strength: int
    integer: bool = False
    """Python, not SymPy, would compute it: then `/` and negative powers have to be made exact."""
    letters: frozenset[str] = frozenset()
    value: float | None = None
    """Of a literal."""

    def within(self, strength: int) -> str:
        return self.source if self.strength >= strength else f"({self.source})"


class _NoMatch(Exception):
    """The grammar does not go on here."""


def exact(number: str) -> str:
    """Python source of a number of the text, kept exact.

    Raises:
        TooLarge: it has too many digits.
    """
    if len(number) > DIGITS:
        raise TooLarge(f"it has a number of more than {DIGITS} digits")
    return f'Rational("{number}")' if "." in number else str(int(number))


def find(text: str) -> tuple[Expression, ...]:
    """Every formula of the text, as long as each can be, in order.

    Raises:
        TooLarge: a number, an exponent or the nesting exceeds the bounds.
    """
    tokens = _tokens(text)
    found, position = [], 0
    while position < len(tokens):
        parser = _Parser(tokens, position)
        try:
            sides, signs = parser.relation()
        except _NoMatch:
            position += 1
            continue
        first, last = tokens[position], tokens[parser.at - 1]
        letters = frozenset[str]().union(*(side.letters for side in sides))
        found.append(
            Expression(
                sides=tuple(side.source for side in sides),
                signs=tuple(signs),
                variables=tuple(sorted(letters, key=lambda letter: (letter < "n", letter))),
                said=text[first.start : last.end],
                start=first.start,
                end=last.end,
                bare=parser.at - position == 1 or (first.text == "-" and parser.at - position == 2),
            )
        )
        position = parser.at
    return tuple(found)


def _tokens(text: str) -> Sequence[_Token]:
    tokens: list[_Token] = []
    for match in _TOKEN.finditer(text):
        spaced = not tokens or match.start() > tokens[-1].end
        kind, word = match.lastgroup or "other", match[0]
        if kind == "word" and not (
            word in FUNCTIONS
            or word in CONSTANTS
            or word == "mod"
            or word.startswith("log_")
            or _LETTERS.fullmatch(word)
        ):
            kind = "other"
        if word in ("a", "i", "s") and spaced and not re.match(r" ?[-+*/^=<>)]", text[match.end() :]):
            # "a prime number": an article, unless it stands in a formula: "2*a", "a + 1".
            kind = kind if tokens and tokens[-1].text in ("+", "-", "*", "/", "=", "(", "^") else "other"
        if kind == "word" and len(word) > 1 and _LETTERS.fullmatch(word):
            for at, letter in enumerate(word, match.start()):
                tokens.append(_Token(kind, letter, at, at + 1, spaced and at == match.start()))
            continue
        tokens.append(_Token(kind, word, match.start(), match.end(), spaced))
    # "What is 3x = 9!" ends in an exclamation mark, not in a factorial.
    if tokens and tokens[-1].text == "!" and any(token.text == "=" for token in tokens):
        tokens.pop()
    return tokens


class _Parser:
    def __init__(self, tokens: Sequence[_Token], at: int) -> None:
        self.tokens = tokens
        self.at = at
        self.depth = 0

    def relation(self) -> tuple[list[_Part], list[str]]:
        sides = [self._sum()]
        signs: list[str] = []
        while len(signs) < 2 and self._peek() in _RELATIONS:
            before = self.at
            self.at += 1
            try:
                sides.append(self._sum())
            except _NoMatch:
                self.at = before
                break
            signs.append(self.tokens[before].text)
        return sides, signs

    def _peek(self) -> str:
        """The mark or the word that comes next."""
        if self.at < len(self.tokens) and self.tokens[self.at].kind in ("mark", "word"):
            return self.tokens[self.at].text
        return ""

    def _sum(self) -> _Part:
        left = self._product()
        while (sign := self._peek()) in ("+", "-"):
            before = self.at
            self.at += 1
            try:
                right = self._product()
            except _NoMatch:
                self.at = before
                break
            left = _Part(
                f"{left.source} {sign} {right.within(1)}",
                0,
                left.integer and right.integer,
                left.letters | right.letters,
            )
        return left

    def _product(self) -> _Part:
        left = self._signed()
        for _ in count():
            before, sign = self.at, self._peek()
            if sign in ("*", "/", "mod") or (sign == "%" and self._is_remainder()):
                self.at += 1
            elif self._juxtaposed():
                sign = "*"
            else:
                break
            try:
                right = self._signed()
            except _NoMatch:
                self.at = before
                break
            left = _joined(left, sign, right)
        return left

    def _is_remainder(self) -> bool:
        """`17 % 5`; but `20% of 50` and `20% + 3` are shares."""
        here, after = self.tokens[self.at], self.tokens[self.at + 1 : self.at + 2]
        return here.spaced and bool(after) and after[0].kind == "number"

    def _juxtaposed(self) -> bool:
        """Whether a factor follows without an operator: `3x`, `2(x+1)`, `x sin x`; not `x 2` nor `x y`."""
        if self.at >= len(self.tokens):
            return False
        token, previous = self.tokens[self.at], self.tokens[self.at - 1]
        if token.kind == "number":
            return not token.spaced and previous.text == ")"
        if token.text == "(":
            return not token.spaced or previous.kind == "number" or previous.text == ")"
        if token.kind != "word" or token.text == "mod":
            return False
        return not token.spaced or previous.kind == "number" or previous.text == ")" or _is_function(token.text)

    def _signed(self) -> _Part:
        # Every way down the grammar comes through here.
        self.depth += 1
        if self.depth > DEPTH:
            raise TooLarge(f"it has more than {DEPTH} operations inside each other")
        try:
            return self._signed_or_power()
        finally:
            self.depth -= 1

    def _signed_or_power(self) -> _Part:
        if self._peek() in ("-", "+"):
            sign = self._peek()
            self.at += 1
            part = self._signed()
            value = None if part.value is None else -part.value
            return _Part(f"-{part.within(2)}", 2, part.integer, part.letters, value) if sign == "-" else part
        return self._power()

    def _power(self) -> _Part:
        base = self._postfix()
        if self._peek() != "^":
            return base
        before = self.at
        self.at += 1
        try:
            exponent = self._signed()
        except _NoMatch:
            self.at = before
            return base
        return _powered(base, exponent)

    def _postfix(self) -> _Part:
        part = self._atom()
        while (mark := self._peek()) in ("!", "%", "°"):
            if mark == "%" and self._is_remainder():
                break
            if mark == "!":
                part = _factorial(part)
            elif mark == "%":
                part = _Part(f"{part.within(4)}*Rational(1, 100)", 1, letters=part.letters)
            else:
                after = self.tokens[self.at + 1 : self.at + 2]
                if after and after[0].text in ("c", "f"):
                    break
                part = _Part(f"{part.within(4)}*pi/180", 1, letters=part.letters)
            self.at += 1
        return part

    def _atom(self) -> _Part:
        if self.at >= len(self.tokens):
            raise _NoMatch
        token = self.tokens[self.at]
        if token.kind == "number":
            self.at += 1
            return _literal(token.text)
        if token.text == "(":
            self.at += 1
            inner = self._nested()
            return _Part(inner.within(4), 4, inner.integer, inner.letters, inner.value)
        if token.kind != "word" or token.text == "mod":
            raise _NoMatch
        self.at += 1
        if _is_function(token.text):
            return self._call(token.text)
        if token.text in CONSTANTS:
            return _Part(CONSTANTS[token.text], 4)
        return _Part(token.text, 4, letters=frozenset(token.text))

    def _nested(self) -> _Part:
        inner = self._sum()
        if self._peek() != ")":
            raise _NoMatch
        self.at += 1
        return inner

    def _call(self, name: str) -> _Part:
        # "sin^2 x" is the square of sin x.
        exponent = None
        if self._peek() == "^":
            self.at += 1
            exponent = self._atom()
        if self._peek() == "(":
            self.at += 1
            argument = self._nested()
        else:
            argument = self._signed()
            while self._juxtaposed() and not self.tokens[self.at].spaced:
                argument = _joined(argument, "*", self._power())
        if self._peek() == "°" and not argument.letters and name in ("sin", "cos", "tan"):
            self.at += 1
            argument = _Part(f"{argument.within(1)}*pi/180", 1)
        if name == "factorial":
            return _factorial(argument)
        if name.startswith("log_"):
            source = f"log({argument.source}, {exact(name[4:])})"
        elif name == "log":
            source = f"log({argument.source}, 10)"
        else:
            source = f"{FUNCTIONS[name]}({argument.source})"
        part = _Part(source, 4, letters=argument.letters)
        return part if exponent is None else _powered(part, exponent)


def _is_function(word: str) -> bool:
    return word in FUNCTIONS or word.startswith("log_")


def _literal(text: str) -> _Part:
    return _Part(exact(text), 4, "." not in text, value=float(text))


def _joined(left: _Part, sign: str, right: _Part) -> _Part:
    letters = left.letters | right.letters
    if sign == "*":
        return _Part(f"{left.within(1)}*{right.within(2)}", 1, left.integer and right.integer, letters)
    if sign == "/":
        exact = left.integer and right.integer
        return _Part(f"{f'S({left.source})' if exact else left.within(1)}/{right.within(3)}", 1, letters=letters)
    return _Part(f"Mod({left.source}, {right.source})", 4, letters=letters)


def _powered(base: _Part, exponent: _Part) -> _Part:
    # A tower such as 9^9^9 has an exponent that is no literal; its size is not worked out to refuse it.
    if "**" in exponent.source and not exponent.letters:
        raise TooLarge("it has a power in an exponent")
    if exponent.value is not None and abs(exponent.value) > EXPONENT:
        raise TooLarge(f"it has an exponent beyond {EXPONENT}")
    if exponent.value is None and not exponent.letters and re.search(rf"\d{{{len(str(EXPONENT))}}}", exponent.source):
        raise TooLarge(f"it has an exponent beyond {EXPONENT}")
    literal = exponent.value is not None and exponent.value >= 0
    exact = base.integer and exponent.integer and not literal
    source = f"S({base.source})" if exact else base.within(4)
    return _Part(
        f"{source}**{exponent.within(4)}",
        3,
        base.integer and exponent.integer and literal,
        base.letters | exponent.letters,
    )


def _factorial(part: _Part) -> _Part:
    if part.letters or part.value is None or part.value > EXPONENT:
        raise TooLarge(f"factorials are worked out of numbers up to {EXPONENT}")
    return _Part(f"factorial({part.source})", 4)
