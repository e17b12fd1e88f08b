"""A worker that is told too little, or something wrong, says so and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("told", "code", "message"),
    [
        ({}, 4, "a worker needs the address of Redis\nSet REDIS_URL"),
        ({"REDIS_URL": "http://127.0.0.1"}, 4, "REDIS_URL=http://127.0.0.1 (from environment) is not a valid address"),
        (
            {"REDIS_URL": "redis://127.0.0.1:{port}/0"},
            4,
            "a worker needs an API key\nSet OPENAI_API_KEY or OPENAI_API_KEY_FILE.",
        ),
        ({"REDIS_URL": "redis://127.0.0.1:{port}/0", "OPENAI_API_KEY": "sk-test"}, 1, "does not answer"),
    ],
)
def test_what_is_missing_ends_it_with_a_message(told: dict[str, str], code: int, message: str, tmp_path: Path) -> None:
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.celery", "worker", "--pool", "solo"],
        env={**os.environ, "PYTHONPATH": str(ROOT)} | {name: text.format(port=port) for name, text in told.items()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert message in done.stderr
