"""The far side of the sandbox: a script that another interpreter runs, never imported by askq.

`python -I -S confined.py serve OWNER_PID DIRECTORY…` imports SymPy once and then waits on standard input, a Unix
socket. Every byte received there carries one end of a connection; a keeper is forked for it, and the keeper forks the
program. `python -I -S confined.py once OWNER_PID DIRECTORY…` is the same for a single connection, which is standard
input itself.

On the connection the keeper says `+`, reads a frame (four bytes of length, then JSON with `program` and the limits),
and answers with JSON, `{"ended", "output"}`. When the other end closes, the program dies.

A program is confined by several fences, because none of them exists everywhere: namespaces without a network and
without other processes (Linux, where unprivileged ones are allowed), what the kernel refuses besides (`kernel.py`),
resource limits, an audit hook with a list of what *is* allowed (Python's own fence: it cannot be taken off again), a
deadline, and a bound on its output.

With `folder` in the frame the program works in that folder: the fence lets it read and write files there and nowhere
else, `file_bytes`, `folder_bytes` and `files` bound what it leaves there, and `readable` names further files to read.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

READY = b"+"
WAKE_SECONDS = 5.0
"""How often the server looks whether its owner is still its parent: a copy of the owner may hold the socket open."""

EXIT_ERROR, EXIT_MEMORY, EXIT_REFUSED = 1, 3, 4
ENDED = {0: "ok", EXIT_ERROR: "error", EXIT_MEMORY: "memory", EXIT_REFUSED: "refused"}

# From <linux/sched.h>; os.unshare exists only since Python 3.12.
_NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1

_HARMLESS = frozenset(
    {"import", "compile", "exec", "marshal", "builtins", "code", "object", "function", "array", "cpython"}
)
_HARMLESS_SYS = ("sys._getframe", "sys.excepthook", "sys.unraisablehook")
_LISTING = ("os.listdir", "os.scandir")
_IN_FOLDER = {
    "os.remove": ((0,), (1,)),
    "os.rmdir": ((0,), (1,)),
    "os.mkdir": ((0,), (2,)),
    "os.truncate": ((0,), ()),
    "os.rename": ((0, 1), (2, 3)),
}
"""What a program with a folder may do there: which arguments of the event are paths, which folders' descriptors."""
_QUIET = frozenset({"glob.glob", "glob.glob/2", "pathlib.Path.glob", "pathlib.Path.rglob", "os.walk"})
"""Events that others follow, which are looked at."""
FOLDER_CHECK_SECONDS = 0.25


_spec = importlib.util.spec_from_file_location("askq_kernel", Path(__file__).with_name("kernel.py"))
assert _spec is not None
assert _spec.loader is not None
# By its path: the folder it is in has modules that are called like Python's own.
kernel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernel)


class Refused(PermissionError):
    """The program tried what the sandbox does not allow."""


def main(mode: str, owner: int, directories: list[str]) -> None:
    """Serve until the owner is gone, or run one program."""
    os.umask(0o077)
    empty = tempfile.mkdtemp(prefix="askq-tutor-")
    os.chdir(empty)
    Path(empty).rmdir()  # A removed directory stays empty: nothing can be made in it, and none is left behind.
    sys.path.extend(directories)
    connection = socket.socket(fileno=os.dup(0))
    if mode == "once":
        import sympy  # noqa: F401  # the program's import must not count against its limits

        _keep(connection)
    else:
        _warm_up()
        _serve(connection, owner)


def _warm_up() -> None:
    """Load what SymPy itself loads late, so that no program pays for it."""
    import statistics  # noqa: F401

    from sympy import (
        Matrix,
        factor,
        factorint,
        integrate,
        limit,
        nextprime,
        reduce_inequalities,
        sin,
        solve,
        symbols,
    )

    x, y = symbols("x y")
    solve(x**2 - 2, x)
    solve([x + y - 1, x - y], [x, y])
    reduce_inequalities([x**2 > 1], x)
    integrate(x * sin(x), (x, 0, 1))
    limit(sin(x) / x, x, 0)
    factor(x**2 - 1)
    factorint(nextprime(90) * 6)
    Matrix([[1, 2], [3, 4]]).inv()
    gc.collect()
    gc.freeze()  # The collector would otherwise write to every page that the forks share.


def _serve(control: socket.socket, owner: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        readable, _, _ = select.select([control], [], [], WAKE_SECONDS)
        if os.getppid() != owner:
            return
        if not readable:
            continue
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(socket.socket(fileno=descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


def _keep(connection: socket.socket) -> None:
    """Run one program and report how it ended."""
    with suppress(ConnectionError):  # The owner is gone or has lost interest: nobody is there to be told.
        connection.sendall(READY)
        request = json.loads(_receive(connection, int.from_bytes(_receive(connection, 4), "big")))
        connection.sendall(json.dumps(_supervise(connection, request)).encode())


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionAbortedError("the owner closed the connection")
        data += part
    return data


def _supervise(connection: socket.socket, request: Mapping[str, Any]) -> dict[str, str]:
    reading, writing = os.pipe()
    _enter_namespaces()
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _run_confined(request, writing, keeper)
    os.close(writing)
    deadline = time.monotonic() + request["seconds"]
    output, verdict, exit_status = b"", None, None
    waiting = [reading, connection.fileno()]
    next_check = 0.0
    while exit_status is None and verdict is None:
        # Once the program has closed its output, only its end is waited for.
        pause = min(deadline - time.monotonic(), WAKE_SECONDS if reading in waiting else 0.01)
        if "folder" in request:
            if time.monotonic() >= next_check:
                if _overfull(request):
                    verdict = "output"
                    continue
                next_check = time.monotonic() + FOLDER_CHECK_SECONDS
            pause = min(pause, FOLDER_CHECK_SECONDS)
        readable, _, _ = select.select(waiting, [], [], max(0.0, pause))
        if connection.fileno() in readable:
            verdict = "abandoned"
        elif reading in readable:
            part = os.read(reading, 65536)
            output += part
            if not part:
                waiting.remove(reading)
            elif len(output) > request["output_bytes"]:
                verdict = "output"
        elif time.monotonic() >= deadline:
            verdict = "time"
        if reading not in waiting and verdict is None:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                exit_status = status
                if os.WIFSIGNALED(status):
                    verdict = "time" if usage.ru_utime + usage.ru_stime >= request["cpu_seconds"] - 0.5 else "crashed"
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # The group, in case it has children in spite of everything.
    if exit_status is None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # It may not have come as far as making its group.
        os.waitpid(child, 0)
    os.close(reading)
    if verdict is None and "folder" in request and _overfull(request):
        verdict = "output"
    ended = verdict or ENDED.get(os.waitstatus_to_exitcode(exit_status or 0), "error")
    return {"ended": ended, "output": output[: request["output_bytes"]].decode("utf-8", "replace")}


def _overfull(request: Mapping[str, Any]) -> bool:
    """Whether the folder holds more than it may."""
    size = count = 0
    for parent, folders, files in os.walk(request["folder"]):
        count += len(folders) + len(files)
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # thousands of times a run
    return size > int(request["folder_bytes"]) or count > int(request["files"])


def _enter_namespaces() -> None:
    """No network and no view of other processes for what is forked from here on, where the kernel grants it."""
    if sys.platform != "linux":
        return
    unshare = ctypes.CDLL(None).unshare
    for flags in (_NEWUSER | _NEWNET | _NEWPID | _NEWIPC, _NEWNET | _NEWPID | _NEWIPC):
        if unshare(flags) == 0:
            return


def _run_confined(request: Mapping[str, Any], writing: int, keeper: int) -> Never:
    code = EXIT_ERROR
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() not in (keeper, 0):  # 0: the keeper is outside of our process namespace.
                os._exit(EXIT_ERROR)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, writing), (2, writing)):
            os.dup2(source, target)
        os.closerange(3, 4096)
        _limit(request)
        sys.argv = ["program.py"]
        sys.dont_write_bytecode = True
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # they live as long as the program
        sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        folder = request.get("folder")
        if folder is not None:
            os.chdir(folder)
        libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        os.environ.clear()
        kernel.enter([path for path in (*sys.path, *libraries) if path], folder, request.get("readable", ()))
        sys.addaudithook(_fence(folder, request.get("readable", ())))
        code = _execute(request["program"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def _limit(request: Mapping[str, Any]) -> None:
    cpu = int(request["cpu_seconds"])
    limits = {
        "RLIMIT_CPU": (cpu, cpu + 1),
        "RLIMIT_AS": (request["memory_bytes"],) * 2,
        "RLIMIT_DATA": (request["memory_bytes"],) * 2,
        "RLIMIT_FSIZE": (request.get("file_bytes", 0),) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (32, 32),
        "RLIMIT_NPROC": (0, 0),  # Root is exempt from it; the fence refuses forks to everybody.
    }
    for name, pair in limits.items():
        with suppress(AttributeError, ValueError, OSError):  # macOS knows some of them by name only.
            resource.setrlimit(getattr(resource, name), pair)


def _fence(folder: str | None, files: Sequence[str]) -> Any:
    """The audit hook. It lists what is allowed, so that what nobody thought of is refused."""
    within, singles = None if folder is None else os.path.join(folder, ""), frozenset(files)  # noqa: PTH118
    is_folder, fspath = os.path.isdir, os.fspath
    readable = tuple({os.path.realpath(path) + os.sep for path in sys.path if path})
    listable = (*readable, *(path.rstrip(os.sep) for path in readable))
    reading_flags = os.O_RDONLY | os.O_CLOEXEC
    real, absolute, starts = os.path.realpath, os.path.isabs, str.startswith

    def own(path: Any) -> bool:
        """Whether a path is in the program's folder. There are no links in it: making them is refused."""
        if within is None or not isinstance(path, (str, os.PathLike)):
            return False
        target = real(fspath(path))
        allowed: bool = target == folder or starts(target, within)
        return allowed

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if within is not None and event in _QUIET:
            return
        if event.partition(".")[0] in _HARMLESS or starts(event, _HARMLESS_SYS):
            return
        if event == "open":
            path, mode, flags = arguments
            writing = set(mode or "") & set("wax+") or flags & ~reading_flags
            if not writing and isinstance(path, str) and absolute(path) and starts(real(path), readable):
                return
            # A descriptor of a folder would make other paths relative to it, unseen by this fence.
            if own(path) and not is_folder(path):
                return
            if not writing and isinstance(path, str) and real(path) in singles:
                return
        elif within is not None and event in _IN_FOLDER:
            paths, descriptors = _IN_FOLDER[event]
            if all(own(arguments[at]) for at in paths) and all(arguments[at] == -1 for at in descriptors):
                return
        elif event in _LISTING:
            (path,) = arguments
            if own("." if path is None else path):
                return
            if isinstance(path, str) and absolute(path) and starts(real(path), listable):
                return
        raise Refused(f"not allowed in the sandbox: {event}")

    return refuse


def _execute(program: str) -> int:
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102  # what the fences are for
    except MemoryError:
        return EXIT_MEMORY
    except Refused as exc:
        print(f"{type(exc).__name__}: {exc}")  # noqa: T201
        return EXIT_REFUSED
    except SystemExit as exc:
        return 0 if exc.code in (None, 0) else EXIT_ERROR
    except BaseException as exc:
        print(*traceback.format_exception_only(exc), sep="", end="")  # noqa: T201
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
