"""Turns a question as people write it into one plain spelling: lower case, ASCII operators, no thousands separators.

Nothing is understood here: `3 × 4²`, `three times 4 squared` and `3 곱하기 4^2` merely come out alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"

_OPERAND = rf"({NUMBER}|\d+/\d+)(?![\d/.]*\d|,)"

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "—": " - ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "≠": "!="}
    | {"≤": "<=", "≥": ">=", "√": " sqrt ", "∛": " cbrt ", "π": "pi", "∞": " infinity ", "∫": " integral of "}
    | {"½": "(1/2)", "¼": "(1/4)", "¾": "(3/4)", "⅓": "(1/3)", "⅔": "(2/3)", "’": "'", "→": "->"}
    | dict.fromkeys('$€£₩“”"`', " ")
)

_KOREAN_THAT = r"(?:그 ?결과|그것|그걸|거기|여기|그 ?값|그 ?수)(?:에서?|서|[을를])?"
_KOREAN = (
    (r"(\d+)의 (\d+ ?(?:%|퍼센트))", r"\2 of \1"),
    (rf"{_KOREAN_THAT} ?({NUMBER})[을를]? ?곱[하해]\S*", r"that * \1"),
    (rf"{_KOREAN_THAT} ?({NUMBER})[을를]? ?더[하해]\S*", r"that + \1"),
    (rf"{_KOREAN_THAT} ?({NUMBER})[을를]? ?(?:빼|뺀|뺄)\S*", r"that - \1"),
    (rf"{_KOREAN_THAT} ?({NUMBER})(?:으?로)? ?나[누눠눈눌]\S*", r"that / \1"),
    ("곱하기", "*"),
    ("더하기", "+"),
    ("빼기", "-"),
    ("나누기", "/"),
    ("퍼센트", "%"),
    ("방정식", " equation "),
    ("소인수 ?분해", " prime factors "),
    ("인수 ?분해", " factor "),
    ("최대 ?공약수", " gcd "),
    ("최소 ?공배수", " lcm "),
    ("미분", " derivative "),
    ("적분", " integral "),
    ("평균", " mean "),
    ("중앙값", " median "),
    ("전개", " expand "),
    ("소수", " prime "),
    ("풀어", " solve "),
    (r"(\d+)의 제곱근", r"sqrt \1"),
    ("얼마|계산|구해|는|은|의|을|를|해줘|하세요|인가요?|줘|이야|과|와", " "),
)

_REFERENT = r"(?:it|that|this|the (?:result|answer))(?: (?:number|result|answer|value))?"
"""How a question names the result of the one before it."""
_AMOUNT = rf"{NUMBER}(?:/\d+)?"
THAT = rf"\b{_REFERENT}\b"

_WORD_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "twenty": "20", "hundred": "100",
}  # fmt: skip
_WORD_NUMBER = "|".join(_WORD_NUMBERS)

_SPELLINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^\s*(?:q(?:uestion)?\s*\d+\s*[.):]|\(?\d+[.)](?=\s))\s*", ""),  # its number in a list of exercises
    (r"\b(what|how|that|it|let)'?s\b", r"\1 is"),
    (r"'s\b|(?<=\w)'(?!\w)", ""),
    # The commonest LaTeX.
    (r"\\d?frac\{([^{}]+)\}\{([^{}]+)\}", r"((\1)/(\2))"),
    (r"\\sqrt\{([^{}]+)\}", r"sqrt(\1)"),
    (r"\^\{([^{}]+)\}", r"^(\1)"),
    (r"\\(?:cdot|times)", "*"),
    (r"\\(?:left|right|[()\[\]])?", " "),
    # Operators said in words.
    (r"\bto the (\d+)(?:st|nd|rd|th)(?: power)?\b", r"^\1"),
    (r"\b(?:raised )?to the power(?: of)?\b|\braised to\b|\*\*", "^"),
    (r"\bsquare roots? of(?: the number)?\b", " sqrt "),
    (r"\bcube roots? of(?: the number)?\b", " cbrt "),
    (rf"\b(?:(\d)th|fourth|fifth) root of ({NUMBER})", lambda found: _root(found)),
    (r"(?<=[\w)]) ?\bsquared\b", "^2"),
    (r"(?<=[\w)]) ?\bcubed\b", "^3"),
    (r"\bmultiplied by\b|\btimes\b", "*"),
    (r"\bdivided by\b", "/"),
    (r"(?<=[\d)]) over (?=[\d(])", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\bmodulo\b", "mod"),
    (rf"\b(double|triple) ({_REFERENT})\b", lambda found: f"{found[2]} * {2 if found[1] == 'double' else 3}"),
    (rf"\bmultiply(?:ing)? ({_REFERENT}|{_AMOUNT}) (?:by|with) ({_REFERENT}|{_AMOUNT})", r"\1 * \2"),
    (rf"\bdivid(?:e|ing) ({_REFERENT}|{_AMOUNT}) by ({_REFERENT}|{_AMOUNT})", r"\1 / \2"),
    (rf"\badd(?:ing)? ({_REFERENT}|{_AMOUNT}) to ({_REFERENT}|{_AMOUNT})", r"\2 + \1"),
    (rf"\bsubtract(?:ing)? ({_REFERENT}|{_AMOUNT}) from ({_REFERENT}|{_AMOUNT})", r"\2 - \1"),
    (rf"\bsubtract(?:ing)? ({NUMBER}) from ({NUMBER})", r"\2 - \1"),
    (rf"\bsum of {_OPERAND} and {_OPERAND}", r"\1 + \2"),
    (rf"\bproduct of {_OPERAND} and {_OPERAND}", r"\1 * \2"),
    (rf"\bquotient of {_OPERAND} and {_OPERAND}", r"\1 / \2"),
    (rf"\bdifference (?:of|between) {_OPERAND} and {_OPERAND}", r"\1 - \2"),
    (r"\bnegative (?=\d)", "-"),
    (r"\bper ?cents?\b", "%"),
    (r"\b(?:is )?(?:greater|more|bigger|larger) than or equal to\b|\bis at least\b", ">="),
    (r"\b(?:is )?(?:less|smaller) than or equal to\b|\bis at most\b", "<="),
    (r"\b(?:is )?(?:greater|bigger|larger) than\b|\bis more than\b", ">"),
    (r"\bis (?:less|smaller) than\b", "<"),
    (r"\b(?:is )?equals?(?: to)?\b|==", "="),
    # Functions.
    (
        r"\blog(?:arithm)?(?: to)?(?: the)? base (\d+)(?: of)?\b|\blog_(\d+)\b|\blog(2|10)\b(?=\s*\()",
        r"log_\1\2\3 ",
    ),
    (rf"\blog(?:arithm)? of ({NUMBER}) (?:to|in|with)(?: the)? base (\d+)\b", r"log_\2 \1"),
    (r"\bnatural log(?:arithm)?\b", "ln"),
    (r"\bcosine\b", "cos"),
    (r"\btangent of(?= \d)", "tan"),
    (r"\bsine\b", "sin"),
    (r"\b(sin|cos|tan|ln|log|log_\d+)  ?(?:of )(?:the number )?", r"\1 "),
    (r"\b(sin|cos|tan|ln|log|sqrt)([xyt])\b", r"\1 \2"),
    (r"\|([^|]+)\|", r"abs(\1)"),
    (r"\bdegrees? (celsius|fahrenheit|c\b|f\b)", r"\1"),
    (r" ?\bdegrees?\b", "°"),
    (r"\bd([xyt]?) ?/ ?d([xyt])\b", r" derivative with respect to \2 of "),
    # Fractions, mixed numbers and shares.
    (r"(?<![\w/.,])(?<![\d/.,] )(\d+) (\d+/\d+)\b", r"(\1+\2)"),
    (r"\bhalf of(?: the)? (?=\d)", "(1/2) * "),
    (r"\b(?:a|one) third of (?=\d)", "(1/3) * "),
    (r"\b(?:a|one) quarter of (?=\d)", "(1/4) * "),
    (r"\bthree quarters of (?=\d)", "(3/4) * "),
    (r"(%|\d/\d+|\)) ?of (?:the )?(?=[\d(.])", r"\1 * "),
    (r"(?<=\d) ?x ?(?=\d)", " * "),
    # Small numbers in words, only where an operator shows that they are meant as numbers.
    (rf"\b({_WORD_NUMBER})\b(?=\s*(?:[+*/^%]|-\s))", lambda found: _WORD_NUMBERS[found[1]]),
    (rf"([-+*/^]\s*)({_WORD_NUMBER})\b", lambda found: found[1] + _WORD_NUMBERS[found[2]]),
)


def _root(found: re.Match[str]) -> str:
    degree = found[1] or {"fou": "4", "fif": "5"}[found[0][:3]]
    return f"({found[2]})^(1/{degree})"


_THOUSANDS = re.compile(r"(?<![\d.,(\[])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_LIST = re.compile(
    r"mean|average|median|mode|range|sum|gcd|hcf|lcm|common|sequence|next|term|numbers|deviation|variance|est\b"
)


def plain(question: str) -> str:
    """The question in the plain spelling."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+", lambda run: "^" + run[0].translate(_SUPERSCRIPTS), question)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).lower()
    for korean, english in _KOREAN:
        text = re.sub(korean, english, text)
    # The mean of "100,200,300" is that of a list; "1,200, 1,300 and 90" has thousands, and so has "1,234,567 + 1".
    if not re.search(r"\d,\d{3},\d{3}", text) or not _LIST.search(text) or re.search(r"\d, |\d and \d", text):
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    text = re.sub(r"\s+", " ", text)
    # "f(x) = 2x + 1, find f(3)" is 2x + 1 at x = 3.
    if function := re.search(r"\b([fgh])\(([a-z])\) ?=", text):
        text = text.replace(function[0], " ")
        text = re.sub(rf"\b{function[1]}\((-?{NUMBER})\)", rf" at {function[2]} = \1 ", text)
        text = re.sub(rf"\b{function[1]}\({function[2]}\)", " ", text)
    for pattern, replacement in _SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return re.sub(r"\s+", " ", text).strip()
