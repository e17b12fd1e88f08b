"""The container files say the same as the programs they start; the compose schema looks at no value."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from askq.names import QUEUE_POLL, QUEUE_START
from config.settings import VARIABLES
from producer.cli import workers

ROOT = Path(__file__).parents[2]
COMPOSE: Mapping[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: Mapping[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
DURATIONS = {"interval", "timeout", "start_period", "stop_grace_period"}


def test_every_service_is_watched_confined_and_bounded() -> None:
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"], name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert service["restart"] == "unless-stopped", name


def test_no_worker_may_be_roots() -> None:
    for name in ("worker", "tools"):
        assert SERVICES[name]["environment"]["ASKQ_ROOT"] == "refuse", name
    assert re.search(r"^USER (?!0|root)\d+:\d+$", DOCKERFILE, re.MULTILINE)


def test_durations_are_durations() -> None:
    def walk(node: Any, place: str) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                if key in DURATIONS:
                    assert re.fullmatch(r"(\d+(h|m|s|ms))+", str(value)), f"{place}.{key}: {value}"
                walk(value, f"{place}.{key}")

    walk(SERVICES, "services")


def test_no_port_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:${ASKQ_FLOWER_PORT:-5555}:5555"]}


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_one_that_somebody_reads(name: str) -> None:
    foreign = {"REDIS_PASSWORD"} if name == "redis" else set()
    for variable in SERVICES[name].get("environment", {}):
        assert variable in {*VARIABLES, *foreign} or variable.startswith("FLOWER_"), f"{name}: {variable}"


def test_flower_is_told_what_it_is_told_on_the_command_line() -> None:
    told = {key: value for key, value in SERVICES["flower"]["environment"].items() if key.startswith("FLOWER_")}
    assert told.pop("FLOWER_BASIC_AUTH").startswith("askq:${ASKQ_FLOWER_PASSWORD:?")
    assert told == workers.FLOWER_OPTIONS
    assert SERVICES["flower"]["environment"]["OPENAI_API_KEY"] == "", "Flower has no use for the key"


def test_the_health_check_looks_at_the_file_the_worker_touches() -> None:
    (touched,) = re.findall(r"ASKQ_HEARTBEAT_FILE=(\S+)", DOCKERFILE)
    assert shlex.split(SERVICES["worker"]["healthcheck"]["test"][1])[1] == touched


def test_the_image_has_every_package_and_serves_every_queue() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
    let_in = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()}
    assert set(packages) <= let_in
    assert f'"--queues", "{QUEUE_START},{QUEUE_POLL}"' in DOCKERFILE
    assert f"image: askq:{project['project']['version']}\n" in (ROOT / "docker-compose.yml").read_text("utf-8")


def test_a_number_of_processes_is_heard() -> None:
    """Celery takes it from its command line, and from no variable."""
    image = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[0])
    own = [part for given in SERVICES["worker"]["command"] for part in given.split("=", 1)]
    assert own == ["${ASKQ_CONCURRENCY:-2}" if part == "2" else part for part in image]
    assert "ASKQ_CONCURRENCY" not in SERVICES["worker"]["environment"]
