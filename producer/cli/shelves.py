"""What `askq files` and `askq stores` share: a worker that does what was asked for, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import InputError
from askq.jobs.library import FILE, Item, ItemState
from askq.jobs.store import Store
from producer.answers.plain import plain
from producer.cli.options import Seconds
from producer.cli.shared import Session
from producer.cli.workers import add_workers_unless_there, foreground, kept_running, require_hope
from producer.library import Shelves
from producer.parts import Parts

FAILED = 5

timeout_option = click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting after this long.")
worker_option = click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis do it.")
force_option = click.option("--force", is_flag=True, help="Even if batches use it.")


@contextmanager
def shelves(session: Session) -> Iterator[tuple[Shelves, Parts, Store]]:
    """The library of the account. Raises ConfigError, StoreError, EmbeddedError."""
    with session.parts() as parts:
        store = parts.store(must_be_safe=True)
        try:
            yield Shelves(store, parts.api(), parts.files()), parts, store
        finally:
            store.close()


def carry_out(
    session: Session,
    parts: Parts,
    store: Store,
    found: Shelves,
    items: Sequence[Item],
    *,
    timeout: float | None,
    no_worker: bool,
    until_gone: bool = False,
) -> list[Item]:
    """Wait until a worker has done what was put down; one is started unless there is one."""
    supervisor = Supervisor()
    if not no_worker:
        add_workers_unless_there(supervisor, parts, store)

    def tick() -> None:
        for text in [*parts.revive(), *supervisor.tick()]:
            session.say(text)
        require_hope(supervisor)

    def shown(item: Item) -> None:
        session.say(f"{plain(item.title, one_line=True)}: {item.progress()}")

    with foreground(), kept_running(supervisor):
        try:
            return found.follow(items, shown=shown, tick=tick, timeout_s=timeout, until_gone=until_gone)
        except KeyboardInterrupt:
            session.say("\nStopped waiting: it goes on when a worker runs, or with the same command again.")
            raise


def delete_all(
    session: Session,
    names: Sequence[str],
    find: Callable[[Shelves, str], Item],
    *,
    what: str,
    force: bool,
    timeout: float | None,
    no_worker: bool,
) -> int:
    """Delete items that are found by their names, unless batches use them; the exit code."""
    with shelves(session) as (found, parts, store):
        items = [find(found, name) for name in names]
        used = {item.title: users for item in items if (users := found.users(item))}
        if used and not force:
            name, users = next(iter(used.items()))
            raise InputError(f"{name} is used by {', '.join(users[:5])}", remedy="Delete these first, or say --force.")
        for item in items:
            found.delete(item)
        left = carry_out(session, parts, store, found, items, timeout=timeout, no_worker=no_worker, until_gone=True)
    gone = len(items) - len(left)
    session.say(f"1 {what.removesuffix('s')} was deleted." if gone == 1 else f"{gone} {what} were deleted.")
    return conclude(session, left)


def conclude(session: Session, items: Sequence[Item]) -> int:
    """Say what failed; the exit code."""
    bad = 0
    for item in items:
        if item.state is ItemState.FAILED:
            bad = FAILED
            why = plain(item.error or "it failed", one_line=True)
            session.complain(f"askq: {plain(item.title, one_line=True)}: {why}")
        for file, reason in item.failures:
            bad = FAILED
            told = f"{plain(file, one_line=True)} could not be read: {plain(reason, one_line=True)}"
            session.complain(f"askq: {plain(item.title, one_line=True)}: {told}")
    return bad


def record(item: Item, users: Sequence[str]) -> dict[str, Any]:
    """An item as JSON; the keys are a promise."""
    told: dict[str, Any] = {"name": item.title, "id": item.remote, "status": item.state.value, "error": item.error}
    if item.kind == FILE:
        told |= {"size": item.about.get("size"), "sha256": item.about.get("sha256"), "purpose": item.about["purpose"]}
    else:
        told |= {
            "store": item.name.removeprefix("store:"),
            "files": [ref.name for ref in item.files],
            "done": item.data.get("done", 0),
            "failures": [{"file": file, "reason": reason} for file, reason in item.failures],
        }
    return told | {"used_by": list(users)}
