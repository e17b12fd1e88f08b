"""Ids of batches and jobs, and the shard a job lives in.

A batch id is `b_` and a UUIDv7 in lower-case base32 (Crockford's alphabet): it sorts by time of submission and
its 74 random bits cannot be guessed. A job id is `<batch>.<row id>`, so that an id alone finds the answer.
"""

from __future__ import annotations

import zlib

import uuid_utils

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SHARDS = 16
"""How many key groups jobs are spread over. Fixed: a job's shard follows from its id for ever."""

ROW_ID_LIMIT = 64
"""Characters a row id may have; Batch files of other services use the same bound."""


def new_batch_id() -> str:
    """A new batch id, e.g. `b_01k9q2…`."""
    number = uuid_utils.uuid7().int
    digits = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "b_" + "".join(reversed(digits))


def job_id(batch_id: str, row_id: str) -> str:
    """The id of the job that answers one row of a batch."""
    return f"{batch_id}.{row_id}"


def split_job_id(job: str) -> tuple[str, str]:
    """The batch id and the row id of a job id. A row id may itself contain dots."""
    batch, _, row = job.partition(".")
    return batch, row


def shard_of(job: str) -> int:
    """The shard (0 ≤ n < SHARDS) a job lives in."""
    return zlib.crc32(job.encode()) % SHARDS
