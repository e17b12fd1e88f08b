"""The parts a program works with: what the settings name, and embedded ones for what they leave open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from askq.closing import Closing
from askq.errors import AssistantError, ConfigError, InputError, Problem
from askq.postponed import postpone
from config.settings import Secret, Settings, without_secrets
from producer.api import OPENAI, Api

if TYPE_CHECKING:
    from askq.assistants.model import Assistant, ProtocolName
    from askq.embedded.stack import Embedded
    from askq.files.folder import Folder
    from askq.jobs.redis_store import RedisStore
    from askq.jobs.store import Reader
    from producer.questions.attachments import ToolsOf


class Parts(Closing):
    """Redis and API of one program. Embedded parts start when they are first asked for, and end with their users."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: Embedded | None = None
        self._redis_url = settings.redis_url
        self._api: Api | None = None

    @property
    def _embedded(self) -> Embedded:
        # Made where it is needed: most commands need none where Redis and the API are elsewhere.
        if self._made is None:
            from askq.embedded.stack import Embedded

            self._made = Embedded(self.settings.home, redis_binary=self.settings.embedded_redis)
        return self._made

    def redis_url(self) -> str:
        """The address of Redis. Raises EmbeddedError when an embedded one cannot be started."""
        if self._redis_url is None:
            self._redis_url = self._embedded.redis_url()
        return self._redis_url

    def store(self, *, must_be_safe: bool = False) -> RedisStore:
        """The job store. `must_be_safe`: raise StoreUnsafe for a Redis that would lose jobs, unless told otherwise."""
        # A fifth of what importing the client costs, which no command uses.
        postpone("redis.asyncio")
        from askq.jobs.redis_store import RedisStore

        kind = RedisStore
        if self.settings.failpoints is not None:
            from askq import failpoints
            from askq.jobs.failing_store import FailingStore

            try:
                failpoints.arm(
                    self.settings.failpoints, seed=self.settings.failpoints_seed, log=self.settings.failpoints_log
                )
            except ValueError as error:
                raise ConfigError(
                    f"ASKQ_FAILPOINTS: {error}", remedy="Unset it: it is for tests of askq itself."
                ) from error
            kind = FailingStore
        settings = self.settings
        store = kind(self.redis_url(), keep_days=settings.results_days, replicas=settings.redis_replicas)
        if must_be_safe and not self.settings.allow_unsafe_redis:
            store.health().require_safe()
        return store

    def reader(self) -> Reader:
        """The job store for those who only look."""
        from askq.jobs.redis_reader import RedisReader

        return RedisReader(self.redis_url())

    def api(self) -> Api:
        """Where runs are asked for: OpenAI (or OPENAI_BASE_URL) with a key, else the embedded local API."""
        if self._api is None:
            settings = self.settings
            if settings.api_key is not None:
                self._api = Api(settings.base_url, settings.api_key.reveal(), settings.base_url or "openai")
            elif settings.base_url is not None:
                raise ConfigError(
                    f"OPENAI_BASE_URL is {without_secrets(settings.base_url)}, but there is no key for it",
                    remedy="Set OPENAI_API_KEY (any text, where the server takes any), or unset OPENAI_BASE_URL.",
                )
            else:
                llama = settings.local_engine == "llama"
                if llama and settings.llama_model is None:
                    raise ConfigError(
                        "the llama engine (ASKQ_LOCAL_ENGINE) needs a model",
                        remedy="Set ASKQ_LLAMA_MODEL to a GGUF file.",
                    )
                local = self._embedded.local_api(
                    engine=settings.local_engine,
                    chat_url=settings.chat_url,
                    chat_model=settings.chat_model,
                    chat_api_key=None if settings.chat_api_key is None else settings.chat_api_key.reveal(),
                    script=settings.script,
                    model_file=settings.llama_model if llama else None,
                )
                self._api = Api(local.base_url, local.api_key, self.local_account())
        return self._api

    def check_api(self) -> None:
        """One free call to the API, and one to the chat server behind it where there is one: whatever is wrong is told
        before anything is queued. Raises ConfigError, ApiUnreachable and EmbeddedError."""
        # Here, because an HTTP client costs a quarter of a whole `askq status`, which calls nobody.
        from producer.preflight import check

        chat = self._chat_server()
        if chat is not None:
            check(chat)
        check(self.api())

    def _chat_server(self) -> Api | None:
        settings = self.settings
        if settings.api_key is not None or settings.local_engine != "chat":
            return None
        if settings.chat_url is None:
            raise ConfigError(
                "the chat engine (ASKQ_LOCAL_ENGINE) needs a server that speaks chat completions",
                remedy="Set ASKQ_CHAT_URL, for Ollama's ASKQ_CHAT_URL=http://127.0.0.1:11434/v1.",
            )
        key = settings.chat_api_key.reveal() if settings.chat_api_key is not None else ""
        return Api(settings.chat_url, key, "chat", address_setting="ASKQ_CHAT_URL", key_settings="ASKQ_CHAT_API_KEY")

    def local_account(self) -> str:
        """What an idempotency key calls the local API: its port may change, its answers do not."""
        settings = self.settings
        return "|".join(
            str(part or "")
            for part in (
                "local",
                settings.local_engine,
                settings.chat_url,
                settings.chat_model,
                settings.script,
                *(() if settings.llama_model is None else (settings.llama_model,)),
            )
        )

    def account(self) -> str:
        """What an idempotency key calls the account, without starting anything."""
        return self.local_account() if self.settings.api_key is None else self.settings.base_url or "openai"

    def address(self) -> str:
        """The address of the API, without starting anything: this machine's for an embedded one."""
        if self.settings.api_key is None:
            return "http://127.0.0.1"
        return self.settings.base_url or OPENAI

    def lines(self) -> list[str]:
        """A line for each part in use, for people."""
        told = [] if self._made is None else self._made.parts()
        if self.settings.redis_url is not None:
            told.insert(0, "Redis: REDIS_URL")
        if self._api is not None and self.settings.api_key is not None:
            told.append(f"API: {self._api.shown}, key from {self.settings.sources['api_key']}")
        return told

    def environment(self) -> dict[str, str]:
        """What a worker or Flower needs to use the same parts."""
        filled = dataclasses.replace(self.settings, redis_url=self.redis_url())
        if self._api is not None:
            filled = dataclasses.replace(filled, api_key=Secret(self._api.api_key), base_url=self._api.base_url)
        return filled.child_environment()

    def assistant(self, name: str | None, protocol: str | None, *, keep: bool = True) -> Assistant:
        """The assistant to ask; its files are copied to the folder unless told not to `keep` them. Raises
        AssistantError."""
        # Here, because who only looks at a batch reads no assistant file.
        from askq.assistants import file as assistant_files

        settings = self.settings
        told = None if protocol is None else _protocol(protocol)
        loaded = assistant_files.load(
            name or settings.assistant,
            folder=settings.assistants_dir,
            default_model=settings.model,
            default_protocol=told or settings.protocol,
            files=self.files() if keep else None,
        )
        if told is None or loaded.protocol == told:
            return loaded
        # Told on the command line: stronger than the file.
        return dataclasses.replace(loaded, protocol=told)

    def named_assistants(self, lines: Mapping[str, int], protocol: str | None, *, file: str) -> dict[str, Assistant]:
        """The assistants that rows of a list name, each with the line that does so first. Raises AssistantError with
        everything that is wrong with any of them."""
        found: dict[str, Assistant] = {}
        problems: list[Problem] = []
        for name, line in lines.items():
            try:
                found[name] = self.assistant(name, protocol)
            except AssistantError as error:
                problems += (
                    problem
                    if problem.file is not None
                    else Problem(file=file, line=line, message=problem.message, column="assistant")
                    for problem in error.problems
                )
        if problems:
            raise AssistantError(problems, remedy="Nothing was queued; correct the list or the assistant files.")
        return found

    def files(self) -> Folder:
        """The folder that keeps files."""
        from askq.files.folder import Folder

        return Folder(self.settings.files_dir)

    def tools_of(self, assistant: str | None, protocol: str | None) -> ToolsOf:
        """What a list is told of the assistants' tools, before anybody is asked. `assistant` is the batch's own."""

        @cache
        def tools(name: str | None) -> frozenset[str] | None:
            try:
                found = self.assistant(name or assistant, protocol, keep=False)
            except AssistantError:
                # Told by whoever asks it, with everything else that is wrong with it.
                return None
            return frozenset(str(tool.get("type")) for tool in found.tools)

        return tools

    def nudge(self) -> str | None:
        """Tell Celery that there is work; why that failed, or None."""
        from producer.enqueue import nudge

        return nudge(self.settings.broker_url or self.redis_url())

    def log_folder(self) -> Path:
        """Where the output of child processes goes."""
        return self.settings.home / "logs"

    def revive(self) -> list[str]:
        """Start again the embedded parts that are gone; what happened, for people. Raises EmbeddedError."""
        return [] if self._made is None else self._made.revive()

    def close(self) -> None:
        """Leave the embedded parts."""
        if self._made is not None:
            self._made.close()


_PROTOCOLS: Mapping[str, ProtocolName] = {"responses": "responses", "assistants": "assistants"}


def _protocol(name: str) -> ProtocolName:
    if name not in _PROTOCOLS:
        raise InputError(f"{name!r} is no protocol", remedy=f"Known: {', '.join(_PROTOCOLS)}.")
    return _PROTOCOLS[name]
