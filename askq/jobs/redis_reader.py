"""As much of the job store in Redis as those need who only look: a fifth of `askq status` was importing the rest."""

from __future__ import annotations

from askq.jobs.redis_reading import RedisReading
from askq.jobs.redis_sharing import RedisSharing


class RedisReader(RedisReading, RedisSharing):
    """`Reader` over Redis. Addresses and errors are those of `RedisStore`."""

    def __init__(self, url: str, *, timeout_s: float = 3.0) -> None:
        super().__init__(url, timeout_s=timeout_s)
