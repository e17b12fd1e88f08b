"""`askq stores`: vector stores for file search, made of files and waited for."""

from __future__ import annotations

from pathlib import Path

import click

from askq.jobs.library import Item
from producer.answers.plain import cells, padded, plain
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

_paths = click.argument("paths", nargs=-1, metavar="[PATH]…", type=click.Path(path_type=Path))


@click.group("stores")
def stores_command() -> None:
    """Make, fill, list and delete stores for file search.

    An assistant's file names them: [tool_resources.file_search] stores = ["handbook"].
    """


@stores_command.command("create")
@click.argument("name")
@_paths
@timeout_option
@worker_option
@json_option
@pass_session
def create_command(
    session: Session, *, name: str, paths: tuple[Path, ...], timeout: float | None, no_worker: bool, as_json: bool
) -> int:
    """Make the store NAME of files, folders or patterns, and wait until the service has read them."""
    with shelves(session) as (found, parts, store):
        wanted = found.create_store(name, paths)
        (item,) = carry_out(session, parts, store, found, [wanted], timeout=timeout, no_worker=no_worker)
    return _conclude(session, item, as_json=as_json)


@stores_command.command("add")
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(path_type=Path))
@timeout_option
@worker_option
@json_option
@pass_session
def add_command(
    session: Session, *, name: str, paths: tuple[Path, ...], timeout: float | None, no_worker: bool, as_json: bool
) -> int:
    """Add files to the store NAME, and wait until the service has read them."""
    with shelves(session) as (found, parts, store):
        wanted = found.add_to_store(name, paths)
        (item,) = carry_out(session, parts, store, found, [wanted], timeout=timeout, no_worker=no_worker)
    return _conclude(session, item, as_json=as_json)


def _conclude(session: Session, item: Item, *, as_json: bool) -> int:
    if as_json:
        print_json(record(item, []))
    else:
        click.echo(f"{item.remote or '-'}\t{plain(item.title, one_line=True)}")
    return conclude(session, [item])


@stores_command.command("list")
@json_option
@pass_session
def list_command(session: Session, *, as_json: bool) -> int:
    """List the stores, how far they are, and the files that could not be read."""
    with shelves(session) as (found, _, _store):
        items = [(item, found.users(item)) for item in found.stores()]
    if as_json:
        print_json([record(item, users) for item, users in items])
        return 0
    names = [plain(_name(item), one_line=True) for item, _ in items]
    longest = max(map(cells, names), default=0)
    for name, (item, users) in zip(names, items, strict=True):
        used = f"used by {len(users)}" if users else ""
        click.echo("  ".join((item.remote or "-", padded(name, longest), item.progress(), used)).rstrip())
        for file, reason in item.failures:
            click.echo(f"    {plain(file, one_line=True)}: {plain(reason, one_line=True)}")
        if item.error is not None:
            click.echo(f"    {plain(item.error, one_line=True)}")
    if not items:
        session.say("There is no store: `askq stores create NAME PATH…`.")
    return 0


def _name(item: Item) -> str:
    """What a store is called; one without a name, by its files and the hash of their contents."""
    name = item.name.removeprefix("store:")
    return f"{item.title} {name}" if name.startswith("@") else name


@stores_command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID…")
@force_option
@timeout_option
@worker_option
@pass_session
def delete_command(
    session: Session, *, names: tuple[str, ...], force: bool, timeout: float | None, no_worker: bool
) -> int:
    """Delete stores at the service, with the files that nothing else uses."""
    return delete_all(session, names, Shelves.store, what="stores", force=force, timeout=timeout, no_worker=no_worker)
