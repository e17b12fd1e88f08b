"""`askq submit`: store a list and leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from askq.errors import InputError
from producer.budget import bounded
from producer.cli.options import assistant_options, bounds, budget_option, input_options
from producer.cli.reading import follow
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.questions import open_list
from producer.submit import Submission, submit


@click.command("submit")
@click.argument("file", metavar="FILE|-")
@input_options
@assistant_options
@click.option("--name", help="A name for the batch.")
@click.option("--meta", "metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch. May be repeated.")
@click.option("--idempotency-key", metavar="KEY", help="The same key adds what is missing and nothing else.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N questions.")
@budget_option
@click.option("--dry-run", is_flag=True, help="Check the list, count, and store nothing.")
@click.option("--wait", "--watch", "wait", is_flag=True, help="Follow the batch until it ends.")
@click.option("--exit-status", is_flag=True, help="With --wait: exit 5 when some have no complete answer.")
@json_option
@pass_session
def submit_command(
    session: Session,
    *,
    file: str,
    reading: Mapping[str, Any],
    assistant: str | None,
    protocol: str | None,
    name: str | None,
    metadata: tuple[str, ...],
    idempotency_key: str | None,
    limit: int | None,
    max_cost: float | None,
    dry_run: bool,
    wait: bool,
    exit_status: bool,
    as_json: bool,
) -> int:
    """Store the questions in FILE (or standard input) to be answered; print the batch id."""
    session.announce(file)
    with open_list(file, **reading, **bounds(session.settings)) as questions, session.parts() as parts:
        keep = None if dry_run else parts.files()
        summary = questions.attach(folder=keep, tools_of=parts.tools_of(assistant, protocol)).check()
        for note in summary.notes:
            session.say(f"{questions.name}: {note}")
        submission = Submission(
            questions=questions,
            summary=summary,
            assistant=parts.assistant(assistant, protocol, keep=not dry_run),
            others=parts.named_assistants(summary.assistants, protocol, file=questions.name),
            name=name,
            metadata=_pairs(metadata),
            idempotency_key=idempotency_key,
            limit=limit,
        )
        submission = bounded(submission, max_cost, parts.address())
        if dry_run:
            counted = {"questions": submission.rows, "bytes": summary.bytes, "format": summary.format}
            counted |= {"conversations": summary.conversations} if summary.conversations else {}
            if as_json:
                print_json(counted)
            else:
                session.say(f"{submission.rows} questions ({summary.format}, {summary.bytes:,} bytes): nothing wrong")
            return 0
        store = parts.store(must_be_safe=True)
        try:
            unheard: list[str | None] = []
            submitted = submit(store, submission, folder=parts.files(), begun=lambda: unheard.append(parts.nudge()))
            session.remember(submitted.batch)
            if as_json:
                print_json(
                    {
                        "batch": submitted.batch,
                        "created": submitted.created,
                        "added": submitted.added,
                        "already": submitted.already,
                    }
                )
            else:
                click.echo(submitted.batch)
            for line in parts.lines():
                session.say(line)
            if not submitted.created:
                session.say(f"This key was used before: {submitted.already} known, {submitted.added} added.")
            for why in filter(None, unheard):
                session.say(f"Celery's broker did not answer ({why}); the workers find the list by themselves.")
            if not store.nodes():
                session.say("No worker is running: `askq up` or `askq worker` answers it.")
            if wait:
                return follow(session, store, submitted.batch, timeout=None, exit_status=exit_status)
            session.say(f"next: askq watch {submitted.batch}")
        finally:
            store.close()
    return 0


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(pair.split("=", 1) for pair in given if "=" in pair)
    if len(pairs) < len(given):
        raise InputError("--meta takes KEY=VALUE, each key once", remedy="For example: --meta team=support")
    return pairs
