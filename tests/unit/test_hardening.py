"""Settings of Celery, Flower and this repository that keep strangers out; each a line that is easily lost."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from askq.embedded.supervisor import Supervisor
from askq.errors import ConfigError
from askq.names import POLL, START, TOOLS
from config.celery import options
from config.settings import Settings
from producer.cli import doctor, workers
from producer.parts import Parts
from tests.parts import free_port
from tests.unit.test_containers import SERVICES
from worker import app as worker_app
from worker.app import create_app

ROOT = Path(__file__).parents[2]
REDIS = "redis://127.0.0.1:1/0"


def test_messages_carry_nothing_and_no_result_is_kept() -> None:
    told = options(REDIS)
    assert told["accept_content"] == ["json"]
    assert told["task_serializer"] == "json"
    assert told["result_backend"] is None
    assert told["task_ignore_result"] is True
    app = create_app(Settings(redis_url=REDIS))
    ours = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    assert set(ours) == {START, POLL, TOOLS}
    for name, task in ours.items():
        assert not inspect.signature(task.run).parameters, f"{name} takes nothing that could be seen, or forged"
        assert inspect.signature(task.run).return_annotation in (None, "None")
        assert task.ignore_result, name


def test_no_connection_to_redis_outlives_a_cancelled_command() -> None:
    """With the asynchronous client the reply to it would be taken for that of the next one (CVE-2023-28858)."""
    for package in ("askq", "config", "producer", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            told = path.read_text("utf-8")
            assert not re.search(
                r"^\s*(from redis(\.asyncio)? import asyncio|(from|import) redis\.asyncio)", told, re.M
            ), path


def test_no_web_page_may_start_tasks_through_flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    started: list[dict[str, str]] = []

    def add(_: Supervisor, __: str, ___: list[str], environment: dict[str, str], ____: Path) -> None:
        started.append(environment)

    monkeypatch.setattr(Supervisor, "add", add)
    workers.add_flower(Supervisor(), Parts(Settings(redis_url=REDIS, home=tmp_path)), free_port())
    (environment,) = started
    assert "FLOWER_UNAUTHENTICATED_API" not in environment
    assert environment["FLOWER_READ_ONLY"] == "true"
    assert environment["FLOWER_BASIC_AUTH"].startswith("askq:")
    assert not any("FLOWER_UNAUTHENTICATED_API" in service.get("environment", {}) for service in SERVICES.values())


def test_the_file_of_secrets_is_in_neither_repository_nor_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
    first, *let_in = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert first == "*"
    assert not [line for line in let_in if line.startswith("!.")]


@pytest.mark.parametrize(("mode", "told"), [(0o600, None), (0o640, "chmod 600"), (0o604, "chmod 600")])
def test_doctor_notes_a_key_that_others_may_read(tmp_path: Path, mode: int, told: str | None) -> None:
    path = tmp_path / ".env"
    path.write_text("OPENAI_API_KEY=sk-x\n", "utf-8")
    path.chmod(mode)
    for source in (str(path), f"{path} (environment)"):
        found = doctor._readable_by_others(source)
        assert found == (None if told is None else path)
    assert doctor._readable_by_others("environment") is None


@pytest.mark.parametrize(("user", "allowed"), [(0, "warn"), (0, "refuse"), (0, "allow"), (1000, "refuse")])
def test_a_worker_of_roots_warns_or_ends(
    user: int, allowed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with caplog.at_level(logging.WARNING):
        if (user, allowed) == (0, "refuse"):
            with pytest.raises(ConfigError, match="started by root"):
                worker_app._look_who_runs(allowed)
        else:
            worker_app._look_who_runs(allowed)
    assert ("runs as root" in caplog.text) == ((user, allowed) == (0, "warn"))


def test_the_bill_of_materials_has_what_the_lock_has(tmp_path: Path) -> None:
    (command,) = re.findall(r"^sbom:.*\n\t(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    program, *arguments = command.replace("sbom.cdx.json", str(tmp_path / "sbom.json")).split()
    found = os.environ.get("UV") or shutil.which(program)
    assert found is not None, "uv runs these tests"
    subprocess.run([found, *arguments, "--offline"], cwd=ROOT, check=True, timeout=60)
    bill = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    told = {component["name"] for component in bill["components"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]}
    assert wanted <= told
    assert "pytest" not in told, "what only developers need is not shipped"
    assert all("purl" in component for component in bill["components"])
