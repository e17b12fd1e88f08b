"""P8: two producers submit the same list at the same time, and are killed half-way."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from askq.errors import StoreError
from askq.ids import SHARDS
from askq.jobs import keys
from tests.acceptance.stack import Process
from tests.chaos import questions
from tests.chaos.questions import Asked
from tests.chaos.report import Report
from tests.chaos.world import World, world


@dataclass(frozen=True, slots=True)
class Size:
    rows: int
    """Of a list so long that a producer can be killed in the midst of it; nobody answers it."""
    kills: int
    jobs: int
    """Of a list that is answered while it is submitted, per protocol."""
    least_halfway: int


SIZES = {
    "short": Size(6_000, 2, 60, 1),
    "full": Size(30_000, 5, 300, 3),
}


_MOST_LISTS = 5


def run(size: Size, seed: int, folder: Path) -> Report:
    with world(folder / "rows", seed=seed, workers=0, run_s=(0.2, 1.0)) as made:
        halfway = _long_list(made, size)
        # Nobody answers that list: its rows were compared, and now it goes.
        made.server.client.flushall()
        made.hire(2)
        for protocol in ("assistants", "responses"):
            rows = [Asked.of(f"both-{protocol}", number, protocol) for number in range(size.jobs)]
            questions.write(made.file, rows)
            _twice(made, rows, killed_after_s=made.pick.uniform(0.6, 1.5))
        made.settle(150)
        report = made.verdict()
        report.kills += made.done["SIGKILL of a producer"]
        report.need("producers killed half-way", halfway, size.least_halfway)
    return report


def _long_list(world: World, size: Size) -> int:
    """Kill producers in the midst, then submit once more: every row is there once. How many were hit half-way.

    Where the kills come too late, because all was stored while this process was held up, another list is begun.
    """
    halfway = 0
    for number in range(_MOST_LISTS):
        halfway += _one_list(world, size, f"long{number}")
        if halfway >= size.least_halfway:
            break
    return halfway


def _one_list(world: World, size: Size, key: str) -> int:
    rows = [Asked.of(key, number, "responses") for number in range(size.rows)]
    listed = _write(world, key, rows)
    halfway = 0
    for number in range(size.kills):
        producers = _start(world, listed, rows[0], f"{key}-{number}")
        aim = (number + world.pick.random()) / size.kills
        until = time.monotonic() + 120
        while _stored(world, key) < aim * size.rows and any(producer.alive for producer in producers):
            assert time.monotonic() < until, "the producers store nothing"
            time.sleep(0.002)
        for producer in producers:
            world.done["SIGKILL of a producer"] += producer.alive
            producer.kill()
        halfway += 0 < _stored(world, key) < size.rows
    _finish(_start(world, listed, rows[0], f"{key}-last"))
    batch = world.stack.store.batch_under(key)
    assert batch is not None
    found = [(job.question.row_id, job.question.text) for job in world.stack.store.jobs(batch)]
    assert found == [(row.row, row.text) for row in rows], "each row of the file once, in its order"
    status = world.stack.status(batch)
    assert (status.sealed, status.total, status.pending) == (True, size.rows, size.rows)
    return halfway


def _twice(world: World, rows: Sequence[Asked], *, killed_after_s: float) -> None:
    listed = _write(world, rows[0].key, rows)
    first, second = _start(world, listed, rows[0], rows[0].key)
    world.live(killed_after_s)
    world.done["SIGKILL of a producer"] += first.alive
    first.kill()
    _finish([second])
    _finish(_start(world, listed, rows[0], f"{rows[0].key}-again"))


def _write(world: World, name: str, rows: Sequence[Asked]) -> Path:
    path = world.stack.folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question"])
        writer.writerows((row.row, row.text) for row in rows)
    return path


def _start(world: World, listed: Path, row: Asked, name: str) -> list[Process]:
    """Two producers of the same list."""
    argv = [sys.executable, "-m", "producer.cli", "submit", str(listed), "--assistant", "plain"]
    argv += ["--protocol", row.protocol, "--idempotency-key", row.key]
    started = []
    for number in range(2):
        producer = Process(
            f"{name}-{number}", argv, world.stack.folder / f"{name}-{number}.log", world.stack.environment()
        )
        producer.start()
        started.append(producer)
    return started


def _finish(producers: Sequence[Process]) -> None:
    for producer in producers:
        assert producer.child is not None
        assert producer.child.wait(120) == 0, producer.tail()


def _stored(world: World, key: str) -> int:
    try:
        batch = world.stack.store.batch_under(key)
    except StoreError:
        return 0
    if batch is None:
        return 0
    pipe = world.server.client.pipeline(transaction=False)
    for shard in range(SHARDS):
        pipe.zcard(keys.rows(shard, batch))
    return sum(pipe.execute())
