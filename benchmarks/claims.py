"""What watched workers have noted (`benchmarks.watched_worker`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from askq.jobs.model import Lane


@dataclass(frozen=True, slots=True)
class Noted:
    """One claim."""

    lane: Lane
    at: float
    late_s: float
    pid: int
    job: str


def noted(file: Path) -> list[Noted]:
    """The claims in a file, in the order they were noted."""
    if not file.exists():
        return []
    # The last line may be half written.
    lines = file.read_text("utf-8").splitlines(keepends=True)
    found = (line.split() for line in lines if line.endswith("\n"))
    return [Noted(Lane(lane), float(at), float(late), int(pid), job) for lane, at, late, pid, job in found]
