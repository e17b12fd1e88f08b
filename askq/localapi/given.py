"""The outputs that clients gave for function calls, as the ledger keeps them: what was accepted, never changed.

A checker reads from them whether a call that was finished was executed again: its output is noted once for each time
it was accepted, with the run or response it came to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from askq.localapi.engines.base import Request
from askq.localapi.wire import JsonObject

SCHEMA = """
CREATE TABLE IF NOT EXISTS given_outputs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    work TEXT NOT NULL,
    round INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    output TEXT NOT NULL,
    given_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS given_outputs_of_work ON given_outputs (work);
"""
INSERT = (
    "INSERT INTO given_outputs (work, round, call_id, name, arguments, output, given_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
REDACT = "UPDATE given_outputs SET arguments = '', output = '' WHERE work = ?"
_READ = "SELECT * FROM given_outputs WHERE work = ? ORDER BY n"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOutput:
    """One output that was accepted."""

    work: str
    """The run it was submitted to, or the response that brought it."""
    round: int
    """1 for the first outputs after the question."""
    call_id: str
    name: str
    arguments: str
    output: str
    given_at: float

    def row(self) -> tuple[str | int | float, ...]:
        """For `INSERT`."""
        return (self.work, self.round, self.call_id, self.name, self.arguments, self.output, self.given_at)

    def to_wire(self) -> JsonObject:
        """As an entry of the ledger shows it."""
        return {
            "round": self.round,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "output": self.output,
            "given_at": self.given_at,
        }


def last_round(request: Request, at: float) -> list[GivenOutput]:
    """The outputs of the round with which the request ends; none if it ends with a question."""
    found: list[GivenOutput] = []
    calls = {turn.call_id: turn for turn in request.turns if turn.role == "call"}
    for turn in reversed(request.turns):
        if turn.role != "output":
            break
        call = calls.get(turn.call_id)
        found.append(
            GivenOutput(
                work=request.work_id,
                round=request.round,
                call_id=turn.call_id,
                name="" if call is None else call.name,
                arguments="" if call is None else call.text,
                output=turn.text,
                given_at=at,
            )
        )
    return found[::-1]


def read(connection: sqlite3.Connection, works: Iterable[str]) -> dict[str, list[JsonObject]]:
    """The outputs given to each of these runs and responses, oldest first."""
    found: dict[str, list[JsonObject]] = {}
    for work in works:
        rows = connection.execute(_READ, (work,)).fetchall()
        found[work] = [GivenOutput(**{name: row[name] for name in row.keys() if name != "n"}).to_wire() for row in rows]  # noqa: SIM118
    return found
