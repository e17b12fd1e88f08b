"""What a program of askq does to use embedded parts: join them, say which they are, and leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from askq.closing import Closing
from askq.embedded import keeper
from askq.embedded.localapi import Engine
from askq.embedded.redis import find_server
from askq.errors import EmbeddedError

LOCAL_KEY = "local"
"""The key the local API is called with; it takes any."""


@dataclass(frozen=True, slots=True)
class LocalApi:
    """Where the embedded local API answers."""

    base_url: str
    api_key: str


class Embedded(Closing):
    """The embedded parts of one project folder. Parts end some moments after their last user has gone."""

    def __init__(self, home: Path, *, redis_binary: Path | None = None) -> None:
        self._home = home
        self._redis_binary = redis_binary
        self._locks: list[BinaryIO] = []
        self._parts: list[str] = []
        self._joined: dict[str, tuple[str, Callable[[], list[str]], Mapping[str, str]]] = {}
        """Part → its address when it was joined, and how its keeper is started."""

    def redis_url(self) -> str:
        """Start or join the folder's Redis; its address. Raises EmbeddedError."""

        def how() -> list[str]:
            server = find_server(self._redis_binary)
            return ["--binary", str(server.path), "--origin", server.origin]

        endpoint = self._join("redis", how)
        self._parts.append(f"Redis: {endpoint['about']}, embedded; data in {self._home / 'redis'}")
        return endpoint["url"]

    def local_api(
        self,
        *,
        engine: str,
        chat_url: str | None = None,
        chat_model: str | None = None,
        chat_api_key: str | None = None,
        script: Path | None = None,
        model_file: Path | None = None,
    ) -> LocalApi:
        """Start or join the folder's local API. Raises EmbeddedError, also when it runs with another engine."""
        wanted = Engine(
            engine=engine,
            chat_url=chat_url,
            chat_model=chat_model,
            script=None if script is None else str(script.resolve()),
            model_file=None if model_file is None else str(model_file.resolve()),
        )
        arguments = ["--engine", wanted.engine]
        for option, value in (
            ("--chat-url", wanted.chat_url),
            ("--chat-model", wanted.chat_model),
            ("--script", wanted.script),
            ("--model-file", wanted.model_file),
        ):
            if value is not None:
                arguments += [option, value]
        # Not among the arguments, where every user of the machine could read it.
        secrets = {} if chat_api_key is None else {"ASKQ_CHAT_API_KEY": chat_api_key}
        endpoint = self._join("localapi", lambda: arguments, secrets)
        if json.loads(endpoint["engine"]) != asdict(wanted):
            raise EmbeddedError(
                f"the local API of {self._home} already runs with another engine ({endpoint['about']})",
                remedy="End the askq that uses it, or set ASKQ_HOME to another folder.",
            )
        self._parts.append(f"API: {endpoint['about']}, embedded; data in {self._home / 'localapi'}")
        return LocalApi(endpoint["url"], LOCAL_KEY)

    def parts(self) -> list[str]:
        """A line for each part in use, for people."""
        return list(self._parts)

    def revive(self) -> list[str]:
        """Start again the parts in use whose keeper was killed, as they were; what happened, for people.

        A server that dies alone is its keeper's business. Raises EmbeddedError when a part does not come back.
        """
        told = []
        for name, (url, arguments, secrets) in list(self._joined.items()):
            if keeper.running(self._home / name) is not None:
                continue
            if self._join(name, arguments, secrets)["url"] != url:
                raise EmbeddedError(
                    f"the embedded {name} ended, and its port was taken before it could be started again",
                    remedy="Nothing is lost: the same command goes on.",
                )
            told.append(f"the embedded {name} ended; it was started again")
        return told

    def close(self) -> None:
        """Leave all parts."""
        while self._locks:
            self._locks.pop().close()

    def _join(
        self, name: str, arguments: Callable[[], list[str]], secrets: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        folder = self._home / name
        try:
            lock, endpoint = keeper.join(folder, lambda: [name, str(folder), *arguments()], secrets)
        except OSError as error:
            raise EmbeddedError(
                f"the embedded {name} cannot keep its data in {folder}: {error.strerror or error}",
                remedy="Run askq in a folder that can be written, or set ASKQ_HOME.",
            ) from error
        self._locks.append(lock)
        self._joined[name] = (endpoint["url"], arguments, secrets or {})
        return endpoint
