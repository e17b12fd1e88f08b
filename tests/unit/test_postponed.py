"""A package that is postponed is there when it is needed, and not before."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
from askq.postponed import postpone
postpone("redis.asyncio")
postpone("redis.asyncio")
from askq.jobs.redis_store import RedisStore
assert "redis.asyncio.client" not in sys.modules, "not before it is needed"
import redis
import redis.asyncio
assert "redis.asyncio.client" not in sys.modules
from redis.asyncio.observability import recorder
assert redis.asyncio.Redis is __import__("redis.asyncio.client").asyncio.client.Redis
assert "redis.asyncio.client" in sys.modules
assert redis.asyncio.StrictRedis
try:
    redis.asyncio.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""


def test_the_asyncio_side_of_the_client_waits_until_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", LOOK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_there_already_stays() -> None:
    look = "import redis, sys; from askq.postponed import postpone; before = list(sys.meta_path)\n"
    look += "postpone('redis.asyncio'); assert sys.meta_path == before; assert redis.asyncio.Redis"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


WHOLE = """
import sys
from askq.postponed import postpone
for package in ("redis", "redis.asyncio", "importlib.metadata"):
    postpone(package)
postpone("asyncio", names={"IncompleteReadError": "exceptions", "Lock": "locks", "StreamReader": "streams"})
from askq.jobs.redis_reader import RedisReader
RedisReader("redis://127.0.0.1:1/0").close()
heavy = ("redis.cluster", "redis.sentinel", "redis.keyspace_notifications", "redis.asyncio.client")
heavy += ("asyncio.base_events", "importlib.metadata._adapters", "askq.jobs.redis_store", "celery", "openai")
assert not [name for name in heavy if name in sys.modules], "not before it is needed"
import asyncio, redis
from asyncio import Lock, StreamReader
assert "asyncio.base_events" not in sys.modules
assert redis.client.Redis is redis.Redis, "it becomes itself, and its submodules stay what they were"
assert redis.RedisCluster is sys.modules["redis.cluster"].RedisCluster
assert redis.__version__
async def answer():
    async with asyncio.Lock():
        return 42
assert asyncio.run(answer()) == 42
assert asyncio.Lock is Lock and asyncio.StreamReader is StreamReader
from importlib import metadata
assert metadata.version("redis") == redis.__version__
"""


def test_who_only_looks_imports_little_of_the_client_and_can_have_the_rest() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WHOLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_version_alone_is_enough_to_be_asked_for() -> None:
    look = "from askq.postponed import postpone; postpone('redis'); import redis; assert redis.__version__"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
