"""Writes the pages that a machine can write: `python -m docs.build`, or `--check` to only say what is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from askq.ends import ENDS
from askq.jobs.audit import KINDS
from askq.jobs.model import ASKED_AGAIN, LANE_OF, MOVES, PENDING, MoveRule, State
from askq.pauses import PAUSES
from askq.tools.outcomes import OUTCOMES

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by `make docs` from {source}; do not edit. -->\n\n"


def states() -> str:
    """The states of a job, the moves between them, and the diagram."""
    lines = [
        "# States of a job",
        "",
        _NOTE.format(source="askq/jobs/model.py") + "```mermaid",
        "stateDiagram-v2",
        "    [*] --> queued: add",
        "    state pending {",
    ]
    moves = [rule for rule in MOVES.values() if rule.target is not None]
    shared = [rule for rule in moves if rule.sources == PENDING]
    within = [rule for rule in moves if rule.target in PENDING]
    lines += _arrows(within, "        ")
    lines.append("    }")
    lines += _arrows([rule for rule in moves if rule not in shared and rule not in within], "    ")
    lines += [f"    pending --> {rule.target}: {rule.name}" for rule in shared]
    again = [state for state in State if state in ASKED_AGAIN]
    lines += [f"    {state} --> queued: retry" for state in again]
    lines += [f"    {state} --> [*]" for state in State if state.terminal]
    lines += ["```", "", "| move | from | to | lane afterwards |", "|---|---|---|---|"]
    for rule in MOVES.values():
        sources = "any pending state" if rule.sources == PENDING else ", ".join(s for s in State if s in rule.sources)
        target = "(stays)" if rule.target is None else rule.target
        lane = "(the same)" if rule.target is None else LANE_OF.get(rule.target, "none: the job has ended")
        lines.append(f"| `{rule.name}` | {sources} | {target} | {lane} |")
    lines.append(f"| `retry` | {', '.join(again)} | {State.QUEUED} | {LANE_OF[State.QUEUED]} |")
    lines += [
        "",
        "Two of these are a person's. `askq retry` queues a job once more that has ended without a complete answer:",
        "nobody holds such a job, so it needs no fence. What the earlier runs have cost stays counted.",
        "`askq cancel` ends a job at once that is queued and in nobody's hands. In any other pending state it only",
        "notes the wish: a run may exist, so whoever claims the job next finds it first where its id is not known,",
        "then tells the service, and ends the job when the service says how the run ended. A run that completes all",
        "the same is kept.",
    ]
    return "\n".join(lines) + "\n"


def _arrows(rules: Iterable[MoveRule], indent: str) -> list[str]:
    return [
        f"{indent}{source} --> {rule.target}: {rule.name}"
        for rule in rules
        for source in State
        if source in rule.sources
    ]


def _table(title: str, source: str, about: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A page of one table."""
    lines = [f"# {title}", "", _NOTE.format(source=source) + about, ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def ends() -> str:
    """How a job can end."""
    return _table(
        "How a job can end",
        "askq/ends.py",
        "Besides `completed`, a job ends with one of these codes in the `error` of its result. *Retryable* says\n"
        "whether asking the same question again may succeed without changing it.",
        ("code", "status", "retryable", "what to do"),
        ((f"`{end.code}`", end.state, "yes" if end.retryable else "no", end.remedy) for end in ENDS.values()),
    )


def findings() -> str:
    """What an audit can find."""
    return _table(
        "What an audit can find",
        "askq/jobs/audit.py",
        "`askq sweep` audits the job store at once; workers do it by themselves, a little at a time, and begin anew\n"
        "a minute after they have come to an end. `askq doctor` shows what the last of those audits found.\n"
        "*Invariant* is what the finding breaks: I0 a job is due if and only if it has not ended, I1 nothing is lost,\n"
        "I2 runs paid for are recorded attempts, I3 no run without an intent, I5 nothing is stuck, I6 counters are\n"
        "what a recount gives, I7 nothing is left behind.",
        ("code", "invariant", "what it means", "put right by the audit", "what to do"),
        (
            (
                f"`{kind.code}`",
                kind.invariant,
                kind.means,
                "yes" if kind.repairs else "no" if kind.attention else "no, and it need not be",
                kind.remedy,
            )
            for kind in KINDS.values()
        ),
    )


def pauses() -> str:
    """Why work can stand still."""
    return _table(
        "Why work can stand still",
        "askq/pauses.py",
        "While one of these holds, jobs keep their state and use up no attempt. *Stops* says what is not done then.\n"
        "One call in a while probes whether it is over, unless it is a batch's; `askq resume` ends it at once.\n"
        "`askq status` says which holds.",
        ("code", "stops", "what it means", "what to do"),
        (
            (f"`{pause.code}`", "everything" if pause.stops_polls else "new runs", pause.meaning, pause.remedy)
            for pause in PAUSES.values()
        ),
    )


def outcomes() -> str:
    """What can come of a function call."""
    return _table(
        "What can come of a function call",
        "askq/tools/outcomes.py",
        'A call without one of these has brought a result. The model gets `{"error": {"code": …, "message": …}}` as\n'
        "its output and answers it; the job goes on. See [functions](../do/functions.md).",
        ("code", "what happened"),
        ((f"`{code}`", meaning) for code, meaning in OUTCOMES.items()),
    )


def commands() -> str:
    """The help of every command."""
    from producer.cli import cli

    lines = ["# Commands", "", _NOTE.format(source="askq's own --help")]

    def add(command: click.Command, path: list[str], parent: click.Context | None) -> None:
        # As a call would make it, so that the settings of the group hold.
        context = command.make_context(path[-1], [], parent=parent, resilient_parsing=True, max_content_width=100)
        with context:
            lines.extend([f"## `{' '.join(path)}`", "", "```text", command.get_help(context).rstrip(), "```", ""])
            if isinstance(command, click.Group):
                for name in command.list_commands(context):
                    child = command.get_command(context, name)
                    if child is not None and not child.hidden:
                        add(child, [*path, name], context)

    add(cli, ["askq"], None)
    return "\n".join(lines)


PAGES = {
    "lookup/states.md": states,
    "lookup/ends.md": ends,
    "lookup/findings.md": findings,
    "lookup/pauses.md": pauses,
    "lookup/outcomes.md": outcomes,
    "lookup/commands.md": commands,
}


def main() -> int:
    """Write the pages, or say which are stale."""
    stale = []
    for name, build in PAGES.items():
        path, text = FOLDER / name, build()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    for name in stale:
        print(f"{'stale' if '--check' in sys.argv else 'wrote'}: docs/{name}")  # noqa: T201
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
