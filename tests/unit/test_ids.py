"""Ids sort by time, cannot be guessed, and lead to their shard for ever."""

from __future__ import annotations

import re
import time

import pytest

from askq.ids import ROW_ID_LIMIT, SHARDS, job_id, new_batch_id, shard_of, split_job_id
from tests.parts import eventually

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def _number(batch: str) -> int:
    number = 0
    for digit in batch.removeprefix("b_"):
        number = 32 * number + CROCKFORD.index(digit)
    return number


def test_a_batch_id_is_a_uuid7_in_base32() -> None:
    before = time.time_ns() // 1_000_000
    batch = new_batch_id()
    after = time.time_ns() // 1_000_000
    assert re.fullmatch(rf"b_[{CROCKFORD}]{{26}}", batch)
    number = _number(batch)
    assert number < 2**128
    assert before <= number >> 80 <= after, "its first 48 bits are the time in milliseconds"
    assert (number >> 76) & 0xF == 7, "the version"
    assert (number >> 62) & 0b11 == 0b10, "the variant"


def test_batch_ids_sort_by_time() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_batch_id())
        _wait_for_the_next_millisecond(time.time_ns() // 1_000_000)
    assert ids == sorted(ids)


def _wait_for_the_next_millisecond(this: int) -> None:
    eventually(lambda: time.time_ns() // 1_000_000 > this, what="the next millisecond", every=0.0002)


def test_batch_ids_differ_and_share_no_tail() -> None:
    ids = {new_batch_id() for _ in range(5000)}
    assert len(ids) == 5000
    assert len({batch[-8:] for batch in ids}) > 4990, "most of it is random"


@pytest.mark.parametrize("row", ["q1", "1", "a.b.c", "Frage № 1", "x" * ROW_ID_LIMIT, "with space", ".", ""])
def test_a_job_id_leads_back_to_batch_and_row(row: str) -> None:
    batch = new_batch_id()
    job = job_id(batch, row)
    assert job == f"{batch}.{row}"
    assert split_job_id(job) == (batch, row)


def test_what_is_no_job_id_has_no_row() -> None:
    assert split_job_id("nonsense") == ("nonsense", "")


def test_a_shard_follows_from_the_id_for_ever() -> None:
    """These are wire: a job whose shard changed would not be found again."""
    assert SHARDS == 16
    known = {"b_0.q1": 14, "b_0.q2": 4, "b_01k9q2.Frage № 1": 8, "": 0}
    assert {job: shard_of(job) for job in known} == known


def test_the_rows_of_a_list_are_spread_evenly() -> None:
    batch = new_batch_id()
    counts = [0] * SHARDS
    for row in range(16_000):
        counts[shard_of(job_id(batch, f"row-{row}"))] += 1
    assert min(counts) > 700
    assert max(counts) < 1300
