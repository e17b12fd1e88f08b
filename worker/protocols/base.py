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
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from typing import Protocol as TypingProtocol

from askq.assistants.choice import after_a_call
from askq.assistants.model import Assistant
from askq.jobs.live import Piece
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


class Broken(Exception):
    """A stream was cut, stalled or could not be understood. Its run goes on."""


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
    kind: str = "function"
    """Anything else (a custom tool, the approval of an MCP call) is nothing that askq could run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutput:
    """What a function call gave, for the model."""

    call_id: str
    output: str


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
    ASKED = "asked"
    """The run has ended by asking for functions; its id is not known."""
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
    tool_calls: tuple[ToolCall, ...] = ()
    """The functions that a run asked for (`ASKED`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The last question of a conversation that another one joins, as far as its protocol must know it."""

    thread_id: str
    run_id: str
    """Its run, or the last one before it; empty where none is known."""
    joined: str
    """What `join` said when it joined itself; empty for the first."""
    answered: bool
    """Whether its run completed, so that the conversation has an answer of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a message: a file at the service, or an address."""

    file_id: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a run may read, by the ids it has at the service."""

    code: tuple[str, ...] = ()
    """The assistant's files for code interpreter."""
    stores: tuple[str, ...] = ()
    """The assistant's stores."""
    thread_code: tuple[str, ...] = ()
    thread_stores: tuple[str, ...] = ()
    thread_store_files: tuple[str, ...] = ()
    """Files of which the thread gets a store of its own, because more will be put into it."""
    row_code: tuple[str, ...] = ()
    """The row's files for code interpreter, and where nothing else remembers them, those of the rows before it."""
    row_search: tuple[str, ...] = ()
    """The row's files for file search; `row_stores` has them, too, where messages cannot carry any."""
    row_stores: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()

    @property
    def of_assistant(self) -> str:
        """Differs when what the assistant itself has differs; empty for nothing."""
        parts = (*self.code, "|", *self.stores)
        return "" if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    def names(self, message: str) -> tuple[str, ...]:
        """Those of these ids that a message of the service names."""
        known = (*self.code, *self.stores, *self.thread_code, *self.thread_stores, *self.thread_store_files)
        known += (*self.row_code, *self.row_search, *self.row_stores)
        known += tuple(image.file_id for image in self.images if image.file_id is not None)
        return tuple(id_ for id_ in dict.fromkeys(known) if id_ in message)


NOTHING_GIVEN = Given()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Files of a thread that are still being read, and those that cannot be."""

    waiting: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    """File id and reason."""
    stores: tuple[str, ...] = ()
    """Stores that the service has made for the thread."""


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
    stream: bool = False
    """Whether somebody watches."""
    joined: str | None = None
    """What `join` said; None for a question that has its thread for itself, or is the first in it."""
    previous: str | None = None
    """The run to go on from, where there is no conversation to say so."""
    history: int = 0
    """Tokens of the conversation before this question, which its run reads, too."""
    given: Given = NOTHING_GIVEN
    """Files, stores and images."""
    metadata: dict[str, str] = field(default_factory=dict)
    corrects: bool = False
    """It asks for the answer before it in another form."""
    outputs: tuple[ToolOutput, ...] = ()
    """What the run is to go on from, instead of the question: the outputs of the functions the last run asked for."""

    @property
    def tool_choice(self) -> str | Mapping[str, Any] | None:
        """The assistant's choice of a tool, for a run that begins with the question. Later runs of the question are not
        forced: that would call the tool again and again."""
        choice = self.assistant.tool_choice
        return after_a_call(choice) if self.outputs or self.corrects else choice

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
class Listing:
    """An object found in a list of the service, with the marks of an askq."""

    kind: Kind
    id: str
    home: str | None
    """Which askq made it (`Store.home`); None for one that left no mark of its own."""
    owner: str | None
    """Under which owner it was put on record there (`askq.jobs.objects`)."""
    created_at: float


class Live(TypingProtocol):
    """What can be seen of a run while it is at work. Belongs to whoever asked for it, who must close it."""

    @property
    def ended(self) -> bool:
        """Whether the run has ended, as far as the stream tells."""

    @property
    def brings_end(self) -> bool:
        """Whether its last event says all that a poll would. On servers that keep nothing it is said nowhere else."""

    @property
    def final(self) -> Status | None:
        """How the run has ended, once the stream has said so, where it brings that."""

    def pieces(self) -> AsyncIterator[Piece]:
        """What is to see, until the run or the stream ends. Raises Broken."""

    async def close(self) -> None:
        """Hang up. The run goes on."""


class Protocol(TypingProtocol):
    """One way of speaking runs. Every method makes at most one paid call and never retries by itself."""

    name: str
    lists_runs: bool
    """Whether `find_started` can prove that a run does not exist."""
    outputs_start_runs: bool
    """Whether the outputs of functions go into a new, paid run (`start`), and not into the one that asked for them
    (`submit_tool_outputs`)."""
    resumes: bool
    """Whether the stream of a run that exists can be opened."""

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        """Create the remote assistant object with its files and stores; its id, or None where the protocol has none.
        Free."""

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        """What of the files of this question's message the service has not read yet, or cannot read; None where it
        knows all of them. Free."""

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        """Create the thread (with the message) or the conversation; its id. Free."""

    async def join(self, ask: Ask, before: Before) -> str:
        """Add the question to a thread that others have begun, unless it is there: it may have been added by somebody
        who died. What marks the place from where all that is in the thread is this question's. Free.

        Raises Busy while a run is active there, and Ambiguous while the thread does not show the turn before.
        """

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        """The paid call: create the run. Raises Busy with the active run's id where the service names it."""

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Live | None]:
        """The paid call, with a stream: returns as soon as the first event names the run. None where the server
        answered without a stream, or the assistant's runs cannot have one."""

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Live | None:
        """Go on with the stream of a run: after the last event of one that broke, or from the run's beginning. None
        where the protocol cannot. Free."""

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        """Look for the run of an intent whose reply was lost. In a thread of several questions, for this one's."""

    async def repeats_safely(self) -> bool:
        """Whether this server gives back the first run when a create is repeated under its idempotency key. Found
        out once, by creating a free object twice."""

    async def poll(self, thread_id: str, run_id: str) -> Status:
        """Exactly one GET of the run."""

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        """Give a run the outputs it waits for. Free; a second time it is refused. Not where outputs start runs."""

    async def submit_tool_outputs_live(
        self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]
    ) -> tuple[Status, Live | None]:
        """The same, with a stream of what the run does from here; None where there is none."""

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        """Fetch text, citations and code of a run that is done or incomplete."""

    async def cancel(self, thread_id: str, run_id: str) -> None:
        """Ask the service to cancel; best effort, the next poll decides. A refusal (the run has ended, is gone, cannot
        be cancelled here) is no error."""

    async def delete(self, kind: Kind, id_: str) -> bool:
        """Delete an object of any kind, and what is in it. Returns when the service has said that it is gone: True for
        deleted now, False for a 404. Raises Blocked `endpoint_gone` on a server that cannot delete such objects."""

    async def listed(self, kind: Kind) -> list[Listing]:
        """Every object of a kind that askq has made on this account, as its metadata says. Raises Blocked
        `endpoint_gone` where such objects cannot be listed."""

    async def check(self) -> None:
        """One free call that proves key and endpoint; raises like any other. A server without a list of models is
        there all the same."""
