"""What became of a list, read off the server's ledger and the contender's store, never off a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.questions import right_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Counts of questions, but for the last two, which count runs."""

    answered: int
    """The question's own answer can be fetched."""
    wrong: int
    """An answer can be fetched, and it is another question's."""
    lost_silently: int
    """No answer, nothing pending that would ever bring one, and no record that says so."""
    lost_reported: int
    """The same, but the contender has on record that it failed."""
    undecided: int
    """No answer at the deadline, and something still pending."""
    paid_twice: int
    """Runs beyond the first of each question."""
    runs: int
    """Runs the server was asked for."""


def judge(
    questions: Sequence[str],
    *,
    answers: Mapping[str, str],
    reported: Collection[str],
    quiet: bool,
    runs: Iterable[str],
) -> Verdict:
    """`answers` by question; `reported`: questions with a recorded failure; `runs`: the question of each run.

    `quiet` says that nothing was pending any more.
    """
    paid = Counter(runs)
    left = [question for question in questions if question not in answers]
    told = sum(question in reported for question in left)
    return Verdict(
        answered=sum(answers.get(question) == right_answer(question) for question in questions),
        wrong=sum(answers[question] != right_answer(question) for question in questions if question in answers),
        lost_silently=len(left) - told if quiet else 0,
        lost_reported=told,
        undecided=0 if quiet else len(left) - told,
        paid_twice=sum(count - 1 for count in paid.values()),
        runs=paid.total(),
    )
