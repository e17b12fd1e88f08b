"""`python -m benchmarks [SCENARIO …] [--tiny] [--peers] [--only NAME] [--json FILE]`: run scenarios."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import commands, cost, enqueue, kill_everything, limits, main_job, survival, waiting, workers
from benchmarks.contenders import CONTENDERS
from benchmarks.machine import describe
from benchmarks.peers import scenarios
from benchmarks.peers.manifest import read_manifest

SCENARIOS = {
    "main-job": main_job.run,
    "cost": cost.run_cost,
    "sustained": cost.run_sustained,
    "waiting": waiting.run,
    "workers": workers.run,
    "enqueue": enqueue.run,
    "commands": commands.run,
    "limits": limits.run,
    "kill-everything": kill_everything.run,
}
SURVIVAL = {
    "survival": survival.run_assistants,
    "survival-responses": survival.run_responses,
}
SIDE_BY_SIDE = {
    "peers-kill": scenarios.kill,
    "peers-limited": scenarios.limited,
    "peers-limited-silently": scenarios.limited_silently,
    "peers-cost": scenarios.cost,
}
"""Scenarios in which other tools take part, those with an environment of their own only with --peers."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*SCENARIOS, *SURVIVAL, *SIDE_BY_SIDE]
    parser.add_argument("scenario", nargs="*", help=f"which to run: {', '.join(names)} (default: all)")
    parser.add_argument("--tiny", action="store_true", help="a few questions only: shows that the scenario works")
    parser.add_argument("--peers", action="store_true", help="measure other tools too, in environments made for them")
    parser.add_argument("--only", action="append", metavar="NAME", help="askq, or another contender; repeatable")
    parser.add_argument("--runs", type=int, default=10_000, metavar="N", help="how many wait in `waiting` (10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    options = parser.parse_args(argv)
    if unknown := set(options.scenario) - set(names):
        parser.error(f"no scenario called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    only: list[str] = options.only or []
    known = {kind.name for kind in CONTENDERS} | {peer.name for peer in read_manifest()}
    if wrong := set(only) - known:
        parser.error(f"no contender called {', '.join(sorted(wrong))}; there are {', '.join(sorted(known))}")
    results = {"machine": describe()}
    for name in options.scenario or names:
        if name == "waiting":
            results[name] = waiting.run(tiny=options.tiny, runs=options.runs)
        elif name in SCENARIOS:
            results[name] = SCENARIOS[name](tiny=options.tiny)
        elif name in SURVIVAL:
            results[name] = SURVIVAL[name](tiny=options.tiny, only=only)
        else:
            results[name] = SIDE_BY_SIDE[name](tiny=options.tiny, peers=options.peers, only=only)
    text = json.dumps(results, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
