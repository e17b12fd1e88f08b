"""The files that runs have made: how many there are among answers, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from askq.jobs.model import Job


class Outputs:
    """Counts the files of jobs that pass through."""

    def __init__(self) -> None:
        self.kept = 0
        self.missing = 0

    def through(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs, as they are."""
        for job in jobs:
            for file in job.answer.files if job.answer is not None else ():
                self.kept += "path" in file
                self.missing += "error" in file
            yield job

    def told(self, folder: Path) -> str | None:
        """A line for people; None where no run has made files."""
        if not self.kept and not self.missing:
            return None
        missing = f"; {self.missing} were not kept: their `error` says why" if self.missing else ""
        return f"{self.kept} files: in {folder}, by `path` of the answers' `files`{missing}"
