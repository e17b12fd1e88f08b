"""How a local API is to run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from askq.localapi.errors import ApiError, LocalApiError
from askq.localapi.limits import checked
from askq.localapi.storage import MEMORY

EngineName = Literal["tutor", "chat", "llama", "script"]

LLAMA_CONTEXT = 8192
LLAMA_THREADS = max(1, (os.cpu_count() or 2) // 2)
"""llama.cpp's threads spin while they wait for each other: more of them than idle cores make it slow."""

RUN_LIFETIME_S = 600.0
"""OpenAI lets a run expire about ten minutes after its creation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything `serve` and `create_app` need."""

    engine: EngineName = "tutor"
    data: str = MEMORY
    """The data folder, or `:memory:`."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port."""
    allow_remote: bool = False
    """Listen on an address that other machines reach."""
    key: str | None = field(default=None, repr=False)
    """The only bearer key that is accepted; None: any."""
    models: tuple[str, ...] = ()
    """The only models there are; empty: any name is accepted."""
    script: Path | None = None
    """Script file of the `script` engine (JSON or TOML)."""
    chat_url: str | None = None
    """Base URL of a chat-completions server, such as `http://127.0.0.1:11434/v1`."""
    chat_model: str | None = None
    """Model sent to it; None: the one the client named."""
    chat_key: str | None = field(default=None, repr=False)
    """Bearer key for it."""
    chat_timeout_s: float = 600.0
    chat_concurrency: int = 16
    model_file: Path | None = None
    """GGUF file of the `llama` engine."""
    llama_context: int = LLAMA_CONTEXT
    """Tokens that a question with its history and its answer may have."""
    llama_threads: int = LLAMA_THREADS
    llama_concurrency: int = 1
    tutor_concurrency: int = os.cpu_count() or 1
    run_lifetime_s: float = RUN_LIFETIME_S
    """From the creation of a run to its expiry; responses do not expire."""
    idempotency: bool = False
    """Honour `Idempotency-Key` on POST. OpenAI does not."""
    limits: Mapping[str, object] = field(default_factory=dict)
    """Rate limits (`askq.localapi.limits` says which there are)."""
    client_ids: bool = False
    """Take `request_id` of POST /responses as the response's id, and say so in the list of models. OpenAI does not."""
    endpoint_file: Path | None = None
    """Where to write the base URL when ready."""
    exit_with_stdin: bool = False
    """End when standard input does: an owner that dies takes the server with it."""
    file_bytes: int = 512 * 1024 * 1024
    """The largest file that may be uploaded."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    def check(self) -> None:
        """Raise LocalApiError for combinations that cannot work."""
        try:
            checked(self.limits)
        except ApiError as exc:
            raise LocalApiError(f"--limit cannot be used: {exc.message}") from exc
        if self.engine == "chat" and not self.chat_url:
            raise LocalApiError(
                "The chat engine needs to know where to ask. Give --chat-url, for example "
                "--chat-url http://127.0.0.1:11434/v1."
            )
        if self.engine == "llama" and self.model_file is None:
            raise LocalApiError("The llama engine needs a model. Give --model-file FILE.gguf.")
        if self.model_file is not None and self.engine != "llama":
            raise LocalApiError(
                f"--model-file is for the llama engine, but the engine is {self.engine}. Add --engine llama."
            )
        if self.llama_context < 1 or self.llama_threads < 1 or self.llama_concurrency < 1:
            raise LocalApiError("Context, threads and concurrency of the llama engine must be at least 1.")
        if self.script is not None and self.engine != "script":
            raise LocalApiError(
                f"--script is for the script engine, but the engine is {self.engine}. Add --engine script."
            )
        if not self.allow_remote and not _is_loopback(self.host):
            raise LocalApiError(
                f"Refusing to listen on {self.host}: other machines could use it, and it accepts "
                f"{'any key' if self.key is None else 'one key, sent unencrypted'}. Use --host 127.0.0.1, or add "
                "--allow-remote if that is wanted."
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
