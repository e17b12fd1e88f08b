"""The three ways to speak to a server that matter for what a lost reply costs.

Assistants: runs can be listed. Responses with keys: a create can be repeated. Responses without: neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from askq.assistants.model import ProtocolName
from tests.chaos.report import Report
from tests.chaos.world import World, world


@dataclass(frozen=True, slots=True)
class Leg:
    """One world: a server with or without keys, and the protocols spoken to it."""

    name: str
    keyed: bool
    protocols: tuple[ProtocolName, ...]


WITHOUT_KEYS = Leg("without keys", keyed=False, protocols=("assistants", "responses"))
WITH_KEYS = Leg("with keys", keyed=True, protocols=("responses",))
BOTH = (WITHOUT_KEYS, WITH_KEYS)
MIXED = Leg("with keys, both protocols", keyed=True, protocols=("assistants", "responses"))


def each(
    legs: tuple[Leg, ...], seed: int, folder: Path, experiment: Callable[[World, Leg], None], **options: Any
) -> Iterator[Report]:
    """Run an experiment once per leg; the verdict of each."""
    for number, leg in enumerate(legs):
        with world(folder / f"leg{number}", seed=seed + number, keyed=leg.keyed, **options) as made:
            experiment(made, leg)
            yield made.verdict()
