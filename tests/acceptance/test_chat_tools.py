"""Beside the text of a conversation: functions, code, and files in both directions, with real parts and a terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from askq.jobs.live import Kind, Piece
from askq.jobs.model import Job, State
from askq.names import QUEUE_TOOLS
from tests.acceptance.stack import ROOT, Stack, running_stack
from tests.acceptance.terminal import Terminal
from tests.unit.tools import functions

pytestmark = pytest.mark.timeout(300)
PROTOCOLS = ("assistants", "responses")
PROMPT = "\n>"
LONG = " ".join(f"word{number}" for number in range(1, 25))
CALLS = [
    [{"name": "light", "arguments": {"device": "lamp", "on": True}}],
    [{"name": "slow_sum", "arguments": {"a": 1, "b": 2}}],
]
DONE = {"answer": f"Done: {LONG}, {{outputs}}.", "calls": CALLS, "duration": 0.2}
# For several seconds: a busy machine shows a word late.
SCRIPT = {"default": {**DONE, "pace": 12}, "rule": [{"contains": "calmly", **DONE, "pace": 4}]}
TABLE = "name,sex,survived\n" + "".join(
    f"P{number},{'female' if number % 2 else 'male'},{int(number % 2 == 1 or number % 10 == 0)}\n"
    for number in range(40)
)
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def talk(stack: Stack, *argv: str, **environment: str) -> Terminal:
    command = [sys.executable, "-m", "producer.cli", "chat", "--no-worker", *argv]
    terminal = Terminal(command, stack.environment(**environment))
    terminal.expect(PROMPT)
    return terminal


def newest(stack: Stack) -> Job:
    """The last question of the newest conversation."""
    (batch,) = stack.store.batches(limit=1)
    return list(stack.store.jobs(batch.id))[-1]


def told(stack: Stack, job: Job) -> list[tuple[str, Piece]]:
    """What came live: run and piece."""
    return [(entry.run, piece) for entry in stack.store.listen(job.id, None, wait_s=0.01) for piece in entry.pieces]


# -- functions -----------------------------------------------------------------------------------------------


def at_home(folder: Path) -> None:
    """An assistant with functions, and these."""
    shutil.copy(functions.__file__, folder / "functions.py")
    (folder / "home.toml").write_text('model = "m"\ntools = ["functions:light", "functions:slow_sum"]\n', "utf-8")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("chat-functions")
    with running_stack(folder, script=SCRIPT) as made:
        at_home(folder)
        # Two of each: what one process tells of a run, another goes on with.
        made.worker("one")
        made.worker("two")
        made.worker("tools", queues=QUEUE_TOOLS, OPENAI_API_KEY="")
        yield made


def talk_at_home(stack: Stack, protocol: str) -> Terminal:
    return talk(stack, "-a", "home", "--protocol", protocol, ASKQ_ASSISTANTS_DIR=str(stack.folder))


@protocols
def test_after_the_outputs_of_functions_the_text_comes_live(house: Stack, protocol: str) -> None:
    with closing(talk_at_home(house, protocol)) as terminal:
        terminal.type("Say calmly that it is dark.\r")
        at = terminal.expect("── calls light")
        at = terminal.expect('"lamp"', after=at)
        at = terminal.expect("── light returned", after=at)
        at = terminal.expect("lamp is on", after=at)
        at = terminal.expect("── calls slow_sum", after=at)
        at = terminal.expect("── slow_sum returned", after=at)
        at = terminal.expect("word3", after=at)
        job = newest(house)
        assert job.state is State.RUNNING, "the answer is seen before it is whole"
        at = terminal.expect("word24, lamp is on, 3.", after=at)
        terminal.expect(PROMPT, after=at)
        assert terminal.shown.count("word3 ") == 1
        assert terminal.shown.count("── calls light") == 1
    runs = {run for run, piece in told(house, job) if piece.kind is Kind.TEXT}
    assert runs == {newest(house).run_id}
    assert newest(house).runs == (3 if protocol == "responses" else 1)


@protocols
def test_a_stream_that_breaks_after_the_outputs_loses_and_repeats_nothing(house: Stack, protocol: str) -> None:
    path = "/submit_tool_outputs$" if protocol == "assistants" else "/responses$"
    house.admin("faults", {"kind": "cut_stream", "path": path, "skip": 2, "events": 14})
    with closing(talk_at_home(house, protocol)) as terminal:
        terminal.type("It is dark again.\r")
        at = terminal.expect("word24, lamp is on, 3.")
        terminal.expect(PROMPT, after=at)
        assert terminal.shown.count("word3 ") == 1
    house.heal()
    job = newest(house)
    assert (job.state, job.attempts) == (State.COMPLETED, 3 if protocol == "responses" else 1)


def test_a_server_that_streams_no_outputs_is_given_them_without(house: Stack) -> None:
    refusal = {"kind": "status", "status": 400, "message": "Unknown parameter: 'stream'."}
    house.admin("faults", {**refusal, "path": "/submit_tool_outputs$", "contains": '"stream"'})
    with closing(talk_at_home(house, "assistants")) as terminal:
        terminal.type("It is dark here.\r")
        at = terminal.expect("word24, lamp is on, 3.", seconds=120)
        terminal.expect(PROMPT, after=at)
    house.heal()
    assert newest(house).runs == 1


def test_a_conversation_starts_what_runs_functions(tmp_path: Path) -> None:
    at_home(tmp_path)
    (tmp_path / "parts").mkdir()
    script = {"default": {"answer": "{outputs}", "calls": CALLS[:1], "duration": 0.1}}
    with running_stack(tmp_path / "parts", script=script) as stack:
        done = subprocess.run(
            [sys.executable, "-m", "producer.cli", "chat", "-a", "home"],
            input="It is dark.\n",
            env=stack.environment(ASKQ_ASSISTANTS_DIR=str(tmp_path)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "lamp is on\n"), done.stderr


# -- files and code ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tutor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("chat-files")
    with running_stack(folder, engine="tutor") as made:
        (folder / "reader.toml").write_text('model = "m"\ntools = ["code_interpreter", "file_search"]\n', "utf-8")
        (folder / "승객 명단.csv").write_text(TABLE, "utf-8")
        (folder / "rules.md").write_text("# House rules\n\nThe pool opens at seven in the morning.\n", "utf-8")
        made.worker()
        yield made


@protocols
def test_files_go_in_and_come_out(tutor: Stack, protocol: str) -> None:
    folder = tutor.folder
    with closing(talk(tutor, "-a", "reader", "--protocol", protocol, ASKQ_ASSISTANTS_DIR=str(folder))) as terminal:
        terminal.type(f"/file {folder}/명단.csv\r")
        at = terminal.expect("there is no such file")
        terminal.type(f"/file {folder}/승객 명단.csv\r")
        at = terminal.expect("goes along with the next question", after=at)
        terminal.type("Draw the survival rate by sex as a bar chart (PNG).\r")
        at = terminal.expect("── code", after=at)
        at = terminal.expect("import", after=at)
        # Half of the women and men have an odd number; all of those and every tenth of the others survived.
        at = terminal.expect("── image survived_by_sex.png: ", after=at, seconds=120)
        at = terminal.expect(PROMPT, after=at)
        chart = Path(terminal.shown.partition("── image survived_by_sex.png: ")[2].splitlines()[0])
        assert chart.read_bytes().startswith(b"\x89PNG")
        terminal.type("Give me the survival rate by sex as a CSV.\r")
        at = terminal.expect("── file survived_by_sex.csv: ", after=at, seconds=120)
        at = terminal.expect(PROMPT, after=at)
        table = Path(terminal.shown.partition("── file survived_by_sex.csv: ")[2].splitlines()[0]).read_text("utf-8")
        assert "female" in table, "a later question of the conversation reads the file, too"
        terminal.type("/l\r")
        at = terminal.expect("── code 1", after=at)
        at = terminal.expect("import", after=at)
        at = terminal.expect("── output", after=at)
        terminal.type(f"/file {folder}/rules.md\r")
        at = terminal.expect("goes along with the next question", after=at)
        terminal.type("When does the pool open?\r")
        at = terminal.expect("“The pool opens at seven in the morning.” (rules.md)", after=at, seconds=120)
        terminal.expect(PROMPT, after=at)
    (search,) = [job for job in tutor.store.jobs(newest(tutor).id.partition(".")[0]) if job.question.index == 2]
    assert search.answer is not None
    assert [citation["filename"] for citation in search.answer.citations] == ["rules.md"]
