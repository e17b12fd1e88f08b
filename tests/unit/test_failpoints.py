"""Failpoints: how they are told, that they strike a real process, and that the list of them is the truth."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from askq import failpoints
from askq.failpoints import Failpoint, Rule, arm, hit, parse
from askq.jobs.model import MOVES
from tests.parts import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", ()),
        (" , ", ()),
        ("start.after=kill", (Rule("start.after", "kill", 1.0),)),
        (
            "start.after=kill:0.05, commit.*.before=stop:1 ,*=raise:1e-3",
            (Rule("start.after", "kill", 0.05), Rule("commit.*.before", "stop", 1.0), Rule("*", "raise", 0.001)),
        ),
    ],
)
def test_rules_are_read(text: str, rules: tuple[Rule, ...]) -> None:
    assert parse(text) == rules


@pytest.mark.parametrize(
    "text",
    ["x", "=kill", "x=", "x=explode", "x=kill:0", "x=kill:1.01", "x=kill:-1", "x=kill:nan", "x=kill:often", "a=kill,b"],
)
def test_rules_that_are_none_are_refused_and_arm_nothing(text: str) -> None:
    with pytest.raises(ValueError):
        arm(text)
    hit("x")


def test_disarmed_nothing_happens_and_it_costs_nothing() -> None:
    arm("")
    began = time.perf_counter()
    for _ in range(100_000):
        hit("start.before")
    assert time.perf_counter() - began < 2.0, "a comparison each"


def test_the_first_rule_that_matches_decides() -> None:
    arm("start.before=raise:1e-12,*=raise")
    hit("start.before")
    with pytest.raises(Failpoint, match=r"start\.after"):
        hit("start.after")


def strikes(seed: int | None, many: int = 300) -> list[int]:
    arm("*=raise:0.2", seed=seed)
    found = []
    for nth in range(many):
        try:
            hit("poll.before")
        except Failpoint:
            found.append(nth)
    return found


def test_a_seed_repeats_what_a_process_does_and_the_share_is_kept() -> None:
    first = strikes(7)
    assert first == strikes(7)
    assert first != strikes(8)
    assert strikes(None) != strikes(None)
    assert 30 <= len(first) <= 95, "a fifth of 300"


CHILD = """
import sys
from pathlib import Path
from askq.failpoints import arm, hit
arm(sys.argv[1], seed=1, log=Path(sys.argv[2]))
hit("chain.begin")
print("before", flush=True)
hit("start.after")
print("after", flush=True)
"""


def child(rules: str, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, rules, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    ("rules", "code", "said"),
    [
        ("start.after=kill", -signal.SIGKILL, "before\n"),
        ("start.*=raise", 1, "before\n"),
        ("start.before=kill", 0, "before\nafter\n"),
    ],
)
def test_a_process_dies_where_it_was_told_to(tmp_path: Path, rules: str, code: int, said: str) -> None:
    log = tmp_path / "log"
    with child(rules, log) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, said)
    assert ("Failpoint: start.after" in err) is (code == 1)
    if code == 0:
        assert not log.exists()
    else:
        when, pid, name, action = log.read_text("utf-8").split()
        assert (int(pid), name, action) == (process.pid, "start.after", rules.partition("=")[2])
        assert abs(float(when) - time.time()) < 60


def test_a_process_is_stopped_where_it_was_told_to_and_can_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with child("start.after=stop", log) as process:

        def stopped() -> bool:
            found, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
            return found == process.pid and os.WIFSTOPPED(status)

        eventually(stopped, seconds=60, what="the child stops itself")
        assert log.read_text("utf-8").split()[2:] == ["start.after", "stop"]
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "before\nafter\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_of_a_pool_draw_for_themselves() -> None:
    """What a forked process draws depends on its own id, or all would die at the same place."""
    script = (
        "import os, sys; from askq.failpoints import arm, hit, Failpoint\n"
        "arm('*=raise:0.5', seed=3)\n"
        "def drawn():\n"
        "    text = ''\n"
        "    for _ in range(64):\n"
        "        try: hit('x'); text += '0'\n"
        "        except Failpoint: text += '1'\n"
        "    return text\n"
        "drawn()\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.write(1, (drawn() + '\\n').encode()); os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    first, second = told.stdout.split()
    assert first != second
    assert len(first) == 64


def test_the_names_in_the_module_are_those_the_code_comes_to() -> None:
    hits: set[str] = set()
    for folder in ("askq", "worker", "producer"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "failpoints.py":
                hits |= set(re.findall(r"\bhit\(f?\"([^\"]+)\"\)", path.read_text("utf-8")))
    commits = {name for name in hits if name.startswith("commit.")}
    assert commits == {"commit.{move.name}.before", "commit.{move.name}.after"}
    listed = {f"{name}.{side}" for name in (*failpoints.CALLS, *failpoints.PARTS) for side in ("before", "after")}
    assert hits - commits == listed | set(failpoints.MOMENTS)
    assert len(listed) + len(failpoints.MOMENTS) + 2 * len(MOVES) >= 30
