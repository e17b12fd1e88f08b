"""`askq files`: what is uploaded to the service, by content, once per account."""

from __future__ import annotations

from pathlib import Path

import click

from producer.answers.plain import plain
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.cli.shelves import (
    carry_out,
    conclude,
    delete_all,
    force_option,
    record,
    shelves,
    timeout_option,
    worker_option,
)
from producer.library import Shelves


@click.group("files")
def files_command() -> None:
    """Add, list and delete files at the service.

    Files of a list or of an assistant need no command: they are uploaded with the first question that needs them.
    """


@files_command.command("add")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(path_type=Path))
@click.option(
    "--purpose", type=click.Choice(["assistants", "vision"]), default="assistants", show_default=True, help="What for."
)
@timeout_option
@worker_option
@json_option
@pass_session
def add_command(
    session: Session, *, paths: tuple[Path, ...], purpose: str, timeout: float | None, no_worker: bool, as_json: bool
) -> int:
    """Upload files (or folders of them); print their ids. What is there already is not uploaded again."""
    with shelves(session) as (found, parts, store):
        wanted = found.add_files(paths, purpose=purpose)
        items = carry_out(session, parts, store, found, wanted, timeout=timeout, no_worker=no_worker)
        users = {item.name: found.users(item) for item in items}
    if as_json:
        print_json([record(item, users[item.name]) for item in items])
    else:
        for item in items:
            click.echo(f"{item.remote or '-'}\t{plain(item.title, one_line=True)}")
    return conclude(session, items)


@files_command.command("list")
@json_option
@pass_session
def list_command(session: Session, *, as_json: bool) -> int:
    """List the files askq keeps at the service."""
    with shelves(session) as (found, _, _store):
        items = [(item, found.users(item)) for item in found.files()]
    if as_json:
        print_json([record(item, users) for item, users in items])
        return 0
    for item, users in items:
        used = f"used by {len(users)}" if users else ""
        parts = [item.remote or "-", f"{item.about.get('size', 0):>11,}", item.progress(), used]
        click.echo("  ".join((*parts, plain(item.title, one_line=True))).rstrip())
    if not items:
        session.say("No file is kept: `askq files add PATH`.")
    return 0


@files_command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID…")
@force_option
@timeout_option
@worker_option
@pass_session
def delete_command(
    session: Session, *, names: tuple[str, ...], force: bool, timeout: float | None, no_worker: bool
) -> int:
    """Delete files at the service, by name or id."""
    return delete_all(session, names, Shelves.file, what="files", force=force, timeout=timeout, no_worker=no_worker)
