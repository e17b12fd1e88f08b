"""`survival`: the same list, the same kills and the same faults for a tutorial's pipeline, a production guide's, askq.

Each cell has a real Redis with its append-only file on, the local API, and two workers under a supervisor that starts
again what has ended. When nothing changes any more the verdict is read off the API's ledger and the contender's store.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import questions
from benchmarks.contenders import CONTENDERS, Contender, ProtocolName
from benchmarks.crew import Crew
from benchmarks.table import as_text
from benchmarks.trouble import Trouble
from benchmarks.verdict import judge
from tests.acceptance.stack import Stack, running_stack

SEED = 20261124
_WORKERS = 2
_STILL_S = 3.0
"""Nothing pending for this long: it is over. Longer than the two seconds the pipelines wait between polls."""
_WAITS = 3
_RESUBMITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of it."""

    questions: int
    run_seconds: tuple[float, float]
    create_s: float
    """How long the server takes to answer a create, once the run is made."""
    concurrency: Mapping[str, int]
    """Pool processes per worker."""
    columns: Mapping[str, Trouble]
    timeout_s: int
    """The deadline of a run: where a lost reply can neither be listed nor repeated it is waited for."""
    dead_s: float
    """No progress for this long though messages are held and no run is under way: whoever holds them is dead."""
    deadline_s: float
    side_by_side: bool = False
    """Contenders at the same time: quick, and no ground for a comparison of times."""


FULL = Size(
    questions=400,
    run_seconds=(2.0, 6.0),
    create_s=1.0,
    # A pipeline's pool process is busy during the whole of a call, so it needs more; askq's has 200 calls open.
    concurrency={"tutorial": 4, "best_practice": 4, "askq": 2},
    columns={
        "24 kills": Trouble(kills=24),
        "6 Redis restarts": Trouble(redis_restarts=6),
        "API faults": Trouble(api_faults=True),
    },
    timeout_s=60,
    dead_s=15.0,
    deadline_s=600.0,
)
TINY = Size(
    questions=20,
    run_seconds=(0.2, 1.0),
    create_s=0.1,
    concurrency={"tutorial": 2, "best_practice": 2, "askq": 2},
    columns={
        "a kill, a restart, API faults": Trouble(kills=2, redis_restarts=1, api_faults=True, redis_every_s=(0.5, 1.5))
    },
    timeout_s=20,
    dead_s=6.0,
    deadline_s=240.0,
    side_by_side=True,
)


def run_assistants(*, tiny: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """On the Assistants protocol. `only` picks contenders."""
    return _run("assistants", TINY if tiny else FULL, only)


def run_responses(*, tiny: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """On the Responses protocol, on a server that, like OpenAI, honours no idempotency key. `only` picks contenders."""
    return _run("responses", TINY if tiny else FULL, only)


def _run(protocol: ProtocolName, size: Size, only: Collection[str]) -> dict[str, Any]:
    contenders = [kind for kind in CONTENDERS if not only or kind.name in only]

    def row(contender: type[Contender]) -> dict[str, Any]:
        found = {}
        for column, trouble in size.columns.items():
            found[column] = _cell(contender, protocol, size, trouble)
            print(f"survival, {protocol}: {contender.name}, {column}: {found[column]}", file=sys.stderr, flush=True)
        return found

    if size.side_by_side:
        with ThreadPoolExecutor(len(contenders)) as pool:
            rows = list(pool.map(row, contenders))
    else:
        rows = [row(contender) for contender in contenders]
    cells = {contender.name: found for contender, found in zip(contenders, rows, strict=True)}
    print(as_text(cells), file=sys.stderr, flush=True)
    return {
        "protocol": protocol,
        "questions": size.questions,
        "run_seconds": list(size.run_seconds),
        "create_seconds": size.create_s,
        "workers": _WORKERS,
        "pool_processes_per_worker": dict(size.concurrency),
        "seed": SEED,
        "cells": cells,
    }


def _cell(kind: type[Contender], protocol: ProtocolName, size: Size, trouble: Trouble) -> dict[str, Any]:
    asked = questions.texts(size.questions)
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        folder = Path(name)
        listed = folder / "questions.csv"
        questions.write_list(listed, asked)
        with running_stack(folder, script=questions.script(size.run_seconds)) as stack:
            stack.admin("faults", {"faults": trouble.rules(create_s=size.create_s, seed=SEED)})
            concurrency = size.concurrency[kind.name]
            contender = kind(stack, listed, protocol, concurrency=concurrency, timeout_s=size.timeout_s)
            crew = Crew([contender.worker(number) for number in range(_WORKERS)])
            began = time.monotonic()
            try:
                crew.start()
                contender.submit()
                done = trouble.strike(stack, crew, questions=size.questions, seed=SEED)
                ending = _settle(stack, contender, crew, asked, dead_s=size.dead_s, until=began + size.deadline_s)
                verdict = judge(
                    asked,
                    answers=contender.answers(),
                    reported=contender.reported(),
                    quiet=ending.quiet,
                    runs=[entry["question"] for entry in stack.ledger()],
                )
            finally:
                crew.dismiss()
                contender.close()
            faults = {kind: count for kind, count in stack.admin("stats")["faults"].items() if kind != "slow_body"}
    return {
        **dataclasses.asdict(verdict),
        "answered_late": ending.late,
        "resubmits": ending.resubmits,
        "wall_s": round(time.monotonic() - began, 1),
        "worker_restarts": crew.restarts,
        **done,
        "api_faults": faults,
        "load_before": load,
    }


@dataclass(slots=True)
class _Ending:
    """How it came to rest."""

    quiet: bool = False
    late: int = 0
    """Answers that came only after the visibility timeout."""
    waits: int = 0
    resubmits: int = 0


def _settle(
    stack: Stack, contender: Contender, crew: Crew, asked: list[str], *, dead_s: float, until: float
) -> _Ending:
    """Wait until nothing changes any more, doing what its operator would do: nothing, or run the producer again."""
    ending = _Ending()
    before = 0
    last, since = None, time.monotonic()
    while time.monotonic() < until:
        crew.watch(0.3)
        answered, pending = len(contender.answers()), contender.pending()
        stats = stack.admin("stats")
        seen = answered, pending.held, stats["ledger"], stats["in_flight"]
        if seen != last or pending.ready:
            last, since = seen, time.monotonic()
        still = time.monotonic() - since
        if pending.nothing and stats["in_flight"] == 0 and still > _STILL_S:
            if answered == len(asked) or not contender.resubmits or ending.resubmits == _RESUBMITS:
                ending.quiet = True
                break
            if ending.waits and not ending.resubmits:
                ending.late = answered - before
            contender.submit()
            ending.resubmits += 1
        elif pending.held and stats["in_flight"] == 0 and still > dead_s and ending.waits < _WAITS:
            since = time.monotonic()
            before = before if ending.waits else answered
            ending.waits += 1
            contender.age_held_messages()
            # Workers look for such messages when they start.
            crew.redeploy()
    if ending.waits and not ending.resubmits:
        ending.late = len(contender.answers()) - before
    return ending
