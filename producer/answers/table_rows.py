"""A job as one row of a spreadsheet: the user's columns first, as they were, then askq's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from askq.jobs.model import Job
from askq.structured import cells_of
from producer.answers.cells import cell, defused
from producer.answers.record import USAGE_KEYS, to_record

OWN = (
    "answer",
    "status",
    "error",
    "error_message",
    "retryable",
    "remedy",
    "job_id",
    "batch",
    "assistant",
    "protocol",
    "model",
    "thread_id",
    "run_id",
    "attempts",
    *USAGE_KEYS,
    "created_at",
    "started_at",
    "completed_at",
    "duration_s",
    "files",
    "citations",
    "code",
    "tool_calls",
    "output",
)
"""askq's own columns, in order. `custom_id` and `question` stand before them unless the user's columns hold these."""

_ROLES: Mapping[str, Callable[[Job], str | None]] = {
    "question": lambda job: job.question.text,
    "id": lambda job: job.question.row_id,
    "thread": lambda job: job.question.thread,
    "assistant": lambda job: job.question.assistant,
    "model": lambda job: job.question.model,
    "instructions": lambda job: job.question.instructions,
}


class TableRows:
    """Makes rows of jobs and learns on the way which columns the user has.

    `columns` are the user's columns as far as they are known, in their order; `roles` tells which of them hold the
    question, the id and so on (`Summary.columns` and `Summary.roles` of the list). Columns that turn up in jobs
    besides are put after them. `fields` are those of the answers' schema: each has a column `output.…` beside the
    answer.
    """

    def __init__(
        self, *, columns: Sequence[str] = (), roles: Mapping[str, str] | None = None, fields: Sequence[str] = ()
    ) -> None:
        self._fields = list(fields)
        self._own = [OWN[0], *(f"output.{name}" for name in self._fields), *OWN[1:]]
        self._roles = {name: _ROLES[role] for name, role in (roles or {}).items() if role in _ROLES and name in columns}
        told = {role for name, role in (roles or {}).items() if name in self._roles}
        self._missing = [name for name, role in (("custom_id", "id"), ("question", "question")) if role not in told]
        # Nobody knows the user's table: then the id and the question stand for its beginning.
        self._lead = 0 if columns else len(self._missing)
        self._columns: dict[str, None] = dict.fromkeys(columns)

    def row(self, job: Job) -> tuple[list[str], list[str]]:
        """The user's cells, as many as there are columns so far, and askq's own cells."""
        given = job.question.input
        for name in given:
            self._columns.setdefault(name)
        cells = []
        for name in self._columns:
            if name in given:
                cells.append(cell(given[name]))
            elif name in self._roles:
                cells.append(cell(self._roles[name](job)))
            else:
                cells.append("")
        record = to_record(job)
        own = [cell(record[name]) for name in self._missing]
        flat = _flat(record, job)
        found = cells_of(record["output"], self._fields)
        own.append(cell(flat[OWN[0]]))
        own += [cell(found[name]) for name in self._fields]
        own += [cell(flat[name]) for name in OWN[1:]]
        return cells, own

    def header(self) -> list[str]:
        """The names of all columns seen so far. Where askq's own has the name of a user's, it is told apart by
        `askq_` in front."""
        taken = {name.casefold() for name in self._columns}
        own = []
        for plain in (*self._missing, *self._own):
            name = plain
            while name.casefold() in taken:
                name = f"askq_{name}"
            taken.add(name.casefold())
            own.append(_name(name))
        return [*own[: self._lead], *map(_name, self._columns), *own[self._lead :]]

    def joined(self, cells: Sequence[str], own: Sequence[str]) -> list[str]:
        """A row of `row`, filled up to the columns known by now and in the order of `header`."""
        lead = self._lead
        return [*own[:lead], *cells, *[""] * (len(self._columns) - len(cells)), *own[lead:]]


def _name(column: str) -> str:
    return defused(column.replace("\0", "\ufffd"))


def _flat(record: Mapping[str, Any], job: Job) -> dict[str, Any]:
    error = record["error"] or {}
    duration = None
    if job.started_at is not None and job.completed_at is not None:
        duration = round(job.completed_at - job.started_at, 3)
    return {
        **record,
        **record["usage"],
        "job_id": record["id"],
        "error": error.get("code"),
        "error_message": error.get("message"),
        "retryable": error.get("retryable"),
        "remedy": error.get("remedy"),
        "duration_s": duration,
    }
