"""`python -m benchmarks [SCENARIO …] [--tiny] [--json FILE]`: run scenarios and print what was measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import commands, cost, enqueue, kill_everything, limits, main_job, survival, waiting
from benchmarks.machine import describe

SCENARIOS = {
    "main-job": main_job.run,
    "cost": cost.run_cost,
    "sustained": cost.run_sustained,
    "waiting": waiting.run,
    "enqueue": enqueue.run,
    "commands": commands.run,
    "limits": limits.run,
    "kill-everything": kill_everything.run,
    "survival": survival.run_assistants,
    "survival-responses": survival.run_responses,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"which to run: {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--tiny", action="store_true", help="a few questions only: shows that the scenario works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    options = parser.parse_args(argv)
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"no scenario called {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    results = {"machine": describe()}
    for name in options.scenario or SCENARIOS:
        results[name] = SCENARIOS[name](tiny=options.tiny)
    text = json.dumps(results, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
