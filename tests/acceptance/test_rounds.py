"""Runs that work with code, ask for functions, and answer: what they made on the way, and answers that are mended."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.files.folder import Folder
from askq.jobs.model import Job, State
from askq.names import QUEUE_TOOLS
from askq.tools.describe import describe
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import eventually
from tests.unit.tools import functions

pytestmark = pytest.mark.timeout(240)
PROTOCOLS = ("responses", "assistants")
FUNCTIONS = Path(functions.__file__).parent
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def text(name: str, content: str) -> dict[str, str]:
    return {"name": name, "text": content}


LIGHT, SUM = call("light", device="lamp", on=True), call("slow_sum", a=1, b=2)
SAME = text("same.csv", "same")
USED = {"input_tokens": 10, "output_tokens": 5}
MADE: Mapping[str, str] = {
    "table.csv": "1",
    "same.csv": "same",
    "table (2).csv": "22",
    "table (3).csv": "333",
}
"""What comes of the question below, besides its picture."""
SCRIPT: dict[str, Any] = {
    "default": {"answer": "no", "duration": 0.1, "usage": USED},
    "rule": [
        {
            "contains": "[made]",
            "calls": [[LIGHT], [SUM]],
            "calls_code": [
                [{"input": "one", "logs": "1", "files": [text("../table.csv", "1"), SAME], "images": ["chart.png"]}],
                [{"input": "two", "logs": "2", "files": [text("../table.csv", "22")]}],
            ],
            "code": [{"input": "three", "files": [text("table.csv", "333"), SAME]}],
            "answer": "got {outputs}",
        },
        {"contains": "cannot be used", "earlier": "[calls]", "calls": [[SUM]], "answer": {"name": "{output}"}},
        {"contains": "cannot be used", "earlier": "[never]", "answer": "I cannot."},
        {"contains": "cannot be used", "answer": {"name": "Ann"}},
        {
            "contains": "[code]",
            "calls": [[LIGHT]],
            "calls_code": [[{"input": "one", "files": [text("a.csv", "1")]}]],
            "code": [{"input": "two", "files": [text("b.csv", "2")]}],
            "answer": "prose",
        },
        {"contains": "[good]", "calls": [[LIGHT]], "answer": {"name": "{output}"}},
        {"contains": "[prose]", "calls": [[LIGHT, SUM], [SUM]], "answer": "She is called Ann."},
        {"contains": "[calls]", "calls": [[LIGHT]], "answer": {"name": 1}},
        {"contains": "[never]", "calls": [[LIGHT]], "answer": "She is called Ann."},
    ],
}


class House:
    """A stack whose workers put files into a folder; those that run functions are started by the test."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.files = Folder(stack.folder / "files")
        self.settings = {"ASKQ_FILES": str(self.files.root), "ASKQ_TICK_S": "0.1", "ASKQ_LEASE_S": "3"}
        self.worker()

    def worker(self, name: str = "steady", **more: str) -> Process:
        return self.stack.worker(name, settings=self.settings, **more)

    def tools(self) -> None:
        self.stack.worker("tools", settings=self.settings, queues=QUEUE_TOOLS, OPENAI_API_KEY="")

    def ask(self, assistant: Assistant, *texts: str) -> dict[str, Job]:
        """What becomes of questions, by their texts."""
        batch = self.stack.submit(assistant, list(texts))
        return dict(zip(texts, self.stack.wait(batch, seconds=120), strict=True))

    def contents(self, job: Job) -> dict[str, str]:
        """What the job's files hold, by their names; each must be here, whole and in its place."""
        assert job.answer is not None
        found = {}
        for file in job.answer.files:
            path = self.files.root / file["path"]
            assert path.parent == self.files.job(*job.id.split("."))
            assert path.stat().st_size == file["size"]
            assert file["name"] not in found, "a file is listed once"
            found[str(file["name"])] = path.read_bytes().decode("latin-1")
        assert sorted(found) == sorted(path.name for path in self.files.job(*job.id.split(".")).iterdir())
        assert not self.files.partial()
        return found


def home(protocol: ProtocolName, **more: Any) -> Assistant:
    told = describe(["functions:light", "functions:slow_sum"], [FUNCTIONS])
    how = {function.tool["name"]: dict(function.how) for function in told}
    tools = ({"type": "code_interpreter"}, *(function.tool for function in told))
    return Assistant(
        name="home", protocol=protocol, model="gpt-test", tools=tools, functions=how, timeout_s=200, **more
    )


def containers(stack: Stack) -> list[str]:
    """The containers there are."""
    headers = {"Authorization": "Bearer sk-test-canary-0123456789"}
    request = urllib.request.Request(f"{stack.base_url}/containers", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as reply:
        return [container["id"] for container in json.load(reply)["data"]]


def check(house: House, job: Job) -> None:
    """Everything the `[made]` question has made, from every round, once."""
    assert (job.state, job.note) == (State.COMPLETED, None)
    assert job.answer is not None
    assert job.answer.text == "got lamp is on, 3"
    found = house.contents(job)
    assert found.pop("chart.png").startswith("\x89PNG")
    assert found == MADE
    assert [part["input"] for part in job.answer.code] == ["one", "two", "three"]
    assert [made["output"] for made in job.answer.tool_calls] == ["lamp is on", "3"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_every_round_makes_is_here_once(tmp_path: Path, protocol: ProtocolName) -> None:
    """On Responses before the functions have come to their end: the container expires while they run."""
    with running_stack(tmp_path, script=SCRIPT) as stack:
        house = House(stack)
        batch = stack.submit(home(protocol), ["[made]"])
        (job,) = stack.store.jobs(batch)

        def waits() -> bool:
            return stack.store.jobs(batch)[0].state is State.ACTION  # type: ignore[index]

        eventually(waits, seconds=60, what="the run waits for a function")
        if protocol == "responses":
            here = {path.name for path in house.files.job(*job.id.split(".")).iterdir()}
            assert here == {"table.csv", "same.csv", "chart.png"}
            for container in containers(stack):
                stack.admin(f"containers/{container}/expire", {})
        house.tools()
        (done,) = stack.wait(batch, seconds=60)
        check(house, done)
        asked = stack.admin("stats")["requests"]
        fetched = sum(count for route, count in asked.items() if route.startswith("GET") and "/content" in route)
        # The same content under a name it has is fetched, because it might be another, and is no other file.
        assert fetched == len(MADE) + 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_of_every_round_survive_kills(tmp_path: Path, protocol: ProtocolName) -> None:
    with running_stack(tmp_path, script=SCRIPT, keyed=True) as stack:
        house = House(stack)
        house.tools()
        points = "download.*=kill:0.15,file.keep.*=kill:0.15,commit.act.*=kill:0.3,commit.complete.before=kill:0.2"
        house.worker("shaky", ASKQ_FAILPOINTS=points, ASKQ_FAILPOINTS_SEED="5")
        found = house.ask(home(protocol), *(f"[made] {n}" for n in range(8)))
        for job in found.values():
            check(house, job)
        paid = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
        assert set(paid.values()) == {3 if protocol == "responses" else 1}
        assert {job.runs for job in found.values()} == set(paid.values())
        given = [output for entry in stack.ledger() for output in entry.get("tool_outputs", [])]
        assert len(given) == 2 * len(found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_that_took_functions_is_mended_once(tmp_path: Path, protocol: ProtocolName) -> None:
    """Killed between the answer and the request to mend it, around its intents and around the calls."""
    with running_stack(tmp_path, script=SCRIPT, keyed=True) as stack:
        house = House(stack)
        house.tools()
        points = "commit.correct.*=kill:0.3,join.*=kill:0.3,commit.act.*=kill:0.2"
        if protocol == "assistants":
            # Elsewhere the usage of a run whose reply was lost is not known to anybody.
            points += ",commit.intend.after=kill:0.1,start.after=kill:0.1"
        house.worker("shaky", ASKQ_FAILPOINTS=points, ASKQ_FAILPOINTS_SEED="11")
        schema = {"type": "json_schema", "name": "person", "schema": SCHEMA}
        mends = home(protocol, text_format=schema, on_invalid="retry", max_rounds=2)
        found = house.ask(mends, "[good]", "[prose]", "[calls]", "[never]", "[code]")
        jobs = {question.strip("[]"): job for question, job in found.items()}
        ends = {row: job.error_code for row, job in jobs.items()}
        assert ends == {"good": None, "prose": None, "calls": None, "never": "invalid_output", "code": None}
        texts = {row: None if job.answer is None else job.answer.text for row, job in jobs.items()}
        assert {row: json.loads(texts[row] or "")["name"] for row in ("good", "prose", "calls", "code")} == {
            **{"good": "lamp is on", "prose": "Ann", "calls": "3", "code": "Ann"}
        }
        assert texts["never"] == "I cannot."
        # The calls of both attempts, each run once.
        calls = {row: [made["name"] for made in job.answer.tool_calls] for row, job in jobs.items() if job.answer}
        assert calls == {
            "good": ["light"],
            "prose": ["light", "slow_sum", "slow_sum"],
            "calls": ["light", "slow_sum"],
            "never": ["light"],
            "code": ["light"],
        }
        # Files of the answer that was of no use, too: the second one repeats the text alone.
        assert house.contents(jobs["code"]) == {"a.csv": "1", "b.csv": "2"}
        legs = {"good": 2, "prose": 4, "calls": 4, "never": 3, "code": 3}
        creates = legs if protocol == "responses" else {row: 1 if row == "good" else 2 for row in legs}
        paid = Counter(entry["metadata"]["askq_job"] for entry in stack.ledger())
        assert {row: paid[job.id] for row, job in jobs.items()} == creates
        assert {row: job.attempts for row, job in jobs.items()} == creates
        for row, job in jobs.items():
            assert job.answer is not None
            assert job.answer.usage is not None
            assert job.answer.usage.total_tokens == 15 * legs[row], row
        asked = [entry for entry in stack.ledger() if "cannot be used" in entry["question"]]
        scope = "thread_id" if protocol == "assistants" else "conversation_id"
        assert {entry[scope] for entry in asked} == {job.thread_id for row, job in jobs.items() if row != "good"}
        again = dataclasses.replace(mends, on_invalid="fail")
        (failed,) = house.ask(again, "[prose]").values()
        assert (failed.error_code, failed.attempts) == ("invalid_output", 3 if protocol == "responses" else 1)
