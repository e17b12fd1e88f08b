"""The files that runs have made: how many there are among answers, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from askq.jobs.model import Job
from producer.answers.plain import plain


def line(made: Mapping[str, Any], folder: Path) -> str:
    """One of the `files` of a result, for people: where it is, or why it is not there."""
    if "path" in made:
        return plain(f"{folder / made['path']} ({made['media_type']}, {made['size']:,} bytes)")
    name = str(made.get("name") or made.get("file_id") or made.get("url"))
    why = f": not kept: {made['error']['message']}" if "error" in made else ""
    return plain(f"{name}{why}", one_line=True)


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
