"""From results in JSON to what stands in the docs: tables to print, pictures to write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]


def publish(
    argv: list[str] | None,
    *,
    program: str,
    about: str | None,
    pictures: Path,
    scenarios: Set[str],
    text: Callable[[str, Results], str],
    picture: Callable[[str, Results], str],
) -> int:
    """Print the text of each of these scenarios that the named files have, from the file's results, and write its
    picture, from the scenario's. `pictures` is where those go unless it is said otherwise."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="what `--json` wrote")
    parser.add_argument("--into", type=Path, default=pictures, metavar="FOLDER", help="where the pictures go")
    options = parser.parse_args(argv)
    options.into.mkdir(parents=True, exist_ok=True)
    for path in options.results:
        results = json.loads(path.read_text("utf-8"))
        for scenario in scenarios & results.keys():
            print(f"{text(scenario, results)}\n")
            (options.into / f"{scenario}.svg").write_text(picture(scenario, results[scenario]), "utf-8")
    return 0
