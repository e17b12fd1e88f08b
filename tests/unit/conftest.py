"""What tests of the command line share: a store in memory in place of Redis, a list, and the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from askq.jobs.memory_store import MemoryStore
from producer.cli import run
from producer.parts import Parts
from tests.unit.cli_stage import Asked

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store in memory in place of Redis, and an empty folder to work in."""
    memory = MemoryStore()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASKQ_ASSISTANTS_DIR", str(ROOT / "assistants"))
    monkeypatch.setattr(Parts, "store", lambda self, *, must_be_safe=False: memory)
    monkeypatch.setattr(Parts, "reader", lambda self: memory)
    monkeypatch.setattr(Parts, "nudge", lambda self: None)
    return memory


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.csv"
    path.write_text('id,question,topic\na,What is 1 + 1?,sums\nb,"What is 2, plus 2?",sums\n', "utf-8")
    return path


@pytest.fixture
def askq(capfd: pytest.CaptureFixture[str]) -> Asked:
    """Runs a command; exit code, standard output, standard error."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = run([str(part) for part in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return call
