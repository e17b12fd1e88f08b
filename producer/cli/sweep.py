"""`sweep`: audit the job store now, put right what is safe, and say what is left. Imports neither celery nor openai."""

from __future__ import annotations

import os
from typing import Any

import click

from askq.jobs.audit import Finding, Report
from producer.cli.shared import Session, json_option, on_terminal, pass_session, print_json

SOMETHING_REMAINS = 1


@click.command("sweep")
@click.argument("batch", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what is wrong; put nothing right.")
@json_option
@pass_session
def sweep_command(session: Session, *, batch: str | None, dry_run: bool, as_json: bool) -> int:
    """Audit the job store now (or BATCH alone) and put right what is safe.

    Workers do the same by themselves every minute, and `askq doctor` shows what their last audit found. Exit 0 when
    everything is in order or was put right, 1 when something remains that a person must look at. Piped, it is JSON.
    """
    from askq.jobs.auditor import Auditor

    with session.store() as store:
        chosen = None if batch is None else session.batch_id(store, batch)
        auditor = Auditor(
            store,
            by=f"askq sweep ({os.getpid()})",
            repair=not dry_run,
            batch=chosen,
            closed=True,
            allow_unsafe=session.settings.allow_unsafe_redis,
        )
        report = auditor.run()
    if as_json or not on_terminal():
        print_json(sweep_record(report))
    else:
        _print_table(report)
        session.say(_summary(report))
    return SOMETHING_REMAINS if report.attention else 0


def sweep_record(report: Report) -> dict[str, Any]:
    """A report as JSON; the keys are a promise."""
    from producer.answers.record import timestamp

    return {
        "audited_at": timestamp(report.finished_at),
        "dry_run": not report.repairs,
        "batches": report.batches,
        "jobs": report.rows,
        "unsettled": report.unsettled,
        "attention": len(report.attention),
        "findings": [finding.record() for finding in report.findings],
    }


def _print_table(report: Report) -> None:
    from producer.answers.plain import plain

    findings = sorted(report.findings, key=lambda found: (not found.attention, found.code, found.batch or ""))
    width = max((len(found.code) for found in findings), default=0)
    for found in findings:
        click.echo(
            f"{_verdict(report, found):<14}{found.code:<{width + 2}}{found.count:>7}  {found.batch or ''}".rstrip()
        )
        click.echo(f"    {found.kind.means}")
        for part in _particulars(found):
            click.echo(f"    {plain(part, one_line=True)}")
        if not found.repaired:
            click.echo(f"    → {found.kind.remedy}")


def _verdict(report: Report, found: Finding) -> str:
    if found.repaired:
        return "repaired"
    if not report.repairs and found.kind.repairs:
        return "would repair"
    return "LOOK" if found.attention else "note"


def _particulars(found: Finding) -> list[str]:
    from producer.progress import duration

    told = []
    if found.detail is not None:
        told.append(found.detail)
    if found.seconds is not None:
        told.append(f"up to {duration(found.seconds)}")
    if found.jobs:
        told.append(", ".join(found.jobs) + (" …" if found.count > len(found.jobs) else ""))
    return told


def _summary(report: Report) -> str:
    looked = f"{report.rows} jobs of {report.batches} {'batch' if report.batches == 1 else 'batches'}: "
    repaired = sum(found.count for found in report.findings if found.repaired)
    parts = [f"{repaired} repaired"] if repaired else []
    if report.attention:
        parts.append(f"{sum(found.count for found in report.attention)} to look at")
    if report.unsettled:
        parts.append(f"{report.unsettled} counters changed too fast to be judged: sweep again when there is less to do")
    return looked + ("; ".join(parts) or "everything is in order")
