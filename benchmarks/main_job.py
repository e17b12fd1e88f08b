"""The main job: a list through `askq run` on the local API, whose runs take 2 to 20 seconds, on both protocols.

Measured: wall time against the ideal (the longest run), CPU of everything `askq run` waited for, polls per question,
lateness of the stored answer after the run's end, and the ledger: one run per question, each with its own answer.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.environment import embedding
from benchmarks.ledger import read_ledger
from benchmarks.questions import right_answer, script, texts, write_list


def run(*, tiny: bool) -> dict[str, Any]:
    """Both protocols, one after the other."""
    questions, durations = (20, [0.2, 1.0]) if tiny else (1000, [2.0, 20.0])
    return {protocol: _run(protocol, questions, durations) for protocol in ("assistants", "responses")}


def _run(protocol: str, questions: int, durations: list[float]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="askq-bench-") as name:
        folder = Path(name)
        listed, answers = folder / "questions.csv", folder / "answers.jsonl"
        write_list(listed, texts(questions))
        scripted = folder / "script.json"
        scripted.write_text(json.dumps(script(durations)), "utf-8")
        env = embedding(folder, scripted)
        argv = [sys.executable, "-m", "producer.cli", "run", str(listed), "--assistant", "plain"]
        argv += ["--protocol", protocol, "-o", str(answers)]
        cpu, began = _cpu(), time.monotonic()
        subprocess.run(argv, env=env, cwd=folder, check=True, timeout=600)
        wall = time.monotonic() - began
        cpu = _cpu() - cpu
        lines = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
        ledger = read_ledger(folder / "home" / "localapi" / "data")
    wrong = [line["id"] for line in lines if line["answer"] != right_answer(line["question"])]
    per_job = Counter(entry["metadata"]["askq_job"] for entry in ledger)
    took = [_seconds(line["started_at"], line["completed_at"]) for line in lines]
    return {
        "command": f"askq run questions.csv --protocol {protocol}",
        "questions": questions,
        "run_seconds": durations,
        "answered": sum(line["status"] == "completed" for line in lines),
        "wrong_answers": len(wrong),
        "ledger_runs": len(ledger),
        "jobs_with_one_run": sum(count == 1 for count in per_job.values()),
        "wall_s": round(wall, 2),
        "ideal_s": durations[1],
        "cpu_s_of_waited_for_processes": round(cpu, 2),
        "seconds_from_start_to_stored_p50": round(statistics.median(took), 2),
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
