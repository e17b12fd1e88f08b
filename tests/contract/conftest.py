"""The job stores that the contract suites hold to one text: memory, each real server at hand, and a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from askq.jobs.store import Store
from tests.contract.store_stage import SERVERS, ClusterStage, MemoryStage, RedisStage, Stage
from tests.parts import RedisServer


@pytest.fixture(params=["memory", *SERVERS, "cluster"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made: Stage
    if request.param == "memory":
        made = MemoryStage()
    elif request.param == "cluster":
        made = ClusterStage(request.getfixturevalue("redis_cluster"))
    else:
        made = RedisStage(request.getfixturevalue("redis_servers")(request.param))
    yield made
    made.close()


@pytest.fixture
def store(stage: Stage) -> Store:
    return stage.store


@pytest.fixture(params=[*SERVERS, "cluster"])
def behind(request: pytest.FixtureRequest) -> Iterator[RedisStage]:
    """A store in real servers, for what only its keys can tell."""
    made: RedisStage
    if request.param == "cluster":
        made = ClusterStage(request.getfixturevalue("redis_cluster"))
    else:
        made = RedisStage(request.getfixturevalue("redis_servers")(request.param))
    yield made
    made.close()


@pytest.fixture(params=SERVERS)
def alone(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> Iterator[RedisStage]:
    """A store in one real server, for what only that can tell."""
    made = RedisStage(redis_servers(request.param))
    yield made
    made.close()
