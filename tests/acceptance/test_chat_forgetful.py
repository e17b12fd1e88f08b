"""Answers that are seen as they come, from a server that keeps no responses: what it streams is all there is."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from askq.jobs.model import Job, State
from askq.names import QUEUE_TOOLS
from tests.acceptance.stack import Stack, running_stack
from tests.acceptance.test_chat_tools import PROMPT, newest, talk
from tests.chaos.failpoints import fired
from tests.unit.tools import functions

pytestmark = pytest.mark.timeout(300)
LONG = " ".join(f"word{number}" for number in range(1, 25))
CALLS = [
    [{"name": "light", "arguments": {"device": "lamp", "on": True}}],
    [{"name": "slow_sum", "arguments": {"a": 1, "b": 2}}],
]
SCRIPT = {
    "default": {"answer": f"Slowly: {LONG}.", "duration": 0.2, "pace": 15},
    "rule": [{"contains": "dark", "answer": "Done: {outputs}.", "calls": CALLS, "duration": 0.2}],
}
KEEPS_NOTHING = [
    {"kind": "status", "status": 404, "method": method, "path": path, "message": "Not Found"}
    for method, path in (("GET", "/responses/"), ("POST", "/cancel$"), ("POST", "/conversations$"))
]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path, script=SCRIPT) as made:
        made.admin("faults", KEEPS_NOTHING)
        yield made
        runs = Counter(entry["metadata"]["askq_attempt"] for entry in made.ledger())
        assert set(runs.values()) == {1}, "nothing is paid for twice"


def is_whole(job: Job, *, runs: int) -> None:
    assert (job.state, job.attempts, job.runs) == (State.COMPLETED, runs, runs)
    assert job.answer is not None
    assert job.answer.usage is not None
    assert job.answer.usage.total_tokens > 0


def test_an_answer_is_whole_though_its_process_dies_with_the_last_event(stack: Stack) -> None:
    log = stack.folder / "failpoints.log"
    armed = {"ASKQ_FAILPOINTS": "hurry.after=kill", "ASKQ_FAILPOINTS_LOG": str(log), "ASKQ_LEASE_S": "3"}
    stack.worker("armed", armed, concurrency=2)
    done = stack.askq("ask", "Speak slowly.", "--stream", "--protocol", "responses", "--no-worker")
    assert (done.returncode, done.stdout) == (0, f"Slowly: {LONG}.\n"), done.stderr
    assert fired(log)["kill"] == {"hurry.after": 1}
    job = newest(stack)
    is_whole(job, runs=1)
    status = stack.status(job.id.partition(".")[0])
    assert job.answer is not None
    assert status.usage == job.answer.usage
    assert len(stack.ledger()) == 1


def test_functions_are_called_and_what_they_return_is_seen(stack: Stack) -> None:
    shutil.copy(functions.__file__, stack.folder / "functions.py")
    (stack.folder / "home.toml").write_text('model = "m"\ntools = ["functions:light", "functions:slow_sum"]\n', "utf-8")
    stack.worker("one")
    stack.worker("tools", queues=QUEUE_TOOLS, OPENAI_API_KEY="")
    with closing(
        talk(stack, "-a", "home", "--protocol", "responses", ASKQ_ASSISTANTS_DIR=str(stack.folder))
    ) as terminal:
        terminal.type("It is dark.\r")
        at = terminal.expect("── calls light", seconds=60)
        at = terminal.expect("── light returned", after=at, seconds=60)
        at = terminal.expect("lamp is on", after=at)
        at = terminal.expect("── calls slow_sum", after=at, seconds=60)
        at = terminal.expect("── slow_sum returned", after=at, seconds=60)
        at = terminal.expect("Done: lamp is on, 3.", after=at, seconds=60)
        terminal.expect(PROMPT, after=at, seconds=60)
    is_whole(newest(stack), runs=3)
