"""`python -m benchmarks.baselines.best_practice.submit QUESTIONS.csv`: send what has no stored answer.

May be repeated at any time, and is how whatever got lost is asked again.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from benchmarks.baselines.best_practice.keys import ANSWERS, FAILED
from benchmarks.baselines.best_practice.tasks import ask, store


def main(questions: Path) -> None:
    with questions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answered = set(store.hkeys(ANSWERS))
    for row in rows:
        if row["id"] not in answered:
            store.hdel(FAILED, row["id"])
            ask.apply_async((row["id"], row["question"]), task_id=f"ask-{row['id']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
