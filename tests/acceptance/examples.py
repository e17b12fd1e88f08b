"""The examples as a person takes them: copied, and run step by step with the command that is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.acceptance.stack import ROOT

PROTOCOLS = ("responses", "assistants")


def example(name: str, folder: Path) -> Path:
    """A copy of an example. Copies in one folder share what is embedded, as they do in a checkout."""
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name))


def step(copy: Path, script: str, *options: str) -> str:
    """What a step of an example prints."""
    home = {"HOME": str(copy.parent), "ASKQ_HOME": str(copy.parent / ".askq"), "PYTHONPATH": str(ROOT)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(copy / script), *options],
        env={"PATH": path, "LANG": "C.UTF-8", "ASKQ_TICK_S": "0.1", **home},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
