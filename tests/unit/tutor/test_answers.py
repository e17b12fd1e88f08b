"""Questions of every kind, worded unlike the examples, with the answers a teacher would check."""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from askq.localapi import tutor
from askq.localapi.tutor import Solution, answer, solve
from askq.localapi.tutor.recognise import KINDS, recognise
from askq.localapi.tutor.sandbox import Ended, Run

EXAMPLES = Path(__file__).parents[3] / "examples" / "questions.csv"

# The kind that must recognise it, the question, and what the answer must say.
QUESTIONS = [
    ("arithmetic", "What's 17 × 23?", "= 391"),
    ("arithmetic", "what is twelve plus 7 times 3", "= 33"),
    ("arithmetic", "Please calculate (2.5 + 1/4) ÷ 5.", "= 0.55"),
    ("arithmetic", "Compute 1,234 + 5,678", "= 6912"),
    ("arithmetic", "How much is −5 − −3?", "= -2"),
    ("arithmetic", "3/4 + 5/6", "19/12"),
    ("arithmetic", "2 to the power of 100", "1267650600228229401496703205376"),
    ("arithmetic", "What is 10 divided by 0?", "undefined"),
    ("arithmetic", "What is 17 mod 5?", "= 2"),
    ("arithmetic", "What is the square root of 144?", "= 12"),
    ("arithmetic", "∛27", "= 3"),
    ("arithmetic", "What is 7 squared?", "= 49"),
    ("arithmetic", "√50", "5√2 ≈ 7.071067812"),
    ("arithmetic", "log base 2 of 64", "= 6"),
    ("arithmetic", "What is log(1000)?", "= 3 (log is the logarithm to the base 10)"),
    ("arithmetic", "What is ln(e^3)?", "= 3"),
    ("arithmetic", "sin 30°", "1/2 = 0.5"),
    ("arithmetic", "What is cos(pi/3)?", "1/2 = 0.5"),
    ("arithmetic", "sin(1)", "0.8414709848, with the angle in radians"),
    ("arithmetic", "tan 90 degrees", "undefined"),
    ("arithmetic", "What is 15 percent of 240?", "= 36"),
    ("arithmetic", "Write 0.375 as a fraction", "= 3/8"),
    ("arithmetic", "7/8 as a decimal", "= 0.875"),
    ("arithmetic", "What is 3/5 as a percentage?", "60 percent"),
    ("arithmetic", "What is the product of 12 and 9?", "= 108"),
    ("arithmetic", "Subtract 8 from 20", "= 12"),
    ("arithmetic", "Compute 6!", "= 720"),
    ("arithmetic", "17 곱하기 23은?", "= 391"),
    ("arithmetic", "2x + 3y - x", "x + 3y"),
    ("arithmetic", "If I subtract 13 from 50, what is left?", "= 37"),
    ("arithmetic", "Express 5/8 as a percent.", "62.5 percent"),
    ("arithmetic", "Wie viel ist 12 + 30?", "= 42"),
    ("arithmetic", "Combien font 7 x 8 ?", "= 56"),
    ("arithmetic", "¿Cuánto es 15 + 27?", "= 42"),
    ("equations", "Help me: 5y - 3 = 2y + 9", "y = 4"),
    ("equations", "If 4 times x equals 28, what is x?", "x = 7"),
    ("equations", "Find all x with x² + x − 12 = 0", "x = -4 and x = 3"),
    ("equations", "Solve 2x^2 + 3x + 5 = 0", "There is no real solution."),
    ("equations", "What are the roots of x^3 - 6x^2 + 11x - 6?", "x = 1 and x = 2 and x = 3"),
    ("equations", "solve x^5 - x - 1 = 0", "x ≈ 1.1673"),
    ("equations", "x^2 = 2", "x = -√2 ≈ -1.41421"),
    ("equations", "2(x + 1) = 2x + 2", "every value of x"),
    ("equations", "x + 1 = x + 2", "no solution"),
    ("equations", "Solve a*x + b = 0 for x", "x = -b/a"),
    ("equations", "|x - 3| = 5", "x = -2 and x = 8"),
    ("equations", "Solve 2^x = 8", "x = 3"),
    ("equations", "Solve √x = 3", "x = 9"),
    ("equations", "Solve log(x) = 2", "(log is the logarithm to the base 10). The solution is x = 100."),
    ("equations", "Solve ln(x) = 2", "for x. The solution is x = e^2 ≈ 7.38906."),
    ("equations", "Solve sin(x) = 0.5", "5π/6 ≈ 2.61799. These are the solutions of one period; they repeat with it."),
    ("equations", "방정식 2x + 5 = 17을 풀어줘", "x = 6"),
    ("systems of equations", "Find x and y: x + y = 10, x - y = 4", "x = 7, y = 3"),
    ("systems of equations", "Solve the system 2a + 3b = 12 and a - b = 1", "a = 3, b = 2"),
    ("systems of equations", "x + y = 1 and x + y = 2", "no common solution"),
    ("systems of equations", "x + y + z = 6, x - y = 0, z = 2x", "x = 3/2, y = 3/2, z = 3"),
    ("inequalities", "For which x is 2x + 1 < 7?", "x < 3"),
    ("inequalities", "Solve x² ≥ 9", "x ≥ 3 or x ≤ -3"),
    ("inequalities", "-3 < 2x + 1 ≤ 5", "x ≤ 2 and x > -2"),
    ("inequalities", "When is x^2 < 2?", "x < √2 and x > -√2"),
    ("inequalities", "x^2 < -1", "No real x"),
    ("inequalities", "x^2 >= 0", "Every real x"),
    ("true or false", "Is 7 × 8 = 54?", "No: the left side is 56"),
    ("true or false", "Is 2/3 greater than 3/5?", "Yes"),
    ("formulas at given values", "If f(x) = 2x² + 1, find f(3)", "is 19"),
    ("formulas at given values", "If x = 3 and y = 2, what is 2x + y^2?", "is 10"),
    ("formulas at given values", "y = 2x + 1; what is y when x = 4?", "is 9"),
    ("derivatives", "What is the derivative of x³ + 2x with respect to x?", "3x^2 + 2"),
    ("derivatives", "d/dx ln(x)", "is 1/x"),
    ("derivatives", "Find the second derivative of x^4 - 3x", "12x^2"),
    ("derivatives", "What is the derivative of t^2 at t = 3?", "is 6"),
    ("derivatives", "differentiate sin^2(x)", "2sin(x)·cos(x)"),
    ("derivatives", "Find the gradient of y = x^3 at x = 2", "at x = 2 is 12"),
    ("derivatives", "What's the derivative of log(x)?", "1/(x·ln(10)) (log is the logarithm to the base 10)"),
    ("derivatives", "x^3을 미분해줘", "3x^2"),
    ("integrals", "Integrate sin x between 0 and pi", "is 2"),
    ("integrals", "∫ x² dx", "x^3/3 + C"),
    ("integrals", "antiderivative of 6x", "3x^2 + C"),
    ("integrals", "area under x^2 from x = 0 to x = 3", "is 9"),
    ("integrals", "Calculate the integral from 1 to 4 of 2x dx.", "is 15"),
    ("integrals", "integrate x^x", "no closed form"),
    ("limits", "What does sin(x)/x tend to, as x approaches 0? Find the limit.", "tends to 1"),
    ("limits", "lim x→∞ (2x+1)/(x-3)", "tends to 2"),
    ("limits", "What is the limit of sin(x) as x approaches infinity?", "has no limit"),
    ("limits", "limit of 1/x as x goes to 0 from the right", "tends to ∞"),
    ("limits", "limit of (1+1/n)^n as n -> infinity", "e ≈ 2.718281828"),
    ("factoring, expanding, simplifying", "Factorise x² − 9", "(x - 3)·(x + 3)"),
    ("factoring, expanding, simplifying", "Expand (x+1)^3", "x^3 + 3x^2 + 3x + 1"),
    ("factoring, expanding, simplifying", "Simplify (x^2 - 1)/(x - 1)", "is x + 1"),
    ("primes and divisors", "Is 97 prime?", "Yes, 97"),
    ("primes and divisors", "Is 91 a prime or a composite number?", "91 = 7 × 13"),
    ("primes and divisors", "Is 1 a prime number?", "No, 1"),
    ("primes and divisors", "What are the prime factors of 360?", "2^3 × 3^2 × 5"),
    ("primes and divisors", "Decompose 84 into primes", "2^2 × 3 × 7"),
    ("primes and divisors", "List the factors of 36", "1, 2, 3, 4, 6, 9, 12, 18, 36"),
    ("primes and divisors", "How many factors does 12 have?", "12 has 6 divisors"),
    ("primes and divisors", "all primes between 10 and 30", "11, 13, 17, 19, 23, 29"),
    ("primes and divisors", "How many primes are below 100?", "There are 25 primes"),
    ("primes and divisors", "What is the 10th prime number?", "is 29"),
    ("primes and divisors", "Which prime comes after 100?", "is 101"),
    ("common divisors and multiples", "GCD of 48 and 180", "is 12"),
    ("common divisors and multiples", "Find the least common multiple of 4, 6 and 10", "is 60"),
    ("common divisors and multiples", "12와 18의 최대공약수는?", "is 6"),
    ("percentages", "What percent of 80 is 20?", "25 percent"),
    ("percentages", "30 is what percentage of 120?", "25 percent"),
    ("percentages", "18 is 30% of what number?", "of 60"),
    ("percentages", "If 15% of a number is 45, what is the number?", "of 300"),
    ("percentages", "A jacket costs 80 dollars. The price goes up by 5%. What does it cost now?", "is 84"),
    ("percentages", "Increase 80 by 15%", "is 92"),
    ("percentages", "A $45 shirt has 20% off. What does it cost?", "is 36"),
    ("percentages", "What is the percent change from 40 to 50?", "25 percent"),
    ("percentages", "I scored 18 out of 24. What percentage is that?", "75 percent"),
    ("statistics of a list", "What is the average of 4, 8, 15, 16, 23 and 42?", "the mean is 18"),
    ("statistics of a list", "median of 7, 3, 9, 1", "the median is 5"),
    ("statistics of a list", "Which is the mode of 1, 2, 2, 3?", "is 2"),
    ("statistics of a list", "Sample standard deviation of 2, 4, 4, 4, 5, 5, 7, 9", "2.138089935"),
    ("statistics of a list", "population standard deviation of 2, 4, 4, 4, 5, 5, 7, 9", "is 2"),
    ("statistics of a list", "variance of 1, 2, 3, 4", "5/3"),
    ("statistics of a list", "What is the range of the 4 numbers 3, 8, 1 and 9?", "the range is 8"),
    ("statistics of a list", "Add up 1.5, 2.5 and 3", "the sum is 7"),
    ("statistics of a list", "mean of 100,200,300", "the mean is 200"),
    ("statistics of a list", "3, 5, 7의 평균을 구해줘", "the mean is 5"),
    ("geometry", "What is the circumference of a circle whose diameter is 10 m?", "10π ≈ 31.41592654 m"),
    ("geometry", "area of a rectangle 4 m wide and 6 m long", "24 m^2"),
    ("geometry", "A right triangle has hypotenuse 13 and one leg 5. How long is the other leg?", "is 12"),
    ("geometry", "One leg is 6 cm, the other leg is 8 cm. Find the hypotenuse.", "is 10 cm"),
    ("geometry", "volume of a sphere of radius 3", "36π"),
    ("geometry", "A cylinder has height 10 and radius 3. What is its volume?", "90π"),
    ("geometry", "Area of a triangle with base 10 and height 6", "is 30"),
    ("geometry", "Area of a triangle with sides 3, 4, 5", "is 6"),
    ("geometry", "What is the perimeter of a square with a side of 2.5 cm?", "10 cm"),
    ("geometry", "surface area of a cube with edge 2", "is 24"),
    ("units", "Convert 5 km to miles", "3.106855961 miles"),
    ("units", "How many feet are in 3 meters?", "9.842519685 feet"),
    ("units", "100 °F in celsius", "37.77777778 °C"),
    ("units", "convert 37 degrees Celsius to Fahrenheit", "98.6 °F"),
    ("units", "How many minutes are in 2.5 hours?", "150 minutes"),
    ("units", "36 km/h in m/s", "10 m/s"),
    ("sequences", "What is the next number in 2, 5, 8, 11, ...?", "is 14"),
    ("sequences", "What is the 10th term of 3, 6, 12?", "1536"),
    ("sequences", "next two terms: 81, 27, 9", "3, 1"),
    ("sequences", "sum of the first 10 terms of 2, 4, 6", "is 110"),
    ("sequences", "next term of 2, 4, 9?", "neither arithmetic nor geometric"),
    ("sequences", "What is the 12th Fibonacci number?", "is 144"),
    ("sequences", "sum of the first 100 natural numbers", "is 5050"),
    ("sequences", "What is the sum of the odd numbers from 1 to 99?", "is 2500"),
    ("permutations and combinations", "How many ways can you choose 3 people from 10?", "120 ways"),
    ("permutations and combinations", "10C4", "210 ways"),
    ("permutations and combinations", "permutations of 5 items taken 2 at a time", "20 ways"),
    ("permutations and combinations", "In how many ways can 5 books be arranged?", "5! = 120"),
    ("permutations and combinations", "What is the factorial of 7?", "5040"),
    ("number bases", "Convert 45 to binary", "101101 in base 2"),
    ("number bases", "What is 1011 in binary to decimal?", "11 in base 10"),
    ("number bases", "What is the hexadecimal number 1f in decimal?", "31 in base 10"),
    ("number bases", "0xff in binary", "11111111 in base 2"),
    ("number bases", "255 in hexadecimal", "ff in base 16"),
    ("matrices", "Determinant of [[1, 2], [3, 4]]", "is -2"),
    ("matrices", "What is the inverse of [[2, 1], [1, 1]]?", "[[1, -1], [-1, 2]]"),
    ("matrices", "transpose [[1, 2, 3], [4, 5, 6]]", "[[1, 4], [2, 5], [3, 6]]"),
]

BEYOND = [
    "Who wrote Hamlet?",
    "What is the capital of France?",
    "What year did World War 2 end?",
    "Translate 'three plus four' into French",
    "Write a poem about 2x + 3 = 7",
    "Tom has 3 apples and buys 5 more. How many does he have?",
    "What is the average speed of a car that travels 120 km in 2 hours?",
    "A square has a perimeter of 20. What is its area?",
    "The area of a rectangle is 24 and its length is 6. Find its width.",
    "A rectangle is 2 m by 50 cm. What is its area?",
    "Is 2 the only even prime?",
    "What are the 3 primary colours?",
    "What is the sum of the first 5 primes?",
    "Choose 3 adjectives to describe the 2 main characters",
    "What is the slope of the line y = 3x + 2?",
    "If 5 machines make 5 widgets in 5 minutes, how long do 100 machines take for 100 widgets?",
    "A bag has 3 red and 5 blue balls. What is the probability of drawing red?",
    "A car uses 8 liters per 100 km. How many liters for 250 km?",
    "What is 42?",
    "What is 5 + ?",
    "Convert 5 km to kilograms",
    "Find two consecutive integers whose sum is 41.",
    "Determinant of [[1, 2], [3]]",
    # Each holds a smaller exercise that is not what is asked.
    "Determinant of [[1, 2], [3, 4]] plus 3",
    "Find the maximum of f(x) = -x^2 + 4x for x = 1",
    "Find the equation of the tangent to y = x^2 at x = 3",
    "What is the sum of the roots of x^2 - 5x + 6 = 0?",
    "What is the discriminant of x^2 - 5x + 6 = 0?",
    "Is 3 + 4 = 7 and 2 + 2 = 5?",
    "Solve x > 3 and x < 5",
    "How many integers satisfy 2 < x < 7?",
    "What is the sum of the squares of 3 and 4?",
    "What is the sum of the numbers from 1 to 10 that are divisible by 3?",
    "What is 5 factorial divided by 3 factorial?",
    "In how many ways can 3 boys and 4 girls sit in a row?",
    "Convert 3.5 to binary",
    "What's 2 + 2 in binary?",
    "Convert 129 in binary to decimal",
    "",
    "?",
    "solve ((((",
    "solve __import__('os').system('id')",
    "Solve eval(\"open('/etc/passwd').read()\") = x",
    "print(open('secret.txt').read())",
    "x" * 5000,
    "3x + 11 = 14 " * 500,
]


@pytest.fixture(scope="module", autouse=True)
def _sandbox_closed() -> Iterator[None]:
    yield
    tutor.close()


@pytest.mark.parametrize(("kind", "question", "expected"), QUESTIONS, ids=[question for _, question, _ in QUESTIONS])
async def test_a_question_is_answered_by_computing(kind: str, question: str, expected: str) -> None:
    recognised = recognise(question)
    assert recognised is not None
    assert recognised[0].name == kind
    solution = await solve(question)
    assert not solution.failed
    assert expected in solution.text
    assert solution.code
    assert solution.logs


def test_every_kind_is_asked() -> None:
    assert {kind for kind, _, _ in QUESTIONS} == {kind.name for kind in KINDS}


def test_no_question_is_one_of_the_examples() -> None:
    with EXAMPLES.open(encoding="utf-8", newline="") as file:
        examples = {row["question"].casefold() for row in csv.DictReader(file)}
    assert not examples & {question.casefold() for _, question, _ in QUESTIONS}


@pytest.mark.parametrize("question", BEYOND)
async def test_what_is_beyond_it_is_admitted(question: str) -> None:
    solution = await solve(question)
    assert solution.text.startswith("I cannot answer this. I am askq's offline tutor")
    assert "OPENAI_API_KEY" in solution.text
    assert "askq local-api --engine chat --chat-url http://127.0.0.1:11434/v1" in solution.text
    assert (solution.code, solution.logs, solution.failed) == (None, None, False)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("9**9**9", "it has a power in an exponent"),
        ("Compute 2^99999999999", "it has an exponent beyond 1000"),
        ("What is 100000!", "factorials are worked out of numbers up to 1000"),
        ("factorial of 5000", "factorials are worked out of numbers up to 1000"),
        ("the 1000000th prime", "it asks for a count beyond 10000"),
        ("1" * 100 + " + 1", "it has a number of more than 60 digits"),
        ("(" * 40 + "1" + ")" * 40, "it has more than 25 operations inside each other"),
    ],
)
async def test_what_is_too_large_is_refused_with_the_reason(question: str, reason: str) -> None:
    solution = await solve(question)
    assert solution.text.startswith(f"This is too large for me to compute: {reason}.")
    assert solution.code is None


async def test_a_program_that_finds_nothing_is_told_as_such() -> None:
    solution = await solve("Solve cos(x) = x")
    assert solution.failed
    assert solution.code
    assert "I wrote a program for this, but it ended with an error (" in solution.text
    assert "OPENAI_API_KEY" in solution.text


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("ok", "but it printed nothing."),
        ("error", "but it ended with an error (no message)."),
        ("time", "but it took too long and was stopped."),
        ("memory", "but it needed more memory than it may have."),
        ("output", "but it printed more than it may."),
        ("refused", "but the sandbox refused what it tried (no message)."),
        ("crashed", "but it crashed."),
        ("unavailable", "but no confined process could be started on this machine"),
    ],
)
async def test_every_end_of_a_program_has_a_sentence(
    ended: Ended, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(program: str) -> Run:
        return Run("", ended)

    monkeypatch.setattr(answer._sandbox, "run", run)
    solution = await solve("3x = 9")
    assert reason in solution.text
    assert solution.failed


async def test_the_sentence_is_made_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(program: str) -> Run:
        return Run("x = 41\n", "ok")

    monkeypatch.setattr(answer._sandbox, "run", run)
    assert "x = 41" in (await solve("3x = 9")).text


async def test_the_program_alone_gives_the_same_output() -> None:
    solution = await solve("x^2 - x = 6")
    assert solution.code is not None
    assert (await answer._sandbox.run(solution.code)).output == solution.logs == "x = -2\nx = 3\n"


async def test_a_pronoun_is_about_the_latest_formula() -> None:
    history = ["What is 2 + 2?", "2 + 2 = 4.", "Expand (x + 1)^2", "(x + 1)^2, expanded, is x^2 + 2x + 1."]
    solution = await solve("And what is its derivative?", history)
    assert "2x + 2" in (await solve("Differentiate it with respect to x, please. x^2 + 2x")).text
    assert re.search(r"derivative of \(x \+ 1\)\^2 .* is 2x \+ 2", solution.text)
    assert (await solve("And what is its derivative?")).code is None


async def test_the_examples_are_all_computed() -> None:
    expected = {
        "linear": "x = 1.",
        "quadratic": "x = 3 and x = 4",
        "system": "x = 9, y = 6",
        "inequality": "x > 4",
        "factor": "(x - 3)·(x + 5)",
        "arithmetic": "= 160",
        "fractions": "19/15",
        "percent": "= 147",
        "discount": "is 84",
        "prime": "No, 221 is not a prime number: 221 = 13 × 17",
        "factors": "2^3 × 3^2 × 7",
        "gcd": "is 42",
        "mean": "the mean is 46/5 = 9.2 and the median is 10",
        "derivative": "15x^2 - 4",
        "integral": "is 10",
        "limit": "tends to 4",
        "circle": "49π ≈ 153.93804 cm^2",
        "pythagoras": "is 15",
        "sequence": "term 20 is 61",
        "korean": "x = 7",
    }
    with EXAMPLES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(expected)
    assert rows[0]["question"] == "I need to solve the equation 3x + 11 = 14. Can you help me?"
    for row in rows:
        solution = await solve(row["question"])
        assert solution.code is not None
        assert not solution.failed
        assert expected[row["id"]] in solution.text


def test_a_solution_is_a_frozen_value() -> None:
    solution = Solution("x = 1", "print(1)", "1\n", failed=False)
    assert replace(solution, text="") != solution
    assert list(inspect.signature(Solution).parameters) == ["text", "code", "logs", "failed"]
