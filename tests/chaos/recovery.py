"""How long an interrupted claim waits: from the death of its holder to the next claim of the same job.

A claim is open from the moment it is taken until a move gives the job back. One that is open when its holder is
SIGKILLed never ends that way: the next thing that happens to the job is another claim. So no record of who held what
is needed; a claim that was open at a kill and was committed afterwards belonged to somebody else. Kills must be
further apart than a recovery takes, or a wait could be counted from the wrong one; `Crew` only asks for figures in
parts of a profile that keep that distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.tape import Event, Tape


@dataclass(frozen=True, slots=True)
class Outage:
    """A Redis server that was killed and came back."""

    down_at: float
    up_at: float
    """When it answered again."""
    held: tuple[str, ...]
    """Jobs that were in somebody's hands when it came back."""


def after_kills(tape: Tape, kills: Sequence[float]) -> list[float]:
    """Seconds from a kill to the next claim, for every claim that a kill interrupted."""
    return [wait for job in tape.jobs() for wait in _interrupted(tape.of(job), kills)]


def _interrupted(events: Iterable[Event], kills: Sequence[float]) -> Iterable[float]:
    held_since: float | None = None
    for event in events:
        if event.what == "claim":
            if held_since is not None:
                cause = next((kill for kill in kills if held_since <= kill <= event.at), None)
                if cause is not None:
                    yield event.at - cause
            held_since = event.at
        elif event.releases:
            held_since = None


def after_outages(tape: Tape, outages: Sequence[Outage]) -> list[float]:
    """Seconds from the moment Redis answered again until each job that was in hand moved on."""
    waits = []
    for outage in outages:
        for job in outage.held:
            moved = next((event.at for event in tape.of(job) if event.at >= outage.up_at), None)
            if moved is not None:
                waits.append(moved - outage.up_at)
    return waits
