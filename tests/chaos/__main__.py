"""`python -m tests.chaos --profile short|full [--seed N] [--only NAME] --json FILE`: is anything lost, stuck, wrong or
paid twice when everything goes wrong? Exit status 0: no. 1: a promise was broken, or a profile did not do what it
says. The seed is printed; with it and `--only` a failure is tried again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.machine import describe
from tests.chaos import run_alone, suite
from tests.chaos.report import Report

_AT_ONCE = 2
_SHOWN = (
    *("jobs", "kills", "points", "redis_restarts", "rollbacks", "api_faults", "fault_kinds", "lost", "stuck", "wrong"),
    *(
        "paid_twice",
        "ledger_runs",
        "counted_runs",
        "calls",
        "executions",
        "run_again",
        "stale_commits",
        "recovery_p50_s",
        "recovery_p95_s",
        "wall_s",
    ),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--profile", choices=("short", "full"), default="short")
    parser.add_argument("--seed", type=int, help="repeat what a failing run printed")
    parser.add_argument("--only", action="append", choices=list(suite.PROFILES), help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(argv)
    run_alone.end_in_order()
    seed: int = random.randrange(1 << 31) if options.seed is None else options.seed
    names: list[str] = options.only or suite.names(options.profile)
    print(f"profile {options.profile}, seed {seed}", flush=True)
    machine, began = describe(), time.monotonic()
    total, parts, failed = Report(), {}, []
    with tempfile.TemporaryDirectory(prefix="askq-chaos-") as folder:
        for name, report in _reports(names, options.profile, seed, Path(folder)):
            parts[name] = report
            total += report
            print(_line(name, report), flush=True)
            for text in report.broken + report.missed:
                print(f"  FAILED {text}", flush=True)
            for text in report.problems[:10]:
                print(f"    {text}", flush=True)
            if report.broken or report.missed:
                failed.append(name)
                again = f"python -m tests.chaos --profile {options.profile} --seed {seed} --only {name}"
                print(f"  again: {again}", flush=True)
    total.wall_s = time.monotonic() - began
    if options.profile == "full" and not options.only:
        suite.check_whole(total)
        for text in total.missed:
            print(f"FAILED {text}")
    print(_line("all", total))
    if options.json is not None:
        found = {
            "profile": options.profile,
            "seed": seed,
            "machine": machine,
            "load_after": [round(part, 2) for part in os.getloadavg()],
            **total.to_json(),
            "profiles": {name: report.to_json() for name, report in parts.items()},
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 1 if failed or total.broken or total.missed else 0


def _reports(names: list[str], profile: str, seed: int, folder: Path) -> Iterator[tuple[str, Report]]:
    """The experiments' reports as they come: what measures time alone and first, the others two at a time."""
    for name in names:
        if name in suite.ALONE:
            yield run_alone.run(name, profile, seed, folder / name)
    # Each in a process of its own, which is most of the time waiting.
    with ProcessPoolExecutor(_AT_ONCE, multiprocessing.get_context("spawn"), run_alone.end_in_order) as pool:
        rest = [name for name in names if name not in suite.ALONE]
        futures = [pool.submit(run_alone.run, name, profile, seed, folder / name) for name in rest]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _line(name: str, report: Report) -> str:
    shown = report.to_json()
    return f"{name}: " + ", ".join(f"{key} {shown[key]}" for key in _SHOWN)


if __name__ == "__main__":
    sys.exit(main())
