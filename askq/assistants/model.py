"""An assistant as the programs hold it, and its content hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from askq.files.model import Resources
from askq.structured import schema_of

MOST_ROUNDS = 10
"""Rounds of function calls where the file does not say."""
ProtocolName = Literal["assistants", "responses"]
_LATER: Mapping[str, object] = {
    "price": None,
    "limits": None,
    "functions": None,
    "max_rounds": None,
    "resources": None,
    "thread_resources": None,
    "on_failed_file": "stop",
    "on_failure": "stop",
    "keep": None,
    "on_invalid": "fail",
    "tool_choice": None,
    "parallel_tool_calls": None,
}
"""Fields that came later, and what they are where nobody uses them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """One assistant, complete: nothing of it is looked up later, so its digest names exactly what was asked.

    Field names and meanings are OpenAI's unless said otherwise.
    """

    name: str
    """The file's name without `.toml`."""
    protocol: ProtocolName
    model: str
    assistant_id: str | None = None
    """An assistant that exists at the service already (Assistants protocol only); it is used as it is."""
    description: str | None = None
    instructions: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools in the Responses shape: `{"type": "code_interpreter"}`, `{"type": "file_search", …}` …"""
    tool_choice: str | Mapping[str, Any] | None = None
    """Whether a run may, must or must not call a tool, and which; in the shape of Responses. It holds for a question's
    first call: once a tool was called, nothing forces another."""
    parallel_tool_calls: bool | None = None
    """Whether the model may ask for several calls at once; None: as the service has it, which is yes."""
    tool_resources: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    text_format: Mapping[str, Any] | None = None
    """`[text.format]`; sent as `response_format` on the Assistants protocol."""
    on_invalid: Literal["fail", "retry"] = "fail"
    """What to do with an answer that does not fit the schema of its format (`[text] on_invalid`): end so, or ask once
    more, which is paid for again."""
    max_output_tokens: int | None = None
    max_prompt_tokens: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    completion_window: Literal["soonest", "2h", "8h"] | None = None
    timeout_s: float = 3600.0
    """askq's own deadline for a run, in seconds from its creation (`[run] timeout`)."""
    on_uncertain: Literal["fail", "retry"] = "fail"
    """What to do when a paid create may or may not have happened and nothing can tell (`[run] on_uncertain`)."""
    on_failure: Literal["stop", "skip"] = "stop"
    """What becomes of a conversation when one of its questions fails (`[thread] on_failure`): the rest is not asked, or
    goes on without it."""
    price: Mapping[str, float] | None = None
    """US dollars per million tokens (`input`, `output`, perhaps `cached_input`), where askq does not know the price."""
    resources: Resources | None = None
    """Local files and stores for its tools (`[tool_resources]`)."""
    thread_resources: Resources | None = None
    """What each of its threads may read besides (`[thread.tool_resources]`)."""
    on_failed_file: Literal["stop", "continue"] = "stop"
    """Whether questions are asked although a file could not be indexed
    (`[tool_resources.file_search] on_failed_file`)."""
    limits: Mapping[str, int] | None = None
    """What may be used of the account at most: `requests_per_minute`, `tokens_per_minute` (`[limits]`)."""
    keep: Mapping[str, str] | None = None
    """How long what was made at the service is kept: `threads` and `files` → no, results, always (`[keep]`)."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, Mapping[str, Any]] | None = None
    """Functions that may be run, by the name the model calls them: `module`, `function`, `folder`, and what their
    decorator says (`timeout_s`, `memory_mb`, `once`). Their schemas are among the tools."""
    max_rounds: int | None = None
    """How often a run may ask for functions (`[run] max_rounds`)."""

    _digest: str | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    """Reckoned once: it is asked for with every call."""

    def to_json(self) -> str:
        """Canonical JSON: equal assistants give equal text."""
        values = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self) if spec.init}
        # A field that came later and is not used leaves the text, and so the digest, as it was.
        for name, unused in _LATER.items():
            if values[name] == unused:
                del values[name]
            elif isinstance(values[name], Resources):
                values[name] = values[name].to_json()
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The assistant `to_json` wrote."""
        values = json.loads(text)
        values["tools"] = tuple(values["tools"])
        for name in ("resources", "thread_resources"):
            if name in values:
                values[name] = Resources.from_json(values[name])
        return cls(**values)

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema its answers must fit, if there is one."""
        return schema_of(self.text_format)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the canonical JSON."""
        if self._digest is None:
            object.__setattr__(self, "_digest", hashlib.sha256(self.to_json().encode()).hexdigest()[:16])
        assert self._digest is not None
        return self._digest

    @property
    def most_rounds(self) -> int:
        """How often a run may ask for functions before the job ends."""
        return MOST_ROUNDS if self.max_rounds is None else self.max_rounds

    def uses(self, tool: str) -> bool:
        """Whether a tool of this type is among its tools."""
        return any(entry.get("type") == tool for entry in self.tools)
