"""What an audit of the job store can find, what each finding means, and how what was found becomes a report.

Pure: the store tells facts (`askq.jobs.books`), and here they are judged and added up. `KINDS` is the one table that
the command, the documents and the tests read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

LATE_S = 60.0
"""How late a job may be looked at before it counts as stuck (I5)."""
AHEAD_S = 3600.0
"""How far ahead a job may be due. The rarest poll comes after five minutes, and no service asks to wait an hour."""
UNDELETED_S = 600.0
"""How late a deletion at the service may be (I9)."""
STARTING_GRACE_S = 60.0
"""How long after the assistant's timeout the search for a lost run may take to come to its end."""
SAMPLE = 5
"""Jobs named per finding; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing an audit can find."""

    code: str
    invariant: str
    """The invariant of the design that it breaks."""
    repairs: bool
    """Whether an audit puts it right by itself."""
    attention: bool
    """Whether a person must look at it while it remains."""
    means: str
    remedy: str


_KINDS = (
    Kind(
        "unscheduled",
        "I0",
        True,
        True,
        "A job that has not ended was due nowhere: no worker would ever have looked at it.",
        "It is made due at once.",
    ),
    Kind(
        "ended_but_due",
        "I0",
        True,
        True,
        "A job that has ended was still due.",
        "It is taken out of the schedule.",
    ),
    Kind(
        "wrong_lane",
        "I0",
        True,
        True,
        "A job was due in the lane of another state, or in both lanes.",
        "It stays due in the lane of its state alone.",
    ),
    Kind(
        "due_without_record",
        "I0",
        True,
        True,
        "Something was due that has no record.",
        "It is taken out of the schedule.",
    ),
    Kind(
        "unlisted",
        "I1",
        True,
        True,
        "A job was missing from its batch's list of rows: its answer would not have been among the results.",
        "It is put back on the list.",
    ),
    Kind(
        "pending_expires",
        "I1",
        True,
        True,
        "The record of a job that has not ended was set to expire.",
        "It is kept.",
    ),
    Kind(
        "record_lost",
        "I1",
        False,
        True,
        "Rows have lost their records before they ended, as can happen when Redis is rolled back or keys are evicted.",
        "Submit these questions again as a list of their own; whether their runs were paid for is not known any more.",
    ),
    Kind(
        "rows_lost",
        "I1",
        False,
        True,
        "The batch was sealed with more rows than it has now.",
        "Submit the same list again under the same idempotency key: what is missing is added, the rest stays.",
    ),
    Kind(
        "question_lost",
        "I1",
        False,
        True,
        "The record of a job is there, and the text of its question is not.",
        "Submit these questions again as a list of their own.",
    ),
    Kind(
        "batch_lost",
        "I1",
        False,
        True,
        "Jobs are due whose batch has no record; they are worked on, and no command shows them.",
        "Submit the list again under the same idempotency key, or read single answers with `askq show`.",
    ),
    Kind(
        "paid_twice",
        "I2",
        False,
        True,
        "A job has more runs than attempts: a run was paid for that was not needed.",
        "Compare `askq show` with the service's own list of runs, and please report it with the job's record.",
    ),
    Kind(
        "unseen_run",
        "I2",
        False,
        False,
        "An attempt of an ended job brought no run that is known: it may have been paid for, and nobody read it.",
        "Nothing, if the job's own end says so (`uncertain_create`); else see the service's list of runs.",
    ),
    Kind(
        "run_without_intent",
        "I3",
        False,
        True,
        "A job has a run, and no attempt was recorded before it.",
        "Please report it with the job's record; the answer itself is not in doubt.",
    ),
    Kind(
        "late",
        "I5",
        False,
        True,
        "Jobs have been due for more than a minute, and the workers that are alive do not get to them.",
        "See the workers' logs; restart them if they hang, or start more.",
    ),
    Kind(
        "no_worker",
        "I5",
        False,
        True,
        "Jobs have been due for more than a minute, and no worker is alive.",
        "Start one: `askq up` or `askq worker`.",
    ),
    Kind(
        "far_ahead",
        "I5",
        False,
        True,
        "Jobs are due more than an hour ahead: the clock of the Redis server was set back, or a service asked to wait.",
        "Look at the job's note with `askq show`, and at the clock of the Redis server.",
    ),
    Kind(
        "starting_long",
        "I5",
        False,
        True,
        "A job's run has been looked for longer than its assistant's timeout allows.",
        "See the job's note with `askq show`, and the workers' logs.",
    ),
    Kind(
        "poison",
        "I5",
        False,
        True,
        "Workers died repeatedly on a job, so it was given up (the dead letters).",
        "Look at its question with `askq show`, then ask again with `askq retry` (`askq list --dead` names them all).",
    ),
    Kind(
        "misfiled",
        "I6",
        True,
        True,
        "The list of dead letters and the jobs' records disagreed.",
        "The list says what the records say.",
    ),
    Kind(
        "miscounted",
        "I6",
        True,
        True,
        "A counter of a batch differed from the recount of its jobs.",
        "It is set to what was counted.",
    ),
    Kind(
        "uncountable",
        "I6",
        False,
        True,
        "More jobs were counted as ended than the batch has rows, and those that expired cannot be counted again.",
        "The results themselves are not concerned; submit the list anew if the totals matter.",
    ),
    Kind(
        "endless_lock",
        "I7",
        True,
        True,
        "A lease or another key that must end by itself soon would have stayed for ever, or far too long.",
        "It is removed.",
    ),
    Kind(
        "leftover",
        "I7",
        True,
        True,
        "A register held a worker or a chain whose time cannot be right.",
        "It is taken off the register.",
    ),
    Kind(
        "reserved_left",
        "I7",
        True,
        True,
        "A part of a batch's budget was still put aside although all its jobs had ended.",
        "It is settled by what the jobs have cost.",
    ),
    Kind(
        "undeleted",
        "I9",
        False,
        True,
        "What is no longer to be kept at the service has been due for deletion for more than ten minutes.",
        "See that a worker is running; its log says why the service refuses. `askq cleanup --dry-run` lists refusals.",
    ),
    Kind(
        "never_expires",
        "I7",
        True,
        True,
        "A job had ended, and its record would have stayed for ever.",
        "It expires after the time results are kept.",
    ),
    Kind(
        "evicted",
        "I1",
        False,
        True,
        "Redis has thrown keys away since it was started, because its memory was full.",
        "Set `maxmemory-policy noeviction` and raise `maxmemory`, then submit the lists concerned again.",
    ),
    Kind(
        "unsafe_server",
        "I1",
        False,
        True,
        "This Redis would lose jobs.",
        "Set `appendonly yes` and `maxmemory-policy noeviction`.",
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.code: kind for kind in _KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing the store was found to be wrong in. `code` is one of `KINDS`."""

    code: str
    batch: str | None = None
    job: str | None = None
    count: int = 1
    detail: str | None = None
    seconds: float | None = None
    """How late, how far ahead or how long, where that is the matter."""


@dataclass(slots=True, kw_only=True)
class Finding:
    """Facts of one kind about one batch (or about none), added up."""

    code: str
    batch: str | None
    repaired: bool
    count: int = 0
    jobs: list[str] = field(default_factory=list)
    """The first few."""
    detail: str | None = None
    seconds: float | None = None
    """The most of all."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def attention(self) -> bool:
        """Whether a person must look at it."""
        return self.kind.attention and not self.repaired

    def record(self) -> dict[str, Any]:
        """As JSON for people and programs; the keys are a promise."""
        kind = self.kind
        return {
            "code": self.code,
            "invariant": kind.invariant,
            "batch": self.batch,
            "jobs": self.jobs,
            "count": self.count,
            "repaired": self.repaired,
            "attention": self.attention,
            "detail": self.detail,
            "seconds": self.seconds,
            "means": kind.means,
            "remedy": kind.remedy,
        }


@dataclass(slots=True, kw_only=True)
class Report:
    """What one audit found, so far or in the end. Times are Unix seconds by the clock of Redis."""

    by: str
    started_at: float
    repairs: bool
    """Whether it put right what it could; False for a dry run."""
    finished_at: float | None = None
    batches: int = 0
    rows: int = 0
    unsettled: int = 0
    """Shards of batches whose counters changed all the time while their rows were counted: they are not judged."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, facts: Iterable[Fact]) -> None:
        """Add up facts. A repair that was possible was made, unless this is a dry run."""
        for fact in facts:
            finding = self._finding(fact)
            finding.count += fact.count
            if fact.job is not None and len(finding.jobs) < SAMPLE:
                finding.jobs.append(fact.job)
            finding.detail = finding.detail or fact.detail
            if fact.seconds is not None:
                finding.seconds = max(finding.seconds or 0.0, fact.seconds)

    def _finding(self, fact: Fact) -> Finding:
        for known in self.findings:
            if (known.code, known.batch) == (fact.code, fact.batch):
                return known
        made = Finding(code=fact.code, batch=fact.batch, repaired=self.repairs and KINDS[fact.code].repairs)
        self.findings.append(made)
        return made

    def about(self, batch: str) -> list[Finding]:
        """What was found about one batch."""
        return [finding for finding in self.findings if finding.batch == batch]

    @property
    def attention(self) -> list[Finding]:
        """What a person must look at."""
        return [finding for finding in self.findings if finding.attention]

    def to_json(self) -> str:
        """The whole report, to go on with it later."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["findings"] = [{name: getattr(finding, name) for name in Finding.__slots__} for finding in self.findings]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report `to_json` wrote. Raises KeyError, TypeError or ValueError for what another version wrote."""
        values = json.loads(text)
        values["findings"] = [Finding(**finding) for finding in values["findings"] if KINDS[finding["code"]]]
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAudit:
    """What is kept of the last background audit: when, by whom, and how much of each kind."""

    by: str
    started_at: float
    finished_at: float
    repaired: Mapping[str, int]
    remaining: Mapping[str, int]
    """What a person must look at."""
    noted: Mapping[str, int]

    @classmethod
    def of(cls, report: Report) -> Self:
        """The short of a report that is finished."""
        piles: dict[str, dict[str, int]] = {"repaired": {}, "remaining": {}, "noted": {}}
        for finding in report.findings:
            name = "repaired" if finding.repaired else "remaining" if finding.attention else "noted"
            piles[name][finding.code] = piles[name].get(finding.code, 0) + finding.count
        assert report.finished_at is not None, "only what is finished is kept"
        return cls(by=report.by, started_at=report.started_at, finished_at=report.finished_at, **piles)

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """What `to_json` wrote; None when nothing is kept, or another version of askq wrote it."""
        try:
            return None if text is None else cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Starting:
    """A job whose run has been looked for since a while."""

    job: str
    seconds: float
    assistant_digest: str


def starting_too_long(job: Starting, timeout_s: float, batch: str) -> list[Fact]:
    """Whether looking for a run takes longer than the assistant's timeout lets it."""
    if job.seconds <= timeout_s + STARTING_GRACE_S:
        return []
    return [Fact(code="starting_long", batch=batch, job=job.job, seconds=job.seconds)]


def late(facts: Iterable[Fact], *, workers: int) -> list[Fact]:
    """Late jobs, told by whether anybody is there to look at them."""
    return [dataclasses.replace(fact, code="late" if workers else "no_worker") for fact in facts]
