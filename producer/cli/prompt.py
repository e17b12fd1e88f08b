"""Where the questions of a conversation come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

_PROMPT = "> "


class Source(Protocol):
    """Gives one question, or command, after the other."""

    def read(self) -> str | None:
        """The next one; empty where a person has thought better of it, None at the end."""


class Terminal:
    """A person: lines can be edited, remembered and completed. Ctrl-C drops a line, Ctrl-D ends."""

    def __init__(self, history: Path, commands: Mapping[str, str], *, paths_after: Iterable[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        history.parent.mkdir(parents=True, exist_ok=True)
        # What a person has asked is nobody else's business.
        history.touch(mode=0o600, exist_ok=True)
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)),
            completer=_completer(commands, tuple(paths_after)),
            complete_while_typing=False,
            enable_history_search=True,
        )

    def read(self) -> str | None:
        try:
            return self._session.prompt(_PROMPT)
        except KeyboardInterrupt:
            return ""
        except EOFError:
            return None


class Pipe:
    """A program: each line is a question, and nothing is printed that was not asked for."""

    def __init__(self) -> None:
        if isinstance(sys.stdin, io.TextIOWrapper):
            # A line that cannot be read is one question that cannot be asked, and not the end of all of them.
            sys.stdin.reconfigure(errors="surrogateescape")
        self._lines = iter(sys.stdin)

    def read(self) -> str | None:
        return next(self._lines, None)


def _completer(commands: Mapping[str, str], paths_after: tuple[str, ...]) -> Completer:
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    paths = PathCompleter(expanduser=True)

    class Commands(Completer):
        """Commands at the beginning of a line, paths after those that take one."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            if not text.startswith("/"):
                return
            name, blank, rest = text.partition(" ")
            if blank and name in paths_after:
                yield from paths.get_completions(Document(rest, len(rest)), complete_event)
            elif not blank:
                for command, about in commands.items():
                    if command.startswith(name):
                        yield Completion(command, start_position=-len(name), display_meta=about)

    return Commands()
