"""The local API as an embedded part."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from askq.embedded.files import PORT, free_port, write_private
from askq.embedded.tether import module


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What answers behind the local API."""

    engine: str = "tutor"
    chat_url: str | None = None
    chat_model: str | None = None
    script: str | None = None
    model_file: str | None = None


@dataclass(frozen=True, slots=True)
class LocalApiService:
    """One project folder's local API."""

    folder: Path
    engine: Engine
    port: int

    name = "localapi"

    @classmethod
    def prepare(cls, folder: Path, engine: Engine) -> LocalApiService:
        """The port stays what it was, where it is free."""
        (folder / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = folder / PORT
        port = free_port(kept.read_text("utf-8").strip() if kept.exists() else None)
        write_private(kept, str(port))
        return cls(folder, engine, port)

    @property
    def command(self) -> list[str]:
        argv = [*module("askq.localapi"), "--host", "127.0.0.1", "--port", str(self.port)]
        argv += ["--data", str(self.folder / "data"), "--engine", self.engine.engine]
        # Keys make a lost reply harmless: nobody's first run shall end in doubt.
        argv.append("--idempotency")
        for option, value in (
            ("--chat-url", self.engine.chat_url),
            ("--chat-model", self.engine.chat_model),
            ("--script", self.engine.script),
            ("--model-file", self.engine.model_file),
        ):
            if value is not None:
                argv += [option, value]
        return argv

    @property
    def endpoint(self) -> dict[str, str]:
        return {
            "url": f"http://127.0.0.1:{self.port}/v1",
            "about": f"local API, {self.engine.engine} engine",
            "engine": json.dumps(asdict(self.engine)),
        }

    def ready(self) -> bool:
        """Whether the server answers."""
        return healthy(self.port)


def healthy(port: int) -> bool:
    """Whether a local API answers on this port."""
    # Here, because this module is imported by every command, and few start a local API.
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_askq/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
