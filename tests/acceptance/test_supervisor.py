"""The supervisor with real processes: they are started again, given up, and never outlive the program."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from askq.embedded.supervisor import Supervisor
from askq.errors import EmbeddedError
from tests.acceptance.processes import alive
from tests.acceptance.stack import ROOT
from tests.parts import eventually

WAIT = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
"""A child that says who it is and stays."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.stop(1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


def add(supervisor: Supervisor, script: str, log: Path, *arguments: str) -> None:
    supervisor.add("child", [sys.executable, "-c", script, *arguments], os.environ, log)


def pids(log: Path, count: int = 1) -> list[int]:
    """The processes that have said who they are, once there are so many."""

    def said() -> list[str]:
        found = log.read_text("utf-8").split() if log.exists() else []
        return found if len(found) >= count else []

    return [int(pid) for pid in eventually(said, what=f"{count} processes run")]


def tick_until(supervisor: Supervisor, pattern: str, *, times: int = 1) -> list[str]:
    """Everything told until `pattern` was told so many times."""
    told: list[str] = []

    def seen() -> bool:
        told.extend(supervisor.tick())
        return sum(pattern in text for text in told) >= times

    eventually(seen, what=f"{pattern!r}, {times} times", every=0.02)
    return told


def tick_until_alive(supervisor: Supervisor) -> None:
    def runs() -> bool:
        supervisor.tick()
        return supervisor.alive == 1

    eventually(runs, what="it runs again", every=0.02)


def test_what_ends_is_started_again_and_said(supervisor: Supervisor, log: Path) -> None:
    add(supervisor, WAIT, log)
    supervisor.start()
    (first,) = pids(log)
    assert supervisor.tick() == []
    os.kill(first, signal.SIGKILL)
    assert tick_until(supervisor, "child") == ["child ended (signal SIGKILL); starting it again"]
    assert supervisor.alive == 0
    tick_until_alive(supervisor)
    assert pids(log, 2)[1] != first
    assert supervisor.failed is None


def test_the_pause_before_a_start_grows(supervisor: Supervisor, log: Path) -> None:
    add(supervisor, "import time; print(time.monotonic(), flush=True)", log)
    supervisor.start()
    tick_until(supervisor, "child ended (exit code 0); starting it again", times=4)
    began = [float(text) for text in log.read_text("utf-8").split()]
    pauses = [after - before for before, after in itertools.pairwise(began)]
    for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True):
        assert pause >= least
    assert supervisor.failed is None, "an orderly end is no mistake"


def test_what_is_killed_again_and_again_is_not_given_up(supervisor: Supervisor, log: Path) -> None:
    add(supervisor, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", log)
    supervisor.start()
    tick_until(supervisor, "child ended (signal SIGKILL); starting it again", times=4)
    assert supervisor.failed is None


def test_what_cannot_start_is_given_up_with_the_end_of_its_log(supervisor: Supervisor, log: Path) -> None:
    lines = "\\n".join(f"line {number}" for number in range(20))
    add(supervisor, f"import sys; print('{lines}'); sys.exit(4)", log)
    supervisor.start()
    told = tick_until(supervisor, "is given up")
    assert told == [
        "child ended (exit code 4); starting it again",
        "child ended (exit code 4); starting it again",
        "child ended (exit code 4) and is given up",
    ]
    assert supervisor.failed is not None
    first, *rest = supervisor.failed.splitlines()
    assert first == "child ended 3 times at its start (exit code 4):"
    assert rest == [f"line {number}" for number in range(8, 20)]
    assert supervisor.tick() == []
    assert supervisor.alive == 0


def test_only_mistakes_in_a_row_count(supervisor: Supervisor, tmp_path: Path, log: Path) -> None:
    script = (
        "import pathlib, sys; count = pathlib.Path(sys.argv[1]); text = count.read_text() if count.exists() else ''\n"
        "count.write_text(text + 'x'); sys.exit(0 if len(text) == 2 else 3)"
    )
    add(supervisor, script, log, str(tmp_path / "count"))
    supervisor.start()
    told = tick_until(supervisor, "ended", times=4)
    assert [re.findall(r"code (\d)", text)[0] for text in told] == ["3", "3", "0", "3"]
    assert supervisor.failed is None


def test_one_that_fails_does_not_end_the_others(supervisor: Supervisor, log: Path) -> None:
    supervisor.add("other", [sys.executable, "-c", WAIT], os.environ, log.with_name("other.log"))
    add(supervisor, "raise SystemExit(3)", log)
    supervisor.start()
    tick_until(supervisor, "child ended (exit code 3) and is given up")
    assert supervisor.alive == 1


def test_a_program_that_is_not_there_is_told(supervisor: Supervisor, tmp_path: Path, log: Path) -> None:
    supervisor.add("child", [str(tmp_path / "nothing")], os.environ, log)
    supervisor.start()
    tick_until(supervisor, "is given up")
    assert supervisor.failed is not None
    assert "No such file or directory" in supervisor.failed


def test_a_log_that_cannot_be_written_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    add(supervisor, WAIT, tmp_path / "file" / "child.log")
    with pytest.raises(EmbeddedError, match=r"the log .*child\.log cannot be written: .*(?s:.)*ASKQ_HOME"):
        supervisor.start()


def test_stopping_lets_children_end_in_order(supervisor: Supervisor, log: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('-1', flush=True), sys.exit(0)))\n" + WAIT
    )
    add(supervisor, script, log)
    supervisor.start()
    (pid,) = pids(log)
    supervisor.stop(10)
    assert pids(log, 2) == [pid, -1]
    assert supervisor.alive == 0
    assert supervisor.tick() == [], "what was stopped stays so"
    assert supervisor.alive == 0


def test_stopping_ends_whole_groups_even_those_that_will_not(supervisor: Supervisor, log: Path) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n" + WAIT
    )
    add(supervisor, script, log)
    supervisor.start()
    group = pids(log, 2)
    supervisor.stop(0.2)
    eventually(lambda: not any(alive(pid) for pid in group), what="the group is gone")


def test_what_a_child_leaves_behind_ends_before_it_starts_again(supervisor: Supervisor, log: Path) -> None:
    script = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n" + WAIT
    add(supervisor, script, log)
    supervisor.start()
    first, second = pids(log, 2)
    leader = first if os.getpgid(first) == first else second
    os.kill(leader, signal.SIGKILL)
    tick_until(supervisor, "child ended (signal SIGKILL)")
    eventually(lambda: not alive(first) and not alive(second), what="nothing of it is left")


PROGRAM = f"""
import os, signal, sys, time
from pathlib import Path
from askq.embedded.supervisor import Supervisor
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
supervisor = Supervisor()
supervisor.add('child', [sys.executable, '-c', {WAIT!r}], os.environ, Path(sys.argv[1]))
supervisor.start()
while not interrupts:
    time.sleep(0.01)
print(os.getpid(), supervisor.alive, flush=True)
while True:
    time.sleep(1)
"""


def test_children_know_nothing_of_ctrl_c_and_end_with_a_killed_parent(log: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(log)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        (child,) = pids(log)
        # As a terminal does: to everything in the foreground group.
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout is not None
        assert parent.stdout.readline().split() == [str(parent.pid), "1"]
        assert os.getpgid(child) != parent.pid
        assert alive(child)
    finally:
        parent.kill()
        parent.communicate()
    eventually(lambda: not alive(child), what="the child ends with its parent")
