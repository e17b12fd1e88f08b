"""What a program can and cannot do in the sandbox, and that nothing of it is left behind."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240  # nothing else runs on the loop meanwhile

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from askq.localapi.tutor import sandbox as sandbox_module
from askq.localapi.tutor.sandbox import Run, Sandbox

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or needs limits that only Linux enforces")


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture
async def hasty() -> AsyncIterator[Sandbox]:
    """Programs may take a second."""
    sandbox = Sandbox(seconds=1.0)
    yield sandbox
    sandbox.close()


def _server_pid(sandbox: Sandbox) -> int:
    server = sandbox._server
    assert server is not None
    return server[0].pid


def _gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def _until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        await asyncio.sleep(0.02)


async def test_a_program_has_sympy_and_its_output_is_kept(shared: Sandbox) -> None:
    run = await shared.run("from sympy import *\nx = symbols('x')\nprint(solve(3*x + 11 - 14, x), '²')")
    assert run == Run("[1] ²\n", "ok")


async def test_programs_run_side_by_side(shared: Sandbox) -> None:
    runs = await asyncio.gather(*(shared.run(f"print({number}**2)") for number in range(12)))
    assert [run.output for run in runs] == [f"{number**2}\n" for number in range(12)]


async def test_programs_do_not_see_each_other(shared: Sandbox) -> None:
    await shared.run("import sympy\nsympy.left_over = 1\nprint(1)")
    run = await shared.run("import sympy\nprint(hasattr(sympy, 'left_over'))")
    assert run == Run("False\n", "ok")


@pytest.mark.parametrize(
    ("program", "last_line"),
    [
        ("print(1)\n1/0", "ZeroDivisionError: division by zero"),
        ("this is no Python", "SyntaxError: invalid syntax"),
        ("raise NotImplementedError('no such method')", "NotImplementedError: no such method"),
        ("print('bye')\nraise SystemExit(3)", "bye"),
    ],
)
async def test_an_error_is_told(shared: Sandbox, program: str, last_line: str) -> None:
    run = await shared.run(program)
    assert run.ended == "error"
    assert run.output.splitlines()[-1] == last_line


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "open('file.txt', 'w')",
        "import os; os.open('/tmp/askq-tutor-test', os.O_CREAT | os.O_WRONLY)",
        "print(open('/etc/passwd').read())",
        "import os; print(os.listdir('/'))",
        "import os; os.mkdir('/tmp/askq-tutor-test')",
        "import os; os.remove('/tmp/askq-tutor-test')",
        "import os; os.fork()",
        "import os; os.system('true')",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(1, 9)",
        "import subprocess; subprocess.run(['true'])",
        "import ctypes; ctypes.CDLL(None)",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
        "import gc; gc.get_objects()",
        "import signal, os; signal.pthread_kill(0, 0)",
    ],
)
async def test_the_fence_refuses(shared: Sandbox, program: str) -> None:
    run = await shared.run(program)
    assert run.ended == "refused"
    assert "not allowed in the sandbox" in run.output


async def test_a_refusal_that_is_caught_still_refuses(shared: Sandbox) -> None:
    run = await shared.run(
        "import socket\ntry:\n    socket.socket()\nexcept OSError as exc:\n    print(exc)\nprint('no socket')"
    )
    assert run == Run("not allowed in the sandbox: socket.__new__\nno socket\n", "ok")


async def test_there_is_no_environment_no_input_and_no_descriptor(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    probe = (
        "import os, sys\n"
        "print(dict(os.environ), repr(sys.stdin.read()))\n"
        "found = []\n"
        "for descriptor in range(3, 200):\n"
        "    try:\n"
        "        os.fstat(descriptor)\n"
        "        found.append(descriptor)\n"
        "    except OSError:\n"
        "        pass\n"
        "print(found)"
    )
    assert await shared.run(probe) == Run("{} ''\n[]\n", "ok")


@linux
async def test_the_owners_environment_does_not_reach_the_server(shared: Sandbox) -> None:
    await shared.run("print(1)")
    assert b"PATH" not in Path(f"/proc/{_server_pid(shared)}/environ").read_bytes()


@linux
async def test_ten_gigabytes_are_refused(shared: Sandbox) -> None:
    assert (await shared.run("data = bytearray(10**10)")).ended == "memory"


async def test_megabytes_of_output_end_the_program(shared: Sandbox) -> None:
    run = await shared.run("while True:\n    print('x' * 1000)")
    assert run.ended == "output"
    assert len(run.output) == 64 << 10


@pytest.mark.parametrize(
    "program",
    ["while True: pass", "import time\ntime.sleep(60)", "import os\nos.close(1)\nos.close(2)\nwhile True: pass"],
)
async def test_time_runs_out(hasty: Sandbox, program: str) -> None:
    assert (await hasty.run(program)).ended == "time"


async def test_what_was_printed_before_the_time_ran_out_is_kept() -> None:
    # Long enough to print something, however busy the machine.
    sandbox = Sandbox(seconds=4.0, cpu_seconds=60)
    run = await sandbox.run("import time\nprint('so far', flush=True)\ntime.sleep(60)")
    sandbox.close()
    assert run == Run("so far\n", "time")


@linux
async def test_processor_time_runs_out_too() -> None:
    sandbox = Sandbox(seconds=60.0, cpu_seconds=1)
    run = await sandbox.run("while True: pass")
    sandbox.close()
    assert run.ended == "time"


async def test_a_crash_is_told(shared: Sandbox) -> None:
    assert (await shared.run("import os\nos.abort()")).ended == "crashed"


@linux
async def test_the_network_namespace_is_empty_where_the_kernel_allows(shared: Sandbox) -> None:
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({0x10000000 | 0x40000000}) != 0)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        pytest.skip("unprivileged network namespaces are not allowed here")
    run = await shared.run("import os\nprint(os.readlink('/proc/self/ns/net'))")
    # In a new process namespace /proc still shows the old one, where the program has no entry.
    assert run.ended == "error" or run.output.strip() != str(Path("/proc/self/ns/net").readlink())


@linux
async def test_a_cancelled_program_dies(shared: Sandbox) -> None:
    await shared.run("print(1)")
    server = _server_pid(shared)
    await _until(lambda: not _children(server), "the keepers of earlier programs are gone")
    task = asyncio.create_task(shared.run("import time\ntime.sleep(60)"))
    await _until(lambda: bool(_children(server)), "the program runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: not _children(server), "the program is gone")


async def test_a_dead_server_is_replaced(shared: Sandbox) -> None:
    await shared.run("print(1)")
    first = _server_pid(shared)
    os.kill(first, signal.SIGKILL)
    assert await shared.run("print(2)") == Run("2\n", "ok")
    assert _server_pid(shared) != first


async def test_without_a_server_each_program_gets_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> subprocess.Popen[bytes]:
        raise sandbox_module._Lost

    sandbox = Sandbox()
    monkeypatch.setattr(sandbox, "_hand_over", lost)
    assert await sandbox.run("from sympy import S\nprint(S(1)/2)") == Run("1/2\n", "ok")
    assert (await sandbox.run("import os; os.fork()")).ended == "refused"


async def test_where_nothing_starts_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert await Sandbox().run("print(1)") == Run("", "unavailable")


async def test_it_starts_again_after_being_closed() -> None:
    sandbox = Sandbox()
    assert (await sandbox.run("print(1)")).ended == "ok"
    sandbox.close()
    sandbox.close()
    assert (await sandbox.run("print(2)")).ended == "ok"
    sandbox.close()


@linux
async def test_a_killed_owner_leaves_nothing_behind() -> None:
    # Given an owner with a running program
    owner = (
        "import asyncio\n"
        "from askq.localapi.tutor.sandbox import Sandbox\n"
        "async def main():\n"
        "    sandbox = Sandbox(seconds=60.0)\n"
        "    await sandbox.run('print(1)')\n"
        "    print(sandbox._server[0].pid, flush=True)\n"
        "    await sandbox.run('import time; time.sleep(60)')\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        await _until(lambda: bool(_children(server)), "the program runs")
        keepers = [int(pid) for pid in _children(server)]
        programs = [int(pid) for keeper in keepers for pid in _children(keeper)]
        # When it is killed
        process.kill()
    # Then server, keeper and program end
    for pid in (server, *keepers, *programs):
        await _until(lambda pid=pid: _gone(pid), f"process {pid} is gone")  # type: ignore[misc]


@linux
async def test_a_killed_server_takes_no_keeper_hostage(hasty: Sandbox) -> None:
    await hasty.run("print(1)")
    server = _server_pid(hasty)
    task = asyncio.create_task(hasty.run("while True: pass"))
    await _until(lambda: bool(_children(server)), "the program runs")
    os.kill(server, signal.SIGKILL)
    assert (await task).ended == "time"


@linux
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="seccomp filters are written for these")
async def test_the_kernels_fence_stands_around_every_program(shared: Sandbox) -> None:
    await shared.run("print(1)")
    server = _server_pid(shared)
    await _until(lambda: not _children(server), "the keepers of earlier programs are gone")
    task = asyncio.create_task(shared.run("import time\nprint('on', flush=True)\ntime.sleep(60)"))

    def shut_in() -> bool:
        programs = [pid for keeper in _children(server) for pid in _children(int(keeper))]
        states = [Path(f"/proc/{pid}/status").read_text() for pid in programs]
        return any("Seccomp:\t2" in state and "NoNewPrivs:\t1" in state for state in states)

    await _until(shut_in, "the program runs behind a filter")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
