"""What the server asks an engine, and what it gets back. Engines know no protocol, no HTTP and no storage."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from askq.localapi.wire import JsonObject

if TYPE_CHECKING:
    from askq.localapi.engines.live import Live

ProtocolName = Literal["assistants", "responses"]
End = Literal["completed", "incomplete", "failed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One entry of the history: a message, a function call of the model, or the output the client gave for it."""

    role: Literal["system", "developer", "user", "assistant", "call", "output"]
    text: str
    """The message; for a call its arguments as JSON text; for an output the output."""
    call_id: str = ""
    name: str = ""
    images: tuple[JsonObject, ...] = ()
    """Pictures of the message: `{url, detail}` or `{file_id, detail}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFile:
    """A file the client has given: for code, for searching, or in a message."""

    file_id: str
    name: str
    size: int
    use: Literal["code", "search", "input"]
    path: Path | None = None
    """Where its bytes are, to be read only."""
    content: bytes | None = field(default=None, repr=False)
    """They themselves, where they came with the message."""
    made: bool = False
    """Whether an earlier run has made it."""

    def copy_to(self, target: Path) -> None:
        """Put a copy there; nothing, if the file was deleted meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            if self.path is not None:
                shutil.copyfile(self.path, target)
            else:
                target.write_bytes(self.content or b"")

    def read(self, most: int = 64 << 20) -> bytes:
        """The first `most` bytes of it; none, if the file was deleted meanwhile."""
        if self.path is None:
            return (self.content or b"")[:most]
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            return file.read(most)
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a program."""

    logs: str
    ended: str
    """`ok`, or what stopped it (`askq.localapi.tutor.sandbox.Ended`)."""
    products: tuple[Product, ...] = ()


class Desk(Protocol):
    """What an engine may do with a request's files."""

    @property
    def names(self) -> Mapping[str, GivenFile]:
        """The files for code, by the names they have in the programs' folder."""

    async def run(self, source: str, *, readable: Sequence[str] = ()) -> Ran:
        """Run a program in a folder with the files for code, confined."""

    async def search(self, questions: Sequence[str], *, limit: int = 10) -> list[Hit]:
        """Search the request's stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One piece of work: everything the model is given."""

    work_id: str
    protocol: ProtocolName
    model: str
    instructions: str
    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    """As the client sent them; function tools are nested in the Assistants protocol and flat in Responses."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """temperature, top_p, max_output_tokens, reasoning_effort, format (`{type, name, schema, strict}`), if given.
    tool_choice and parallel_tool_calls, if they are not the default: a choice is "none", "required" or a function's
    name."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    live: Live | None = field(default=None, compare=False, repr=False)
    """Where to say what there is already, if somebody listens; engines need not."""
    files: tuple[GivenFile, ...] = ()
    """What was given: for code, in the stores, and in the messages."""
    stores: tuple[str, ...] = ()
    """Vector stores to search."""
    flaw: str = ""
    """Why it cannot be answered at all, such as a store that has expired."""
    desk: Desk | None = None
    """For engines that work."""
    number: int = 0
    """The how-manieth run of the ledger this is, counting from 1; for a response that brings tool outputs, the number
    of the one that the question came with."""

    @property
    def question(self) -> str:
        """The last message of the user; empty if there is none."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def history(self) -> tuple[str, ...]:
        """The user's and the assistant's messages before the question, oldest first."""
        texts = [(turn.role, turn.text) for turn in self.turns if turn.role in ("user", "assistant") and turn.text]
        last = max((index for index, (role, _) in enumerate(texts) if role == "user"), default=0)
        return tuple(text for _, text in texts[:last])

    @property
    def earlier(self) -> tuple[str, ...]:
        """The user's messages before the question, oldest first."""
        return tuple(turn.text for turn in self.turns if turn.role == "user")[:-1]

    @property
    def given(self) -> tuple[tuple[Turn, Turn], ...]:
        """The calls since the question that were given an output, each with it, in the order of the calls."""
        since: list[Turn] = []
        for turn in self.turns:
            since = [] if turn.role == "user" else [*since, turn]
        outputs = {turn.call_id: turn for turn in since if turn.role == "output"}
        return tuple((turn, outputs[turn.call_id]) for turn in since if turn.role == "call" and turn.call_id in outputs)

    @property
    def round(self) -> int:
        """How many times tool outputs have been given since the question."""
        rounds, previous = 0, ""
        for turn in self.turns:
            if turn.role == "user":
                rounds = 0
            elif turn.role == "output" and previous != "output":
                rounds += 1
            previous = turn.role
        return rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A message of the model. `annotations` are given out as they are, so they must suit the protocol asked."""

    value: str
    annotations: tuple[JsonObject, ...] = ()
    refusal: bool = False
    """It is a refusal, in place of an answer in the form that was asked for."""
    phase: str | None = None
    """`commentary` or `final_answer` on Responses, if the engine says."""
    quotes: tuple[Quote, ...] = ()
    """Passages of files that the message rests on; they become citations in the words of the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Where a message cites a file: behind the character `at`."""

    at: int
    file_id: str
    filename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A file that code has made. An engine gives its `content`; the server puts that away and knows it by `blob`."""

    name: str
    content: bytes | None = field(default=None, repr=False)
    blob: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code-interpreter call: what was run and what it printed."""

    source: str
    logs: str
    images: tuple[Product, ...] = ()
    """Pictures it showed."""
    files: tuple[Product, ...] = ()
    """Other files it made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that a search has found."""

    file_id: str
    filename: str
    score: float
    """From 0 to 1, best first."""
    text: str
    attributes: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search in the files of the request's stores."""

    queries: tuple[str, ...]
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function the model asks for; `arguments` is JSON text (or the garbage a test wants)."""

    call_id: str
    name: str
    arguments: str


Output = Text | Code | Search | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, as estimated or as the upstream server said."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the work. `completed` with calls among the outputs asks the client for their outputs."""

    status: End = "completed"
    outputs: tuple[Output, ...] = ()
    usage: Usage | None = None
    """None: the server estimates."""
    error_code: str = "server_error"
    error_message: str = ""
    reason: str = "max_output_tokens"
    """Why it is incomplete, in the words of either protocol; the server translates."""
    container_gone_s: float | None = None
    """The container of a response expires so many seconds after its end, whatever is done with it."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """The function calls among the outputs."""
        return tuple(output for output in self.outputs if isinstance(output, Call))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A course laid out in advance: the server reads the state off the clock instead of working."""

    outcome: Outcome
    seconds: float | None
    """How long it takes; None: for ever (until the run expires)."""
    statuses: tuple[str, ...] = ("queued", "in_progress")
    """Raw statuses on the way. The first takes a tenth of the time, the others share the rest; see `by_poll`."""
    by_poll: bool = False
    """Each retrieve shows the next status, and the one after the last shows the end: `seconds` is not used."""
    poll_after_ms: tuple[int, ...] = ()
    """`openai-poll-after-ms` of the first, second … retrieve; the last one repeats."""
    at_once: bool = False
    """The reply to the create carries the end already, as from a server that ignores `background`."""
    telling: float | None = None
    """In the last so many seconds a stream tells the outputs; None: all the time that it is in progress."""
    cancel_seconds: float = 0.2
    """How long the run stays `cancelling`; if its own end comes first, the cancel has lost the race."""


class Engine(Protocol):
    """Answers questions. An engine either plans a request at once or works on it."""

    @property
    def name(self) -> str:
        """`tutor`, `chat`, `llama` or `script`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Models to list; any other name is accepted too."""

    def plan(self, request: Request) -> Plan | None:
        """The whole course now, or None: then `answer` is called."""

    async def answer(self, request: Request) -> Outcome:
        """Work it out. Anything raised becomes a failed run with `server_error`."""

    @property
    def concurrency(self) -> int:
        """How many `answer` calls may go on at once; the others wait as `queued`."""

    async def close(self) -> None:
        """Let go of connections."""


def estimate_tokens(text: str) -> int:
    """A deterministic guess: a token for every four bytes, at least one for a text that is not empty."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def estimate_usage(request: Request, outcome: Outcome) -> Usage:
    """The usage of a piece of work by `estimate_tokens`."""
    given = estimate_tokens(request.instructions) + sum(estimate_tokens(turn.text) for turn in request.turns)
    made = 0
    for output in outcome.outputs:
        match output:
            case Text(value=value):
                made += estimate_tokens(value)
            case Code(source=source):
                made += estimate_tokens(source)
            case Call(name=name, arguments=arguments):
                made += estimate_tokens(name) + estimate_tokens(arguments)
    return Usage(input_tokens=given, output_tokens=made)
