"""The words of the job store: states, the table of moves, and the records that go in and out.

The table `MOVES` is the only truth about which state may follow which: the Lua scripts receive it as arguments,
the documents are generated from it and the tests try every pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Named in annotations alone: who only looks at a batch need not import them.
    from askq.files.model import Attachment
    from askq.jobs.calls import WantedCall
    from askq.jobs.limits import Wait


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Submitted; no run has been asked for (its thread may already be prepared)."""
    STARTING = "starting"
    """The intent to create a run is on record; the paid call may or may not have happened."""
    RUNNING = "running"
    """A run exists and its id is on record."""
    ACTION = "action"
    """The run waits for the outputs of function calls."""
    COLLECTING = "collecting"
    """The run completed; its answer is still to be fetched."""
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"

    @property
    def terminal(self) -> bool:
        """True when nothing more will happen to the job by itself."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.INCOMPLETE, State.FAILED, State.CANCELLED, State.EXPIRED, State.UNCERTAIN})
PENDING = frozenset(State) - TERMINAL


class Lane(StrEnum):
    """The two halves of a shard's schedule, one for each kind of chain.

    One sorted set would put a burst of submissions in front of every poll: both lanes together are the `due` set
    of the design, and a job that is not terminal is in exactly one of them.
    """

    START = "start"
    POLL = "poll"


LANE_OF: Mapping[State, Lane] = MappingProxyType(
    {
        State.QUEUED: Lane.START,
        # Whoever creates a run holds the job. When the lease ends all the same, the run is looked for at once, and not
        # when every question that was queued before has been asked; nor do pauses that only stop creating stop that.
        State.STARTING: Lane.POLL,
        State.RUNNING: Lane.POLL,
        State.ACTION: Lane.POLL,
        State.COLLECTING: Lane.POLL,
    }
)


@dataclass(frozen=True, slots=True)
class MoveRule:
    """A named transition: from which states, to which (None = the job stays where it is)."""

    name: str
    sources: frozenset[State]
    target: State | None
    keeps_claim: bool = False
    """Whether the execution goes on with the job under the same claim: its lease may still be renewed. Every other
    move gives the job back, due when the move says."""
    yields_to_witness: bool = False
    """Whether the move is refused once somebody has left the id of a run as a witness: it says that there is no run,
    or that nobody can tell, and the witness knows better."""


def _rule(
    name: str,
    sources: frozenset[State] | set[State],
    target: State | None,
    *,
    keeps_claim: bool = False,
    yields_to_witness: bool = False,
) -> MoveRule:
    return MoveRule(name, frozenset(sources), target, keeps_claim, yields_to_witness)


MOVES: Mapping[str, MoveRule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            # Free preparation is done and its id saved.
            _rule("prepare", {State.QUEUED}, None),
            # The durable record that precedes every paid call.
            # The outputs of function calls may go into a paid call of their own.
            _rule("intend", {State.QUEUED, State.ACTION}, State.STARTING, keeps_claim=True),
            # The call of an intent leaves now: until then it is known that there was none.
            _rule("send", {State.STARTING}, None, keeps_claim=True),
            # The paid call was answered with the id of a run.
            _rule("start", {State.STARTING}, State.RUNNING),
            # The reply was lost, but the run was found.
            _rule("adopt", {State.STARTING}, State.RUNNING),
            # The answer does not fit the assistant's schema: the job asks once more, in the same thread.
            _rule("correct", {State.STARTING, State.RUNNING, State.COLLECTING}, State.QUEUED),
            # It is proved that the intended run does not exist: the attempt did not happen.
            _rule("void", {State.STARTING}, State.QUEUED, yields_to_witness=True),
            # The same of a run that was to carry outputs of function calls: they are still to be submitted.
            _rule("withdraw", {State.STARTING}, State.ACTION, yields_to_witness=True),
            # Not the moment: come back later, nothing else changes.
            _rule("defer", PENDING, None),
            # The run was seen, still pending.
            _rule("poll", {State.RUNNING, State.ACTION}, State.RUNNING),
            # The run asks for functions, and which is on record: they are due.
            _rule("act", {State.STARTING, State.RUNNING}, State.ACTION),
            # Functions are still running; the last output makes the job due at once.
            _rule("wait", {State.ACTION}, None),
            _rule("collect", {State.RUNNING}, State.COLLECTING),
            _rule("complete", {State.STARTING, State.RUNNING, State.COLLECTING}, State.COMPLETED),
            _rule("cut", {State.STARTING, State.RUNNING, State.COLLECTING}, State.INCOMPLETE),
            _rule("fail", PENDING, State.FAILED),
            _rule("cancel", PENDING, State.CANCELLED),
            _rule("expire", PENDING, State.EXPIRED),
            _rule("doubt", {State.STARTING}, State.UNCERTAIN, yields_to_witness=True),
        )
    }
)

ASKED_AGAIN = TERMINAL - {State.COMPLETED}
"""The ends that `retry` may undo: the job is queued once more, with what it has cost kept on record. It is a person's
move and needs no fence: nobody holds a job that has ended."""

DEAD_LETTER = "poison"
"""The error code of a job that was given up because workers died on it."""

WAIT_FOR_TURN_S = 600.0
"""How long a question of a conversation waits at most before it looks by itself whether its turn has come. The end of
the question before it makes it due at once; this is for an end of which nothing was heard."""

CANCELLED_IN_TIME = "cancelled before a run was made"
"""What a job says that was cancelled while it was queued."""

FINISHING: Mapping[State, str] = MappingProxyType(
    {rule.target: rule.name for rule in MOVES.values() if rule.target in TERMINAL}
)
"""The name of the move that ends a job in each terminal state."""


class Outcome(StrEnum):
    """What a transition found. All four are ordinary."""

    MOVED = "moved"
    ALREADY = "already"
    """The same move under the same fence has been made before: a repeated commit."""
    NOT_YOURS = "not yours"
    """The fence is stale, the job is in a state this move may not leave, or a witness contradicts the move."""
    MISSING = "missing"
    """There is no such job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of a list, as a reader produces it and the store keeps it."""

    row_id: str
    index: int
    """Position in the list, from 0: results come in this order."""
    text: str
    assistant: str | None = None
    """Name of an assistant for this row alone."""
    model: str | None = None
    instructions: str | None = None
    stream: bool = False
    """Whether somebody watches: the run is created with a stream, and told in a live log."""
    files: tuple[Attachment, ...] = ()
    """Files and images that go with it."""
    thread: str | None = None
    """The conversation it belongs to: questions of one value are asked one after the other and remember each other."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """The other columns, untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What `Store.add` needs to know of one job."""

    question: Question
    assistant: str
    """Name of the assistant, for people."""
    assistant_digest: str
    """Content hash under which the worker finds the assistant's definition."""
    protocol: str
    after: str | None = None
    """Row id of the question before it in its conversation; None for the first one, and outside of conversations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What opens a batch."""

    name: str | None
    assistant: str
    protocol: str
    idempotency_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    table: str | None = None
    """The list's columns and what they mean, as its reader wrote them down (JSON): CSV comes out as it went in."""
    max_cost_usd: float | None = None
    """What the batch may cost at most, in US dollars; None = no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What came of adding rows: new ones, ones already there, and rows there with another question."""

    added: int = 0
    already: int = 0
    conflicts: tuple[str, ...] = ()


TOKEN_FIELDS = ("in", "cached", "out", "total")
"""The fields of a record that count tokens."""
MOST_TOKENS = 2**53
"""A job may have used fewer than this: counters are 64 bits wide, and a thousand such jobs still fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of all runs of a job, and their price in US dollars where it is known."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a run brought back."""

    text: str | None
    citations: tuple[Mapping[str, Any], ...] = ()
    code: tuple[Mapping[str, Any], ...] = ()
    """Code-interpreter calls: `{"input": …, "output": …}` in order."""
    files: tuple[Mapping[str, Any], ...] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Calls of registered functions: `{"name": …, "arguments": …, "output": …, "seconds": …}` in order."""
    model: str | None = None
    """The model that answered, as the service reports it."""
    refused: bool = False
    """Whether the model says that it will not answer; the text is how it says so."""
    usage: Usage | None = None
    since: int | None = None
    """When the service began the run, in Unix seconds by its own clock; not stored. What is older in its container, it
    has not made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A whole job as a reader sees it. Times are Unix seconds by the clock of Redis."""

    id: str
    index: int
    state: State
    question: Question
    assistant: str
    assistant_digest: str
    protocol: str
    fence: int = 0
    """Proves who may change it; grows with every claim, and with the clock."""
    attempts: int = 0
    """Intents that led, or may have led, to a paid run."""
    runs: int = 0
    """Runs known to exist."""
    polls: int = 0
    remote: str | None = None
    """The run's last status as the service said it."""
    thread_id: str | None = None
    run_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    note: str | None = None
    """Why a pending job waits, for people."""
    cancel: str | None = None
    """Why its run is to be cancelled: `asked` by a person, or `deadline`."""
    retries: int = 0
    """How often a person asked again after it had ended."""
    after: str | None = None
    """Row id of the question before it in its conversation."""
    next: str | None = None
    """Row id of the question that waits for this one to end."""
    answer: Answer | None = None
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    due_at: float | None = None
    """When the job is next to be looked at; None for terminal jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job in the hands of one execution, until its lease ends. `fence` proves the right to commit."""

    id: str
    fence: int
    state: State
    assistant_digest: str
    assistant: str
    protocol: str
    question: Question | None
    """Present until a run is known; polling needs no text."""
    first: bool
    """Whether nobody has claimed the job before."""
    claims: int
    """Claims since the last progress, this one included."""
    attempts: int
    allowance: int
    """Attempts when a person last asked again: those before it bound nothing."""
    resets: int
    """How often its thread vanished and had to be made anew."""
    runs: int
    polls: int
    looks: int
    """How often the run of the present intent was looked for."""
    errors: int
    """Consecutive failed calls since the last progress."""
    gone: int = 0
    """How often among them its thread or run was not found: whatever else failed says nothing of that."""
    voids: int = 0
    """Creates in a row that failed and, as was found afterwards, had made no run."""
    deaths: int = 0
    """Intents in a row of which the same is known, because their workers died before the call had an effect."""
    thread_id: str | None
    run_id: str | None
    witness: str | None
    """Run id of the present attempt left by an execution that had lost its lease."""
    remote: str | None
    cancel: str | None
    """Why the run is to be cancelled: `asked` by a person, or `deadline`."""
    fixes: int = 0
    """How often its answer was not what the assistant's schema asks for, and was asked for again."""
    wrong: str | None = None
    """What was wrong with the last one: the next run is asked to mend it."""
    refers: str | None = None
    """The run that brought it, until the request to mend it is in the thread; empty where it is not known."""
    spent: Usage | None = None
    """What the attempts before that have used."""
    cancel_sent: bool
    """Whether the service was told."""
    limited_at: float | None
    """Since when nothing but "not now" was heard."""
    created_at: float
    intent_at: float | None
    never_sent: bool = False
    """Whether the call of its intent has certainly not left: its `send` would be on record."""
    started_at: float | None
    deadline: float | None
    asked_of: str | None = None
    """The model that was asked, where it is not the assistant's."""
    estimated: float | None = None
    """Tokens put aside for the run."""
    seen: float | None = None
    """How old the run was when it was last seen pending, in seconds."""
    rounds: int = 0
    """How often the job has asked for functions."""
    closed: int = 0
    """Those of them that led to an answer which was asked for again: their calls stay on record, and their outputs are
    never submitted any more."""
    earlier: Usage | None = None
    """What the runs before the present one have used: outputs of functions may go into a run of their own."""
    acted_run: str | None = None
    """The run that asked for the functions of the last round, where its id is known."""
    brought: str | None = None
    """What the runs before the present one have brought besides text (`codec.dump_brought`)."""
    began_at: float | None = None
    """When the first of several runs started."""
    live: bool = False
    """Whether somebody watches the run."""
    final: str | None = None
    """What its stream has said of the end of the run (`Store.hurry`)."""
    usage: Usage | None
    """What the run has used, once it is known (while its answer is still to be fetched)."""
    error_code: str | None
    """Why the run will end otherwise than completed, once it is known."""
    error_message: str | None
    was_due: float
    now: float
    """The clock of Redis at the claim."""
    after: str | None = None
    """Row id of the question before it in its conversation."""
    next: str | None = None
    """Row id of the question that waits for this one to end."""
    joined: str | None = None
    """What was last in the remote conversation when the question joined it; None where it has one of its own."""
    previous: str | None = None
    """The run to go on from, where the service knows no conversations."""
    history: int | None = None
    """Tokens of the conversation so far; None where nobody knows."""
    held: tuple[Attachment, ...] = ()
    """Files of the questions before it in its conversation, where the service does not remember them."""

    @property
    def open_rounds(self) -> int:
        """Rounds of the answer that is being worked on: a `starting` job that has some submits the outputs of the
        last one, any other asks a question."""
        return self.rounds - self.closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a question must know of one that comes before it in its conversation."""

    id: str
    state: State
    after: str | None
    thread_id: str | None
    run_id: str | None
    joined: str | None
    previous: str | None
    tokens: int | None
    """What its run has read and written: the whole conversation up to there. None where the service did not say."""
    error_code: str | None
    error_message: str | None
    held: tuple[Attachment, ...] = ()
    """Files of its conversation up to and including its own, where the service does not remember them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One transition to commit. `fields` are stored with it; None deletes a field.

    Raises ValueError for a number no store can keep: a script that meets one half-way cannot take back what it has
    written, so it is refused here, where one job alone is concerned.
    """

    job: str
    fence: int
    name: str
    delay: float = 0.0
    """Seconds until the job is due again; without meaning for terminal moves. An execution that goes on with the
    job (intend, then create) sets it to one lease, and keeps its fence."""
    fields: Mapping[str, str | int | float | None] = field(default_factory=dict)
    answer: Answer | None = None
    calls: tuple[WantedCall, ...] = ()
    """What an `act` puts on record; calls that are there already stay as they are."""
    wakes: str | None = None
    """Job that waits for this one: it is made due just before the move is made. So a process that dies in between
    has done no harm: the other looks too early, and looks again."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.delay):
            raise ValueError(f"{self.name} of {self.job}: a delay of {self.delay} seconds never ends")
        used = self.answer.usage if self.answer is not None and self.answer.usage is not None else Usage()
        counts: list[object] = [used.input_tokens, used.cached_tokens, used.output_tokens, used.total_tokens]
        counts += [value for name in TOKEN_FIELDS if (value := self.fields.get(name)) is not None]
        if wrong := [count for count in counts if not isinstance(count, int) or not 0 <= count < MOST_TOKENS]:
            raise ValueError(f"{self.name} of {self.job}: {wrong[0]!r} is no number of tokens")
        numbers = [used.cost_usd, *self.fields.values()]
        if odd := [number for number in numbers if isinstance(number, float) and not math.isfinite(number)]:
            raise ValueError(f"{self.name} of {self.job}: {odd[0]!r} is not a finite number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Something that must not be called, or paid from: why, and when to try it next (Unix seconds)."""

    account: str
    """Alias of the account, or the id of the batch that is concerned alone."""
    code: str
    """A key of `askq.pauses.PAUSES`."""
    message: str
    since: float
    probe_at: float
    protocol: str | None = None
    """The one protocol concerned; None = all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A batch's bound in US dollars: what its ended jobs have cost, and what the others may cost at worst."""

    limit_usd: float
    spent_usd: float
    reserved_usd: float
    refused_at: float | None = None
    """Since when jobs wait because what is left would not cover them; anew whenever something is granted or freed."""
    waiting_s: float = 0.0
    """How long that was when this was read, in seconds."""


_ALL_HAVE_ASKED_S = 7.0
"""After this long everybody who waits for a budget has asked for it twice (`worker.schedule.BUDGET_S`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A batch and its counters. Counters are kept by the transitions themselves, never recounted to read."""

    id: str
    name: str | None
    assistant: str
    protocol: str
    idempotency_key: str | None
    metadata: Mapping[str, str]
    table: str | None
    created_at: float
    sealed: bool
    """False while its rows are still being submitted (or the submitter died)."""
    total: int
    counts: Mapping[State, int]
    usage: Usage
    finished_at: float | None
    """When the last job ended; None while one is pending."""
    paused: tuple[Pause, ...] = ()
    """Why jobs of this batch do not move at present; empty when nothing is wrong."""
    budget: Budget | None = None
    """What the batch may cost and has cost, where it has a bound."""
    waits: tuple[Wait, ...] = ()
    """The limits its questions wait for at present."""
    stale: int = 0
    """Commits refused because their fence was stale: each a worker that came back too late."""
    forgetting: bool = False
    """Whether it is being forgotten: nothing may be added or asked again."""

    @property
    def pending(self) -> int:
        """Jobs that are not terminal, rows not yet submitted included."""
        return self.total - sum(self.counts.get(state, 0) for state in TERMINAL)

    @property
    def done(self) -> bool:
        """True when every row was submitted and every job ended."""
        return self.sealed and self.pending == 0

    @property
    def at_its_budget(self) -> bool:
        """True when jobs wait for the budget and none is under way that could free some: only a person can go on."""
        under_way = PENDING - {State.QUEUED}
        if self.budget is None or self.budget.refused_at is None or self.done:
            return False
        # What was freed a moment ago, or is put aside for a question that was sent back, may still go on by itself.
        settled = self.budget.reserved_usd == 0 and self.budget.waiting_s >= _ALL_HAVE_ASKED_S
        return settled and not any(self.counts.get(state, 0) for state in under_way)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker that is alive."""

    name: str
    processes: int
    """Pool processes that run chains; 0 for a worker that only runs functions."""
    pid: int
    host: str
    started_at: float
    tools: int = 0
    """Pool processes that run functions."""
