"""Functions of users, with real workers: what they do, what they do wrong, and who notices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.jobs.model import Job, State
from askq.names import QUEUE_TOOLS
from askq.tools.describe import describe
from tests.acceptance.stack import Stack, running_stack
from tests.parts import eventually
from tests.unit.tools import functions

NAMES = ("light", "hangs", "dies", "babbles", "unwritable", "long", "fails", "nothing", "greedy", "slow_sum")
FOLDER = Path(functions.__file__).parent


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


ON = {"device": "lamp", "on": True}
SCRIPT: Mapping[str, list[list[dict[str, Any]]]] = {
    "rounds": [[call("light", **ON), call("slow_sum", a=1, b=2)], [call("slow_sum", a=3, b=4)]],
    "hang": [[call("hangs"), call("light", **ON)]],
    "exit": [[call("dies", how="exit"), call("light", **ON)]],
    "segfault": [[call("dies", how="segfault")]],
    "print": [[call("babbles", megabytes=5)]],
    "object": [[call("unwritable")]],
    "huge": [[call("long", size=100_000)]],
    "raise": [[call("fails")]],
    "memory": [[call("greedy")]],
    "arguments": [
        [call("light", device="lamp", on="maybe"), call("light", **ON, more=1), {"name": "light", "arguments": "{on"}]
    ],
    "unknown": [[call("os.system", command="true"), call("light", **ON)]],
}
"""What the model asks for, by a word of the question."""

EXPECTED: Mapping[str, list[str]] = {
    "rounds": ["lamp is on", "3", "7"],
    "hang": ["timeout", "lamp is on"],
    "exit": ["crashed", "lamp is on"],
    "segfault": ["crashed"],
    "print": ["done"],
    "object": ["unserializable"],
    "huge": ["too_large"],
    "raise": ["exception"],
    "memory": ["memory"],
    "arguments": ["bad_arguments"] * 3,
    "unknown": ["unknown_function", "lamp is on"],
    "nothing": [],
}
"""The outputs that the answer is made of: results, or codes of errors."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    rules = [{"contains": f"[{word}]", "calls": calls, "answer": "got {outputs}"} for word, calls in SCRIPT.items()]
    script = {"default": {"answer": "no function", "duration": 0.1}, "rule": rules}
    with running_stack(tmp_path_factory.mktemp("functions"), script=script) as made:
        made.worker()
        made.worker("tools", queues=QUEUE_TOOLS, OPENAI_API_KEY="")
        yield made


@pytest.fixture(scope="module")
def home() -> Assistant:
    told = describe([f"functions:{name}" for name in NAMES], [FOLDER])
    how = {function.tool["name"]: dict(function.how) for function in told}
    how["hangs"]["timeout_s"] = 1.0
    how["greedy"]["memory_mb"] = 700
    tools = tuple(function.tool for function in told)
    return Assistant(name="home", protocol="responses", model="gpt-test", tools=tools, functions=how, timeout_s=100)


def outputs(job: Job) -> list[str]:
    assert job.answer is not None
    return [call.get("error") or call["output"] for call in job.answer.tool_calls]


@pytest.mark.parametrize("protocol", ["responses", "assistants"])
def test_whatever_functions_do_every_question_is_answered(
    stack: Stack, home: Assistant, protocol: ProtocolName
) -> None:
    before = len(stack.ledger())
    batch = stack.submit(dataclasses.replace(home, protocol=protocol), [f"[{word}] please" for word in EXPECTED])
    jobs = dict(zip(EXPECTED, stack.wait(batch, seconds=120), strict=True))
    assert {word: job.state for word, job in jobs.items() if job.state is not State.COMPLETED} == {}
    assert {word: outputs(job) for word, job in jobs.items()} == EXPECTED
    for word, job in jobs.items():
        assert job.answer is not None
        assert job.answer.text is not None
        # What the model was told, errors included, is what is on record.
        given = ", ".join(str(call["output"]) for call in job.answer.tool_calls)
        assert job.answer.text == (f"got {given}" if given else "no function"), word
    # The printed megabytes are not.
    (noisy,) = jobs["print"].answer.tool_calls if jobs["print"].answer is not None else ()
    assert len(noisy["printed"]) == 4000
    runs = sum(job.runs for job in jobs.values())
    assert len(stack.ledger()) - before == runs
    assert runs == len(jobs) + (12 if protocol == "responses" else 0)
    assert all(job.attempts == job.runs for job in jobs.values())


def test_a_worker_that_runs_functions_does_nothing_else(stack: Stack) -> None:
    eventually(lambda: len(list(stack.store.nodes())) == 2, seconds=120, what="both workers are there")
    nodes = {node.name.partition("@")[0]: (node.processes, node.tools) for node in stack.store.nodes()}
    assert nodes == {"worker": (2, 0), "tools": (0, 2)}


def test_messages_of_strangers_run_nothing(stack: Stack, home: Assistant) -> None:
    """A message says that there is something to run, never what."""
    from celery import Celery

    from config.celery import options

    app = Celery("stranger", set_as_current=False)
    app.conf.update(options(stack.redis_url))
    for args in (["os.system"], [], [{"job": "b_1.q1", "function": "home:light"}]):
        app.send_task("askq.tools", args=args, queue=QUEUE_TOOLS, ignore_result=True)
    app.close()
    batch = stack.submit(home, ["[rounds] please"])
    (job,) = stack.wait(batch, seconds=120)
    assert outputs(job) == EXPECTED["rounds"]


def test_a_module_no_worker_finds_ends_the_job_with_a_remedy(stack: Stack, home: Assistant) -> None:
    how = {name: dict(how) | {"module": "gone"} for name, how in (home.functions or {}).items()}
    batch = stack.submit(dataclasses.replace(home, functions=how), ["[rounds] please"])
    (job,) = stack.wait(batch, seconds=120)
    assert (job.state, job.error_code) == (State.FAILED, "function_unavailable")
    assert "there is no module 'gone'" in (job.error_message or "")


def test_calls_are_shown_and_exported(stack: Stack, home: Assistant) -> None:
    batch = stack.submit(home, ["[rounds] please"])
    stack.wait(batch, seconds=120)
    shown = stack.askq("show", f"{batch}.q0000")
    assert shown.returncode == 0, shown.stderr
    assert 'Function 1\nlight {"device": "lamp", "on": true}\n→ lamp is on' in shown.stdout
    assert "Printed\nlamp True" in shown.stdout
    line = json.loads(stack.askq("results", batch, "-o", "-").stdout)
    assert [call["output"] for call in line["tool_calls"]] == EXPECTED["rounds"]


def test_askq_worker_starts_what_runs_functions_when_there_is_one_to_run(tmp_path: Path, home: Assistant) -> None:
    script = {"default": {"answer": "got {outputs}", "duration": 0.1, "calls": [[call("light", **ON)]]}}
    with running_stack(tmp_path, script=script) as made:
        made.command("askq", "worker")
        eventually(lambda: bool(made.store.nodes()), seconds=120, what="a worker is there")
        assert [node.tools for node in made.store.nodes()] == [0]
        (job,) = made.wait(made.submit(home, ["It is dark"]), seconds=120)
        assert (job.state, outputs(job)) == (State.COMPLETED, ["lamp is on"])
        assert sorted(node.tools for node in made.store.nodes()) == [0, 2]


def test_a_cancelled_job_stops_its_function(stack: Stack, home: Assistant) -> None:
    patient = {name: dict(how) | {"timeout_s": 60.0} for name, how in (home.functions or {}).items()}
    batch = stack.submit(dataclasses.replace(home, functions=patient), ["[hang] please"])
    (job,) = stack.store.jobs(batch)

    def runs() -> bool:
        kept = stack.store.calls().look(job.id)
        return any(call.result is not None for call in kept) and any(call.result is None for call in kept)

    eventually(runs, seconds=120, what="one function has ended, and the other hangs")
    assert stack.askq("cancel", batch, "--yes").returncode == 0
    (ended,) = stack.wait(batch, seconds=120)
    assert (ended.state, ended.error_code) == (State.CANCELLED, "cancelled")
    # The process that hung runs the next calls.
    again = stack.submit(home, ["[rounds] please"] * 4)
    assert {job.state for job in stack.wait(again, seconds=120)} == {State.COMPLETED}
