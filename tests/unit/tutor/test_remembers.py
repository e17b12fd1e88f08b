"""The tutor in a conversation: "that" is the number its last answer came to, and nothing is made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from askq.localapi.tutor import solve
from askq.localapi.tutor.answer import close


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> Iterator[None]:
    yield
    close()


SIXTY = "15 × 4 = 60."


@pytest.mark.parametrize(
    ("question", "reply", "said"),
    [
        ("Multiply that by 3", SIXTY, "60 × 3 = 180."),
        ("what is that times 3?", SIXTY, "60 × 3 = 180."),
        ("Add 10 to that", SIXTY, "60 + 10 = 70."),
        ("Divide the result by 8", SIXTY, "60 / 8 = 15/2"),
        ("What is 20% of that?", SIXTY, "20% of 60 = 12."),
        ("Double it", SIXTY, "60 × 2 = 120."),
        ("Is that prime?", "15 × 4 + 1 = 61.", "Yes, 61 is a prime number."),
        ("Is that number prime?", "Of the numbers 4, 5, 9, the mean is 6.", "No, 6 is not a prime number"),
        ("Subtract 1/2 from that", "1/3 + 1/4 = 7/12 ≈ 0.5833333333.", "(7/12) - 1/2 = 1/12"),
        ("Multiply it by 3", "2 - 5 = -3.", "(-3) × 3 = -9."),
        ("Multiply it by 3", "Let us solve the equation 3x + 11 = 14 for x. The solution is x = 1.", "1 × 3 = 3."),
        ("그 결과에 3을 곱하면 얼마야?", SIXTY, "60 × 3 = 180."),
        ("거기서 7을 빼면?", SIXTY, "60 - 7 = 53."),
        ("그것을 4로 나누면 얼마인가요?", SIXTY, "60 / 4 = 15."),
        ("거기에 5를 더하면?", SIXTY, "60 + 5 = 65."),
    ],
)
async def test_that_is_what_the_last_answer_came_to(question: str, reply: str, said: str) -> None:
    solution = await solve(question, ["What before?", reply], [reply])
    assert solution.text.startswith(said)
    assert solution.code is not None


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("Multiply it by 3", "The solutions are x = -2 and x = 2."),
        ("Multiply it by 3", "I cannot answer this."),
        ("Now take a walk with that", SIXTY),
    ],
)
async def test_what_is_not_one_number_is_not_guessed(question: str, reply: str) -> None:
    solution = await solve(question, ["Solve 3x + 11 = 14", reply], [reply])
    assert solution.code is None
    assert solution.text.startswith("I cannot answer this.")


async def test_without_a_reply_nothing_is_meant() -> None:
    assert (await solve("Multiply that by 3", ["Solve 3x + 11 = 14"])).code is None


async def test_a_formula_is_still_remembered() -> None:
    solution = await solve("Differentiate it", ["Expand (x + 1)^2", "(x + 1)^2 = x^2 + 2x + 1."])
    assert "2x + 2" in solution.text
