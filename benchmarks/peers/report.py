"""`python -m benchmarks.peers.report FILE…`: tables for people and pictures for the docs, from results in JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.chart import Bar, bars
from benchmarks.publish import publish

Row = Mapping[str, Any]

PICTURES = Path(__file__).parents[2] / "docs" / "understand" / "peers"


def _killed(row: Row) -> list[object]:
    told, held = row["unanswered_and_told"], row["held_by_the_dead"]
    return [row["answered"], told, held, row["runs"], row["paid_twice"], row["seconds_of_the_second"]]


def _limited(row: Row) -> list[object]:
    requests = row["requests"]
    return [row["answered"], requests.get("refused", 0), row["first_request_to_last_answer_s"], row["wall_s"]]


def _cost(row: Row) -> list[object]:
    both = round(row["cpu_ms_per_question"] + row["redis_cpu_ms_per_question"], 1)
    polls = round(row["requests"].get("others", 0) / row["runs"], 1) if row["runs"] else None
    return [row["answered"], both, polls, row["first_request_to_last_answer_s"], row["wall_s"]]


TABLES: dict[str, tuple[list[str], Callable[[Row], list[object]]]] = {
    "peers-kill": (
        [
            "answered",
            "not answered, and told so",
            "messages back after the visibility timeout",
            "runs in the ledger",
            "paid twice",
            "seconds of the second command",
        ],
        _killed,
    ),
    "peers-limited": (["answered", "429s", "first request to last answer, s", "whole command, s"], _limited),
    "peers-limited-silently": (["answered", "429s", "first request to last answer, s", "whole command, s"], _limited),
    "peers-cost": (
        ["answered", "CPU per question, ms", "other requests per run", "first request to last answer, s", "command, s"],
        _cost,
    ),
}

# Of a scenario: title, column of the bars, words beside a bar made from all columns.
_DRAWN: dict[str, tuple[str, int, Callable[[list[object], int], str]]] = {
    "peers-kill": (
        "Killed at half, the same command again: runs paid for twice",
        4,
        lambda cells, asked: f"{cells[4]} twice, {cells[0]} of {asked} answered",
    ),
    "peers-limited": (
        "20 requests/s, all defaults: seconds from the first request to the last answer",
        2,
        lambda cells, asked: f"{cells[2]} s, {cells[1]} × 429, {cells[0]} of {asked} answered",
    ),
    "peers-limited-silently": (
        "The same without headers: seconds from the first request to the last answer",
        2,
        lambda cells, asked: f"{cells[2]} s, {cells[1]} × 429, {cells[0]} of {asked} answered",
    ),
    "peers-cost": (
        "Runs of 2 to 20 s: CPU ms per question, Redis included",
        1,
        lambda cells, asked: f"{cells[1]} ms, {cells[0]} of {asked} answered",
    ),
}


def table(scenario: str, found: Mapping[str, Any]) -> str:
    """A Markdown table: a line for each contender."""
    heads, cells_of = TABLES[scenario]
    lines = [_line(f"of {found['questions']} questions", *heads), "|---" * (len(heads) + 1) + "|"]
    for name, row in found["rows"].items():
        cells = ["not measured"] + [""] * (len(heads) - 1) if "not_measured" in row else cells_of(row)
        lines.append(_line(name, *("" if cell is None else str(cell) for cell in cells)))
    return "\n".join(lines)


def picture(scenario: str, found: Mapping[str, Any]) -> str:
    """The scenario's most telling column as bars."""
    title, column, words = _DRAWN[scenario]
    _, cells_of = TABLES[scenario]
    rows = []
    for name, row in found["rows"].items():
        if "not_measured" in row:
            rows.append(Bar(name, None, "not measured"))
            continue
        cells = cells_of(row)
        value = cells[column]
        number = float(value) if isinstance(value, int | float) else None
        note, ours = words(cells, found["questions"]), name.partition(",")[0] == "askq"
        rows.append(Bar(name, number, note, ours=ours, short=row["answered"] < found["questions"]))
    return bars(title, rows, short="has not answered all questions: no comparison")


def _line(*words: str) -> str:
    return f"| {' | '.join(words)} |"


def _text(scenario: str, results: Mapping[str, Any]) -> str:
    return f"{scenario}, {results['machine']}\n\n{table(scenario, results[scenario])}"


def main(argv: list[str] | None = None) -> int:
    return publish(
        argv,
        program="benchmarks.peers.report",
        about=__doc__,
        pictures=PICTURES,
        scenarios=TABLES.keys(),
        text=_text,
        picture=picture,
    )


if __name__ == "__main__":
    sys.exit(main())
