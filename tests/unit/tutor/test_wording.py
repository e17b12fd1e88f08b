"""Different spellings of one question come out alike."""

from __future__ import annotations

import pytest

from askq.localapi.tutor.wording import plain


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("What’s 6 × 7?", "what is 6 * 7?"),
        ("six times seven", "6 * 7"),
        ("8 − 3", "8 - 3"),
        ("84 ÷ 7", "84 / 7"),
        ("84 divided by 7", "84 / 7"),
        ("x² + y³", "x^2 + y^3"),
        ("10⁻²", "10^-2"),
        ("x squared plus 1", "x^2 + 1"),
        ("2 to the power of 5", "2 ^ 5"),
        ("3 raised to the power 4", "3 ^ 4"),
        ("5 to the 3rd power", "5 ^3"),
        ("$1,234,567.50", "1234567.50"),
        ("2x + 1 is greater than or equal to 9", "2x + 1 >= 9"),
        ("x ≤ 4", "x <= 4"),
        ("3x equals 12", "3x = 12"),
        ("3x is equal to 12", "3x = 12"),
        ("the square root of 49", "the sqrt 49"),
        ("√49", "sqrt 49"),
        ("the 4th root of 16", "the (16)^(1/4)"),
        ("half of 90", "(1/2) * 90"),
        ("15 percent of 60", "15 % * 60"),
        ("3/4 of 20", "3/4 * 20"),
        ("7 x 8", "7 * 8"),
        ("|x - 2|", "abs(x - 2)"),
        ("log base 3 of 81", "log_3 81"),
        ("sine of 30 degrees", "sin 30°"),
        ("25 degrees Celsius", "25 celsius"),
        (r"\frac{1}{2} \cdot x^{10}", "((1)/(2)) * x^(10)"),
        ("subtract 8 from 20", "20 - 8"),
        ("the sum of 3/4 and 2", "the 3/4 + 2"),
        ("7. Solve 2x = 4", "solve 2x = 4"),
        ("Question 3: 5 + 5", "5 + 5"),
        ("If g(t) = t^2 - 1, find g(5)", "if t^2 - 1, find at t = 5"),
        ("17 곱하기 23은?", "17 * 23 ?"),
        ("20의 15%", "15% * 20"),
        ("１２ ＋ ３", "12 + 3"),
    ],
)
def test_one_plain_spelling(written: str, expected: str) -> None:
    assert plain(written) == expected


def test_commas_of_a_list_are_not_thousands_separators() -> None:
    assert plain("mean of 100,200,300") == "mean of 100,200,300"
    assert plain("mean of 1,200, 1,300 and 90") == "mean of 1200, 1300 and 90"
    assert plain("[[1,200],[3,400]]") == "[[1,200],[3,400]]"


def test_number_words_without_an_operator_stay_words() -> None:
    assert plain("Which two numbers are one apart?") == "which two numbers are one apart?"
