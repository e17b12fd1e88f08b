"""`askq run` and `askq ask`: from questions to answers in one go."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import InputError
from askq.jobs.model import BatchStatus, State
from askq.jobs.store import Store
from producer.answers.outputs import Outputs, line
from producer.answers.plain import plain
from producer.answers.record import to_record
from producer.answers.writer import Writer, writer_for
from producer.batch import require_budget, require_time
from producer.budget import bounded
from producer.cli.changing import many
from producer.cli.options import Seconds, assistant_options, bounds, budget_option, input_options
from producer.cli.shared import Session, json_option, known_status, pass_session, print_json, typed
from producer.cli.workers import ToolsWorker, add_workers, foreground, kept_running, require_hope
from producer.kept_table import keep, kept
from producer.outage import Outage
from producer.parts import Parts
from producer.progress import counts_in_words, display, duration, spent
from producer.questions import QuestionList, Summary, open_items, open_list
from producer.submit import Submission, Submitted, submit

UNFINISHED = 5
_LOOK_EVERY_S = 0.4


@click.command("run")
@click.argument("file", metavar="FILE|-")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="PATH",
    help="Where the answers go; the suffix tells the format. May be repeated. [default: answers.csv]",
)
@input_options
@assistant_options
@click.option("--name", help="A name for the batch.")
@click.option("--new", is_flag=True, help="Ask again, even if this list was asked before.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N questions.")
@budget_option
@click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting after this long.")
@click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis answer.")
@json_option
@pass_session
def run_command(
    session: Session,
    *,
    file: str,
    outputs: tuple[str, ...],
    reading: Mapping[str, Any],
    assistant: str | None,
    protocol: str | None,
    name: str | None,
    new: bool,
    limit: int | None,
    max_cost: float | None,
    timeout: float | None,
    no_worker: bool,
    as_json: bool,
) -> int:
    """Answer the questions in FILE (or standard input) and write the answers.

    The same command again goes on where it stopped, whatever stopped it; a list that is finished is answered from the
    store, at once and free (--new asks again).
    """
    session.announce(file)
    with session.parts() as parts, open_list(file, **reading, **bounds(session.settings)) as questions:
        summary = questions.attach(folder=parts.files(), tools_of=parts.tools_of(assistant, protocol)).check()
        for note in summary.notes:
            session.say(f"{questions.name}: {note}")
        if as_json and "-" in outputs:
            raise InputError("--json and -o - would both write to standard output", remedy="Leave one of them out.")
        writers = _writers(outputs or ("answers.csv",), summary, file)
        submission = _submission(parts, questions, summary, assistant, protocol, name=name, limit=limit, new=new)
        submission = bounded(submission, max_cost, parts.address())
        fields = kept(submission.table()).get("fields", ())
        writers = [dataclasses.replace(writer, fields=fields) for writer in writers]
        status = _answer(session, parts, submission, timeout=timeout, no_worker=no_worker)
        store = parts.store()
        try:
            seen = Outputs()
            with foreground():  # who is ended while writing takes the half of the file away
                for writer in writers:
                    seen = Outputs()
                    writer.write(seen.through(store.jobs(status.id)))
        finally:
            store.close()
    if as_json:
        print_json(_report(status, writers))
    _conclude(session, status, writers)
    if told := seen.told(session.settings.files_dir):
        session.say(told)
    return UNFINISHED if status.counts[State.COMPLETED] < status.total else 0


@click.command("ask")
@click.argument("question")
@assistant_options
@click.option("--file", "files", multiple=True, metavar="PATH", help="A file that goes along. May be repeated.")
@click.option("--image", "images", multiple=True, metavar="PATH|URL", help="An image to look at. May be repeated.")
@click.option("--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting after this long.")
@click.option("--no-worker", is_flag=True, help="Start no worker: others on the same Redis answer.")
@click.option("--stream", is_flag=True, help="Print the answer while it is written.")
@json_option
@pass_session
def ask_command(
    session: Session,
    *,
    question: str,
    assistant: str | None,
    protocol: str | None,
    files: tuple[str, ...],
    images: tuple[str, ...],
    timeout: float | None,
    no_worker: bool,
    stream: bool,
    as_json: bool,
) -> int:
    """Ask one QUESTION and print the answer.

    With --stream its text appears on standard output as it is written; the code it runs and the functions it calls on
    standard error. The answer is printed once, whatever happens to the stream.
    """
    if stream and as_json:
        raise InputError("--json prints the whole answer, and --stream its parts", remedy="Leave one of them out.")
    item: dict[str, object] = {"question": question}
    item |= {name: list(paths) for name, paths in (("file", files), ("image", images)) if paths}
    with session.parts() as parts, open_items([item], **bounds(session.settings)) as questions:
        with typed():
            questions.attach(folder=parts.files(), tools_of=parts.tools_of(assistant, protocol))
            summary = questions.check()
        submission = _submission(parts, questions, summary, assistant, protocol, name=None, limit=None, new=True)
        submission = dataclasses.replace(submission, stream=stream)
        status = _answer(session, parts, submission, timeout=timeout, no_worker=no_worker)
        store = parts.store()
        try:
            (job,) = store.jobs(status.id)
        finally:
            store.close()
    record = to_record(job)
    if as_json:
        print_json(record)
    elif record["answer"] is not None and not stream:
        click.echo(plain(record["answer"]))
    for file in record["files"]:
        session.say(line(file, session.settings.files_dir))
    if record["error"] is not None:
        session.complain(f"askq: {record['error']['code']}: {record['error']['message'] or ''}")
        session.say(record["error"]["remedy"])
    return 0 if job.state is State.COMPLETED else UNFINISHED


def _writers(outputs: tuple[str, ...], summary: Summary, file: str) -> list[Writer]:
    table = kept(keep(summary))
    writers = [writer_for(place, **table) for place in outputs]
    for writer in writers:
        if _is_same(file, writer.path):
            raise InputError(f"the answers would overwrite the list {file}", remedy="Name another file with -o.")
        writer.check()
    return writers


def _is_same(file: str, place: Path | None) -> bool:
    """Whether a list and a place for answers are one file, whatever they are called."""
    try:
        return place is not None and Path(file).samefile(place)
    except OSError:  # one of the two is not there
        return False


def _submission(
    parts: Parts,
    questions: QuestionList,
    summary: Summary,
    assistant: str | None,
    protocol: str | None,
    *,
    name: str | None,
    limit: int | None,
    new: bool,
) -> Submission:
    asked = parts.assistant(assistant, protocol)
    others = parts.named_assistants(summary.assistants, protocol, file=questions.name)
    # What is asked, of whom, and where: the same three are the same batch, whoever runs it again.
    about = [summary.digest, asked.digest, {name: other.digest for name, other in others.items()}, limit]
    if summary.files_digest is not None:
        about.append(summary.files_digest)
    key = hashlib.sha256(json.dumps([*about, parts.account()], sort_keys=True).encode()).hexdigest()
    return Submission(
        questions=questions,
        summary=summary,
        assistant=asked,
        others=others,
        name=name,
        idempotency_key=None if new else f"run:{key}",
        limit=limit,
    )


def _answer(
    session: Session, parts: Parts, submission: Submission, *, timeout: float | None, no_worker: bool
) -> BatchStatus:
    """Submit, keep workers running, wait; the status at the end."""
    store = parts.store(must_be_safe=True)
    try:
        finished = _finished_before(store, submission)
        if finished is not None:
            session.say(f"This list was answered before (batch {finished.id}); --new asks again.")
            session.remember(finished.id)
            return finished
        supervisor = Supervisor()
        if not no_worker:
            parts.check_api()
            add_workers(supervisor, parts)
            if any(asked.functions for asked in (submission.assistant, *submission.others.values())):
                ToolsWorker(supervisor, parts).start()
        for line in parts.lines():
            session.say(line)
        with foreground(), kept_running(supervisor):
            submitted = submit(store, submission, folder=parts.files())
            session.remember(submitted.batch)
            _say_submitted(session, submission, submitted)
            try:
                wait = _watch if submission.stream else _wait
                return wait(session, parts, store, supervisor, submitted.batch, timeout)
            except KeyboardInterrupt:
                session.say(
                    f"\nDetached: nothing is lost. {_goes_on(submission)}\n"
                    f"`askq results {submitted.batch} --partial` shows what is answered."
                )
                raise
    finally:
        store.close()


def _goes_on(submission: Submission) -> str:
    """What answers the rest: without a key the same command would ask anew."""
    if submission.idempotency_key is None:
        return "It goes on as soon as a worker runs (`askq up`)."
    return "The same command goes on with it."


def _finished_before(store: Store, submission: Submission) -> BatchStatus | None:
    key = submission.idempotency_key
    batch = None if key is None else store.batch_under(key)
    status = None if batch is None else store.batch(batch)
    return status if status is not None and status.done else None


def _say_submitted(session: Session, submission: Submission, submitted: Submitted) -> None:
    if submitted.created:
        talked = submission.summary.conversations
        talks = f" in {talked} conversation{'' if talked == 1 else 's'}" if talked and submission.limit is None else ""
        session.say(f"Batch {submitted.batch}: {many(submitted.added)}{talks} for {submission.assistant.name}")
    else:
        session.say(f"Batch {submitted.batch} goes on: {many(submitted.already)} known, {submitted.added} added")


def _wait(
    session: Session, parts: Parts, store: Store, supervisor: Supervisor, batch: str, timeout: float | None
) -> BatchStatus:
    until = None if timeout is None else time.monotonic() + timeout
    status = known_status(store, batch)
    with display(sys.stderr, quiet=session.quiet, color=session.color) as shown:
        outage = Outage(shown.note)
        while True:
            for text in [*parts.revive(), *supervisor.tick()]:
                shown.note(text)
            require_hope(supervisor)
            status = outage.through(lambda: known_status(store, batch)) or status
            shown.update(status)
            if status.done:
                return status
            require_budget(status)
            require_time(
                status,
                until,
                timeout=timeout,
                remedy=f"It goes on as soon as a worker runs; `askq results {batch} --partial` shows the answers.",
            )
            time.sleep(_LOOK_EVERY_S)


def _watch(
    session: Session, parts: Parts, store: Store, supervisor: Supervisor, batch: str, timeout: float | None
) -> BatchStatus:
    """Show the one answer of a batch as it is written."""
    from producer.cli.follow import follow
    from producer.cli.screen import Screen

    screen = Screen(quiet=session.quiet, color=session.color)

    def tick() -> None:
        for text in [*parts.revive(), *supervisor.tick()]:
            screen.note(text)
        require_hope(supervisor)

    parts.nudge()
    for job in list(store.jobs(batch)):
        follow(store, job.id, screen, tick=tick, timeout_s=timeout)
    return known_status(store, batch)


def _report(status: BatchStatus, writers: list[Writer]) -> dict[str, Any]:
    from producer.cli.reading import status_record

    return status_record(status) | {"outputs": [str(writer.path or "-") for writer in writers]}


def _conclude(session: Session, status: BatchStatus, writers: list[Writer]) -> None:
    took = "" if status.finished_at is None else f" in {duration(status.finished_at - status.created_at)}"
    used = spent(status)
    session.say(f"{counts_in_words(status)}{took}{f', {used}' if used else ''}")
    for writer in writers:
        if writer.path is not None:
            session.say(f"Answers: {Path(writer.path)}")
    if status.counts[State.COMPLETED] < status.total:
        session.say(f"Why some have no complete answer: `askq results {status.id} --only failed`")
