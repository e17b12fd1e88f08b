"""What the diary of the functions says, beside what askq has on record of the calls."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from askq.jobs.model import Job
from tests.acceptance.processes import alive
from tests.chaos.house import output
from tests.chaos.report import Report


@dataclass(slots=True)
class _Executions:
    """The executions of one call, in the order in which they began."""

    begun: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)


def at_work(diary: Path) -> list[int]:
    """The processes of functions that have begun and not ended, where it is the call's first execution: one that is
    killed three times is given up, as it should be."""
    pids: dict[str, int] = {}
    begun: Counter[tuple[str, str]] = Counter()
    of: dict[str, tuple[str, str]] = {}
    for line in diary.read_text("utf-8").splitlines() if diary.exists() else ():
        _, what, part, question, execution, pid = line.split("\t")
        if what == "begin":
            pids[execution] = int(pid)
            of[execution] = (question, part)
            begun[question, part] += 1
        else:
            pids.pop(execution, None)
    return [pid for execution, pid in pids.items() if begun[of[execution]] == 1]


def cut_off(diary: Path) -> bool:
    """Whether an execution has begun and will never end: its process is gone."""
    open_: dict[str, int] = {}
    for line in diary.read_text("utf-8").splitlines() if diary.exists() else ():
        _, what, _, _, execution, pid = line.split("\t")
        if what == "begin":
            open_[execution] = int(pid)
        else:
            open_.pop(execution, None)
    return any(not alive(pid) for pid in open_.values())


def check_calls(report: Report, diary: Path, jobs: Iterable[Job]) -> None:
    """Compare the two. A call that is on record must have been its last execution: after it none began."""
    executions: dict[tuple[str, int], _Executions] = defaultdict(_Executions)
    for line in diary.read_text("utf-8").splitlines() if diary.exists() else ():
        _, what, part, question, execution, _ = line.split("\t")
        found = executions[question, int(part)]
        if what == "begin":
            found.begun.append(execution)
        else:
            found.ended.add(execution)
    report.executions += sum(len(found.begun) for found in executions.values())
    for job in jobs:
        for call in () if job.answer is None else job.answer.tool_calls:
            if call["output"] is None:
                continue
            report.calls += 1
            given = json.loads(call["arguments"])
            found = executions[given["question"], given["part"]]
            recorded = call.get("printed", "")
            if call.get("error") or call["output"] != output(given["question"], given["part"]):
                report.calls_wrong += 1
                report.problems.append(f"call: {job.id} has {dict(call)!r}")
            elif recorded not in found.ended:
                report.calls_wrong += 1
                report.problems.append(f"call: {job.id} has an output of an execution that did not end: {recorded!r}")
            elif found.begun[-1] != recorded:
                report.run_again += 1
                report.problems.append(f"run again: {job.id}, part {given['part']}: {found.begun} after {recorded}")
