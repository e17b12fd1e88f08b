"""The job stores that the contract suites hold to one text: memory, and each real server at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from askq.jobs.store import Store
from tests.contract.store_stage import SERVERS, MemoryStage, RedisStage, Stage
from tests.parts import RedisServer


@pytest.fixture(params=["memory", *SERVERS])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made: Stage
    if request.param == "memory":
        made = MemoryStage()
    else:
        made = RedisStage(request.getfixturevalue("redis_servers")(request.param))
    yield made
    made.close()


@pytest.fixture
def store(stage: Stage) -> Store:
    return stage.store


@pytest.fixture(params=SERVERS)
def behind(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> Iterator[RedisStage]:
    """A store in a real server, for what only its keys can tell."""
    made = RedisStage(redis_servers(request.param))
    yield made
    made.close()
