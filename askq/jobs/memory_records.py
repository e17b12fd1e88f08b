"""What the store in memory holds of jobs, budgets and batches, and how it is told in the words of `model`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from askq.jobs import codec
from askq.jobs.model import TERMINAL, Answer, Budget, Claim, Job, NewBatch, Question, State, Usage
from askq.jobs.objects import ACCOUNT_FIELD, OF_RECORD, REMOTE_FIELDS, RemoteObject


@dataclass(slots=True)
class Record:
    """One job. `fields` are those that Redis has under the same names."""

    question: Question
    digest: str
    assistant: str
    assistant_digest: str
    protocol: str
    created: float
    due: float
    after: str | None = None
    state: State = State.QUEUED
    fence: int = 0
    claims: int | None = None
    """None while nobody has claimed it since the last move that gave it back."""
    done: str = ""
    completed: float | None = None
    answer: Answer | None = None
    fields: dict[str, str | int | float] = dataclasses.field(default_factory=dict)

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> float | None:
        value = self.fields.get(name)
        return None if value is None else float(value)

    def count(self, name: str) -> int:
        return int(self.fields.get(name, 0))


@dataclass(slots=True)
class Purse:
    """A budget in millionths of a dollar, as Redis keeps it."""

    limit: int
    spent: int = 0
    aside: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Job → the attempt and the amount put aside for it."""
    refused_at: float | None = None

    @property
    def reserved(self) -> int:
        return sum(amount for _, amount in self.aside.values())

    def shown(self, now: float) -> Budget:
        return Budget(
            limit_usd=self.limit / 1e6,
            spent_usd=self.spent / 1e6,
            reserved_usd=self.reserved / 1e6,
            refused_at=self.refused_at,
            waiting_s=0.0 if self.refused_at is None else max(0.0, now - self.refused_at),
        )


@dataclass(slots=True)
class Batch:
    """One batch, without its jobs."""

    new: NewBatch
    created: float
    total: int | None = None
    until: float | None = None
    """When it is to be forgotten."""
    earlier: list[Usage] = dataclasses.field(default_factory=list)
    """What jobs had used when they ended before somebody asked again, or that were forgotten."""
    forgotten: int = 0


def remote_of(record: Record) -> list[RemoteObject]:
    """What the fields of a record name at the service."""
    kinds = OF_RECORD.get(record.protocol, {})
    return [
        RemoteObject(kind=kinds[name], id=id_, account=record.text(ACCOUNT_FIELD))
        for name in sorted(REMOTE_FIELDS & kinds.keys())
        if (id_ := record.text(name))
    ]


def job_of(id_: str, record: Record) -> Job:
    """A record as who asks sees it."""
    answer = record.answer
    if answer is not None:
        # What the record says counts: the usage may have been known before the answer was.
        answer = dataclasses.replace(answer, usage=usage_of(record) if "total" in record.fields else None)
    return Job(
        id=id_,
        index=record.question.index,
        state=record.state,
        question=record.question,
        assistant=record.assistant,
        assistant_digest=record.assistant_digest,
        protocol=record.protocol,
        fence=record.fence,
        attempts=record.count("attempts"),
        runs=record.count("runs"),
        polls=record.count("polls"),
        remote=record.text("remote"),
        thread_id=record.text("thread"),
        run_id=record.text("run"),
        error_code=record.text("error_code"),
        error_message=record.text("error_message"),
        note=record.text("note"),
        cancel=record.text("cancel"),
        retries=record.count("retries"),
        after=record.after,
        next=record.text("next"),
        answer=answer,
        created_at=record.created,
        started_at=record.number("began") or record.number("started"),
        completed_at=record.completed,
        due_at=None if record.state in TERMINAL else record.due,
    )


def usage_of(record: Record) -> Usage:
    """What a record says was used."""
    return Usage(
        input_tokens=record.count("in"),
        cached_tokens=record.count("cached"),
        output_tokens=record.count("out"),
        total_tokens=record.count("total"),
        cost_usd=record.number("cost"),
    )


def claim_of(id_: str, record: Record, was_due: float, now: float, *, first: bool) -> Claim:
    """A record as who works on it sees it."""
    return Claim(
        id=id_,
        fence=record.fence,
        state=record.state,
        assistant_digest=record.assistant_digest,
        assistant=record.assistant,
        protocol=record.protocol,
        question=record.question if record.state in (State.QUEUED, State.STARTING, State.ACTION) else None,
        first=first,
        claims=record.claims or 0,
        attempts=record.count("attempts"),
        allowance=record.count("base"),
        resets=record.count("resets"),
        runs=record.count("runs"),
        polls=record.count("polls"),
        looks=record.count("looks"),
        errors=record.count("errors"),
        gone=record.count("gone"),
        voids=record.count("voids"),
        deaths=record.count("deaths"),
        thread_id=record.text("thread"),
        run_id=record.text("run"),
        witness=record.text("witness"),
        remote=record.text("remote"),
        cancel=record.text("cancel"),
        fixes=record.count("fixes"),
        wrong=record.text("wrong"),
        refers=record.text("refers"),
        spent=codec.load_usage(spent) if (spent := record.text("spent")) is not None else None,
        cancel_sent="cancel_sent" in record.fields,
        limited_at=record.number("limited"),
        created_at=record.created,
        intent_at=record.number("intent_at"),
        never_sent=record.state is State.STARTING and "unsent" in record.fields,
        started_at=record.number("started"),
        deadline=record.number("deadline"),
        estimated=record.number("est"),
        asked_of=record.text("asked_of"),
        seen=record.number("seen"),
        rounds=record.count("rounds"),
        closed=record.count("closed"),
        earlier=codec.load_usage(earlier) if (earlier := record.text("earlier")) is not None else None,
        acted_run=record.text("acted"),
        brought=record.text("brought"),
        began_at=record.number("began"),
        live="live" in record.fields,
        final=record.text("final"),
        usage=usage_of(record) if "total" in record.fields else None,
        error_code=record.text("error_code"),
        error_message=record.text("error_message"),
        was_due=was_due,
        now=now,
        after=record.after,
        next=record.text("next"),
        joined=record.text("joined"),
        previous=record.text("previous"),
        history=None if "history" not in record.fields else record.count("history"),
        held=codec.load_held(record.text("held")),
    )
