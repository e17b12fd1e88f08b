"""A worker that notes every claim in the file CLAIMS_FILE names: lane, when, how late, process and job, a line each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from askq.jobs.model import Claim, Lane
from askq.jobs.redis_store import RedisStore
from config.settings import load
from worker.app import create_app

_settings = load()
_file = Path(os.environ["CLAIMS_FILE"])


class _Watched(RedisStore):
    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        claims = super().claim(lane, shards, limit=limit, lease_s=lease_s)
        if claims:
            lines = [
                f"{lane} {claim.now:.3f} {claim.now - claim.was_due:.3f} {os.getpid()} {claim.id}" for claim in claims
            ]
            # One write in append mode: lines of several processes do not mix.
            with _file.open("ab", buffering=0) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
        return claims


def _store() -> RedisStore:
    return _Watched(_settings.redis_url or "", keep_days=_settings.results_days)


app = create_app(_settings)
app.askq_store = _store  # type: ignore[method-assign]
