"""Limits: how close to what an account grants, how many refusals, and how many polls.

A worker with its defaults runs before the list is submitted; it knows nothing of the account. Redis is a real server
with its append-only file on, the local API enforces the limits. What is limited are creates of runs, as at OpenAI:
every 429 counted here is an answer to one. Time is counted from the first create of a run, and from the submission, to
the last stored answer.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from askq.assistants.model import Assistant
from askq.jobs.model import Job, State
from askq.localapi.engines.base import Request, Turn
from askq.localapi.engines.script import ScriptEngine
from askq.localapi.engines.script_file import parse_script
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually

_LONGEST_S = 300.0
_SHORT_RUNS: Mapping[str, Any] = {"default": {"answer": "Answer to: {question}", "duration": 0.1}}


def run(*, tiny: bool) -> dict[str, Any]:
    """All scenarios, one after the other."""
    return {
        "unknown-limit": requests(tiny=tiny, headers=True, halved=False),
        "unknown-limit-no-headers": requests(tiny=tiny, headers=False, halved=False),
        "halved-no-headers": requests(tiny=tiny, headers=False, halved=True),
        "tokens": tokens(tiny=tiny),
        "polls": polls(tiny=tiny),
    }


def requests(*, tiny: bool, headers: bool, halved: bool) -> dict[str, Any]:
    """20 requests a second with a burst of 20, and a Retry-After of a second; perhaps halved in mid-run."""
    questions, rate = (40, 20.0) if tiny else (300, 20.0)
    with _stack(_SHORT_RUNS) as stack:
        limits = {"requests_per_second": rate, "burst": rate, "retry_after": 1.0, "headers": headers}
        stack.admin("limits", limits)
        batch = stack.submit(_assistant(), [f"What is the square of {n}?" for n in range(questions)])
        refused_before, at = 0, questions
        if halved:
            eventually(
                lambda: _created(stack) >= questions // 2, seconds=_LONGEST_S, what="half are created", every=0.02
            )
            at, refused_before = _created(stack) - 1, _refused(stack)
            stack.admin("limits", {"requests_per_second": rate / 2, "burst": rate / 2})
        found = _outcome(stack, batch)
        ideal = max(0.0, (at - rate) / rate) + (questions - at) / (rate / 2)
        return found | {
            "limit": limits,
            "halved_after": at if halved else None,
            "ideal_s": round(ideal, 2),
            "refusals_429": _refused(stack),
            "refusals_429_after_halving": _refused(stack) - refused_before if halved else None,
        }


def tokens(*, tiny: bool) -> dict[str, Any]:
    """Tokens are the limit, and questions differ in length by a factor of a hundred."""
    questions, per_minute, seconds = (40, 60_000, 2) if tiny else (300, 60_000, 30)
    answer = 50
    # As much as the full bucket holds, and what comes in for so many seconds.
    spare = per_minute + seconds * per_minute / 60 - questions * answer
    shares = [1.0 + 99.0 * ((n * 37) % questions) / questions for n in range(questions)]
    texts = [f"{n} " + "x" * int(4 * spare * share / sum(shares)) for n, share in enumerate(shares)]
    with _stack(_SHORT_RUNS) as stack:
        stack.admin("limits", {"tokens_per_minute": per_minute, "retry_after": 1.0})
        batch = stack.submit(_assistant(max_output_tokens=answer), texts)
        found = _outcome(stack, batch)
        ledger = stack.ledger()
        creating = max(entry["created_at"] for entry in ledger) - min(entry["created_at"] for entry in ledger)
        used = stack.admin("limits")["tokens_accepted"]
        return found | {
            "tokens_per_minute": per_minute,
            "question_bytes": [min(map(len, texts)), max(map(len, texts))],
            "refusals_429": _refused(stack),
            "share_of_the_limit_used": round(used / (per_minute + creating * per_minute / 60), 3),
        }


def polls(*, tiny: bool) -> dict[str, Any]:
    """Nothing is limited: polls per run, and how long answers wait for theirs; a cold start, then what was learned."""
    questions, durations = (30, [0.2, 2.0]) if tiny else (500, [2.0, 20.0])
    script = {"default": {"answer": "Answer to: {question}", "duration": durations}}
    engine = ScriptEngine(parse_script(script))
    with _stack(script) as stack:
        found: dict[str, Any] = {"run_seconds": durations}
        for name in ("cold", "learned"):
            batch = stack.submit(_assistant(), [f"{name}: what is the square of {n}?" for n in range(questions)])
            found[name] = _outcome(stack, batch)
            ended = {}
            for entry in stack.ledger():
                turns = (Turn(role="user", text=entry["question"]),)
                plan = engine.plan(Request(work_id="", protocol="responses", model="m", instructions="", turns=turns))
                ended[entry["metadata"]["askq_job"]] = entry["created_at"] + (plan.seconds or 0.0)
            jobs = list(stack.store.jobs(batch))
            late = sorted((job.completed_at or math.inf) - ended[job.id] for job in jobs)
            found[name] |= {
                "polls_per_run": round(statistics.mean(job.polls for job in jobs), 2),
                "lateness_p50_s": round(late[len(late) // 2], 2),
                "lateness_p95_s": round(late[int(0.95 * len(late))], 2),
            }
        return found


@contextmanager
def _stack(script: Mapping[str, Any]) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="askq-bench-") as name,
        running_stack(Path(name), script=script) as stack,
    ):
        stack.worker()
        # One question to another model: the worker is up, and has learned nothing of the model that is measured.
        stack.wait(stack.submit(dataclasses.replace(_assistant(), model="warm-up"), ["Are you there?"]), seconds=60)
        yield stack


def _assistant(**more: Any) -> Assistant:
    return Assistant(name="plain", protocol="responses", model="m", instructions=None, **more)


def _created(stack: Stack) -> int:
    return int(stack.admin("stats")["ledger"])


def _refused(stack: Stack) -> int:
    return int(stack.admin("stats")["statuses"].get("429", 0))


def _outcome(stack: Stack, batch: str) -> dict[str, Any]:
    began = time.monotonic()
    jobs = stack.wait(batch, seconds=_LONGEST_S)
    waited = time.monotonic() - began
    mine = [entry for entry in stack.ledger() if entry["metadata"]["askq_job"].startswith(batch)]
    first = min(entry["created_at"] for entry in mine)
    last = max(job.completed_at or math.inf for job in jobs)
    return {
        "questions": len(jobs),
        "answered": sum(job.state is State.COMPLETED for job in jobs),
        "wrong_answers": sum(not _right(job) for job in jobs),
        "ledger_runs": len(mine),
        "attempts": sum(job.attempts for job in jobs),
        "first_to_last_create_s": round(max(entry["created_at"] for entry in mine) - first, 2),
        "first_create_to_last_answer_s": round(last - first, 2),
        "submission_to_last_answer_s": round(last - jobs[0].created_at, 2),
        "waited_s": round(waited, 2),
    }


def _right(job: Job) -> bool:
    return job.answer is not None and job.answer.text == f"Answer to: {job.question.text}"
