"""What Redis is told, as it happens: claims and commits of jobs, read off MONITOR.

A worker that was killed can report nothing, and a log says what somebody meant to do. MONITOR shows what reached the
store: who claimed which job when, which commits were tried under which fence, and (from what the script then wrote)
which were accepted.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, Self

from askq.jobs.model import MOVES

_HEAD = re.compile(rb"\+?(\d+\.\d+) \[\d+ ([^\]]+)\] ")
_CLAIM = re.compile(rb'"(HINCRBY|HSET)" "askq:\{s\d+\}:job:([^"]+)" (?:"[^"]*" )*?"fence" "([^"]+)"')
_MOVE = re.compile(
    rb'"\d+" "askq:\{s\d+\}:job:([^"]+)" (?:"askq:[^"]*" )+"\1" "([^"]+)" "(' + "|".join(MOVES).encode() + rb')" '
)
_WRITES = re.compile(rb'"HSET" "askq:\{s\d+\}:job:([^"]+)" "state"')


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job, by the clock of Redis."""

    at: float
    what: Literal["claim", "commit"]
    move: str = ""
    """Name of the move that was accepted."""

    @property
    def releases(self) -> bool:
        """Whether the claim is over: every accepted move but the intent gives the job back."""
        return self.what == "commit" and not MOVES[self.move].keeps_claim


class Tape:
    """Records from its making until `close`; reconnects when the server was away, and misses what happened then."""

    def __init__(self, port: int) -> None:
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.stale_attempted = 0
        self.stale_accepted = 0
        self.gaps = 0
        self.listening = False
        self._port = port
        self._fences: dict[str, bytes] = {}
        self._trying: tuple[float, str, bytes, str] | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="tape", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; what was recorded stays."""
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the tape does not end"

    def of(self, job: str) -> list[Event]:
        """The events of a job so far, oldest first."""
        with self._lock:
            return list(self.events[job])

    def jobs(self) -> list[str]:
        """Every job something happened to."""
        with self._lock:
            return list(self.events)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=0.2) as client:
                    client.sendall(b"MONITOR\r\n")
                    self.listening = client.recv(5) == b"+OK\r\n"
                    self._read(client)
            except OSError:
                time.sleep(0.01)
            self.listening = False
            # What is known of fences may be out of date now: a commit is not called stale on such grounds.
            self._fences.clear()
            self._trying = None
            self.gaps += 1

    def _read(self, client: socket.socket) -> None:
        rest = b""
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                data = client.recv(1 << 20)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\r\n")
                with self._lock:
                    for line in lines:
                        self._note(line)

    def _note(self, line: bytes) -> None:
        if b" lua] " in line:
            if b'"fence"' in line and (claim := _CLAIM.search(line)):
                self._claimed(line, claim)
            elif b'"state"' in line and (written := _WRITES.search(line)):
                self._accepted(written[1].decode())
        else:
            self._trying = None
            if b":job:" in line and (move := _MOVE.search(line)):
                self._tried(line, move)

    def _claimed(self, line: bytes, claim: re.Match[bytes]) -> None:
        how, job, value = claim[1], claim[2].decode(), claim[3]
        if how == b"HSET":
            self._fences[job] = value
        elif job in self._fences or not self.gaps:
            self._fences[job] = b"%d" % (int(self._fences.get(job, b"0")) + int(value))
        self.events[job].append(Event(_time(line), "claim"))

    def _tried(self, line: bytes, move: re.Match[bytes]) -> None:
        job, fence, name = move[1].decode(), move[2], move[3].decode()
        self._trying = (_time(line), job, fence, name)
        if job in self._fences and self._fences[job] != fence:
            self.stale_attempted += 1

    def _accepted(self, job: str) -> None:
        if self._trying is None or self._trying[1] != job:
            return
        at, _, fence, name = self._trying
        self._trying = None
        self.events[job].append(Event(at, "commit", name))
        if job in self._fences and self._fences[job] != fence:
            self.stale_accepted += 1


def _time(line: bytes) -> float:
    head = _HEAD.match(line)
    assert head is not None, line[:80]
    return float(head[1])
