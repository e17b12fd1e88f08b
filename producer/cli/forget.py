"""`forget`: erase a batch or a question, here and at the service. Imports neither celery nor openai."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import InputError, NotFound, WaitTimeout
from askq.ids import split_job_id
from askq.jobs import forgetting
from askq.jobs.model import PENDING
from askq.jobs.objects import Receipt, Tombstone, receipt_name
from askq.jobs.store import Store
from producer.cli.changing import DECLINED, agreed, many
from producer.cli.options import Seconds
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.cli.workers import add_workers_unless_there, foreground, kept_running, require_hope
from producer.parts import Parts
from producer.questions.question_list import same_thread

SOMETHING_REMAINS = 1
_LOOK_EVERY_S = 0.3
_PATIENCE_S = 15.0
"""How long nothing may happen at the service, after its first refusal, before the receipt is written."""


@click.command("forget")
@click.argument("ids", nargs=-1, required=True, metavar="BATCH|JOB...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting after this long.")
@click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis delete.")
@click.option(
    "--lost-folders",
    is_flag=True,
    help="Take folders of files that nobody has any more for deleted.",
)
@json_option
@pass_session
def forget_command(
    session: Session,
    *,
    ids: tuple[str, ...],
    yes: bool,
    timeout: float | None,
    no_worker: bool,
    lost_folders: bool,
    as_json: bool,
) -> int:
    """Erase batches or single questions everywhere, and print a receipt.

    Questions, answers and everything else about them go from Redis and from its files, and so does what was made for
    them at the service: threads, conversations, responses, files, stores. What is not finished is cancelled first.
    There is no way back.

    Stopped half-way, it is finished by the workers, or by the same command. Files that you wrote yourself, such as
    answers.csv, stay. Told again, what the service has refused is tried at once. Exit 0 when all is gone,
    1 when the service keeps something, or files are in a folder (ASKQ_FILES) that neither this command nor a running
    worker has.
    """
    with session.parts() as parts:
        store = parts.store()
        try:
            chosen = [_meant(session, store, given) for given in ids]
            for what in chosen:
                _require_whole(store, what)
            if not agreed(_question(store, chosen), yes=yes):
                return DECLINED
            for what in chosen:
                if store.receipt(what) is None or _is_there(store, what):
                    forgetting.begin(store, what)
                for stone in _left(store, what):
                    # What was wrong may be mended: whoever says it again does not wait for the next try.
                    store.bury(stone.owner, [stone.object], receipt=what)
            supervisor = Supervisor()
            if not no_worker:
                add_workers_unless_there(supervisor, parts, store)
            with foreground(), kept_running(supervisor):
                parts.nudge()
                wait = _Wait(session, parts, store, supervisor, timeout, lost_folders=lost_folders)
                receipts = [wait.follow(what) for what in chosen]
            why = store.compact()
            refused = [_refused(store, what) for what in chosen]
            places = [sorted(_elsewhere(store, parts, what).values()) for what in chosen]
        finally:
            store.close()
    told = list(zip(receipts, refused, places, strict=True))
    records = [receipt_record(receipt, stones, why, folders) for receipt, stones, folders in told]
    if as_json:
        print_json(records if len(records) > 1 else records[0])
    else:
        for receipt, stones, folders in told:
            _print_receipt(receipt, stones, why, folders)
    return 0 if all(record["complete"] for record in records) else SOMETHING_REMAINS


def receipt_record(
    receipt: Receipt, stones: Sequence[Tombstone], why: str | None, folders: Sequence[str]
) -> dict[str, Any]:
    """A receipt as JSON; the keys are a promise."""
    return {
        "id": receipt.what,
        "complete": receipt.done and not receipt.kept and why is None,
        "questions": receipt.records,
        "deleted": dict(receipt.gone),
        "cannot_be_deleted": dict(receipt.kept),
        "not_deleted_yet": [
            {"kind": stone.object.kind, "id": stone.object.id, "tries": stone.entry.tries, "why": stone.entry.why}
            for stone in stones
        ],
        "files_may_be_in": list(folders),
        "redis_files": "rewritten" if why is None else why,
    }


def _meant(session: Session, store: Store, given: str) -> str:
    """The batch or job that an id means: one that is there, or is being forgotten, or was."""
    name, dot, row = given.partition(".")
    try:
        what = f"{session.batch_id(store, name)}{dot}{row}"
    except NotFound:
        if store.receipt(given) is None:
            raise
        return given
    if dot and store.job(what) is None and store.receipt(what) is None:
        raise NotFound(f"there is no job {given}", remedy="A job's id is `<batch>.<row id>`: see `askq results`.")
    return what


def _require_whole(store: Store, what: str) -> None:
    """Raise InputError for a question whose conversation is still going on: it is one object at the service."""
    batch, row = split_job_id(what)
    job = store.job(what) if row else None
    if job is None or job.question.thread is None:
        return
    thread = same_thread(job.question.thread)
    for other in store.jobs(batch, states=PENDING):
        if other.id != what and other.question.thread is not None and same_thread(other.question.thread) == thread:
            raise InputError(
                f"{what} is part of a conversation that goes on: {other.id} is {other.state}",
                remedy=f"Wait until it has ended, or `askq cancel` it first; or forget all of it: askq forget {batch}",
            )


def _is_there(store: Store, what: str) -> bool:
    return (store.job(what) if split_job_id(what)[1] else store.batch(what)) is not None


def _question(store: Store, chosen: Sequence[str]) -> str:
    rows = pending = 0
    for what in chosen:
        if split_job_id(what)[1]:
            job = store.job(what)
            rows += 1
            pending += job is not None and not job.state.terminal
        elif (status := store.batch(what)) is not None:
            rows += status.total
            pending += status.pending
    unfinished = f" ({pending} not finished)" if pending else ""
    return f"Erase {many(rows)}{unfinished} with all answers, here and at the service? There is no way back."


class _Wait:
    """Goes on with forgetting, until all is gone or nothing happens any more."""

    def __init__(
        self,
        session: Session,
        parts: Parts,
        store: Store,
        supervisor: Supervisor,
        timeout: float | None,
        *,
        lost_folders: bool,
    ) -> None:
        self._session = session
        self._parts = parts
        self._store = store
        self._supervisor = supervisor
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._lost_folders = lost_folders

    def follow(self, what: str) -> Receipt:
        """Go on with it until all is gone, or until what is left is out of reach or refused; the receipt."""
        store, folder = self._store, self._parts.files()
        said, patience, before = "", time.monotonic() + _PATIENCE_S, (-1, dict[str, str]())
        while True:
            for text in [*self._parts.revive(), *self._supervisor.tick()]:
                self._session.say(text)
            require_hope(self._supervisor)
            waiting = forgetting.advance(store, what, folder) if what in store.forgetting() else 0
            receipt, elsewhere = store.receipt(what), _elsewhere(store, self._parts, what)
            if receipt is None:
                # Nothing was known of it but its id.
                return Receipt(what=what, pending=False, records=0, due={}, gone={}, kept={})
            if receipt.done:
                return receipt
            if (receipt.left, elsewhere) != before or (receipt.pending and not elsewhere):
                before, patience = (receipt.left, elsewhere), time.monotonic() + _PATIENCE_S
            elif time.monotonic() > patience:
                if elsewhere and self._lost_folders:
                    forgetting.take_for_deleted(store, what, elsewhere)
                    continue
                if elsewhere or _all_refused(store, what):
                    return receipt
            now = _progress(waiting, receipt, elsewhere)
            if now != said:
                self._session.say(now)
                said = now
            if self._until is not None and time.monotonic() >= self._until:
                raise WaitTimeout(
                    f"{what} is not forgotten after {self._timeout:g} s: {now}",
                    remedy="Workers go on with it; the same command shows the receipt." + _hint(store),
                )
            time.sleep(_LOOK_EVERY_S)


def _elsewhere(store: Store, parts: Parts, what: str) -> dict[str, str]:
    """The folders, besides ours, that files may still be in: their identities, and where they were."""
    return forgetting.elsewhere(store, what, parts.files()) if what in store.forgetting() else {}


def _progress(waiting: int, receipt: Receipt, elsewhere: Mapping[str, str]) -> str:
    if elsewhere:
        return f"waiting for a worker that has the folder of files {', '.join(elsewhere.values())}"
    if waiting:
        return f"{many(waiting)} not finished: waiting until they are cancelled"
    things = "thing" if receipt.left == 1 else "things"
    return f"{many(receipt.records)} erased; {receipt.left} {things} to delete at the service"


def _hint(store: Store) -> str:
    return "" if store.nodes() else " No worker is running: `askq up` or `askq worker` deletes."


def _refused(store: Store, what: str) -> list[Tombstone]:
    """What is still to be deleted for this, each object once: a conversation has a tombstone for each question."""
    return list({stone.object.name: stone for stone in _left(store, what)}.values())


def _left(store: Store, what: str) -> list[Tombstone]:
    return [stone for stone in store.all_buried() if stone.entry.receipt == receipt_name(what)]


def _all_refused(store: Store, what: str) -> bool:
    left = _left(store, what)
    return bool(left) and all(stone.entry.tries > 0 for stone in left)


def _print_receipt(receipt: Receipt, stones: Sequence[Tombstone], why: str | None, folders: Sequence[str]) -> None:
    from producer.answers.plain import plain

    click.echo(f"forgotten: {receipt.what}")
    click.echo(
        f"  {many(receipt.records)} with everything about {'it' if receipt.records == 1 else 'them'} erased from Redis"
    )
    if why is None:
        click.echo("  the files of Redis written anew without them")
    else:
        click.echo(f"  the files of Redis may hold them for a while: {plain(why, one_line=True)}")
    for kind, count in receipt.gone.items():
        click.echo(f"  {_counted(kind, count)} deleted at the service")
    for kind, count in receipt.kept.items():
        click.echo(f"  {_counted(kind, count)} the service cannot delete")
    for stone in stones:
        said = plain(stone.entry.why or "not tried yet", one_line=True)
        click.echo(f"  {stone.object.kind} {stone.object.id} not deleted yet: {said}")
    for place in folders:
        click.echo(f"  files may still be in {plain(place, one_line=True)}, which no running worker has")
    if folders:
        sys.stderr.write(
            "A worker that has this folder goes on by itself, and so does the same command where ASKQ_FILES is that "
            "folder.\nIf it is gone, say --lost-folders.\n"
        )
    if stones:
        sys.stderr.write("Workers try again until the service has said that it is gone; the same command shows it.\n")


def _counted(kind: str, count: int) -> str:
    word = kind.replace("_", " ")
    return f"{count} {word if count == 1 else f'{word}s'}"
