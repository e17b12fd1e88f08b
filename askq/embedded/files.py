"""Small files of an embedded part: private, and either whole or not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

PORT = "port"
"""The file that remembers a part's port."""
_TAIL_BYTES = 64 * 1024
"""Logs grow for months; their end is read alone."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def tail(path: Path, *, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])


def free_port(wanted: str | None = None) -> int:
    """A port of the loopback interface nobody listens on: the wanted one, if that is free."""
    for port in (int(wanted) if wanted is not None and wanted.isdigit() else 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port of the loopback interface is free")
