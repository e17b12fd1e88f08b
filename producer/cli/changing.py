"""`cancel`, `retry`, `resume`: what a person may do to questions that were submitted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import click

from askq.errors import InputError, NotFound
from askq.ids import split_job_id
from askq.jobs.model import ASKED_AGAIN, PENDING, Outcome, State
from askq.jobs.store import Store
from producer.batch import ASKED_AGAIN_USUALLY, cancel, retry
from producer.cli.options import Dollars
from producer.cli.reading import follow
from producer.cli.shared import Session, json_option, pass_session, print_json

DECLINED = 3


@click.command("cancel")
@click.argument("ids", nargs=-1, metavar="BATCH|JOB...")
@click.option("--all", "all_", is_flag=True, help="Every batch that is not finished.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_session
def cancel_command(session: Session, *, ids: tuple[str, ...], all_: bool, yes: bool, as_json: bool) -> int:
    """Cancel what is not finished of batches or single jobs, at the service, too.

    Answers that are there stay. A run that completes all the same is kept and counted.
    """
    with session.parts() as parts:
        store = parts.store()
        try:
            chosen = _chosen(session, store, ids, all_=all_, states=PENDING)
            if not agreed(f"Cancel {many(len(chosen))}?", yes=yes or not chosen):
                return DECLINED
            outcomes = cancel(store, [job for job, _ in chosen])
            _close(store, {split_job_id(job)[0] for job, _ in chosen} | _whole(session, store, ids))
            parts.nudge()
        finally:
            store.close()
    if as_json:
        print_json({"cancelled": outcomes[Outcome.MOVED], "already": outcomes[Outcome.ALREADY]})
    else:
        session.say(f"{many(outcomes[Outcome.MOVED])} will be cancelled.")
        if any(state is not State.QUEUED for _, state in chosen):
            session.say("Workers tell the service; `askq status` shows when it is done.")
    return 0


@click.command("retry")
@click.argument("ids", nargs=-1, required=True, metavar="BATCH|JOB...")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(sorted(state.value for state in ASKED_AGAIN)),
    help="These ends instead of failed and expired. May be repeated.",
)
@click.option("--all", "all_", is_flag=True, help="Everything without a complete answer, uncertain ones included.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before questions that may have been paid for.")
@click.option("--wait", is_flag=True, help="Follow the batch until it ends.")
@json_option
@pass_session
def retry_command(
    session: Session,
    *,
    ids: tuple[str, ...],
    only: tuple[str, ...],
    all_: bool,
    dry_run: bool,
    yes: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Ask again what failed or expired, in the same batch; answers that are there stay.

    Each question that is asked again may be paid for again. What the earlier runs have cost stays counted.
    """
    if only and all_:
        raise InputError("--only and --all exclude each other", remedy="Leave one of them out.")
    states = ASKED_AGAIN if all_ else frozenset(State(name) for name in only) or ASKED_AGAIN_USUALLY
    with session.parts() as parts:
        store = parts.store(must_be_safe=True)
        try:
            chosen = _chosen(session, store, ids, all_=False, states=states)
            found = Counter(state for _, state in chosen)
            if dry_run:
                _report(session, found, as_json=as_json, key="would_retry")
                return 0
            doubtful = found[State.UNCERTAIN]
            question = f"{doubtful} of {many(len(chosen))} may have been paid for already. Ask again?"
            if doubtful and not agreed(question, yes=yes):
                return DECLINED
            outcomes = retry(store, [job for job, _ in chosen], states)
            parts.nudge()
            if as_json:
                print_json({"retried": outcomes[Outcome.MOVED], "expired": outcomes[Outcome.MISSING]})
            else:
                session.say(f"{many(outcomes[Outcome.MOVED])} will be asked again.")
                _tell_others(session, store, _whole(session, store, ids), ASKED_AGAIN - states)
            if outcomes[Outcome.MISSING]:
                session.say(f"{many(outcomes[Outcome.MISSING])} had expired: submit them again.")
            batches = sorted({split_job_id(job)[0] for job, _ in chosen})
            if wait and batches:
                return max(follow(session, store, batch, timeout=None, exit_status=True) for batch in batches)
            if outcomes[Outcome.MOVED] and not store.nodes():
                session.say("No worker is running: `askq up` or `askq worker` answers.")
        finally:
            store.close()
    return 0


@click.command("resume")
@click.argument("batch", required=False)
@click.option("--max-cost", type=Dollars(), metavar="USD", help="The new budget of BATCH.")
@json_option
@pass_session
def resume_command(session: Session, *, batch: str | None, max_cost: float | None, as_json: bool) -> int:
    """End every pause now instead of at the next probe. With --max-cost, set the budget of BATCH anew."""
    if max_cost is not None and batch is None:
        raise InputError("--max-cost needs the batch whose budget it is", remedy="askq resume BATCH --max-cost USD")
    with session.parts() as parts:
        store = parts.store()
        try:
            if batch is not None:
                found = session.batch_id(store, batch)
                if max_cost is not None:
                    _raise_budget(store, found, max_cost)
            ended = [pause for pause in store.pauses() if store.resume(pause.account, protocol=pause.protocol)]
            parts.nudge()
        finally:
            store.close()
    if as_json:
        print_json({"resumed": [pause.code for pause in ended], "max_cost_usd": max_cost})
    else:
        for pause in ended:
            session.say(f"no longer paused: {pause.code}")
        if max_cost is not None:
            session.say(f"budget: ${max_cost:.2f}")
        elif not ended:
            session.say("Nothing was paused.")
    return 0


def _raise_budget(store: Store, batch: str, limit_usd: float) -> None:
    status = store.batch(batch)
    if status is None or status.budget is None:
        raise InputError(
            f"batch {batch} was submitted without a budget",
            remedy="A bound must be there from the first question on: submit with --max-cost.",
        )
    used = status.budget.spent_usd + status.budget.reserved_usd
    if limit_usd < used:
        raise InputError(
            f"${used:.4f} of batch {batch} are spent or put aside already",
            remedy="Give a greater --max-cost, or `askq cancel` the batch.",
        )
    store.set_budget(batch, limit_usd)


def _chosen(
    session: Session, store: Store, ids: Sequence[str], *, all_: bool, states: Collection[State]
) -> list[tuple[str, State]]:
    """The jobs meant by ids of batches and jobs that are in one of these states."""
    if bool(ids) == all_:
        raise InputError("name batches or jobs, or give --all", remedy="For example: askq cancel @last")
    chosen: dict[str, State] = {}
    for given in ids:
        name, dot, row = given.partition(".")
        batch = session.batch_id(store, name)
        if not dot:
            chosen |= {job.id: job.state for job in store.jobs(batch, states=states)}
            continue
        job = store.job(f"{batch}.{row}")
        if job is None:
            raise NotFound(f"there is no job {given}", remedy="A job's id is `<batch>.<row id>`: see `askq results`.")
        if job.state in states:
            chosen[job.id] = job.state
        else:
            session.say(f"{job.id} is {job.state}: left as it is")
    if all_:
        # As many as there are: a person said all.
        for status in store.batches(limit=1_000_000):
            if not status.done:
                chosen |= {job.id: job.state for job in store.jobs(status.id, states=states)}
    return list(chosen.items())


def _whole(session: Session, store: Store, ids: Sequence[str]) -> set[str]:
    """The batches that were named whole."""
    return {session.batch_id(store, given) for given in ids if "." not in given}


def _tell_others(session: Session, store: Store, batches: Iterable[str], ends: Collection[State]) -> None:
    """What else of these batches has no complete answer, and was not meant: how to ask that, too."""
    found = Counter[State]()
    for batch in batches:
        status = store.batch(batch)
        found.update({} if status is None else {end: status.counts.get(end, 0) for end in ends})
    if others := sorted(end for end in ends if found[end]):
        told = ", ".join(f"{found[end]} {end}" for end in others)
        session.say(f"Not asked again: {told} ({' '.join(f'--only {end}' for end in others)}).")


def _close(store: Store, batches: Iterable[str]) -> None:
    """End the submission of batches that were cancelled: whoever was submitting one is gone, or need not go on."""
    for batch in batches:
        status = store.batch(batch)
        if status is not None and not status.sealed:
            store.seal(batch, status.total)


def agreed(question: str, *, yes: bool) -> bool:
    """Ask a person; anybody else must have said --yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError("this must be confirmed, and nobody can be asked here", remedy="Repeat it with --yes.")
    return click.confirm(question, err=True)


def _report(session: Session, found: Counter[State], *, as_json: bool, key: str) -> None:
    if as_json:
        print_json({key: {state.value: count for state, count in sorted(found.items())}})
        return
    words = ", ".join(f"{count} {state}" for state, count in sorted(found.items()))
    session.say(f"Would ask {many(found.total())} again{f': {words}' if words else ''}.")


def many(count: int) -> str:
    return "1 question" if count == 1 else f"{count} questions"
