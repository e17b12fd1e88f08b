"""`python -m askq.embedded.keeper NAME FOLDER …`: the process that owns one embedded part of a project folder.

Every askq process that uses the part holds a shared lock on `users.lock`. The keeper tries for the exclusive one
twice a second and gets it when nobody is left, also when the last user was SIGKILLed: the kernel counts. While it
lives it starts the part again when that dies, on the same port with the same password.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol

from askq.embedded.files import PORT, tail, write_private
from askq.embedded.localapi import Engine, LocalApiService
from askq.embedded.redis import RedisService, find_server
from askq.embedded.tether import module, tethered
from askq.errors import EmbeddedError

USERS, STARTING, KEEPING, SERVING = "users.lock", "start.lock", "keeper.lock", "server.lock"
ENDPOINT, LOG = "endpoint.json", "log"
_LOOK_EVERY_S = 0.5
_READY_S = 30.0
_STOP_S = 10.0
_LONGEST_PAUSE_S = 5.0
_PORTS_TRIED = 4
"""A port that was free when it was chosen may be another's when the server begins to listen, a second later."""
_TAKEN = (os.strerror(errno.EADDRINUSE), "cannot listen on ")
"""What servers say of that: Redis, and the local API."""


class Service(Protocol):
    """A part that can be kept."""

    name: str

    @property
    def command(self) -> list[str]: ...

    @property
    def endpoint(self) -> dict[str, str]: ...

    def ready(self) -> bool: ...


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[None]:
    """Only one process of a folder at a time may look whether the part runs, and start it."""
    with (folder / STARTING).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def join(
    folder: Path, arguments: Callable[[], list[str]], secrets: Mapping[str, str] | None = None
) -> tuple[BinaryIO, dict[str, str]]:
    """Become a user of a part, starting its keeper where none runs: the lock to keep open, and the endpoint.

    `arguments` says how to start the keeper, and is asked only then; `secrets` are variables of its environment.

    Raises EmbeddedError when the part does not start.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with starting(folder):
        # A keeper that is about to end holds this lock until it has gone.
        users = (folder / USERS).open("ab")
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            return users, running(folder) or _start(folder, arguments(), secrets or {})
        except BaseException:
            users.close()
            raise


def running(folder: Path) -> dict[str, str] | None:
    """The endpoint of a keeper that lives; a keeper that was killed is not one, whatever its file says."""
    try:
        endpoint: dict[str, str] = json.loads((folder / ENDPOINT).read_text("utf-8"))
        os.kill(int(endpoint["keeper"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    with (folder / KEEPING).open("ab") as lock:
        return None if _locked(lock) else endpoint


def _start(folder: Path, arguments: list[str], secrets: Mapping[str, str]) -> dict[str, str]:
    (folder / ENDPOINT).unlink(missing_ok=True)
    with (folder / LOG).open("ab") as log:
        keeper = subprocess.Popen(
            [*module("askq.embedded.keeper"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | secrets,
            # Ctrl-C in the foreground program must not reach the part before the workers have stopped.
            start_new_session=True,
        )
    until = time.monotonic() + _READY_S
    while not (folder / ENDPOINT).exists():
        if keeper.poll() is not None:
            raise EmbeddedError(f"the embedded {arguments[0]} did not start:\n{tail(folder / LOG)}")
        if time.monotonic() > until:
            keeper.terminate()
            raise EmbeddedError(f"the embedded {arguments[0]} was not ready in time:\n{tail(folder / LOG)}")
        time.sleep(0.02)
    # The keeper outlives this process where others use it: nobody waits for it.
    keeper.returncode = 0
    endpoint: dict[str, str] = json.loads((folder / ENDPOINT).read_text("utf-8"))
    return endpoint


class Keeper:
    """Starts the part, announces it, restarts it, ends it."""

    def __init__(self, folder: Path, service: Service, lock: BinaryIO) -> None:
        self._folder = folder
        self._service = service
        self._lock = lock
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with (self._folder / KEEPING).open("ab") as mine, (self._folder / USERS).open("ab") as users:
            fcntl.flock(mine, fcntl.LOCK_EX)
            self._spawn()
            if not self._wait_ready():
                self._end_child()
                return 1
            write_private(self._folder / ENDPOINT, json.dumps(self._service.endpoint | {"keeper": str(os.getpid())}))
            pause = 0.1
            began = time.monotonic()
            while not self._stopped and not _locked(users):
                if self._child is not None and self._child.poll() is not None:
                    print(f"{self._service.name} ended with {self._child.returncode}: starting it again", flush=True)  # noqa: T201  its log
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S) if time.monotonic() - began < 30 else 0.1
                    began = time.monotonic()
                    self._spawn()
                time.sleep(_LOOK_EVERY_S if pause == 0.1 else 0.1)
            (self._folder / ENDPOINT).unlink(missing_ok=True)
            self._end_child()
        return 0

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _spawn(self) -> None:
        self._child = subprocess.Popen(
            tethered(self._service.command), stdin=subprocess.DEVNULL, pass_fds=[self._lock.fileno()]
        )

    def _wait_ready(self) -> bool:
        until = time.monotonic() + _READY_S
        while not self._service.ready():
            if self._child is None or self._child.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _end_child(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _locked(file: BinaryIO) -> bool:
    """Take the exclusive lock of a file, if nobody else has any."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def only_server(folder: Path, name: str) -> Iterator[BinaryIO]:
    """The lock that a server holds by inheriting it: two servers must never write the same data.

    The server of a keeper that was killed lives a moment longer. Raises EmbeddedError when it does not end.
    """
    with (folder / SERVING).open("ab") as lock:
        until = time.monotonic() + _STOP_S
        while not _locked(lock):
            if time.monotonic() > until:
                raise EmbeddedError(
                    f"another {name} still uses the data in {folder / 'data'}, but nobody keeps it",
                    remedy="Look for it with `ps` and end it, or set ASKQ_HOME to another folder.",
                )
            time.sleep(0.02)
        yield lock


def _was_taken(log: Path, since: int) -> bool:
    """Whether a server that ended at its start has said so in its log, behind this place."""
    with log.open("rb") as file:
        file.seek(since)
        said = file.read().decode("utf-8", "replace")
    return any(words in said for words in _TAKEN)


def main(argv: list[str]) -> int:
    # Here, because every command imports this module, and only the keeper itself has arguments.
    import argparse

    parser = argparse.ArgumentParser(prog="python -m askq.embedded.keeper")
    parser.add_argument("name", choices=("redis", "localapi"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--origin", default="")
    parser.add_argument("--engine", default="tutor")
    parser.add_argument("--chat-url")
    parser.add_argument("--chat-model")
    parser.add_argument("--script")
    parser.add_argument("--model-file")
    told = parser.parse_args(argv)

    def prepared() -> Service:
        if told.name == "redis":
            return RedisService.prepare(told.folder, replace(find_server(told.binary), origin=told.origin))
        engine = Engine(
            engine=told.engine,
            chat_url=told.chat_url,
            chat_model=told.chat_model,
            script=told.script,
            model_file=told.model_file,
        )
        return LocalApiService.prepare(told.folder, engine)

    log, code = told.folder / LOG, 1
    try:
        # Before the port is chosen: the one of a server that is about to end is free again then.
        with only_server(told.folder, told.name) as lock:
            for _ in range(_PORTS_TRIED):
                since = log.stat().st_size if log.exists() else 0
                code = Keeper(told.folder, prepared(), lock).run()
                if code == 0 or not log.exists() or not _was_taken(log, since):
                    break
                # The next one is any other.
                (told.folder / PORT).unlink(missing_ok=True)
    except EmbeddedError as error:
        print(error, flush=True)  # noqa: T201  its log
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
