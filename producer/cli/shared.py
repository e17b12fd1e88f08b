"""What every command has: settings, messages, ids. Imports nothing heavy at the top."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from askq.postponed import postpone

if TYPE_CHECKING:
    from askq.jobs.model import BatchStatus
    from askq.jobs.store import Reader, Store
    from config.settings import Settings
    from producer.parts import Parts

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Session:
    """One invocation: how to speak, and the parts once they are needed."""

    def __init__(self, *, quiet: bool, color: bool) -> None:
        self.quiet = quiet
        self.color = color
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The settings. Raises ConfigError naming every wrong one."""
        if self._settings is None:
            from askq.errors import ConfigError
            from config.settings import SettingsError, load

            try:
                self._settings = load()
            except SettingsError as error:
                raise ConfigError(str(error), remedy="Correct the environment or .env.") from error
        return self._settings

    def say(self, text: str) -> None:
        """A note for the person, on standard error."""
        if not self.quiet:
            click.echo(harmless(text), err=True)

    def complain(self, text: str) -> None:
        """What went wrong, on standard error: also for those who want to hear nothing else."""
        click.echo(harmless(text), err=True)

    def announce(self, file: str) -> None:
        """Say what is waited for, where somebody has to type the list."""
        if file == "-" and sys.stdin.isatty():
            self.say("Reading the questions from the terminal; Ctrl-D on a line of its own ends them.")

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """The parts of this invocation; embedded ones end with their last user."""
        from producer.parts import Parts

        with Parts(self.settings) as parts:
            yield parts

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The job store alone."""
        with self.parts() as parts:
            store = parts.store()
            try:
                yield store
            finally:
                store.close()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """The job store for a command that only looks."""
        # Half of what importing the client costs, and a command that asks one server a few questions uses none of it:
        # clusters, Sentinel, notifications, the asyncio side, and how to read the version of a package.
        for package in ("redis", "redis.asyncio", "importlib.metadata"):
            postpone(package)
        # Named in the client's annotations.
        postpone("asyncio", names={"IncompleteReadError": "exceptions", "Lock": "locks", "StreamReader": "streams"})
        with self.parts() as parts:
            reader = parts.reader()
            try:
                yield reader
            finally:
                reader.close()

    def remember(self, batch: str) -> None:
        """Make `@last` mean this batch, where a file can be written; it is a convenience and no more."""
        try:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            (self.settings.home / "last").write_text(batch + "\n", "utf-8")
        except OSError as error:
            self.say(f"@last is not remembered: {error}")

    def batch_id(self, store: Reader, given: str) -> str:
        """The batch a person means: a whole id, a beginning that only one has, or `@last`. Raises NotFound."""
        from askq.errors import NotFound

        if given == "@last":
            kept = self.settings.home / "last"
            if not kept.exists():
                raise NotFound("no list was submitted from this folder yet", remedy="`askq list` shows all batches.")
            return kept.read_text("utf-8").strip()
        found = [given] if store.batch(given) is not None else store.find_batches(given) if len(given) >= 3 else []
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFound(f"{given} may be {', '.join(found)}", remedy="Write more of the id.")
        if "." in given:
            raise NotFound(
                f"{given} is the id of one question, not of a batch", remedy=f"`askq show {given}` shows it."
            )
        raise NotFound(f"there is no batch {given}", remedy="`askq list` shows the batches there are.")


@contextmanager
def typed() -> Iterator[None]:
    """Within, a question is checked that somebody typed: what is wrong with it has no line and no column."""
    from askq.errors import InputError, Problem
    from producer.questions.question_list import CORRECT_THE_LIST

    try:
        yield
    except InputError as error:
        bare = [Problem(message=problem.message) for problem in error.problems]
        raise InputError(bare, remedy=None if error.remedy == CORRECT_THE_LIST else error.remedy) from error


def known_status(store: Reader, batch: str) -> BatchStatus:
    """The counters of a batch. Raises NotFound."""
    from askq.errors import NotFound

    status = store.batch(batch)
    if status is None:
        raise NotFound(f"there is no batch {batch}", remedy="`askq list` shows the batches there are.")
    return status


pass_session = click.make_pass_decorator(Session)


def harmless(text: str) -> str:
    """A message as a terminal may be sent it: what it quotes from lists, services and models may hold escape
    sequences."""
    # Here, because `askq --help` says nothing of the kind.
    from producer.answers.plain import plain

    return plain(text)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a character in an answer: as an escape it is still valid JSON, and nothing is lost.
        text = json.dumps(value, indent=2)
    click.echo(text)


def on_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()
