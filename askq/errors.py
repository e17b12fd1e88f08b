"""Everything askq raises, as one tree.

AskqError
├── InputError          the list, a column or an argument is wrong            exit 2
├── AssistantError      an assistant file is missing or wrong                 exit 2
├── NotFound            no batch, job or assistant of that id                 exit 2
├── ConfigError         a setting or a credential is missing or rejected      exit 4
├── StoreError          Redis cannot be used                                  exit 1
│   ├── StoreDenied         it rejects user or password                       exit 4
│   ├── StoreUnreachable    no answer from it
│   ├── StoreFull           it has too little room for new jobs
│   └── StoreUnsafe         it would lose or evict jobs
├── EmbeddedError       an embedded part cannot be started here               exit 1
├── ApiUnreachable      the model's API does not answer                       exit 1
├── OutputError         the answers cannot be written where asked             exit 1
├── BudgetUsedUp        only a person can let the batch go on                 exit 8
└── WaitTimeout         waiting ended before the batch did                    exit 3

Each says what was attempted, on what, and what to do now. What a *job* ends with is not an exception but an
entry of the table in `askq.ends`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AskqError(Exception):
    """Base of all. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n{self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a file, said the way compilers do: `file:line: what`."""

    message: str
    file: str | None = None
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        column = "" if self.column is None else f' (column "{self.column}")'
        return f"{place}: {self.message}{column}" if place else f"{self.message}{column}"


class InputError(AskqError):
    """The list of questions or an argument is wrong; nothing was queued. Carries every problem found."""

    exit_code = 2
    shown = 20

    def __init__(self, problems: str | Sequence[Problem], *, remedy: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(message=problems),) if isinstance(problems, str) else tuple(problems)
        )
        lines = [str(problem) for problem in self.problems[: self.shown]]
        if len(self.problems) > self.shown:
            lines.append(f"… and {len(self.problems) - self.shown} more problems")
        super().__init__("\n".join(lines), remedy=remedy)


class AssistantError(InputError):
    """An assistant file is missing or wrong; all its problems are told at once."""


class NotFound(AskqError):
    """No batch, job or assistant has that id."""

    exit_code = 2


class ConfigError(AskqError):
    """A setting or a credential is missing, malformed or rejected."""

    exit_code = 4


class StoreError(AskqError):
    """Redis cannot be used."""


class StoreDenied(StoreError):
    """Redis answers, and rejects our user or password."""

    exit_code = 4


class StoreUnreachable(StoreError):
    """Redis does not answer."""


class StoreFull(StoreError):
    """Redis answers, and has too little memory left to take new jobs; those it has go on."""


class StoreUnsafe(StoreError):
    """Redis answers, but it is set up so that it would lose or evict jobs."""


class EmbeddedError(AskqError):
    """An embedded part (Redis, local API, worker) cannot be started on this machine."""


class ApiUnreachable(AskqError):
    """The model's API does not answer."""


class OutputError(AskqError):
    """The answers cannot be written where asked; they are safe in the store."""


class BudgetUsedUp(AskqError):
    """What is left of a batch's budget covers no further question; the answers so far are safe."""

    exit_code = 8


class WaitTimeout(AskqError):
    """Waiting ended before the batch did; the batch goes on."""

    exit_code = 3
