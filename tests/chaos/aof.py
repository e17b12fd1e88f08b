"""A power cut: what Redis had not written to its disk is gone, and nothing else.

A SIGKILL alone loses nothing, because the kernel keeps what was written. So the append-only file is cut afterwards,
somewhere behind the last thing that is known to have been on the disk. A connection of its own keeps asking: it sets
a mark and waits (WAITAOF) until that is on the disk; since the file is written in order, everything before a
confirmed mark was there, too.

With `appendfsync everysec` no fsync begins within a second of the last. So a server that is killed less than half a
second after a confirmation has confirmed nothing to anybody since: the cut takes no promise back.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from pathlib import Path
from typing import Self

MARK = "askq-chaos-mark"
_YOUNG_S = 0.45


class Marks:
    """Keeps setting marks and waiting for the disk."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._durable = 0
        self._confirmed_at = -1.0
        self._number = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="marks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the marks do not end"

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=5) as client:
                    self._mark(client)
            except OSError:
                time.sleep(0.02)

    def _mark(self, client: socket.socket) -> None:
        replies = client.makefile("rb")
        while not self._over.is_set():
            self._number += 1
            client.sendall(_set(self._number) + _command("WAITAOF", "1", "0", "1000"))
            # +OK, then an array of two numbers: how many local disks, how many replicas.
            lines = [replies.readline() for _ in range(4)]
            if not lines[-1]:
                return
            assert lines[0] == b"+OK\r\n" or lines[0].startswith(b"-"), lines
            if lines[0].startswith(b"-"):
                return
            if lines[2] == b":1\r\n":
                self._durable, self._confirmed_at = self._number, time.monotonic()

    def young(self, *, least_s: float = 0.0) -> bool:
        """Whether the last confirmation is so fresh that nobody can have had another since, if not fresher."""
        return least_s <= time.monotonic() - self._confirmed_at < _YOUNG_S

    def cut(self, folder: Path, pick: random.Random) -> int:
        """Cut the file of a server that is dead; how many bytes it lost."""
        # The newest part of the file is the one that is written to.
        file = max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
        content = file.read_bytes()
        mark = _set(self._durable)
        found = content.rfind(mark)
        assert found >= 0, f"mark {self._durable} was confirmed, but is not in {file.name}"
        keep = pick.randint(found + len(mark), len(content))
        with file.open("rb+") as opened:
            opened.truncate(keep)
        return len(content) - keep


def _set(number: int) -> bytes:
    return _command("SET", MARK, str(number))


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
