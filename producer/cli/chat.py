"""`askq chat`: a conversation with an assistant, whose answers are seen while they are written."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import InputError
from askq.jobs.model import Job, Question, State
from askq.jobs.store import Store
from producer.answers.outputs import line
from producer.answers.plain import plain
from producer.answers.record import to_record
from producer.cli.follow import follow
from producer.cli.options import assistant_options, bounds
from producer.cli.prompt import Pipe, Source, Terminal
from producer.cli.screen import Screen
from producer.cli.shared import Session, pass_session, typed
from producer.cli.workers import ToolsWorker, add_workers, foreground, kept_running, require_hope
from producer.conversation import Conversation
from producer.outage import Outage
from producer.parts import Parts
from producer.questions import open_items

UNFINISHED = 5
_AGAIN_S = 0.3
COMMANDS = {
    "/q": "Quit; so does Ctrl-D.",
    "/l": "Show the code that the last answer ran, with its output.",
    "/new": "Begin another conversation.",
    "/file": "PATH: attach a file to the next question; may be repeated.",
    "/image": "PATH or address: attach an image likewise.",
    "/help": "Show this.",
}
_KEYS = {"Ctrl-C": "Cancel the answer that comes; at the prompt, drop the line."}
_COMMAND = re.compile(r"/[A-Za-z?-]+")
"""What was meant as a command: questions may begin with a path."""
_ENDS = ("/exit", "/quit", "/bye")


@click.command("chat")
@assistant_options
@click.option("--resume", "resumed", metavar="BATCH", help="Go on with an earlier conversation: its id, or @last.")
@click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis answer.")
@pass_session
def chat_command(
    session: Session, *, assistant: str | None, protocol: str | None, resumed: str | None, no_worker: bool
) -> int:
    """Talk with an assistant; see its answers while they are written.

    Each question remembers those before it. /help shows the commands; Ctrl-C cancels an answer, Ctrl-D ends. Lines may
    come from a pipe. Nothing is lost when it is killed: --resume goes on.
    """
    if resumed is not None and (assistant or protocol):
        raise InputError(
            "a conversation that goes on keeps its assistant", remedy="Leave out --assistant and --protocol."
        )
    with session.parts() as parts:
        store = parts.store(must_be_safe=True)
        try:
            if resumed is None:
                conversation = Conversation(store, parts.assistant(assistant, protocol), folder=parts.files())
            else:
                conversation = Conversation.resume(store, session.batch_id(store, resumed), folder=parts.files())
            supervisor = Supervisor()
            if not no_worker:
                parts.check_api()
                add_workers(supervisor, parts)
                if conversation.assistant.functions:
                    ToolsWorker(supervisor, parts).start()
            for line in parts.lines():
                session.say(line)
            with foreground(), kept_running(supervisor):
                return Chat(session, parts, store, supervisor, conversation).talk()
        finally:
            store.close()


class Chat:
    """The loop: read a line, ask, show the answer."""

    def __init__(
        self, session: Session, parts: Parts, store: Store, supervisor: Supervisor, conversation: Conversation
    ) -> None:
        self._session = session
        self._parts = parts
        self._store = store
        self._supervisor = supervisor
        self._conversation = conversation
        self._screen = Screen(quiet=session.quiet, color=session.color)
        self._last: Job | None = None
        self._attached: dict[str, list[str]] = {"file": [], "image": []}
        self._unanswered = 0

    def talk(self) -> int:
        """Talk until the end; the exit code."""
        source = self._source()
        if isinstance(source, Pipe):
            return self._talk(source)
        # Between a question and its answer, too, Ctrl-C must not end the program of a person.
        with _interrupts():
            return self._talk(source)

    def _talk(self, source: Source) -> int:
        self._greet()
        if self._conversation.batch is not None:
            self._go_on()
        while (line := source.read()) is not None:
            text = line.strip()
            if not text:
                continue
            name = text.split()[0]
            if name == "/q" and not line[0].isspace():
                break
            try:
                if line[0].isspace() or not _COMMAND.fullmatch(name):
                    self._ask(text)
                elif name in COMMANDS:
                    self._command(text)
                else:
                    raise _unknown(name)
            except InputError as error:
                # What was typed is at fault, and can be typed again.
                self._screen.note(f"askq: {error}")
                if isinstance(source, Pipe):
                    self._unanswered += 1
        self._say_goodbye()
        return UNFINISHED if isinstance(source, Pipe) and self._unanswered else 0

    def _source(self) -> Source:
        if sys.stdin.isatty() and sys.stdout.isatty():
            return Terminal(self._parts.settings.home / "chat_history", COMMANDS, paths_after=("/file", "/image"))
        return Pipe()

    def _greet(self) -> None:
        assistant = self._conversation.assistant
        self._session.say(f"Talking with {assistant.name} ({assistant.model}). /help shows the commands, /q quits.")

    def _say_goodbye(self) -> None:
        if self._conversation.batch is not None:
            self._session.say(f"`askq chat --resume {self._conversation.batch}` goes on with it.")

    # -- questions -------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        if not text.isascii() and re.search(r"[\ud800-\udfff]", text):
            raise InputError("the line is not UTF-8 text", remedy="Convert it first, for example with iconv -t utf-8.")
        question = self._checked(text, self._attached, keep=True)
        outage = Outage(self._screen.note)
        self._tick()
        while (job := outage.through(lambda: self._conversation.ask(question))) is None:
            self._tick()
            time.sleep(_AGAIN_S)
        self._attached = {"file": [], "image": []}
        self._session.remember(job.partition(".")[0])
        self._follow(job)

    def _checked(self, text: str, attached: Mapping[str, list[str]], *, keep: bool) -> Question:
        """The question with what goes along, checked as a row of a list is. Raises InputError."""
        row: dict[str, Any] = {"question": text, **{name: paths for name, paths in attached.items() if paths}}
        tools = frozenset(str(tool.get("type")) for tool in self._conversation.assistant.tools)
        with typed(), open_items([row], **bounds(self._parts.settings)) as questions:
            questions.attach(folder=self._parts.files() if keep else None, tools_of=lambda _: tools).check()
            (question,) = questions
        return dataclasses.replace(question, input={})

    def _follow(self, job: str) -> None:
        self._parts.nudge()
        self._screen.begin()
        with _interrupts() as interrupts:
            cancelled = False

            def enough() -> bool:
                nonlocal cancelled
                if interrupts() >= 1 and not cancelled:
                    cancelled = True
                    self._screen.note("askq: cancelling the answer; Ctrl-C again stops waiting for it")
                    Outage(self._screen.note).through(lambda: self._store.cancel([job]))
                return interrupts() >= 2

            ended = follow(self._store, job, self._screen, tick=self._tick, enough=enough)
        if ended is None:
            self._screen.finish()
            self._screen.note(f"askq: not waiting for {job} any more")
            return
        self._conclude(ended)

    def _conclude(self, job: Job) -> None:
        self._last = job
        record = to_record(job)
        for made in record["files"]:
            self._screen.note(f"── {file_line(made, self._parts.settings.files_dir)}")
        if job.state is State.COMPLETED:
            return
        self._unanswered += 1
        error = record["error"]
        self._screen.note(f"askq: {error['code']}: {plain(error['message'] or '', one_line=True)}")
        if job.state is not State.CANCELLED:
            self._screen.note(error["remedy"])
        if error["code"] in ("conversation_stopped", "conversation_vanished"):
            self._screen.note("/new begins another conversation.")

    def _go_on(self) -> None:
        """Show what was said before, and wait for what was asked last."""
        jobs = self._conversation.jobs
        for job in jobs:
            self._screen.note(f"> {plain(job.question.text)}")
            if not job.state.terminal:
                self._follow(job.id)
                continue
            self._last = job
            if job.answer is not None and job.answer.text is not None:
                self._screen.rest(job.answer.text)
                self._screen.finish()
            if job.error_code is not None:
                self._screen.note(f"askq: {job.error_code}")

    def _tick(self) -> None:
        for text in [*self._parts.revive(), *self._supervisor.tick()]:
            self._screen.note(text)
        require_hope(self._supervisor)

    # -- commands --------------------------------------------------------------------------------------------

    def _command(self, text: str) -> None:
        name, *rest = text.split(maxsplit=1)
        match name:
            case "/help":
                for command, about in (COMMANDS | _KEYS).items():
                    self._session.say(f"  {command:7} {about}")
            case "/l":
                self._show_code()
            case "/new":
                self._say_goodbye()
                self._conversation = Conversation(self._store, self._conversation.assistant)
                self._last = None
                self._greet()
            case "/file" | "/image":
                self._attach(name.removeprefix("/"), "".join(rest))

    def _attach(self, kind: str, path: str) -> None:
        if not path:
            waiting = [part for parts in self._attached.values() for part in parts]
            self._screen.note(f"attached to the next question: {', '.join(waiting) or 'nothing'}")
            return
        meant = _meant(path)
        self._checked("?", {kind: [meant]}, keep=False)
        self._attached[kind].append(meant)
        self._screen.note(f"goes along with the next question: {plain(meant, one_line=True)}")

    def _show_code(self) -> None:
        code = self._last.answer.code if self._last is not None and self._last.answer is not None else ()
        if not code:
            self._screen.note("the last answer ran no code")
        for number, call in enumerate(code, 1):
            self._screen.block(f"code {number}", str(call.get("input") or ""))
            self._screen.block("output", str(call.get("output") or ""))


def _meant(path: str) -> str:
    """A path as a shell would take it: terminals quote those of files that are dropped on them, each in its way."""
    # What is no path at all, is told by whoever looks at the file.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if Path(path).exists():
            return path
        words = shlex.split(path)
        unquoted = words[0] if len(words) == 1 else path
        return str(Path(unquoted).expanduser()) if unquoted.startswith("~") else unquoted
    return path


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name, COMMANDS, n=1) or (["/q"] if name in _ENDS else [])
    return InputError(
        f"there is no command {name}" + (f"; did you mean {near[0]}?" if near else ""),
        remedy="/help shows the commands. With a blank before it, it is a question.",
    )


def file_line(made: Mapping[str, Any], folder: Path) -> str:
    """What an answer has made, in one line: where it is, or why it is not there."""
    kind = plain(str(made.get("kind") or "file"), one_line=True)
    if path := made.get("path"):
        name = plain(str(made.get("name") or "file"), one_line=True)
        return f"{kind} {name}: {plain(str(folder / str(path)), one_line=True)}"
    return f"{kind} {line(made, folder)}"


@contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Count Ctrl-C instead of dying of it; how often it was pressed."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, before)
