"""The one interface both protocols have, and what every call through it can come to.

Foreign exceptions end at this boundary: an adapter raises `CallError`s only. Which of them it is follows from three
questions: is it the request's own fault, will waiting help, and may a run exist all the same?

CallError
├── Refused      the request's own fault; no run exists; waiting does not help
├── Limited      nobody's fault; no run exists; waiting helps
├── Blocked      the account's or the endpoint's fault; no run exists; nothing on this account will work
├── Gone         the thread or run of this handle does not exist at the service
├── Busy         the thread is occupied by a run (perhaps ours); no new run was created
└── Ambiguous    no usable reply: on a paid call a run may exist, on a free one nothing is harmed
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol as TypingProtocol

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from askq.jobs.objects import Kind
from worker.protocols.hints import NO_LIMITS, Limits


class CallError(Exception):
    """A remote call that brought no result. `code` names the cause, `message` is for people."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        run_id: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds the service asked to wait."""
        self.run_id = run_id
        """The run the service named in its refusal, if it did."""
        self.limits = limits
        """What the refusal said of the account's limits; None unless it was for them (429)."""


class Refused(CallError):
    """The request is at fault. `code` is a key of `askq.ends.ENDS`."""


class Limited(CallError):
    """Not now: a rate limit, or no connection could be made. Nothing was begun and nothing is charged."""


class Blocked(CallError):
    """The account (`rejected_key`, `quota_exhausted`, `forbidden_account`), the endpoint (`endpoint_gone`) or the base
    URL (`bad_address`)."""


class Gone(CallError):
    """404 on a thread or run that was created before."""


class Busy(CallError):
    """The service refuses because something is active in this thread."""


class Ambiguous(CallError):
    """Timeout, reset, 5xx, 409 without a reason, or a reply that cannot be understood."""


class RunState(StrEnum):
    """What a run's status means for the chain; `raw` beside it keeps the service's word."""

    PENDING = "pending"
    """queued, in_progress, cancelling, and anything unknown."""
    ACTION = "action"
    """requires_action, or a completed response that holds unanswered function calls."""
    DONE = "done"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function the model asks for; `arguments` is the model's JSON text, unchecked."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one poll (or the reply to a create) said."""

    state: RunState
    raw: str
    run_id: str
    poll_after: float | None = None
    """Seconds the server asks to wait before the next poll."""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    error_code: str | None = None
    """A key of `askq.ends.ENDS` for states that are not DONE."""
    error_message: str | None = None
    answer: Answer | None = None
    """Present when the reply carried the answer (or its partial text) already."""
    limits: Limits = NO_LIMITS
    """What the reply said of the account's limits."""


class Search(StrEnum):
    """What looking for the run of an intent found."""

    FOUND = "found"
    ANSWERED = "answered"
    """The answer is there, though not the run's id."""
    NOT_STARTED = "not started"
    """The service can tell, and says that no such run exists at this moment."""
    UNKNOWN = "unknown"
    """Nothing can be told (yet): running, never started and failed look the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a search. `run_ids` is oldest first: more than one means a run was paid for twice."""

    search: Search
    run_ids: tuple[str, ...] = ()
    answer: Answer | None = None
    error_code: str | None = None
    """Why the answer that was found is only a part: a key of `askq.ends.ENDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Everything a paid call needs."""

    job_id: str
    text: str
    assistant: Assistant
    attempt: int = 1
    """Number of the intent; goes into the run's metadata beside the job id."""
    model: str | None = None
    """Overrides the assistant's, for one row."""
    instructions: str | None = None
    """Replaces the assistant's, for one row."""
    resets: int = 0
    """How often the job's thread vanished before."""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def thread_metadata(self) -> dict[str, str]:
        """What the thread or conversation carries: whose it is."""
        return {**self.metadata, "askq_job": self.job_id}

    @property
    def run_metadata(self) -> dict[str, str]:
        """What the run carries: whose it is, and which intent made it."""
        return {**self.thread_metadata, "askq_attempt": str(self.attempt)}

    @property
    def thread_key(self) -> str:
        """The key of the free call that makes the thread: where keys are honoured, a kill leaves no second one."""
        return hashlib.sha256(f"{self.job_id}|thread|{self.attempt}|{self.resets}".encode()).hexdigest()

    @property
    def idempotency_key(self) -> str:
        """The same for every repetition of this intent. It is always sent, because some servers honour it; it is
        relied on only where a probe has shown that they do (`Protocol.repeats_safely`). OpenAI does not say so."""
        return hashlib.sha256(f"{self.job_id}|run|{self.attempt}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An object found in a list of the service, with the marks of an askq."""

    kind: Kind
    id: str
    home: str | None
    """Which askq made it (`Store.home`); None for one that left no mark of its own."""
    owner: str | None
    """Under which owner it was put on record there (`askq.jobs.objects`)."""
    created_at: float


class Protocol(TypingProtocol):
    """One way of speaking runs. Every method makes at most one paid call and never retries by itself."""

    name: str
    lists_runs: bool
    """Whether `find_started` can prove that a run does not exist."""

    async def ensure_assistant(self, assistant: Assistant) -> str | None:
        """Create the remote assistant object; its id, or None where the protocol has none. Free."""

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        """Create the thread (with the message) or the conversation; its id. Free."""

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        """The paid call: create the run. Raises Busy with the active run's id where the service names it."""

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        """Look for the run of an intent whose reply was lost."""

    async def repeats_safely(self) -> bool:
        """Whether this server gives back the first run when a create is repeated under its idempotency key. Found
        out once, by creating a free object twice."""

    async def poll(self, thread_id: str, run_id: str) -> Status:
        """Exactly one GET of the run."""

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        """Fetch text, citations and code of a run that is done or incomplete."""

    async def cancel(self, thread_id: str, run_id: str) -> None:
        """Ask the service to cancel; best effort, the next poll decides. A refusal (the run has ended, is gone, cannot
        be cancelled here) is no error."""

    async def delete(self, kind: Kind, id_: str) -> bool:
        """Delete an object of any kind, and what is in it. Returns when the service has said that it is gone: True for
        deleted now, False for a 404. Raises Blocked `endpoint_gone` on a server that cannot delete such objects."""

    async def made(self, kind: Kind) -> list[Made]:
        """Every object of a kind that askq has made on this account, as its metadata says. Raises Blocked
        `endpoint_gone` where such objects cannot be listed."""

    async def check(self) -> None:
        """One free call that proves key and endpoint; raises like any other. A server without a list of models is
        there all the same."""
