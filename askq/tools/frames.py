"""Messages between a runner and whoever started it: a length in four bytes, then JSON."""

from __future__ import annotations

import json
import socket
from typing import Any

MOST_BYTES = 8 * 1024 * 1024


def pack(message: dict[str, Any]) -> bytes:
    """One message as bytes."""
    data = json.dumps(message, ensure_ascii=True).encode()
    return len(data).to_bytes(4, "big") + data


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """The next message; None when the other side is gone. Raises ValueError for what is no message."""
    head = _exactly(channel, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > MOST_BYTES:
        raise ValueError(f"a message of {size} bytes")
    data = _exactly(channel, size)
    if data is None:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("no object")
    return message


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = channel.recv(min(size - len(data), 65536))
        if not part:
            return None
        data += part
    return data
