"""`askq assistants`: list, show and check assistant files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from askq.assistants import file as files
from askq.assistants.model import Assistant
from askq.errors import AssistantError
from producer.answers.plain import counted, padded, plain
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.parts import Parts


@click.group("assistants")
def assistants_command() -> None:
    """List, show and check assistant files."""


@assistants_command.command("list")
@json_option
@pass_session
def list_command(session: Session, *, as_json: bool) -> int:
    """List the assistants that can be asked."""
    settings = session.settings
    found = []
    for name in files.names(settings.assistants_dir):
        path = files.find(name, folder=settings.assistants_dir)
        wrong = len(files.check(path))
        about = "" if wrong else _load(session, path).description or ""
        found.append({"name": name, "file": str(path), "description": about, "problems": wrong})
    if as_json:
        print_json(found)
    else:
        for entry in found:
            wrong = int(str(entry["problems"]))
            state = f"{counted(wrong, 'problem')}: askq assistants validate {entry['file']}"
            click.echo(plain(f"{padded(str(entry['name']), 20)} {state if wrong else entry['description']}"))
    return 0


@assistants_command.command("show")
@click.argument("name")
@json_option
@pass_session
def show_command(session: Session, *, name: str, as_json: bool) -> int:
    """Show one assistant as it would be asked."""
    with Parts(session.settings) as parts:
        about = files.describe(parts.assistant(name, None, keep=False))
    if as_json:
        print_json(about)
    else:
        for key, value in about.items():
            if value not in (None, (), {}, []):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                click.echo(f"{key + ':':<19} {plain(shown)}")
    return 0


@assistants_command.command("validate")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]…")
@json_option
@pass_session
def validate_command(session: Session, *, names: tuple[str, ...], as_json: bool) -> int:
    """Check assistant files, all of them by default; exit 2 when something is wrong."""
    folder = session.settings.assistants_dir
    paths = [files.find(name, folder=folder) for name in names or files.names(folder)]
    problems = [problem for path in paths for problem in files.check(path)]
    if as_json:
        print_json([{"file": problem.file, "line": problem.line, "message": problem.message} for problem in problems])
    if problems and not as_json:
        raise AssistantError(problems)
    for path in [] if as_json else paths:
        session.say(f"{path}: nothing wrong")
    return 2 if problems else 0


@assistants_command.command("schema")
def schema_command() -> int:
    """Print the JSON Schema of assistant files."""
    print_json(files.schema())
    return 0


def _load(session: Session, path: Path) -> Assistant:
    settings = session.settings
    return files.load(
        path,
        folder=settings.assistants_dir,
        default_model=settings.model,
        default_protocol=settings.protocol,
    )
