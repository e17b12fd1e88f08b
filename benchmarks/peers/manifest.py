"""Who is measured beside askq, as `manifest.toml` has it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One entry of the manifest."""

    name: str
    runner: str
    speaks: str
    made_for: str
    arguments: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    """Exact; none: the project's own environment will do."""

    @property
    def script(self) -> Path:
        return _HERE / "runners" / self.runner


def read_manifest() -> list[Peer]:
    """All of them, in the order of the tables."""
    entries = tomllib.loads((_HERE / "manifest.toml").read_text("utf-8"))["peer"]
    return [
        Peer(**entry | {key: tuple(entry.get(key, ())) for key in ("arguments", "requirements")}) for entry in entries
    ]
