"""`status`, `watch`, `results`, `show`, `list`: everything that only reads. Imports neither celery nor openai."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from askq.errors import InputError, NotFound
from askq.jobs.model import PENDING, TERMINAL, BatchStatus, Job, State
from askq.pauses import PAUSES
from producer.cli.options import Seconds
from producer.cli.shared import Session, json_option, known_status, on_terminal, pass_session, print_json

if TYPE_CHECKING:
    from askq.jobs.store import Reader

STILL_PENDING, SOME_FAILED = 8, 5
_ONLY = {
    "completed": {State.COMPLETED},
    "failed": TERMINAL - {State.COMPLETED},
    "pending": PENDING,
}


def status_record(status: BatchStatus) -> dict[str, Any]:
    """A batch as JSON; the keys are a promise."""
    from producer.answers.record import timestamp

    usage = status.usage
    return {
        "id": status.id,
        "name": status.name,
        "assistant": status.assistant,
        "protocol": status.protocol,
        "metadata": dict(status.metadata),
        "done": status.done,
        "submitted": status.sealed,
        "total": status.total,
        "pending": status.pending,
        "counts": {state.value: status.counts.get(state, 0) for state in State},
        "usage": {
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "cost_usd": usage.cost_usd,
        },
        "budget": None
        if status.budget is None
        else {
            "limit_usd": status.budget.limit_usd,
            "spent_usd": status.budget.spent_usd,
            "reserved_usd": status.budget.reserved_usd,
        },
        "paused": [
            {
                "code": pause.code,
                "message": pause.message,
                "remedy": PAUSES[pause.code].remedy,
                "since": timestamp(pause.since),
            }
            for pause in status.paused
        ],
        "limited": None
        if not status.waits
        else {
            "model": status.waits[0].model,
            "wait_s": round(status.waits[0].seconds, 2),
            "requests_per_minute": None if (rate := status.waits[0].rate) is None else round(60 * rate, 2),
        },
        "created_at": timestamp(status.created_at),
        "finished_at": timestamp(status.finished_at),
    }


@click.command("status")
@click.argument("batch", default="@last")
@click.option("--exit-status", is_flag=True, help="Exit 8 while it is not finished, 5 when some have no answer.")
@json_option
@pass_session
def status_command(session: Session, *, batch: str, exit_status: bool, as_json: bool) -> int:
    """Show how far BATCH is (default: the last one submitted from this folder)."""
    with session.reader() as store:
        status = known_status(store, session.batch_id(store, batch))
        workers = len(store.nodes())
    if as_json:
        print_json(status_record(status))
    else:
        for name, value in _describe(status, workers):
            click.echo(f"{name + ':':<11}{value}")
    return exit_code(status) if exit_status else 0


def exit_code(status: BatchStatus) -> int:
    """0 finished and complete, 5 finished and not, 8 not finished."""
    if not status.done:
        return STILL_PENDING
    return 0 if status.counts[State.COMPLETED] == status.total else SOME_FAILED


def _describe(status: BatchStatus, workers: int) -> list[tuple[str, str]]:
    from producer.answers.plain import plain
    from producer.answers.record import timestamp
    from producer.progress import counts_in_words, duration, limited, spent

    told = [("batch", status.id)]
    if status.name:
        told.append(("name", plain(status.name, one_line=True)))
    told += [
        ("assistant", f"{status.assistant} ({status.protocol})"),
        ("questions", _questions(status)),
        ("state", ("finished: " if status.done else "") + counts_in_words(status)),
    ]
    if used := spent(status):
        told.append(("used", used))
    told.append(("submitted", str(timestamp(status.created_at))))
    if status.finished_at is not None:
        told.append(("took", duration(status.finished_at - status.created_at)))
    if (budget := status.budget) is not None:
        told.append(
            (
                "budget",
                f"${budget.limit_usd:.2f}: ${budget.spent_usd:.4f} spent, ${budget.reserved_usd:.4f} put aside",
            )
        )
    if told_limit := limited(status):
        told.append(("limit", told_limit))
    for pause in status.paused:
        since = str(timestamp(pause.since))[:19]
        told.append(("PAUSED", f"{pause.code} since {since}: {plain(pause.message, one_line=True)}"))
        told.append(("to do", PAUSES[pause.code].remedy))
    if not status.sealed:
        told.append(("next", "submit the same list with the same idempotency key: it adds what is missing"))
    elif not status.done and workers == 0:
        told.append(("next", "no worker is running: `askq up` or `askq worker` answers it"))
    told.append(("Flower", f"search for {status.id}"))
    return told


def _questions(status: BatchStatus) -> str:
    from producer.kept_table import conversations

    if not status.sealed:
        return f"{status.total} so far: the submission has not ended"
    many = conversations(status.table)
    return f"{status.total} in {many} conversation{'' if many == 1 else 's'}" if many else str(status.total)


@click.command("watch")
@click.argument("batch", default="@last")
@click.option("--interval", type=Seconds(min=0.1), default=1.0, show_default=True, help="Seconds.")
@click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting after this long.")
@click.option("--exit-status", is_flag=True, help="Exit 5 when some have no complete answer.")
@json_option
@pass_session
def watch_command(
    session: Session, *, batch: str, interval: float, timeout: float | None, exit_status: bool, as_json: bool
) -> int:
    """Follow BATCH until it ends. Ctrl-C stops watching and nothing else."""
    with session.reader() as store:
        found = session.batch_id(store, batch)
        if not known_status(store, found).done and not store.nodes():
            session.say("No worker is running: `askq up` or `askq worker` answers it.")
        code = follow(session, store, found, timeout=timeout, exit_status=exit_status, interval=interval)
        if as_json:
            print_json(status_record(known_status(store, found)))
        return code


def follow(
    session: Session,
    store: Reader,
    batch: str,
    *,
    timeout: float | None,
    exit_status: bool,
    interval: float = 1.0,
) -> int:
    """Show a batch's progress until it ends; the exit code."""
    from producer.batch import require_budget, require_time
    from producer.outage import Outage
    from producer.progress import display

    until = None if timeout is None else time.monotonic() + timeout
    status = known_status(store, batch)
    try:
        with display(sys.stderr, quiet=session.quiet, color=session.color) as shown:
            outage = Outage(shown.note)
            while True:
                status = outage.through(lambda: known_status(store, batch)) or status
                shown.update(status)
                if status.done:
                    return exit_code(status) if exit_status else 0
                require_budget(status)
                require_time(status, until, timeout=timeout)
                time.sleep(interval)
    except KeyboardInterrupt:
        session.say(f"\nStopped watching; the batch goes on. Come back with `askq watch {batch}`.")
        raise


@click.command("results")
@click.argument("batch", default="@last")
@click.option("-o", "--output", "outputs", multiple=True, metavar="PATH", help="A file, by suffix. May be repeated.")
@click.option("-f", "--format", "format_", metavar="NAME", help="jsonl, csv, tsv, openai or table.")
@click.option("--only", type=click.Choice(sorted(_ONLY)), help="Only these.")
@click.option("--partial", is_flag=True, help="Also while the batch is not finished.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@pass_session
def results_command(
    session: Session,
    *,
    batch: str,
    outputs: tuple[str, ...],
    format_: str | None,
    only: str | None,
    partial: bool,
    as_json: bool,
) -> int:
    """Print the answers of BATCH in the order of the list, or write them to files.

    A table on a terminal, JSON Lines anywhere else.
    """
    from producer.answers.outputs import Outputs
    from producer.answers.plain import counted
    from producer.answers.writer import writer_for
    from producer.kept_table import kept

    wanted = "jsonl" if as_json else format_
    with session.reader() as store:
        status = known_status(store, session.batch_id(store, batch))
        if not (status.done or partial or only):
            session.complain(f"askq: batch {status.id} is not finished: {status.pending} of {status.total} pending")
            session.say("Wait with `askq watch`, or take what there is with --partial.")
            return STILL_PENDING
        states = None if only is None else _ONLY[only]
        table = kept(status.table)
        if outputs:
            if wanted == "table":
                raise InputError("a table goes to the terminal, not into a file", remedy="Choose csv or jsonl.")
            from producer.cli.workers import foreground

            for place in outputs:
                seen = Outputs()
                jobs = seen.through(store.jobs(status.id, states=states))
                with foreground():  # who is ended while writing takes the half of the file away
                    count = writer_for(place, format=wanted, **table).write(jobs)
                session.say(f"{counted(count, 'answer')}: {place}")
                if told := seen.told(session.settings.files_dir):
                    session.say(told)
        elif wanted == "table" or (wanted is None and on_terminal()):
            from producer.answers.table import print_table

            jobs = store.jobs(status.id, states=states)
            total = status.total if states is None else sum(status.counts.get(state, 0) for state in states)
            colored = None if session.color else False
            print_table(jobs, file=sys.stdout, limit=None if only else 50, total=total, color=colored)
        else:
            writer_for(None, format=wanted, **table).write(store.jobs(status.id, states=states))
    return 0


@click.command("show")
@click.argument("job")
@click.option("--code", is_flag=True, help="Only the code it ran, and the output.")
@json_option
@pass_session
def show_command(session: Session, *, job: str, code: bool, as_json: bool) -> int:
    """Show everything about one question. JOB is `<batch>.<row id>`, as in the results."""
    from producer.answers.record import to_record

    with session.reader() as store:
        found = store.job(_job_id(session, store, job))
    if found is None:
        raise NotFound(f"there is no job {job}", remedy="A job's id is `<batch>.<row id>`: see `askq results`.")
    if as_json:
        more = {"state": found.state.value, "remote_status": found.remote, "polls": found.polls, "note": found.note}
        more |= {"runs": found.runs, "retries": found.retries, "cancel": found.cancel}
        print_json(to_record(found) | more)
    else:
        _print_job(found, only_code=code, folder=session.settings.files_dir)
    return 0


def _job_id(session: Session, store: Reader, given: str) -> str:
    batch, dot, row = given.partition(".")
    if not dot:
        raise NotFound(f"{given} is no job's id", remedy="A job's id is `<batch>.<row id>`, e.g. @last.q0001.")
    return f"{session.batch_id(store, batch)}.{row}"


def _print_job(job: Job, *, only_code: bool, folder: Path) -> None:
    from producer.answers.outputs import line
    from producer.answers.plain import counted, padded, plain
    from producer.answers.record import to_record

    record = to_record(job)
    if not only_code:
        facts = [
            ("job", job.id),
            ("status", job.state.value + (f" (the service says {job.remote})" if job.remote else "")),
            ("assistant", f"{job.assistant} ({job.protocol})" + (f", {record['model']}" if record["model"] else "")),
            (
                "thread",
                job.question.thread and f"{job.question.thread}, {f'after {job.after}' if job.after else 'first'}",
            ),
            ("run", f"{job.run_id or 'none'} in {job.thread_id or 'no thread'}"),
            (
                "attempts",
                f"{job.attempts}, {counted(job.runs, 'run')}, {counted(job.polls, 'poll')}"
                + (f"; asked again {counted(job.retries, 'time')}" if job.retries else ""),
            ),
            ("cancel", {"asked": "asked for", "deadline": "past its deadline"}.get(job.cancel or "")),
            ("asked", record["created_at"]),
            ("started", record["started_at"]),
            ("completed", record["completed_at"]),
        ]
        if record["usage"]["total_tokens"]:
            cost = record["usage"]["cost_usd"]
            facts.append(("used", f"{record['usage']['total_tokens']} tokens" + ("" if cost is None else f", ${cost}")))
        facts += [(name, value) for name, value in record["input"].items() if value not in ("", None)]
        if job.question.files:
            sent = [one.url if one.file is None else f"{one.file.name} ({one.tool})" for one in job.question.files]
            facts.append(("attached", ", ".join(filter(None, sent))))
        if job.note:
            facts.append(("note", job.note))
        for name, value in facts:
            if value is not None:
                click.echo(f"{padded(plain(str(name), one_line=True) + ': ', 12)}{plain(str(value), one_line=True)}")
        click.echo(f"\nQuestion\n{plain(record['question'])}")
    for number, call in enumerate(record["code"], 1):
        click.echo(f"\nCode {number}\n{plain(str(call['input']))}\nOutput\n{plain(str(call['output']))}")
    if only_code:
        return
    for number, call in enumerate(record["tool_calls"], 1):
        click.echo(f"\nFunction {number}\n{plain(_call(call))}")
        if call.get("printed"):
            click.echo(f"Printed\n{plain(call['printed'].rstrip())}")
    if record["answer"] is not None:
        click.echo(f"\nAnswer\n{plain(record['answer'])}")
    if record["citations"]:
        click.echo("\nCitations")
    for number, citation in enumerate(record["citations"], 1):
        where = citation.get("filename") or citation.get("file_id") or citation.get("url") or citation.get("type")
        click.echo(f"[{number}] {plain(str(where), one_line=True)}")
        if citation.get("quote"):
            click.echo(f"    {plain(str(citation['quote']), one_line=True)}")
    if record["files"]:
        click.echo("\nFiles")
    for file in record["files"]:
        click.echo(line(file, folder))
    if record["error"] is not None:
        error = record["error"]
        click.echo(f"\nError\n{plain(error['code'])}: {plain(error['message'] or '')}\n{error['remedy']}")


def _call(call: Mapping[str, Any]) -> str:
    """A function call as a line: what was asked for, what came of it, how long it took."""
    took = f" ({call['seconds']:.2f} s)" if "seconds" in call else ""
    output = "no output: the job ended before" if call["output"] is None else call["output"]
    return f"{call['name']} {call['arguments']}\n→ {output}{took}"


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--dead", is_flag=True, help="The dead letters instead: questions on which workers died.")
@json_option
@pass_session
def list_command(session: Session, *, limit: int, dead: bool, as_json: bool) -> int:
    """List the newest batches, newest first."""
    if dead:
        return _list_dead(session, as_json=as_json)
    from producer.answers.plain import cells, padded, plain
    from producer.answers.record import timestamp
    from producer.progress import counts_in_words

    with session.reader() as store:
        found = store.batches(limit=limit)
    if as_json:
        print_json([status_record(status) for status in found])
        return 0
    if not found:
        session.say("No list was submitted yet: `askq run FILE` or `askq submit FILE`.")
    longest = max((cells(status.assistant) for status in found), default=0) if on_terminal() else 0
    for status in found:
        parts = [status.id, str(timestamp(status.created_at))[:19], padded(status.assistant, longest)]
        parts.append(f"{status.total:>7}" if on_terminal() else str(status.total))
        parts += [
            ("finished: " if status.done else "") + counts_in_words(status),
            plain(status.name or "", one_line=True),
        ]
        click.echo(("  " if on_terminal() else "\t").join(parts).rstrip())
    return 0


def _list_dead(session: Session, *, as_json: bool) -> int:
    from producer.answers.record import timestamp

    with session.reader() as store:
        found = sorted(store.dead_letters().items(), key=lambda letter: letter[1], reverse=True)
    if as_json:
        print_json([{"id": job, "given_up_at": timestamp(when)} for job, when in found])
    elif not found:
        session.say("There are no dead letters.")
    else:
        for job, when in found:
            click.echo(("  " if on_terminal() else "\t").join((job, str(timestamp(when))[:19])))
    return 0
