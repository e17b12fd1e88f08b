"""The command line when lists, answers and services hold what no terminal should be sent, or what no text is."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Lane, Move
from producer.cli import cli
from producer.cli.shared import Session
from producer.enqueue import nudge
from producer.parts import Parts
from producer.progress import Lines
from tests.unit.cli_stage import Asked, end_all

TITLE = "\x1b]0;owned\x07"
"""Renames the terminal's window."""
JSON_TITLE = r"\u001b]0;owned\u0007"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", f'{{"question": "Why?", "a{JSON_TITLE}": 1, "a{JSON_TITLE}": 2}}\n'),
        ("q.jsonl", f'{{"question": "Why?", "file": "{JSON_TITLE}/x.csv"}}\n'),
        ("q.csv", f'"pro{TITLE}mt"\n"A first one."\n" "\n'),
        ("q.csv", f"question,assistant\nWhy?,{TITLE}\n"),
    ],
)
def test_what_a_message_quotes_from_a_list_does_nothing_to_the_terminal(
    store: MemoryStore, askq: Asked, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    code, out, err = askq("submit", name)
    assert (code, out) == (2, "")
    assert name in err
    assert "\x1b" not in err
    assert "\x07" not in err


def test_notes_do_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    Session(quiet=False, color=True).say(f"a {TITLE}b")
    shown = io.StringIO()
    Lines(shown).note(f"a {TITLE}b")
    assert (capfd.readouterr().err, shown.getvalue()) == ("a b\n", "a b\n")


def test_an_assistant_file_does_nothing_to_the_terminal(
    store: MemoryStore, askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(f'instructions = "Be."\ndescription = "Nice{JSON_TITLE}"\n', "utf-8")
    monkeypatch.setenv("ASKQ_ASSISTANTS_DIR", str(tmp_path))
    for command in (("assistants", "list"), ("assistants", "show", "mine")):
        code, out, _ = askq(*command)
        assert code == 0
        assert "Nice" in out
        assert "\x1b" not in out


def test_half_a_character_in_an_answer_is_json_all_the_same(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    (claim, *_) = store.claim(Lane.START, range(16), limit=1, lease_s=60)
    store.commit([Move(job=claim.id, fence=claim.fence, name="intend", fields={"attempts": 1})])
    store.commit([Move(job=claim.id, fence=claim.fence, name="complete", answer=Answer(text="so \ud83d"))])
    code, out, err = askq("show", claim.id, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["answer"] == "so \ud83d"


def test_a_table_in_a_file_has_no_colours(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    end_all(store)
    code, out, _ = askq("results", "--format", "table")
    assert code == 0
    assert "answer a" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("value", "colours"), [("", "some"), ("1", "none"), ("0", "none"), ("please", "none"), (None, "some")]
)
def test_no_color_says_so_with_any_value(monkeypatch: pytest.MonkeyPatch, value: str | None, colours: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    assert cli.callback is not None
    with cli.make_context("askq", ["list"]) as context:
        context.invoke(cli.callback, **context.params)
        assert context.obj.color is (colours == "some")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("option", [("watch", "--interval"), ("watch", "--timeout"), ("run", "--timeout")])
def test_a_time_that_never_comes_is_no_time(
    store: MemoryStore, askq: Asked, questions: Path, option: tuple[str, str], seconds: str
) -> None:
    command, name = option
    code, out, err = askq(command, questions, f"{name}={seconds}")
    assert (code, out) == (2, "")
    assert f"Invalid value for '{name}'" in err
    assert not store.batches()


@pytest.mark.parametrize("address", ["smtp://user:canary@host", "amqp://user:can#ary@host", "sqs://"])
def test_a_broker_that_celery_does_not_know_is_told_and_loses_nothing(
    address: str, store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parts, "nudge", lambda self: nudge(address))
    code, _, err = askq("submit", questions)
    assert code == 0
    assert re.search(r"broker did not answer \(.+\)", err)
    assert "can" not in err.replace("cannot", "")
    assert store.batches()[0].total == 2


def test_the_password_in_an_address_is_not_printed(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:canary@127.0.0.1:9/v1")
    for key in ("sk-secret", None):
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        else:
            monkeypatch.delenv("OPENAI_API_KEY")
        for command in (("run", questions), ("doctor",), ("doctor", "--json"), ("chat",)):
            code, out, err = askq(*command)
            assert code != 0
            assert "127.0.0.1:9" in out + err
            assert "canary" not in out + err


def test_a_list_that_has_to_be_typed_is_asked_for(
    store: MemoryStore, askq: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Typed(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Typed(io.BytesIO(b"Why?\n")))
    code, _, err = askq("submit", "-")
    assert code == 0
    assert err.startswith("Reading the questions from the terminal; Ctrl-D")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Why?\n")))
    assert "Ctrl-D" not in askq("submit", "-")[2]


def test_a_script_of_the_settings_is_for_the_script_engine(
    store: MemoryStore, askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def attend(argv: list[str], *_: object) -> int:
        started.append(argv)
        return 0

    monkeypatch.setattr("producer.cli.stack._attend", attend)
    monkeypatch.setenv("ASKQ_SCRIPT", str(tmp_path / "script.toml"))
    assert askq("local-api", "--engine", "tutor")[0] == 0
    assert askq("local-api", "--engine", "script")[0] == 0
    assert ["--script" in argv for argv in started] == [False, True]


def test_who_wants_to_hear_nothing_hears_of_errors(store: MemoryStore, askq: Asked, questions: Path) -> None:
    code, out, err = askq("--quiet", "submit", questions)
    assert (code, err) == (0, "")
    code, out, err = askq("--quiet", "results", "@last")
    assert (code, out) == (8, "")
    assert "is not finished: 2 of 2 pending" in err


_ENDED_WHILE_WRITING = """
import os, signal
from askq.jobs.memory_store import MemoryStore
from producer.cli import main
from producer.parts import Parts

memory = MemoryStore()
Parts.store = lambda self, *, must_be_safe=False: memory
Parts.reader = lambda self: memory
Parts.nudge = lambda self: None
every = MemoryStore.jobs

def jobs(self, batch, **options):
    for number, job in enumerate(every(self, batch, **options)):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield job

try:
    main(["submit", "questions.csv"])
except SystemExit:
    MemoryStore.jobs = jobs
    main(["results", "--partial", "-o", "answers.csv"])
"""


def test_who_is_ended_while_writing_leaves_nothing_behind(questions: Path) -> None:
    before = {questions.name}
    program = [sys.executable, "-c", _ENDED_WHILE_WRITING]
    done = subprocess.run(program, cwd=questions.parent, capture_output=True, timeout=100, check=False)
    assert done.returncode == 130, done.stderr
    assert {path.name for path in questions.parent.iterdir() if path.is_file()} == before
