"""The command line: `askq`. Data goes to standard output, everything else to standard error.

Commands are imported when they are called: `askq --help` needs none of them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from askq.errors import AskqError
from producer.cli.shared import Session, harmless

_COMMANDS = {
    "run": ("producer.cli.run", "Answer a list of questions and write the answers."),
    "ask": ("producer.cli.run", "Ask one question and print the answer."),
    "chat": ("producer.cli.chat", "Talk with an assistant; see the answers while they are written."),
    "submit": ("producer.cli.submit", "Store a list to be answered; print its batch id."),
    "status": ("producer.cli.reading", "Show how far a batch is."),
    "watch": ("producer.cli.reading", "Follow a batch until it ends."),
    "results": ("producer.cli.reading", "Print or write the answers of a batch."),
    "show": ("producer.cli.reading", "Show everything about one question."),
    "list": ("producer.cli.reading", "List the newest batches."),
    "cancel": ("producer.cli.changing", "Cancel what is not finished."),
    "retry": ("producer.cli.changing", "Ask again what failed."),
    "forget": ("producer.cli.forget", "Erase a batch or a question everywhere, and print a receipt."),
    "cleanup": ("producer.cli.cleanup", "List and delete what was left behind at the service."),
    "resume": ("producer.cli.changing", "End a pause now."),
    "sweep": ("producer.cli.sweep", "Audit the job store now, and repair what is safe."),
    "files": ("producer.cli.files", "Add, list and delete files at the service."),
    "stores": ("producer.cli.stores", "Make, fill, list and delete stores for file search."),
    "assistants": ("producer.cli.assistants", "List, show and check assistant files."),
    "up": ("producer.cli.stack", "Keep the whole local stack running, with Flower."),
    "worker": ("producer.cli.stack", "Keep a worker running."),
    "flower": ("producer.cli.stack", "Keep Flower running."),
    "local-api": ("producer.cli.stack", "Keep the local API running."),
    "doctor": ("producer.cli.doctor", "See whether everything is in order."),
    "completion": ("producer.cli.completion", "Print the completion script of a shell."),
}

_EXIT_CODES = """\b
Exit codes:
  0    success
  1    a part could not be reached or started, or failed; something needs a look
  2    wrong usage or input
  3    --timeout ran out, or a question was declined
  4    a setting or the key is missing or rejected
  5    finished, but some questions have no complete answer
  8    not finished yet
  130  Ctrl-C"""


class _Refused(Exception):
    """The operating system refused a command something: as a rule, to write its output."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # click itself ends the process with 1, and without a word, when a pipe is closed.
            raise _Refused(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, n=3)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from error


@click.group(cls=LazyGroup, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="askq", prog_name="askq")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on standard error but errors.")
@click.option("--no-color", is_flag=True, help="No colours (also NO_COLOR, TERM=dumb).")
@click.pass_context
def cli(ctx: click.Context, *, quiet: bool, no_color: bool) -> None:
    """Put a long list of questions to OpenAI runs and get every answer back.

    `askq run questions.csv` needs nothing else: what is not configured, askq brings along.
    """
    # By its convention NO_COLOR says so with any value.
    told = no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    ctx.obj = Session(quiet=quiet, color=not told)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _open_missing_streams()
    sys.exit(run(argv))


def _open_missing_streams() -> None:
    """Give a process that was started without standard streams (`askq … >&-`, some daemons) empty ones: else the first
    file it opens would take their place, and what it prints would go into that."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  it stays open


def run(argv: list[str] | None = None) -> int:
    """Run the command line; its exit code."""
    try:
        result: Any = cli.main(argv, prog_name="askq", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except AskqError as error:
        # Names of columns, keys and files are quoted in it, and may come from anybody.
        click.echo(f"askq: {harmless(str(error))}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except _Refused as refused:
        return _refused(refused.error)


def _refused(error: OSError) -> int:
    """Say what the operating system refused; the exit code."""
    if error.filename is None:
        # It was our output. Python would complain when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        # Whoever read it has seen enough.
        return 0
    what = "the output cannot be written" if error.filename is None else harmless(str(error.filename))
    click.echo(f"askq: {what}: {error.strerror or error}", err=True)
    click.echo("Make room or permit it, and try again; what is in the store is safe.", err=True)
    return AskqError.exit_code


if __name__ == "__main__":
    main()
