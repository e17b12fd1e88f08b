"""The environment of a program that embeds everything in a folder."""

from __future__ import annotations

import os
from pathlib import Path


def embedding(folder: Path, scripted: Path) -> dict[str, str]:
    """Nothing configured but a folder of its own, and a script that answers."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "ASKQ_HOME": str(folder / "home"),
        "ASKQ_LOCAL_ENGINE": "script",
        "ASKQ_SCRIPT": str(scripted),
    }
