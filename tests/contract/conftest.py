"""The job stores that the contract suites hold to one text: memory, each real server at hand, and a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from askq.jobs.store import Store
from tests.contract.store_stage import SERVERS, ClusterStage, MemoryStage, RedisStage, Stage
from tests.parts import RedisServer

_ONE_IN = 6
"""Scripts are the same on a cluster: of tests with many cases it gets some."""
_WHOLE = ("test_store_forget.py", "test_store_objects.py")
"""What goes through many slots one after the other gets them all."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    left_out: list[pytest.Item] = []
    for item in items:
        backends = getattr(item, "callspec", None)
        if backends is None or "cluster" not in backends.params.values() or item.path.name in _WHOLE:
            continue
        name = item.nodeid.partition("[")[0]
        if seen[name] % _ONE_IN:
            left_out.append(item)
        seen[name] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


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


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at a lane that seems to stand still follow each other faster."""
    monkeypatch.setattr("askq.jobs.auditor._LOOK_EVERY_S", 0.01)
