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
