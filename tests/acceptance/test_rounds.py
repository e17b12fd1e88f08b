"""Runs that work with code, ask for functions, and answer: what they made on the way, and answers that are mended."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant, ProtocolName
from askq.files.folder import Folder
from askq.jobs.model import Job, NewBatch, NewJob, Question, State
from askq.names import QUEUE_TOOLS
from askq.tools.describe import describe
from tests.acceptance.stack import Process, Stack, running_stack
from tests.parts import eventually
from tests.unit.tools import functions

pytestmark = pytest.mark.timeout(300)
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


def written(name: str, content: str) -> dict[str, str]:
    return {"name": name, "text": content}


LIGHT, SUM = call("light", device="lamp", on=True), call("slow_sum", a=1, b=2)
SAME = written("same.csv", "same")
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
                [{"input": "one", "logs": "1", "files": [written("../table.csv", "1"), SAME], "images": ["chart.png"]}],
                [{"input": "two", "logs": "2", "files": [written("../table.csv", "22")]}],
            ],
            "code": [{"input": "three", "files": [written("table.csv", "333"), SAME]}],
            "answer": "got {outputs}",
        },
        {"contains": "cannot be used", "earlier": "[calls]", "calls": [[SUM]], "answer": {"name": "{output}"}},
        {"contains": "cannot be used", "earlier": "[never]", "answer": "I cannot."},
        {"contains": "cannot be used", "answer": {"name": "Ann"}},
        {
            "contains": "[code]",
            "calls": [[LIGHT]],
            "calls_code": [[{"input": "one", "files": [written("a.csv", "1")]}]],
            "code": [{"input": "two", "files": [written("b.csv", "2")]}],
            "answer": "prose",
        },
        {"contains": "[first]", "code": [{"input": "1", "files": [written("a.csv", "1")]}], "answer": "yes"},
        {"contains": "[second]", "code": [{"input": "2", "files": [written("b.csv", "2")]}], "answer": "yes"},
        {
            "contains": "[fails]",
            "code": [{"input": "one", "files": [written("a.csv", "1")]}],
            "status": "failed",
            "partial": "half",
        },
        {
            "contains": "[endless]",
            "calls": [[LIGHT], [SUM], [SUM]],
            "calls_code": [[{"input": "one", "images": ["a.png"]}], [{"input": "two", "images": ["b.png"]}]],
        },
        {"contains": "[good]", "calls": [[LIGHT]], "answer": {"name": "{output}"}},
        {"contains": "[prose]", "calls": [[LIGHT, SUM], [SUM]], "answer": "She is called Ann."},
        {"contains": "[calls]", "calls": [[LIGHT]], "answer": {"name": 1}},
        {"contains": "[never]", "calls": [[LIGHT]], "answer": "She is called Ann."},
    ],
}


class House:
    """A stack whose workers put files into a folder. All its questions are asked on one protocol."""

    def __init__(self, stack: Stack, protocol: ProtocolName) -> None:
        self.stack = stack
        self.protocol = protocol
        self.files = Folder(stack.folder / "files")
        self.settings = {"ASKQ_FILES": str(self.files.root), "ASKQ_TICK_S": "0.1", "ASKQ_LEASE_S": "3"}
        self._steady = stack.worker("steady", settings=self.settings, concurrency=1)
        self._tools: Process | None = None

    def tools(self, *, run: bool) -> None:
        """See to it that functions are run, or not."""
        if run and self._tools is None:
            self._tools = self.stack.worker("tools", settings=self.settings, queues=QUEUE_TOOLS, OPENAI_API_KEY="")
        elif not run and self._tools is not None:
            self._tools.kill()
            self._tools = None

    def paid(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """The runs of these jobs."""
        ids = {job.id for job in jobs}
        return [entry for entry in self.stack.ledger() if entry["metadata"].get("askq_job") in ids]

    def fetched(self) -> int:
        """How often the content of a file was asked for."""
        asked = self.stack.admin("stats")["requests"]
        return sum(count for route, count in asked.items() if route.startswith("GET") and "/content" in route)

    def ask(self, assistant: Assistant, *texts: str) -> dict[str, Job]:
        """What becomes of questions, by their texts."""
        batch = self.stack.submit(assistant, list(texts))
        return dict(zip(texts, self.stack.wait(batch, seconds=120), strict=True))

    def ask_shaky(self, points: str, assistant: Assistant, *texts: str) -> dict[str, Job]:
        """The same, begun by a worker whose processes die at these places, and then dies itself."""
        self._steady.kill()
        killed = self.stack.folder / "killed.txt"
        killed.write_text("")
        more = {"ASKQ_FAILPOINTS": points, "ASKQ_FAILPOINTS_LOG": str(killed)}
        shaky = self.stack.worker("shaky", settings=self.settings, **more)
        batch = self.stack.submit(assistant, list(texts))
        eventually(lambda: len(killed.read_text().splitlines()) > 1, seconds=120, what="two processes were killed")
        shaky.kill()
        self._steady.start()
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
    with urllib.request.urlopen(request, timeout=60) as reply:
        return [container["id"] for container in json.load(reply)["data"]]


def check(house: House, job: Job) -> None:
    """Everything the `[made]` question has made, from every round, once."""
    assert (job.state, "not kept" in (job.note or "")) == (State.COMPLETED, False), job
    assert job.answer is not None
    assert job.answer.text == "got lamp is on, 3"
    found = house.contents(job)
    assert found.pop("chart.png").startswith("\x89PNG")
    assert found == MADE
    assert [part["input"] for part in job.answer.code] == ["one", "two", "three"]
    assert [made["output"] for made in job.answer.tool_calls] == ["lamp is on", "3"]


@pytest.fixture(scope="module", params=PROTOCOLS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_stack(tmp_path_factory.mktemp("rounds"), script=SCRIPT, keyed=True) as stack:
        yield House(stack, request.param)


def test_what_every_round_makes_is_here_once(house: House) -> None:
    """On Responses before the functions have come to their end: the container expires while they run."""
    house.tools(run=False)
    before = house.fetched()
    batch = house.stack.submit(home(house.protocol), ["[made]"])
    (job,) = house.stack.store.jobs(batch)

    def waits() -> bool:
        return [each.state for each in house.stack.store.jobs(batch)] == [State.ACTION]

    eventually(waits, seconds=120, what="the run waits for a function")
    if house.protocol == "responses":
        here = {path.name for path in house.files.job(*job.id.split(".")).iterdir()}
        assert here == {"table.csv", "same.csv", "chart.png"}
        for container in containers(house.stack):
            house.stack.admin(f"containers/{container}/expire", {})
    house.tools(run=True)
    (done,) = house.stack.wait(batch, seconds=120)
    check(house, done)
    # The same content under a name it has is fetched, because it might be another, and is no other file.
    assert house.fetched() - before == len(MADE) + 2


def test_what_a_run_has_made_stays_though_it_does_not_complete(house: House) -> None:
    house.tools(run=True)
    found = house.ask(home(house.protocol, max_rounds=1), "[fails]", "[endless]")
    fails, endless = found.values()
    assert (fails.error_code, endless.error_code) == ("server_error", "too_many_rounds")
    assert fails.answer is not None
    assert endless.answer is not None
    assert fails.answer.text == "half"
    assert [[part["input"] for part in job.answer.code] for job in found.values() if job.answer] == [
        ["one"],
        ["one", "two"],
    ]
    assert house.contents(fails) == {"a.csv": "1"}
    # On Assistants files are part of a message, which this run has none of; pictures are shown by the code, too.
    assert sorted(house.contents(endless)) == ["a.png", "b.png"]
    assert [made["name"] for made in endless.answer.tool_calls] == ["light"]


def test_files_belong_to_the_question_whose_code_made_them(house: House) -> None:
    """In a conversation code goes on in the same container."""
    assistant, store = home(house.protocol), house.stack.store
    store.save_assistant(assistant.digest, assistant.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="home", protocol=house.protocol))
    rows = [("a", "[first]", None), ("b", "[second]", "a"), ("c", "[second] again", "b")]
    jobs = [
        NewJob(
            question=Question(row_id=row, index=index, text=text, thread="talk"),
            assistant="home",
            assistant_digest=assistant.digest,
            protocol=house.protocol,
            after=after,
        )
        for index, (row, text, after) in enumerate(rows)
    ]
    store.add(batch, jobs)
    store.seal(batch, len(jobs))
    first, second, third = house.stack.wait(batch, seconds=120)
    assert len({job.thread_id for job in (first, second, third)}) == 1
    assert house.contents(first) == {"a.csv": "1"}
    assert house.contents(second) == house.contents(third) == {"b.csv": "2"}


def test_files_of_every_round_survive_kills(house: House) -> None:
    house.tools(run=True)
    points = "download.*=kill:0.1,file.keep.*=kill:0.1,commit.act.*=kill:0.3,commit.complete.before=kill:0.3"
    found = house.ask_shaky(points, home(house.protocol), *(f"[made] {n}" for n in range(6))).values()
    for job in found:
        check(house, job)
    paid = Counter(entry["metadata"]["askq_job"] for entry in house.paid(found))
    assert set(paid.values()) == {3 if house.protocol == "responses" else 1}
    assert {job.runs for job in found} == set(paid.values())
    assert sum(len(entry["tool_outputs"]) for entry in house.paid(found)) == 2 * len(found)


def test_an_answer_that_took_functions_is_mended_once(house: House) -> None:
    """Killed between the answer and the request to mend it, around its intents and around the calls."""
    house.tools(run=True)
    points = "commit.correct.*=kill:0.5,join.*=kill:0.5,commit.act.*=kill:0.3"
    if house.protocol == "assistants":
        # Elsewhere the usage of a run whose reply was lost is not known to anybody.
        points += ",commit.intend.after=kill:0.1,start.after=kill:0.1"
    schema = {"type": "json_schema", "name": "person", "schema": SCHEMA}
    mends = home(house.protocol, text_format=schema, on_invalid="retry", max_rounds=2)
    found = house.ask_shaky(points, mends, "[good]", "[prose]", "[calls]", "[never]", "[code]")
    jobs = {question.strip("[]"): job for question, job in found.items()}
    ends = {row: job.error_code for row, job in jobs.items()}
    assert ends == {"good": None, "prose": None, "calls": None, "never": "invalid_output", "code": None}
    texts = {row: None if job.answer is None else job.answer.text for row, job in jobs.items()}
    assert texts.pop("never") == "I cannot."
    names = {row: json.loads(text or "")["name"] for row, text in texts.items()}
    assert names == {"good": "lamp is on", "prose": "Ann", "calls": "3", "code": "Ann"}
    # The calls of both attempts, each run once.
    calls = {row: [made["name"] for made in job.answer.tool_calls] for row, job in jobs.items() if job.answer}
    light, add = "light", "slow_sum"
    assert calls == {
        "good": [light],
        "prose": [light, add, add],
        "calls": [light, add],
        "never": [light],
        "code": [light],
    }
    # Files of the answer that was of no use, too: the second one repeats the text alone.
    assert house.contents(jobs["code"]) == {"a.csv": "1", "b.csv": "2"}
    legs = {"good": 2, "prose": 4, "calls": 4, "never": 3, "code": 3}
    creates = legs if house.protocol == "responses" else {row: 1 if row == "good" else 2 for row in legs}
    paid = Counter(entry["metadata"]["askq_job"] for entry in house.paid(jobs.values()))
    assert {row: paid[job.id] for row, job in jobs.items()} == creates
    assert {row: job.attempts for row, job in jobs.items()} == creates
    for row, job in jobs.items():
        assert job.answer is not None
        assert job.answer.usage is not None
        used = job.answer.usage.total_tokens
        # On Responses nobody knows the usage of a run whose reply was lost with the process that waited for it.
        assert used == 15 * legs[row] or (house.protocol == "responses" and used < 15 * legs[row]), row
    asked = [entry for entry in house.paid(jobs.values()) if "cannot be used" in entry["question"]]
    scope = "thread_id" if house.protocol == "assistants" else "conversation_id"
    assert {entry[scope] for entry in asked} == {job.thread_id for row, job in jobs.items() if row != "good"}
    again = dataclasses.replace(mends, on_invalid="fail")
    (failed,) = house.ask(again, "[prose]").values()
    assert (failed.error_code, failed.attempts) == ("invalid_output", 3 if house.protocol == "responses" else 1)
