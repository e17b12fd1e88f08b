"""A person talks with an assistant: a real terminal, a real Redis, real workers, and the local API's streams."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from askq.jobs.model import Job, State
from tests.acceptance.stack import Stack, running_stack
from tests.acceptance.terminal import Terminal
from tests.parts import eventually

LONG = " ".join(f"word{number}" for number in range(1, 25))
SCRIPT = {
    "default": {"answer": "Answer to: {question}", "duration": 0.2},
    "rule": [
        {"contains": "calmly", "answer": f"Slowly: {LONG}.", "duration": 0.1, "pace": 4},
        {"contains": "slowly", "answer": f"Slowly: {LONG}.", "duration": 0.1, "pace": 20},
        {"contains": "for ever", "answer": f"Ever: {LONG}.", "duration": 0.1, "pace": 0.8},
        {
            "contains": "compute",
            "answer": "It is 4.",
            "code": [{"input": "print(2 + 2)", "logs": "4\n"}],
            "duration": 0.3,
        },
        {"contains": "remember", "answer": "You said: {previous}", "duration": 0.1},
    ],
}
WHOLE = f"Slowly: {LONG}."
PROTOCOLS = ("assistants", "responses")
PROMPT = "\n>"
"""The blank behind it is a movement of the cursor."""
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("chat"), script=SCRIPT) as made:
        with made.worker("resident").kept_running():
            yield made
        runs = Counter(entry["metadata"]["askq_job"] for entry in made.ledger())
        assert set(runs.values()) == {1}, "one run per question, whatever happened to streams, workers and programs"


Chats = Callable[..., Terminal]


@pytest.fixture
def chat(stack: Stack) -> Iterator[Chats]:
    opened: list[Terminal] = []

    def start(protocol: str, *argv: str) -> Terminal:
        told = ["--protocol", protocol, "-a", "tutor"] if "--resume" not in argv else []
        command = [sys.executable, "-m", "producer.cli", "chat", *told, "--no-worker", *argv]
        opened.append(Terminal(command, stack.environment()))
        opened[-1].expect(PROMPT)
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()
    stack.heal()


def jobs(stack: Stack) -> list[Job]:
    """The questions of the newest conversation."""
    newest = stack.store.batches(limit=1)
    return list(stack.store.jobs(newest[0].id)) if newest else []


def said(terminal: Terminal) -> str:
    """What is shown, but for blanks and for notes that came between."""
    return "".join("".join(line.split()) for line in terminal.shown.splitlines() if not line.startswith("askq: "))


def faults(stack: Stack, **rule: Any) -> None:
    stack.admin("faults", rule)


@protocols
def test_a_conversation(stack: Stack, chat: Chats, protocol: str) -> None:
    terminal = chat(protocol)
    # A syllable typed wrongly, and corrected: three bytes, two columns, one key.
    terminal.type("안녕하셔\x7f세요?\r")
    at = terminal.expect("Answer to: 안녕하세요?")
    terminal.type("Do you remember?\r")
    at = terminal.expect("You said: 안녕하세요?", after=at)
    terminal.type("Please compute.\r")
    at = terminal.expect("── code", after=at)
    at = terminal.expect("print(2 + 2)", after=at)
    at = terminal.expect("── output", after=at)
    at = terminal.expect("It is 4.", after=at)
    terminal.type("/l\r")
    at = terminal.expect("── code 1", after=at)
    terminal.type("/help\r")
    at = terminal.expect("Begin another conversation.", after=at)
    at = terminal.expect(PROMPT, after=at)
    terminal.type("half a line\x03")
    at = terminal.expect(PROMPT, after=at)
    terminal.type("\x04")
    terminal.expect("goes on with it", after=at)
    assert terminal.ends() == 0
    found = jobs(stack)
    assert [job.question.text for job in found] == ["안녕하세요?", "Do you remember?", "Please compute."]
    assert len({job.thread_id for job in found}) == 1
    assert {job.protocol for job in found} == {protocol}
    assert terminal.shown.count("It is 4.") == 1
    assert (stack.folder / "home" / "chat_history").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("protocol", "kind"), [("assistants", "cut_stream"), ("responses", "garbage_line")])
def test_a_stream_that_breaks_loses_nothing_and_repeats_nothing(
    stack: Stack, chat: Chats, protocol: str, kind: str
) -> None:
    faults(stack, kind=kind, events=9, times=2)
    terminal = chat(protocol)
    terminal.type("Speak slowly.\r")
    at = terminal.expect("word24.")
    terminal.expect(PROMPT, after=at)
    assert said(terminal).count("".join(WHOLE.split())) == 1
    assert terminal.shown.count("word2 ") == 1
    (job,) = jobs(stack)
    assert (job.state, job.attempts, job.runs) == (State.COMPLETED, 1, 1)


@protocols
def test_a_worker_that_is_killed_in_mid_answer_is_replaced(tmp_path: Path, protocol: str) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack:
        worker = stack.worker("first")
        command = [sys.executable, "-m", "producer.cli", "chat", "--protocol", protocol, "--no-worker"]
        with closing(Terminal(command, stack.environment())) as terminal:
            terminal.expect(PROMPT)
            # For several seconds: a busy machine shows a word late.
            terminal.type("Speak calmly.\r")
            terminal.expect("word3")
            assert jobs(stack)[0].state is State.RUNNING, "the answer is seen before it is whole"
            worker.kill()
            stack.worker("second")
            at = terminal.expect("word24.", seconds=120)
            terminal.expect(PROMPT, after=at)
            assert said(terminal).count("".join(WHOLE.split())) == 1
            terminal.type("Next?\r")
            terminal.expect("Answer to: Next?", after=at)
        first, second = jobs(stack)
        assert (first.attempts, first.runs, second.thread_id) == (1, 1, first.thread_id)
        assert len(stack.ledger()) == 2


@protocols
def test_ctrl_c_cancels_the_answer_and_not_the_program(stack: Stack, chat: Chats, protocol: str) -> None:
    terminal = chat(protocol)
    terminal.type("Speak for ever.\r")
    terminal.expect("word1")
    terminal.type("\x03")
    at = terminal.expect("cancelling the answer")
    at = terminal.expect("cancelled", after=at)
    at = terminal.expect(PROMPT, after=at)
    first = jobs(stack)[0]
    assert (first.state, first.remote) == (State.CANCELLED, "cancelled"), "the service was told"
    terminal.type("And now?\r")
    terminal.expect("Answer to: And now?", after=at)
    terminal.type("/q\r")
    assert terminal.ends() == 0


def test_a_program_that_is_killed_goes_on(stack: Stack, chat: Chats) -> None:
    terminal = chat("responses")
    terminal.type("Speak slowly.\r")
    terminal.expect("word3")
    terminal.child.send_signal(signal.SIGKILL)
    terminal.ends()
    (job,) = jobs(stack)
    again = chat("responses", "--resume", job.id.partition(".")[0])
    at = again.expect("word24.")
    assert again.shown.count(WHOLE) == 1
    again.type("Do you remember?\r")
    again.expect("You said: Speak slowly.", after=at)


@protocols
def test_one_question_is_streamed_into_a_pipe(stack: Stack, protocol: str) -> None:
    faults(stack, kind="cut_stream", events=7, times=1)
    done = stack.askq("ask", "Speak slowly.", "--stream", "--protocol", protocol, "--no-worker")
    stack.heal()
    assert (done.returncode, done.stdout) == (0, f"{WHOLE}\n")


def test_redis_restarts_in_mid_answer(stack: Stack, chat: Chats) -> None:
    terminal = chat("responses")
    terminal.type("Speak slowly.\r")
    terminal.expect("word3")
    stack.redis.kill()
    stack.redis.start()
    stack.wait_for_redis()
    at = terminal.expect("word24.", seconds=120)
    terminal.expect(PROMPT, after=at)
    assert terminal.shown.count("word24.") == 1
    eventually(lambda: jobs(stack)[0].state is State.COMPLETED, what="its end is on record")
