"""`commands`: the CPU of looking: `askq --help`, and `askq status` of a batch of 1,000 questions."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from benchmarks import questions
from benchmarks.meter import run as run_command
from tests.acceptance.stack import running_stack


def run(*, tiny: bool) -> dict[str, Any]:
    """Each command some times; the median counts, because the first compiles what it imports."""
    times, many = (2, 10) if tiny else (15, 1000)
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name, running_stack(Path(name)) as stack:
        plain = Assistant(name="plain", protocol="responses", model="gpt-test")
        batch = stack.submit(plain, questions.texts(many))
        found: dict[str, Any] = {"times": times, "load_before": round(os.getloadavg()[0], 2)}
        for label, arguments in {"askq --help": ["--help"], "askq status": ["status", batch]}.items():
            argv = [sys.executable, "-m", "producer.cli", *arguments]
            ended = [run_command(argv, stack.environment(), out=stack.folder / "out") for _ in range(times)]
            assert all(one.stdout for one in ended), label
            found[label] = {
                "cpu_ms": round(1000 * statistics.median(one.cpu_s for one in ended)),
                "wall_ms": round(1000 * statistics.median(one.wall_s for one in ended)),
            }
        return found
