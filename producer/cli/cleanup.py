"""`cleanup`: what askq has made at the service and nobody needs any more. Imports neither celery nor openai."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import WaitTimeout
from askq.jobs.objects import Kind, RemoteObject, Tombstone
from askq.jobs.store import Store
from producer.cli.changing import DECLINED, agreed
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.cli.workers import add_workers_unless_there, foreground, kept_running, require_hope
from producer.parts import Parts

SOMETHING_REMAINS = 1
_OWNER = "orphans"
_YOUNG_S = 600.0
"""What is younger may have been made by a worker that is just about to put it on record."""
_LOOK_EVERY_S = 0.3
_NUDGE_EVERY_S = 2.0
_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An object at the service that nobody has any more."""

    made: RemoteObject
    ours: bool
    """Whether this askq made it, or another one on the same account."""
    created_at: float | None
    """None where only our own record tells of it."""
    owner: str = _OWNER
    """Under whom it is on record, or will be."""


@click.command("cleanup")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option("--foreign", is_flag=True, help="Also what another installation has made on this account.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis look and delete.")
@json_option
@pass_session
def cleanup_command(
    session: Session, *, dry_run: bool, foreign: bool, yes: bool, no_worker: bool, as_json: bool
) -> int:
    """List what askq has made at the service and nobody needs any more, and delete it.

    That is what a record knows whose question, batch or user is gone, whatever its kind; and assistants and stores that
    no record knows, by their marks: services list them. Threads, conversations, responses, files and containers they
    do not, or do not say who made them. What is to be deleted already, and was refused, is told and tried again now.
    Another installation on the same account has records of its own: what it has made is listed, and only deleted with
    --foreign.
    """
    with session.parts() as parts:
        store = parts.store()
        supervisor = Supervisor()
        left: list[Tombstone] = []
        try:
            if not no_worker:
                add_workers_unless_there(supervisor, parts, store)
            with foreground(), kept_running(supervisor):
                orphans, unlisted = _look(session, parts, store, supervisor)
                waiting = [stone for stone in store.all_buried() if stone.entry.tries > 0]
                chosen = [orphan for orphan in orphans if orphan.ours or foreign]
                _print(session, orphans, unlisted, waiting, as_json=as_json)
                if dry_run or not (chosen or waiting):
                    done = 0
                elif chosen and not agreed(f"Delete {_things(len(chosen))}?", yes=yes):
                    return DECLINED
                else:
                    done, left = _delete(session, parts, store, supervisor, chosen, waiting)
        finally:
            store.close()
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "orphans": [_record(orphan) for orphan in orphans],
                "unlisted": unlisted,
                "refused": [_refusal(stone) for stone in waiting],
                "deleted": done,
            }
        )
    elif done:
        session.say(f"{_things(done)} deleted.")
    return SOMETHING_REMAINS if left else 0


def _look(session: Session, parts: Parts, store: Store, supervisor: Supervisor) -> tuple[list[Orphan], dict[str, str]]:
    """What there is at the service that no record here knows; and which kinds it does not list, and why."""
    token = store.ask_inventory()
    found: dict[str, Any] = json.loads(
        _await(session, parts, supervisor, lambda: store.inventory(token), what="what there is at the service")
    )
    home, now = store.home(), store.now()
    orphans = [
        Orphan(made=stone.object, ours=True, created_at=None, owner=stone.owner)
        for stone in store.unowned()
        # What another account has only that can delete.
        if stone.object.account in (None, found["account"])
    ]
    listed = {orphan.made.name for orphan in orphans}
    for entry in found["made"]:
        made = RemoteObject(kind=Kind(entry["kind"]), id=entry["id"], account=found["account"])
        ours, owner = entry["home"] == home, entry["owner"]
        known = owner is not None and any(each.object.name == made.name for each in store.objects(owner))
        if not known and made.name not in listed and now - entry["created_at"] > _YOUNG_S:
            orphans.append(Orphan(made=made, ours=ours, created_at=entry["created_at"]))
    return orphans, found["unlisted"]


def _delete(
    session: Session,
    parts: Parts,
    store: Store,
    supervisor: Supervisor,
    chosen: Sequence[Orphan],
    refused: Sequence[Tombstone],
) -> tuple[int, list[Tombstone]]:
    """Have them deleted, and what was refused before tried again now; how many are gone, and what is left."""
    tries = {(stone.owner, stone.object.name): stone.entry.tries for stone in refused}
    tries |= {(orphan.owner, orphan.made.name): 0 for orphan in chosen}
    store.remember(_OWNER, [orphan.made for orphan in chosen if orphan.owner == _OWNER])
    for owner, made in [*((one.owner, one.made) for one in chosen), *((one.owner, one.object) for one in refused)]:
        store.bury(owner, [made])

    def left() -> list[Tombstone]:
        return [
            Tombstone(owner=owner, entry=entry)
            for owner in {owner for owner, _ in tries}
            for entry in store.objects(owner)
            if (owner, entry.object.name) in tries
        ]

    def told() -> str | None:
        return "done" if all(one.entry.tries > tries[one.owner, one.object.name] for one in left()) else None

    _await(session, parts, supervisor, told, what="the deletions")
    remaining = left()
    for stone in remaining:
        session.complain(f"{stone.object.kind} {stone.object.id} not deleted yet: {stone.entry.why}")
    return len(tries) - len(remaining), remaining


def _await(session: Session, parts: Parts, supervisor: Supervisor, done: Callable[[], str | None], *, what: str) -> str:
    until, nudge_at = time.monotonic() + _WAIT_S, 0.0
    while True:
        for text in [*parts.revive(), *supervisor.tick()]:
            session.say(text)
        require_hope(supervisor)
        found = done()
        if found is not None:
            return found
        now = time.monotonic()
        if now >= until:
            raise WaitTimeout(
                f"no worker has told {what} within {_WAIT_S:g} s",
                remedy="See that one is running (`askq doctor`), and try again.",
            )
        if now >= nudge_at:
            nudge_at = now + _NUDGE_EVERY_S
            parts.nudge()
        time.sleep(_LOOK_EVERY_S)


def _print(
    session: Session,
    orphans: Sequence[Orphan],
    unlisted: dict[str, str],
    waiting: Sequence[Tombstone],
    *,
    as_json: bool,
) -> None:
    from producer.answers.plain import plain
    from producer.answers.record import timestamp

    if as_json:
        return
    for orphan in orphans:
        whose = "" if orphan.ours else "  made by another installation"
        since = "" if orphan.created_at is None else timestamp(orphan.created_at)
        click.echo(plain(f"{orphan.made.kind:<14}{orphan.made.id:<40}{since or 'on record here'}{whose}"))
    for kind in unlisted:
        session.say(f"This service does not list objects of kind {kind}.")
    for stone in waiting:
        why = plain(stone.entry.why or "", one_line=True)
        session.say(f"{stone.object.kind} {stone.object.id} is to be deleted; tried {stone.entry.tries} times: {why}")
    if not orphans:
        session.say("Nothing at the service that nobody needs.")


def _record(orphan: Orphan) -> dict[str, Any]:
    from producer.answers.record import timestamp

    return {
        "kind": orphan.made.kind,
        "id": orphan.made.id,
        "ours": orphan.ours,
        "created_at": None if orphan.created_at is None else timestamp(orphan.created_at),
    }


def _refusal(stone: Tombstone) -> dict[str, Any]:
    entry = stone.entry
    return {"kind": entry.object.kind, "id": entry.object.id, "tries": entry.tries, "why": entry.why}


def _things(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"
