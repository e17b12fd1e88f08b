"""Files: uploads, indexes and downloads under kills and faults. Each answer names the file it was given, and what its
code has made depends on that file, so that a wrong one would show."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from askq.jobs.model import Job, State
from tests.chaos import faults, questions
from tests.chaos.profiles import legs
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import QUICK, Strike, World


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    """With a file for code interpreter, per protocol and leg."""
    searches: int
    """With a file for file search, likewise."""
    strikes: int
    """In each leg."""
    legs: tuple[Leg, ...]
    kills: float
    """Factor of the failpoints' shares."""
    often: int
    settle_s: float
    least_kills: int
    least_faults: int


SIZES = {
    "short": Size(16, 6, 5, (legs.MIXED,), 0.7, 2, 150, 3, 4),
    "full": Size(150, 40, 20, legs.BOTH, 0.5, 12, 150, 30, 60),
}

STRIKES: Mapping[Strike, int] = {
    lambda world: world.crew.kill_group(): 3,
    lambda world: world.crew.kill_main(): 1,
    lambda world: world.crew.kill_child(): 5,
}


def run(size: Size, seed: int, folder: Path) -> Report:
    problems: list[str] = []

    def storm(world: World, leg: Leg) -> None:
        for kinds in (faults.UPLOADS, faults.DOWNLOADS, faults.STORES):
            for name, rules in kinds.items():
                world.arm(name, *(faults.at(rule, 0.3, times=size.often) for rule in rules))
        for protocol in leg.protocols:
            world.attach(protocol, size.jobs, "code_interpreter", waves=3)
            if size.searches:
                world.attach(protocol, size.searches, "file_search", waves=2)
        world.begin()
        world.suffer(STRIKES, times=size.strikes, every=(0.3, 1.2))
        world.disarm()
        # Most files are still to be uploaded or fetched.
        world.persist(size.settle_s)
        world.settle(size.settle_s)
        problems.extend(wrong_files(world))
        problems.extend(_too_many_uploads(world))
        problems.extend(f"left behind: {path}" for path in world.files.partial())

    report = Report()
    settings = {**QUICK, "ASKQ_PROBE_S": "5"}
    for verdict in legs.each(size.legs, seed, folder, storm, settings=settings, kills=size.kills, timeout_s=25.0):
        report += verdict
    report.wrong += len(problems)
    report.problems += problems
    report.need("kills", report.kills, size.least_kills)
    report.need("faults of files", sum(report.fault_kinds.values()), size.least_faults)
    return report


def wrong_files(world: World) -> list[str]:
    """What is wrong with the files of answers: each must be here, whole, and made of the job's own file."""
    problems = []
    rows = {(row.key, row.row): row for row in questions.read(world.file)}
    for key in {key for key, _ in rows}:
        batch = world.stack.store.batch_under(key)
        for job in () if batch is None else world.stack.store.jobs(batch):
            row = rows[key, job.question.row_id]
            if job.state is State.COMPLETED and row.file is not None:
                problems += [f"{job.id}: {what}" for what in _wrong_with(world, job, row)]
    return problems


def _wrong_with(world: World, job: Job, row: questions.Asked) -> list[str]:
    assert job.answer is not None
    assert row.file is not None
    name = Path(row.file).name
    if row.tool == "file_search":
        cited = {str(citation.get("filename")) for citation in job.answer.citations}
        return [] if cited == {name} else [f"it cites {cited}, not {name}"]
    which = int(name.removeprefix("표 ").removesuffix(".csv"))
    found: dict[str, Mapping[str, Any]] = {str(file["name"]): file for file in job.answer.files}
    wanted = {f"made {which}.csv", f"chart {which}.png"}
    if set(found) != wanted:
        return [f"its files are {sorted(found)}, not {sorted(wanted)}"]
    if missing := [file for file in found.values() if "path" not in file]:
        return [f"not kept: {file['name']}: {file.get('error')}" for file in missing]
    made = (world.files.root / found[f"made {which}.csv"]["path"]).read_text("utf-8")
    return [] if made == questions.made_of(which) else ["its file has another content"]


def _too_many_uploads(world: World) -> list[str]:
    """Each file is uploaded once, but for those whose uploader died or whose reply was lost."""
    request = urllib.request.Request(
        f"{world.stack.base_url}/files?purpose=assistants&limit=1000",
        headers={"Authorization": "Bearer sk-test-canary-0123456789"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        uploaded = len(json.load(reply)["data"])
    killed = len(world.crew.kills) + world.fired()["kill"].total()
    lost = world.fault_kinds()["reply to an upload lost"]
    most = 2 * questions.FILES + killed + lost
    return [f"{uploaded} uploads of {2 * questions.FILES} files, with {killed} kills"] if uploaded > most else []
