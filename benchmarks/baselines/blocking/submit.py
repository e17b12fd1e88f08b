"""`python -m benchmarks.baselines.blocking.submit QUESTIONS.csv TICKETS.json`: send a list, note each result's id."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from benchmarks.baselines.blocking.tasks import ask


def main(questions: Path, tickets: Path) -> None:
    with questions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sent = {row["question"]: ask.delay(row["question"]).id for row in rows}
    tickets.write_text(json.dumps(sent), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
